//! `trunkline health`: whether a gateway runs, said by the exit code, for health checks in images without a shell.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::admin_client::{AdminClient, AdminError};
use super::{Exit, Global};

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether a push would be accepted now, not only whether the process answers.
    #[arg(long)]
    ready: bool,
}

/// [`Exit::Failed`] when it answers and is not ready, [`Exit::NotReachable`] when it does not answer.
pub(super) async fn run(global: &Global, args: HealthArgs) -> Exit {
    let client = match AdminClient::new(global) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    match client.ask::<Value>(Method::GET, "/readyz", None).await {
        Ok(_) => Exit::Fine,
        // It answers, and a restart would not make it ready.
        Err(AdminError::Refused { status: 503, .. }) if !args.ready => Exit::Fine,
        Err(error) => {
            eprintln!("trunkline: {error}");
            error.exit()
        }
    }
}
