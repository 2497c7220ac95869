//! `trunkline journal`: looks into the journal's files, without the gateway and beside it.

use std::io::{self, BufWriter, Write};

use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::output::{print_json, table};
use super::{Exit, Global, load};
use crate::journal::disk::inspect::{self, DumpLine, InspectError, VerifyReport};

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

pub(super) fn run(global: &Global, args: JournalArgs) -> Exit {
    let dir = match load(global) {
        Ok(loaded) => loaded.config.journal.disk.dir,
        Err(exit) => return exit,
    };
    let done = match args.command {
        JournalCommand::Verify => inspect::verify(&dir).map(|report| show_report(&report, global.json)),
        JournalCommand::Dump => dump(&dir, global.json),
    };
    done.unwrap_or_else(|error| {
        eprintln!("trunkline: {error}");
        Exit::Failed
    })
}

fn show_report(report: &VerifyReport, json: bool) -> Exit {
    if json {
        print_json(report);
    } else {
        println!("{} entries in {} segments, {} bytes", report.entries, report.segments, report.bytes);
        for (writer, segments) in &report.writers {
            println!("written by {writer}: {segments} segments");
        }
        if report.problems.is_empty() {
            println!("every checksum is right");
        } else {
            let mut problems = table(["file", "offset", "position", "kind", "detail"]);
            for problem in &report.problems {
                let offset = problem.offset.map(|offset| offset.to_string()).unwrap_or_default();
                problems.add_row([
                    Cell::new(&problem.file),
                    Cell::new(offset),
                    Cell::new(problem.position),
                    Cell::new(problem.kind),
                    Cell::new(&problem.detail),
                ]);
            }
            println!("{problems}");
        }
    }
    if report.problems.is_empty() { Exit::Fine } else { Exit::Failed }
}

/// Lines are written as they are read: a journal can be larger than memory.
fn dump(dir: &std::path::Path, json: bool) -> Result<Exit, InspectError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    inspect::dump(dir, |line| {
        if written.is_ok() {
            written = write_line(&mut out, &line, json);
        }
    })?;
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
    let session = line.session_id.as_deref().unwrap_or("-");
    writeln!(
        out,
        "{:>12}  {}  {:<10}  {:<12}  {:>8}  {}  {}",
        line.offset, line.received_at, line.action, line.source, line.size_bytes, line.push_id, session
    )
}
