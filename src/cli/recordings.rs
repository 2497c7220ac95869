//! `trunkline recordings verify`: holds what events name against what is archived, without the gateway and beside it.
//!
//! Events are those that the journal still holds, on this machine's disk or in Redis, and the sink's dead letters. The journal is read before the archive, so that
//! what is archived meanwhile is found there. Of events that the journal has given back nothing is known but what their objects say
//! of them: which event each was archived for. An object that says nothing and that no event names is an orphan.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use sink_api::{Archive, Archived, Context, Unavailable};

use super::output::{print_json, print_line, table};
use super::{Exit, Global, inspected, load};
use crate::config::model;
use crate::event::Mask;
use crate::journal::inspect::{InspectError, Inspected};
use crate::journal::{Entry, Push};
use crate::names::SinkName;
use crate::pipeline::{Choice, Selector, SetupError, mask_of};
use crate::tccc;

/// Objects that are asked for their event at the same time.
const ASKED_AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(super) struct RecordingsArgs {
    #[command(subcommand)]
    command: RecordingsCommand,
}

#[derive(Debug, Subcommand)]
enum RecordingsCommand {
    /// Compare the events of the journal and the dead letters with the archive. Exit code 1 when anything is missing.
    Verify {
        /// Only this sink; else all that archive recordings.
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
    },
}

/// What was found, over all sinks that were looked at.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Objects that belong to an event.
    archived: u64,
    missing: Vec<Missing>,
    orphans: Vec<Orphan>,
}

/// An event whose recording is not in the archive.
#[derive(Debug, Serialize)]
struct Missing {
    sink: SinkName,
    event_id: String,
    action: String,
    session_id: Option<String>,
    /// Where it would lie, without its extension.
    key: String,
    /// `dead-letter`; `pending`: not settled yet; `settled`: archived once and removed since, or older than the sink; `damaged`: of
    /// another length than was archived.
    state: &'static str,
    /// Of the dead letter.
    code: Option<String>,
}

/// An object of no known event.
#[derive(Debug, Serialize)]
struct Orphan {
    sink: SinkName,
    key: String,
    length_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error(transparent)]
    Journal(#[from] InspectError),
    #[error("{}", .0.reason)]
    Archive(#[from] Unavailable),
    #[error(transparent)]
    Setup(#[from] SetupError),
}

pub(super) async fn run(global: &Global, args: RecordingsArgs) -> Exit {
    let RecordingsCommand::Verify { sink: only } = args.command;
    let loaded = match load(global) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let journal = match inspected(&loaded.config).await {
        Ok(journal) => journal,
        Err(exit) => return exit,
    };
    let (mut report, mut looked_at) = (Report::default(), 0);
    for (name, settings) in loaded.settings {
        if only.as_ref().is_some_and(|only| *only != name.as_str()) {
            continue;
        }
        let of_sink = &loaded.config.sinks[&name];
        let built = settings.build(Context { name: name.to_string(), format: of_sink.format });
        let sink = match built {
            Ok(sink) => sink,
            Err(error) => {
                eprintln!("sink {name}: {error}");
                return Exit::BadConfig;
            }
        };
        let Some(archive) = sink.archive() else { continue };
        looked_at += 1;
        if let Err(error) = verify(&journal, &name, of_sink, archive, &mut report).await {
            eprintln!("trunkline: sink {name}: {error}");
            return if matches!(error, VerifyError::Archive(_)) { Exit::NotReachable } else { Exit::Failed };
        }
        sink.close().await;
    }
    if looked_at == 0 {
        eprintln!("trunkline: no such sink of the config archives recordings");
        return Exit::Usage;
    }
    show(&report, global.json);
    if report.missing.is_empty() { Exit::Fine } else { Exit::Failed }
}

/// Adds what there is to say of one sink.
async fn verify(
    journal: &Inspected,
    name: &SinkName,
    sink: &model::Sink,
    archive: &dyn Archive,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let mut expected = Expected::read(journal, name, sink, archive).await?;
    let (mut unknown, mut archived) = (Vec::new(), 0);
    archive
        .list(&mut |object| match expected.find(&object) {
            Found::Whole => archived += 1,
            Found::Damaged => {}
            Found::Unknown => unknown.push(object),
        })
        .await?;
    let owned = stream::iter(unknown)
        .map(|object| async move { Ok::<_, Unavailable>((archive.event_of(&object.key).await?, object)) })
        .buffer_unordered(ASKED_AT_ONCE);
    let owned: Vec<_> = owned.try_collect().await?;
    for (event, Archived { key, length_bytes, .. }) in owned {
        match event {
            Some(_) => archived += 1,
            None => report.orphans.push(Orphan { sink: name.clone(), key, length_bytes }),
        }
    }
    report.archived += archived;
    report.missing.extend(expected.missing());
    report.orphans.sort_by(|a, b| (&a.sink, &a.key).cmp(&(&b.sink, &b.key)));
    Ok(())
}

/// What the events that are known say should be archived.
struct Expected {
    /// By place: the events that name it.
    events: HashMap<String, Vec<Missing>>,
    /// By key: the length that was told when it was archived.
    lengths: HashMap<String, u64>,
    /// Places of which an object was found.
    found: HashMap<String, bool>,
}

enum Found {
    Whole,
    Damaged,
    Unknown,
}

/// What a sink would get of a push, and where it would archive what that names.
struct Eye<'a> {
    name: &'a SinkName,
    mask: Option<Mask>,
    archive: &'a dyn Archive,
}

impl Expected {
    async fn read(
        journal: &Inspected,
        name: &SinkName,
        sink: &model::Sink,
        archive: &dyn Archive,
    ) -> Result<Self, VerifyError> {
        let selector = Selector::new(sink).map_err(SetupError::from)?;
        let eye = Eye { name, mask: mask_of(sink).map_err(SetupError::from)?, archive };
        let mut this = Self { events: HashMap::new(), lengths: HashMap::new(), found: HashMap::new() };
        // First the entries: one that becomes a dead letter meanwhile is found among those.
        let mut entries = Vec::new();
        let take = |shard: u16, Entry { offset, push }: Entry| {
            this.lengths.extend(told_length(&push));
            if selector.choose(&push) == Choice::Taken {
                entries.extend(eye.look(&push, "settled").map(|(place, missing)| (shard, offset, place, missing)));
            }
        };
        journal.entries(take).await?;
        let checkpoints = journal.checkpoints(name).await?;
        let letters = journal.dead_letters(name).await?;
        let dead: HashMap<_, _> = letters.iter().map(|letter| (letter.push.id.as_str(), letter.code.clone())).collect();
        for (shard, offset, place, missing) in entries {
            if dead.contains_key(missing.event_id.as_str()) {
                continue;
            }
            let checkpoint = checkpoints.get(usize::from(shard));
            let is_settled = checkpoint.is_some_and(|checkpoint| checkpoint.settles(offset));
            let state = if is_settled { "settled" } else { "pending" };
            this.events.entry(place).or_default().push(Missing { state, ..missing });
        }
        for letter in &letters {
            if let Some((place, missing)) = eye.look(&letter.push, "dead-letter") {
                let missing = Missing { code: Some(letter.code.clone()), ..missing };
                this.events.entry(place).or_default().push(missing);
            }
        }
        Ok(this)
    }

    fn find(&mut self, object: &Archived) -> Found {
        let is_whole = self.lengths.get(&object.key).is_none_or(|length| *length == object.length_bytes);
        if !self.events.contains_key(&object.place) {
            return if is_whole { Found::Unknown } else { Found::Damaged };
        }
        *self.found.entry(object.place.clone()).or_default() |= is_whole;
        if is_whole { Found::Whole } else { Found::Damaged }
    }

    fn missing(self) -> Vec<Missing> {
        let Self { events, found, .. } = self;
        let lacking = events.into_iter().filter(|(place, _)| found.get(place) != Some(&true));
        let mut missing: Vec<_> = lacking
            .flat_map(|(place, events)| {
                let is_damaged = found.contains_key(&place);
                events
                    .into_iter()
                    .map(move |event| if is_damaged { Missing { state: "damaged", ..event } } else { event })
            })
            .collect();
        missing.sort_by(|a, b| (&a.key, &a.event_id).cmp(&(&b.key, &b.event_id)));
        missing
    }
}

impl Eye<'_> {
    /// Where the recording that `push` names would lie, if it names one.
    fn look(&self, push: &Push, state: &'static str) -> Option<(String, Missing)> {
        let mut event = tccc::normalise(push).event;
        if let Some(mask) = &self.mask {
            mask.apply(&mut event);
        }
        let key = self.archive.place(&event)?;
        let missing = Missing {
            sink: self.name.clone(),
            event_id: event.id,
            action: event.action,
            session_id: event.subject,
            key: key.clone(),
            state,
            code: None,
        };
        Some((key, missing))
    }
}

/// Key and length that a push of ours says.
fn told_length(push: &Push) -> Option<(String, u64)> {
    if push.action != "recording.archived" {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&push.body).ok()?;
    Some((body["key"].as_str()?.to_owned(), body["length_bytes"].as_u64()?))
}

fn show(report: &Report, json: bool) {
    if json {
        return print_json(report);
    }
    let (missing, orphans) = (report.missing.len(), report.orphans.len());
    print_line(&format!("{} archived, {missing} missing, {orphans} without an event", report.archived));
    if missing > 0 {
        let mut rows = table(["sink", "missing", "event", "session", "state", "code"]);
        for one in &report.missing {
            let (session, code) = (one.session_id.as_deref().unwrap_or("-"), one.code.as_deref().unwrap_or("-"));
            let cells = [one.sink.as_str(), &one.key, &one.event_id, session, one.state, code];
            rows.add_row(cells.map(Cell::new));
        }
        print_line(&rows);
    }
    if orphans > 0 {
        let mut rows = table(["sink", "without an event", "bytes"]);
        for one in &report.orphans {
            rows.add_row([Cell::new(&one.sink), Cell::new(&one.key), Cell::new(one.length_bytes)]);
        }
        print_line(&rows);
    }
}
