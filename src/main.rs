//! The command `trunkline`. What each command does is in [`trunkline::cli`].

use std::process::ExitCode;

use clap::Parser;
use trunkline::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("trunkline: the asynchronous runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(trunkline::cli::run(cli));
    // A task that is stuck in a system call must not keep the process alive once all that matters is done.
    runtime.shutdown_background();
    code.into()
}
