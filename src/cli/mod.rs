//! The command line: which commands there are, and what their exit codes mean.

mod admin_client;
mod check;
mod dead_letters;
mod health;
mod journal;
mod output;
mod recordings;
mod run;
mod schema;
mod send;
mod sinks;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::model::JournalBackend;
use crate::config::{self, Config, Loaded};
use crate::gateway;
use crate::journal::inspect::{InspectError, Inspected};
use crate::journal::redis::inspect::{self, Inspector};
use crate::sinks::kinds;

/// A push-relay gateway: acknowledges pushes once they are durable, and delivers them to sinks.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, max_term_width = 120, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Exit codes: 0 fine · 1 failed · 2 usage · 64 bad config · 69 something we depend on is not reachable

Start here:
  trunkline run                                   the gateway, with gateway.toml of this folder
  trunkline send --action cdr --url http://127.0.0.1:8080/push FILE
  trunkline check                                 what is wrong with the config, or what it amounts to";

#[derive(Debug, Args)]
struct Global {
    /// The config file.
    #[arg(short, long, global = true, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// Overrides one key of the config, such as `ingress.listen=127.0.0.1:8081`. Can be given more than once.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The admin listener of a running gateway, such as `http://127.0.0.1:9090`; by default that of the config.
    #[arg(long, global = true, value_name = "URL")]
    admin: Option<String>,
    /// Prints JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (what happens when no command is given).
    Run,
    /// Say what is wrong with the config, or print it with all defaults, secrets masked.
    Check(check::CheckArgs),
    /// Send pushes as the contact centre would.
    Send(Box<send::SendArgs>),
    /// See what is stuck in the running gateway, and put it right.
    DeadLetters(Box<dead_letters::DeadLettersArgs>),
    /// Show how a running gateway is.
    Status(status::StatusArgs),
    /// Say by the exit code whether a gateway runs, for health checks in images without a shell.
    Health(health::HealthArgs),
    /// Pause, resume or forget a sink of a running gateway.
    Sinks(sinks::SinksArgs),
    /// Look into the journal, on this machine's disk or in Redis; works beside a running gateway.
    Journal(journal::JournalArgs),
    /// Hold what events name against what is archived; works beside a running gateway.
    Recordings(recordings::RecordingsArgs),
    /// Print the JSON Schema of an action's events, or the list of schemas.
    Schema(schema::SchemaArgs),
    /// Print the version.
    Version,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Fine = 0,
    Failed = 1,
    Usage = 2,
    BadConfig = 64,
    NotReachable = 69,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command.
pub async fn run(cli: Cli) -> Exit {
    let Cli { global, command } = cli;
    match command.unwrap_or(Command::Run) {
        Command::Run => run::run(&global).await,
        Command::Check(args) => check::run(&global, args).await,
        Command::Send(args) => send::run(*args, global.json).await,
        Command::DeadLetters(args) => dead_letters::run(&global, *args).await,
        Command::Status(args) => status::run(&global, args).await,
        Command::Health(args) => health::run(&global, args).await,
        Command::Sinks(args) => sinks::run(&global, args).await,
        Command::Journal(args) => journal::run(&global, args).await,
        Command::Recordings(args) => recordings::run(&global, args).await,
        Command::Schema(args) => schema::run(args, global.json),
        Command::Version => {
            println!("trunkline {}", env!("CARGO_PKG_VERSION"));
            Exit::Fine
        }
    }
}

/// The config with its secrets at hand, or every problem on stderr.
fn load(global: &Global) -> Result<Loaded, Exit> {
    let tell = |problems: config::Problems| {
        eprintln!("{problems}");
        Exit::BadConfig
    };
    let loaded = config::load(&global.config, &global.set, std::env::vars_os(), &kinds()).map_err(tell)?;
    config::resolve_secrets(&loaded).map_err(tell)?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(loaded)
}

/// The journal of the config, to be looked at without the gateway and beside it.
async fn inspected(config: &Config) -> Result<Inspected, Exit> {
    if config.journal.backend == JournalBackend::Disk {
        return Ok(Inspected::Disk(config.journal.disk.dir.clone()));
    }
    let options = gateway::redis_options(config).map_err(|error| {
        eprintln!("journal: {error}");
        Exit::BadConfig
    })?;
    let connected = Inspector::connect(&options).await;
    connected.map(Inspected::Redis).map_err(|error| not_inspected(&error.into()))
}

/// Says why the journal could not be looked at.
fn not_inspected(error: &InspectError) -> Exit {
    eprintln!("trunkline: {error}");
    match error {
        InspectError::Redis(inspect::InspectError::Connect(_) | inspect::InspectError::Refused(_)) => {
            Exit::NotReachable
        }
        InspectError::Redis(_) | InspectError::Disk(_) => Exit::Failed,
    }
}
