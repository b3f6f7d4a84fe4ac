//! The command line: what each subcommand takes, and the exit code that each outcome has.
//!
//! Called by `main`. Subcommands hold no logic of their own: they turn arguments into the settings of a
//! module and call it.

mod access;
mod check;
mod config;
mod detach;
mod enroll;
mod export;
mod ledger;
mod lists;
mod pcap;
mod render;
mod run;
mod spool;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Something was asked that cannot be done as asked: arguments, configuration, an unreadable capture.
pub(crate) const EXIT_INPUT: u8 = 2;
/// It was tried and failed.
pub(crate) const EXIT_FAILED: u8 = 1;

const EXIT_CODES: &str = "Exit codes:
  0  done; for `run`, stopped by a signal after a final drain
  1  failed: the kernel refused, `check` found something missing, or `ledger` does not add up
  2  wrong arguments, wrong configuration, or a capture that could not be read to its end";

/// Counts every packet of this host in the kernel, joins the counts to connections, and ships them.
#[derive(Debug, Parser)]
#[command(name = "weir-sensor", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count on interfaces until a signal stops it
    Run(run::Arguments),
    /// Look for what the sensor needs of this kernel, this process and these interfaces
    Check(check::Arguments),
    /// Which settings are in force, and where each comes from
    Config(config::Arguments),
    /// Take the programs of a stopped sensor off all interfaces, with its tables
    Detach(detach::Arguments),
    /// Make this host a sensor of a control plane, with a one-time token
    Enroll(enroll::Enroll),
    /// Replace this sensor's credential, without a gap
    Rotate(enroll::Rotate),
    /// Run captures through the real kernel program and print what it counts
    Pcap(pcap::Arguments),
    /// Look into what waits for delivery: ls, stat, export, quarantine
    Spool(spool::Arguments),
    /// What was seen, what became of it, and whether it adds up
    Ledger(ledger::Arguments),
    /// How the threat lists stand, and what they have hit; refresh them, lift enforcement
    Lists(lists::Arguments),
    /// What is counted, live: flows, talkers, devices, names, detections
    Top(top::Arguments),
}

impl Cli {
    /// Does what was asked. Errors go to standard error, in one line each.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Run(arguments) => run::run(arguments),
            Command::Check(arguments) => check::run(&arguments),
            Command::Config(arguments) => config::run(&arguments),
            Command::Detach(arguments) => detach::run(&arguments),
            Command::Enroll(arguments) => enroll::enroll(arguments),
            Command::Rotate(arguments) => enroll::rotate(&arguments),
            Command::Pcap(arguments) => pcap::run(&arguments),
            Command::Spool(arguments) => spool::run(&arguments),
            Command::Ledger(arguments) => ledger::run(&arguments),
            Command::Lists(arguments) => lists::run(&arguments),
            Command::Top(arguments) => top::run(arguments),
        };
        result.unwrap_or_else(|error| {
            // Whoever reads the output has gone (`| head`): nothing is wrong, and nobody to tell.
            if error.chain().any(is_broken_pipe) {
                return ExitCode::SUCCESS;
            }
            eprintln!("weir-sensor: {error:#}");
            ExitCode::from(EXIT_FAILED)
        })
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
