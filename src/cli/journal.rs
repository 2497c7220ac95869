//! `trunkline journal`: looks into the journal, without the gateway and beside it.

use std::io::{self, BufWriter, Write};

use clap::{Args, Subcommand};

use super::output::{print_json, table};
use super::{Exit, Global, inspected, load, not_inspected};
use crate::journal::inspect::{DumpLine, InspectError, Inspected};
use crate::journal::{disk, redis};
use crate::names::SessionId;

#[derive(Debug, Args)]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Check every byte against its checksum. Exit code 1 when something is wrong.
    Verify,
    /// List the entries, a line each, without their bodies.
    Dump,
}

pub(super) async fn run(global: &Global, args: JournalArgs) -> Exit {
    let loaded = match load(global) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let journal = match inspected(&loaded.config).await {
        Ok(journal) => journal,
        Err(exit) => return exit,
    };
    let done = match (args.command, &journal) {
        (JournalCommand::Verify, Inspected::Disk(dir)) => {
            disk::inspect::verify(dir).map(|report| show_disk_report(&report, global.json)).map_err(Into::into)
        }
        (JournalCommand::Verify, Inspected::Redis(inspector)) => {
            inspector.verify().await.map(|report| show_redis_report(&report, global.json)).map_err(Into::into)
        }
        (JournalCommand::Dump, journal) => dump(journal, global.json).await,
    };
    done.unwrap_or_else(|error| not_inspected(&error))
}

fn show_disk_report(report: &disk::inspect::VerifyReport, json: bool) -> Exit {
    if json {
        print_json(report);
    } else {
        println!("{} entries in {} segments, {} bytes", report.entries, report.segments, report.bytes);
        for (writer, segments) in &report.writers {
            println!("written by {writer}: {segments} segments");
        }
        let row = |problem: &disk::inspect::Problem| {
            let disk::inspect::Problem { file, offset, position, kind, detail } = problem.clone();
            [file, text_of(offset), position.to_string(), kind.to_owned(), detail]
        };
        show_problems(["file", "offset", "position", "kind", "detail"], report.problems.iter().map(row));
    }
    if report.problems.is_empty() { Exit::Fine } else { Exit::Failed }
}

fn show_redis_report(report: &redis::inspect::VerifyReport, json: bool) -> Exit {
    if json {
        print_json(report);
    } else {
        println!("{} entries in {} shards, {} bytes", report.entries, report.shards, report.bytes);
        let row = |problem: &redis::inspect::Problem| {
            let redis::inspect::Problem { key, offset, kind, detail } = problem.clone();
            [key, text_of(offset), kind.to_owned(), detail]
        };
        show_problems(["key", "offset", "kind", "detail"], report.problems.iter().map(row));
    }
    if report.problems.is_empty() { Exit::Fine } else { Exit::Failed }
}

fn text_of(offset: Option<u64>) -> String {
    offset.map(|offset| offset.to_string()).unwrap_or_default()
}

fn show_problems<const N: usize>(heads: [&str; N], problems: impl ExactSizeIterator<Item = [String; N]>) {
    if problems.len() == 0 {
        return println!("every checksum is right");
    }
    let mut rows = table(heads);
    for problem in problems {
        rows.add_row(problem);
    }
    println!("{rows}");
}

/// Lines are written as they are read: a journal can be larger than memory.
async fn dump(journal: &Inspected, json: bool) -> Result<Exit, InspectError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let write = |line: DumpLine| {
        if written.is_ok() {
            written = write_line(&mut out, &line, json);
        }
    };
    journal.dump(write).await?;
    match written.and_then(|()| out.flush()) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("trunkline: the list cannot be written: {error}");
            Ok(Exit::Failed)
        }
        _ => Ok(Exit::Fine),
    }
}

fn write_line(out: &mut impl Write, line: &DumpLine, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
        return out.write_all(b"\n");
    }
    let shard = line.shard.map(|shard| format!("{shard:>3}  ")).unwrap_or_default();
    let session = line.session_id.as_ref().map_or("-", SessionId::as_str);
    writeln!(
        out,
        "{shard}{:>12}  {}  {:<10}  {:<12}  {:>8}  {}  {}",
        line.offset,
        line.received_at,
        line.action,
        line.source.as_str(),
        line.size_bytes,
        line.push_id,
        session
    )
}
