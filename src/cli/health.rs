//! `trunkline health`: whether a gateway runs, said by the exit code, for health checks in images without a shell.

use clap::Args;

use super::admin_client::AdminClient;
use super::{Exit, Global};

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether a push would be accepted now, not only whether the process answers.
    #[arg(long)]
    ready: bool,
}

/// [`Exit::Failed`] when it answers and is not ready, [`Exit::NotReachable`] when it does not answer.
pub(super) async fn run(global: &Global, args: HealthArgs) -> Exit {
    let path = if args.ready { "/readyz" } else { "/livez" };
    let answer = match AdminClient::new(global) {
        Ok(client) => client.get(path).await,
        Err(exit) => return exit,
    };
    answer.err().unwrap_or(Exit::Fine)
}
