//! `weir-sensor config`

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::EXIT_INPUT;
use super::run::{Configuration, print};
use crate::config::Config;
use crate::control::Book;

const EXAMPLES: &str = "Examples:
  weir-sensor config show --config /etc/weir/sensor.toml
      every setting that is in force, and where it comes from: default, file, pushed (by the control plane),
      environment or flag; the later wins
  weir-sensor config show --config /etc/weir/sensor.toml | grep pushed
      what the control plane decides";

/// Settings in force.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print every setting with its value and where that comes from, secrets hidden
    #[command(after_help = EXAMPLES)]
    Show {
        #[command(flatten)]
        configuration: Configuration,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let What::Show { configuration } = &arguments.what;
    let shown = configuration.load().and_then(|own| {
        let pushed = match own.control_plane {
            Some(_) => Book::open(&own.spool.folder).settings(),
            None => weir_wire::settings::Settings::new(),
        };
        Config::origins(configuration.file(), &configuration.overrides(&pushed))
    });
    match shown {
        Ok(settings) => {
            let lines =
                settings.into_iter().map(|(key, value, origin)| format!("{key} = {value} # {origin}\n"));
            print(&lines.collect::<String>())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            Ok(ExitCode::from(EXIT_INPUT))
        }
    }
}
