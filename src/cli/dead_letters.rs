//! `trunkline dead-letters`: what is stuck in the running gateway, and putting it right, over its admin API.
//!
//! Promises: memory stays bounded however many letters there are; nothing is replayed or purged that was not named, narrowed or
//! asked for with `--all`, nor without a yes, given at the terminal or as `--yes`.

mod client;
mod options;
mod output;

use std::fs::File;
use std::io::{self, BufRead as _, BufWriter, IsTerminal as _, Write};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use self::client::{Client, Page, Progress};
pub(super) use self::options::DeadLettersArgs;
use self::options::{BulkArgs, DeadLettersCommand, ExportArgs, ListArgs, Selection, UsageError};
use super::admin_client::{AdminClient, AdminError};
use super::output::{print_json, print_line, wants_json};
use super::{Exit, Global};

/// Payloads asked for at the same time by an export.
const SHOWN_AT_ONCE: usize = 8;

/// Ids in one request.
const IDS_AT_ONCE: usize = 20_000;

/// Between two looks at a replay.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Client(#[from] AdminError),
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// What went wrong has been said.
    #[error("the gateway cannot be asked")]
    Told(Exit),
}

impl CommandError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Usage(_) => Exit::Usage,
            Self::Output(_) => Exit::Failed,
            Self::Told(exit) => *exit,
        }
    }
}

pub(super) async fn run(global: &Global, args: DeadLettersArgs) -> Exit {
    match carry_out(global, args).await {
        Ok(()) => Exit::Fine,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
        Err(CommandError::Told(exit)) => exit,
        Err(error) => {
            eprintln!("trunkline dead-letters: {error}");
            error.exit()
        }
    }
}

async fn carry_out(global: &Global, args: DeadLettersArgs) -> Result<(), CommandError> {
    let client = Client(AdminClient::new(global).map_err(CommandError::Told)?);
    match args.command {
        DeadLettersCommand::List(args) => list(&client, &args, global.json).await,
        DeadLettersCommand::Show { id } => {
            let letter = client.show(&id).await?;
            if global.json || !io::stdout().is_terminal() {
                print_line(&letter);
            } else {
                print_line(&output::pretty(&letter));
            }
            Ok(())
        }
        DeadLettersCommand::Replay { bulk, rate } => {
            let before = client.progress().await?;
            let Some(selected) = all_of(&client, "replay", &bulk, rate).await? else { return Ok(()) };
            say_selected(selected, global.json, bulk.dry_run, "replayed");
            if !bulk.dry_run && !wants_json(global.json) && selected > 0 {
                watch(&client, before, selected).await?;
            }
            Ok(())
        }
        DeadLettersCommand::Purge { bulk } => {
            let Some(selected) = all_of(&client, "purge", &bulk, None).await? else { return Ok(()) };
            say_selected(selected, global.json, bulk.dry_run, "purged");
            Ok(())
        }
        DeadLettersCommand::Export(args) => export(&client, &args).await,
    }
}

/// Prints page by page.
async fn list(client: &Client, args: &ListArgs, json: bool) -> Result<(), CommandError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let as_lines = json || !io::stdout().is_terminal();
    if !as_lines {
        writeln!(out, "{}", output::header())?;
    }
    let mut pages = Pages::new(args.selection.clone());
    while let Some(page) = pages.next(client).await? {
        for item in page.items {
            if as_lines {
                writeln!(out, "{}", item.get())?;
            } else {
                writeln!(out, "{}", output::row(item.get()))?;
            }
        }
        out.flush()?;
    }
    Ok(out.flush()?)
}

/// Writes whole letters, one JSON object a line, in the order of the list.
async fn export(client: &Client, args: &ExportArgs) -> Result<(), CommandError> {
    let mut out: Box<dyn Write> = match args.output.as_deref() {
        None => Box::new(BufWriter::new(io::stdout())),
        Some(path) => Box::new(BufWriter::new(File::create(path)?)),
    };
    let count = if io::stderr().is_terminal() && args.ids.is_empty() {
        client.act("replay", &args.selection.body(&[], None, true)).await.unwrap_or(0)
    } else {
        args.ids.len() as u64
    };
    let bar = bar(args.selection.limit.map_or(count, |limit| count.min(limit)), "exported");
    if !args.ids.is_empty() {
        write_letters(client, args.ids.clone(), &mut out, &bar).await?;
    } else {
        let mut pages = Pages::new(args.selection.clone());
        while let Some(page) = pages.next(client).await? {
            write_letters(client, page.ids(), &mut out, &bar).await?;
        }
    }
    bar.finish_and_clear();
    Ok(out.flush()?)
}

async fn write_letters(
    client: &Client,
    ids: Vec<String>,
    out: &mut dyn Write,
    bar: &ProgressBar,
) -> Result<(), CommandError> {
    let mut letters = stream::iter(ids).map(|id| async move { client.show(&id).await }).buffered(SHOWN_AT_ONCE);
    while let Some(letter) = letters.next().await {
        match letter {
            Ok(letter) => writeln!(out, "{letter}")?,
            // Replayed or purged since the list was made.
            Err(AdminError::Refused { status: 404, .. }) => {}
            Err(error) => return Err(error.into()),
        }
        bar.inc(1);
    }
    Ok(())
}

/// Replays or purges what is selected; says how many, or nothing where the answer was no.
async fn all_of(
    client: &Client,
    action: &str,
    bulk: &BulkArgs,
    rate: Option<f64>,
) -> Result<Option<u64>, CommandError> {
    let bodies = bodies(client, bulk, rate).await?;
    let mut count = 0;
    if bulk.dry_run || !bulk.yes {
        let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
        if !bulk.dry_run && !can_ask {
            return Err(UsageError::NoTerminal.into());
        }
        for body in &bodies {
            let mut body = body.clone();
            body["dry_run"] = json!(true);
            count += client.act(action, &body).await?;
        }
        if bulk.dry_run || count == 0 {
            return Ok(Some(count));
        }
        if !confirmed(&format!("{action} {count} dead letters?"))? {
            eprintln!("nothing was changed");
            return Ok(None);
        }
    }
    let spinner = bar(0, action);
    spinner.enable_steady_tick(LOOK_INTERVAL);
    let mut done = 0;
    for body in &bodies {
        done += client.act(action, body).await?;
    }
    spinner.finish_and_clear();
    Ok(Some(done))
}

/// The requests: one for a selection, several for many ids.
async fn bodies(client: &Client, bulk: &BulkArgs, rate: Option<f64>) -> Result<Vec<Value>, CommandError> {
    bulk.check()?;
    let mut ids = bulk.ids.clone();
    if bulk.selection.limit.is_some() && ids.is_empty() {
        let mut pages = Pages::new(bulk.selection.clone());
        while let Some(page) = pages.next(client).await? {
            ids.extend(page.ids());
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
    }
    if ids.is_empty() {
        return Ok(vec![bulk.selection.body(&[], rate, false)]);
    }
    Ok(ids.chunks(IDS_AT_ONCE).map(|ids| bulk.selection.body(ids, rate, false)).collect())
}

fn confirmed(question: &str) -> io::Result<bool> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn say_selected(selected: u64, json: bool, is_dry: bool, done: &str) {
    if wants_json(json) {
        print_json(&json!({ "selected": selected }));
    } else if is_dry {
        print_line(&format!("{selected} dead letters would be {done}"));
    } else {
        print_line(&format!("{selected} dead letters are being {done}"));
    }
}

/// Shows how a replay goes until it has ended. It goes on without us.
async fn watch(client: &Client, before: Progress, selected: u64) -> Result<(), CommandError> {
    let bar = bar(selected, "replayed (Ctrl-C stops watching, not the replay)");
    loop {
        let now = client.progress().await?;
        let (delivered, failed) =
            (now.delivered - before.delivered.min(now.delivered), now.failed - before.failed.min(now.failed));
        bar.set_position(delivered + failed);
        if now.running == 0 {
            bar.finish_and_clear();
            print_line(&format!("{delivered} delivered, {failed} are dead letters again"));
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Shown on standard error, where that is a terminal.
fn bar(len: u64, what: &str) -> ProgressBar {
    if len == 0 {
        return ProgressBar::new_spinner().with_message(what.to_owned());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {per_sec}, {eta} left");
    ProgressBar::new(len).with_style(style.expect("a valid template")).with_message(what.to_owned())
}

/// Pages of the list, up to the limit that was given.
struct Pages {
    selection: Selection,
    left: Option<u64>,
    after: Option<String>,
    is_over: bool,
}

impl Pages {
    fn new(selection: Selection) -> Self {
        Self { left: selection.limit, selection, after: None, is_over: false }
    }

    async fn next(&mut self, client: &Client) -> Result<Option<Page>, AdminError> {
        if self.is_over || self.left == Some(0) {
            return Ok(None);
        }
        let page = client.list(&self.selection, self.after.as_deref(), self.left).await?;
        self.left = self.left.map(|left| left.saturating_sub(page.items.len() as u64));
        self.after.clone_from(&page.next);
        self.is_over = page.next.is_none();
        Ok(Some(page))
    }
}
