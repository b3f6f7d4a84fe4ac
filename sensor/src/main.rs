//! `weir-sensor`: see `weir-sensor --help`.

use std::process::ExitCode;

use clap::Parser as _;
use weir_sensor::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
