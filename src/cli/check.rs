//! `trunkline check`: is this config right, and what does it amount to?

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use sink_api::{Context, Event};

use super::{Exit, Global, load};
use crate::config::model::{self, JournalBackend};
use crate::config::{Config, Loaded, effective};
use crate::gateway;
use crate::journal::Push;
use crate::journal::redis::{self, connect::Servers};
use crate::names::{PushId, SourceName};
use crate::pipeline::{Choice, Selector, SetupError, mask_of};
use crate::tccc;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Also try to reach every sink, and the journal where it is in Redis; changes nothing there.
    #[arg(long)]
    connect: bool,
    /// Show what each sink would get from the push in this file.
    #[arg(long, value_name = "FILE", requires = "action")]
    sample: Option<PathBuf>,
    /// The action of the sample.
    #[arg(long, requires = "sample")]
    action: Option<String>,
}

pub(super) async fn run(global: &Global, args: CheckArgs) -> Exit {
    let loaded = match load(global) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if let (Some(sample), Some(action)) = (&args.sample, &args.action) {
        return show_sample(&loaded.config, sample, action);
    }
    match effective(&loaded) {
        Ok(text) => print!("{text}"),
        Err(error) => {
            eprintln!("trunkline: the effective config cannot be shown: {error}");
            return Exit::Failed;
        }
    }
    if !args.connect {
        return Exit::Fine;
    }
    match try_journal(&loaded.config).await {
        Exit::Fine => try_sinks(loaded).await,
        exit => exit,
    }
}

/// Whether Redis is there and promises what the config asks for. A journal on disk is looked at when it is opened.
async fn try_journal(config: &Config) -> Exit {
    if config.journal.backend != JournalBackend::Redis {
        return Exit::Fine;
    }
    let options = match gateway::redis_options(config) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("journal: {error}");
            return Exit::BadConfig;
        }
    };
    let tried = async {
        let servers = Servers::new(options.place.clone())?;
        redis::try_servers(&servers, &options).await
    };
    match tried.await {
        Ok(short) if short.is_empty() || options.allow_weaker => {
            short.iter().for_each(|what| eprintln!("journal: {what}"));
            eprintln!("journal: reachable");
            Exit::Fine
        }
        Ok(short) => {
            eprintln!("journal: {}", redis::OpenError::Weaker(short));
            Exit::BadConfig
        }
        Err(error) => {
            eprintln!("journal: {error}");
            Exit::NotReachable
        }
    }
}

async fn try_sinks(loaded: Loaded) -> Exit {
    let mut exit = Exit::Fine;
    for (name, settings) in loaded.settings {
        let context = Context { name: name.to_string(), format: loaded.config.sinks[&name].format };
        let sink = match settings.build(context) {
            Ok(sink) => sink,
            Err(error) => {
                eprintln!("sink {name}: {error}");
                return Exit::BadConfig;
            }
        };
        match sink.probe().await {
            Ok(()) => eprintln!("sink {name}: reachable"),
            Err(fault) => {
                eprintln!("sink {name}: not reachable: {} ({})", fault.reason, fault.code);
                exit = Exit::NotReachable;
            }
        }
        sink.close().await;
    }
    exit
}

fn show_sample(config: &Config, sample: &Path, action: &str) -> Exit {
    let body = match std::fs::read(sample) {
        Ok(body) => Bytes::from(body),
        Err(error) => {
            eprintln!("trunkline: {} cannot be read: {error}", sample.display());
            return Exit::Failed;
        }
    };
    let head = match tccc::read_head(&body) {
        Ok(head) => head,
        Err(error) => {
            eprintln!("trunkline: {}: {error}; the ingress would refuse this push", sample.display());
            return Exit::Failed;
        }
    };
    let source = config.sources.keys().next().cloned().unwrap_or_else(|| SourceName::from("main"));
    let push = Push {
        id: PushId::from("sample"),
        source,
        action: tccc::known_action(action).unwrap_or(action).to_owned(),
        version: None,
        session: head.session,
        received_at: Timestamp::now(),
        traceparent: None,
        body,
    };
    let event = tccc::normalise(&push).event;
    for (name, sink) in &config.sinks {
        match show_for(sink, &push, event.clone()) {
            Ok(shown) => println!("sink {name}:{shown}"),
            Err(error) => {
                eprintln!("trunkline: sink {name}: {error}");
                return Exit::BadConfig;
            }
        }
    }
    Exit::Fine
}

/// What the sink would get, on lines of its own, or why nothing.
fn show_for(sink: &model::Sink, push: &Push, mut event: Event) -> Result<String, SetupError> {
    Ok(match Selector::new(sink)?.choose(push) {
        Choice::Passed(passed) => format!(" nothing, since {passed}"),
        Choice::Failed(fault) => format!(" nothing: a dead letter with code {}, since {}", fault.code, fault.reason),
        Choice::Taken => {
            if let Some(mask) = mask_of(sink)? {
                mask.apply(&mut event);
            }
            format!("\n{}", String::from_utf8_lossy(&event.payload(sink.format)))
        }
    })
}
