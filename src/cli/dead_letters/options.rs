//! The options of `trunkline dead-letters`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct DeadLettersArgs {
    #[command(subcommand)]
    pub(super) command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List dead letters: a table on a terminal, else one JSON object a line.
    List(ListArgs),
    /// Show one dead letter with its payload and event.
    Show {
        /// As the list shows it, such as `events-42`.
        id: String,
    },
    /// Send dead letters through their sink's pipeline again; those of `ingress` to the ingress.
    Replay {
        #[command(flatten)]
        bulk: BulkArgs,
        /// Events a second, at most.
        #[arg(long, value_name = "EVENTS/S")]
        rate: Option<f64>,
    },
    /// Remove dead letters for good.
    Purge {
        #[command(flatten)]
        bulk: BulkArgs,
    },
    /// Write dead letters with their payloads, one JSON object a line.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) selection: Selection,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// These letters in place of a selection.
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) selection: Selection,
    /// A file in place of standard output; it is made anew.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct BulkArgs {
    /// These letters in place of a selection.
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Only count.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Which letters are meant; an absent part selects all.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Selection {
    /// The sink, or `ingress`.
    #[arg(long)]
    sink: Option<String>,
    #[arg(long)]
    action: Option<String>,
    /// The code of the reason, such as `http-400`.
    #[arg(long)]
    code: Option<String>,
    /// Last tried at or after this: a time as in RFC 3339, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Last tried before this.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// The first so many.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// All that match what else is given.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    #[error("say which dead letters: their ids, --sink, --action, --code, --since, --until or --limit, or --all")]
    NothingNamed,
    #[error("ids go without a selection")]
    IdsAndSelection,
    #[error("there is no terminal to ask at; say --yes, or --dry-run to see how many are meant")]
    NoTerminal,
}

impl BulkArgs {
    /// Nothing is replayed or purged by mistake.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let selection = &self.selection;
        let is_named =
            selection.all || selection.sink.is_some() || selection.limit.is_some() || selection.is_narrowed();
        match (self.ids.is_empty(), is_named) {
            (true, false) => Err(UsageError::NothingNamed),
            (false, true) => Err(UsageError::IdsAndSelection),
            _ => Ok(()),
        }
    }
}

impl Selection {
    fn is_narrowed(&self) -> bool {
        self.action.is_some() || self.code.is_some() || self.since.is_some() || self.until.is_some()
    }

    /// What the admin API takes, as names and values.
    fn parts(&self) -> Vec<(&'static str, String)> {
        let at = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let parts = [
            ("action", self.action.clone()),
            ("code", self.code.clone()),
            ("since", at(self.since)),
            ("until", at(self.until)),
        ];
        parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The query of one page.
    pub(super) fn query(&self, after: Option<&str>, limit: u64) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.sink.iter().map(|sink| ("sink", sink)));
        query.extend_pairs(self.parts());
        query.extend_pairs(after.iter().map(|after| ("after", after)));
        query.append_pair("limit", &limit.to_string());
        query.finish()
    }

    /// The body of a replay or purge.
    pub(super) fn body(&self, ids: &[String], rate: Option<f64>, dry_run: bool) -> Value {
        let mut body = Map::new();
        if let Some(sink) = &self.sink {
            body.insert("sink".to_owned(), json!(sink));
        }
        if !ids.is_empty() {
            body.insert("ids".to_owned(), json!(ids));
        } else if self.is_narrowed() {
            let filter = self.parts().into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
            body.insert("filter".to_owned(), Value::Object(filter.collect()));
        } else {
            body.insert("all".to_owned(), json!(true));
        }
        if let Some(rate) = rate {
            body.insert("rate".to_owned(), json!(rate));
        }
        body.insert("dry_run".to_owned(), json!(dry_run));
        Value::Object(body)
    }
}

/// A time as in RFC 3339, or how long ago: a number and `s`, `m`, `h` or `d`.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = || {
        let unit = text.chars().last()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let number: i64 = text[..text.len() - 1].parse().ok().filter(|number| *number >= 0)?;
        Timestamp::now().checked_sub(SignedDuration::from_secs(number.checked_mul(seconds)?)).ok()
    };
    ago().ok_or_else(|| {
        "neither a time such as 2026-11-25T18:00:00Z nor how long ago, such as 90s, 15m, 2h or 3d".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_it_is_or_as_how_long_ago() {
        assert_eq!(time("2026-11-25T18:00:00+08:00").unwrap().to_string(), "2026-11-25T10:00:00Z");
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200)] {
            let ago = Timestamp::now().duration_since(time(text).unwrap()).as_secs();
            assert!((seconds - 1..=seconds).contains(&ago), "{text}: {ago}");
        }
        for text in ["", "h", "2", "-2h", "2w", "yesterday", "9999999999999999d", "2é"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_named_by_mistake() {
        let bulk = |ids: &[&str], selection| BulkArgs {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            selection,
            dry_run: false,
            yes: true,
        };
        let all = Selection { all: true, ..Selection::default() };
        assert_eq!(bulk(&[], Selection::default()).check(), Err(UsageError::NothingNamed));
        assert_eq!(bulk(&["a-1"], all.clone()).check(), Err(UsageError::IdsAndSelection));
        assert_eq!((bulk(&["a-1"], Selection::default()).check(), bulk(&[], all).check()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_selection_is_sent_as_the_api_takes_it() {
        let sink = Selection { sink: Some("crm".into()), ..Selection::default() };
        assert_eq!(sink.body(&[], None, true), json!({"sink": "crm", "all": true, "dry_run": true}));
        let code = Selection { code: Some("http-400".into()), ..sink };
        let body = json!({"sink": "crm", "filter": {"code": "http-400"}, "rate": 5.0, "dry_run": false});
        assert_eq!(code.body(&[], Some(5.0), false), body);
        assert_eq!(code.query(Some("crm-7"), 10), "sink=crm&code=http-400&after=crm-7&limit=10");
    }
}
