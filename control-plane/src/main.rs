//! `weir-control-plane`: settings, then one command.
#![forbid(unsafe_code)]

mod cli;
mod commands;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weir-control-plane: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(arguments) => commands::serve::run(arguments).await,
            Command::Migrate(arguments) => commands::migrate::run(arguments).await,
            Command::Sensor(arguments) => commands::sensor::run(arguments).await,
            Command::User(arguments) => commands::user::run(arguments).await,
            Command::SetupLink(arguments) => commands::user::setup_link(arguments).await,
            Command::Keys(arguments) => commands::user::keys(arguments).await,
            Command::Ca(arguments) => commands::ca::run(arguments).await,
            Command::Openapi => commands::openapi::run(),
        }
    });
    // A database call that hangs must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}
