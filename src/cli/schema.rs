//! `trunkline schema`: the JSON Schema of what consumers get, and the AsyncAPI document of where they get it.

use clap::Args;
use serde_json::json;

use super::Exit;
use super::output::{print_json, print_line, table, wants_json};
use crate::tccc;

/// In place of an action: the document for consumers of Kafka and AMQP.
const ASYNCAPI: &str = "asyncapi";

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// The action, such as `cdr`; `other` for actions that nobody has documented; `asyncapi` for the AsyncAPI document. Without it, the
    /// list of schemas.
    action: Option<String>,
}

pub(super) fn run(args: SchemaArgs, json: bool) -> Exit {
    let Some(action) = args.action else {
        show_list(wants_json(json));
        return Exit::Fine;
    };
    if action == ASYNCAPI {
        print_json(&tccc::asyncapi());
        return Exit::Fine;
    }
    match tccc::schema(&action) {
        Some(schema) => {
            print_json(&schema);
            Exit::Fine
        }
        None => {
            let known: Vec<_> = tccc::schemas().into_iter().map(|(action, _)| action).collect();
            eprintln!("trunkline: there is no schema for the action {action:?}; there are: {}", known.join(", "));
            Exit::Usage
        }
    }
}

fn show_list(json: bool) {
    let schemas = tccc::schemas();
    if json {
        let list: Vec<_> =
            schemas.into_iter().map(|(action, version)| json!({ "action": action, "version": version })).collect();
        return print_json(&list);
    }
    let mut rows = table(["action", "version"]);
    for (action, version) in schemas {
        rows.add_row([action.to_owned(), version.to_string()]);
    }
    print_line(&rows);
}
