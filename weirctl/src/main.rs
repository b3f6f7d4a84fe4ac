//! `weirctl`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use weirctl::cli::Cli;
use weirctl::commands;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    commands::run(Cli::parse()).await
}
