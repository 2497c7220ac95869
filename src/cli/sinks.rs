//! `trunkline sinks`: pauses, resumes and forgets sinks of a running gateway.

use clap::{Args, Subcommand};
use serde_json::json;

use super::admin_client::AdminClient;
use super::output::{print_json, print_line};
use super::{Exit, Global};

#[derive(Debug, Args)]
pub(super) struct SinksArgs {
    #[command(subcommand)]
    command: SinksCommand,
}

#[derive(Debug, Subcommand)]
enum SinksCommand {
    /// Begin no new batch until it is resumed, restarts included; what is in hand is finished.
    Pause { name: String },
    /// Go on where it was paused.
    Resume { name: String },
    /// Give up the place and the dead letters of a sink that is no longer in the config.
    Forget { name: String },
}

pub(super) async fn run(global: &Global, args: SinksArgs) -> Exit {
    let (name, verb, done) = match &args.command {
        SinksCommand::Pause { name } => (name, "pause", "paused"),
        SinksCommand::Resume { name } => (name, "resume", "resumed"),
        SinksCommand::Forget { name } => (name, "forget", "forgotten"),
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        eprintln!("trunkline: no sink can have this name");
        return Exit::Usage;
    }
    let answer = match AdminClient::new(global) {
        Ok(client) => client.post(&format!("/api/v1/sinks/{name}/{verb}"), &json!({})).await,
        Err(exit) => Err(exit),
    };
    match answer {
        Ok(answer) if global.json => print_json(&answer),
        Ok(_) => print_line(&format!("sink {name} is {done}")),
        Err(exit) => return exit,
    }
    Exit::Fine
}
