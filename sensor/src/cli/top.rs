//! `weir-sensor top`

use std::io::{self, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{Signal, raise};
use tokio::task::JoinHandle;
use weir_wire::settings::Settings;

use super::EXIT_INPUT;
use super::run::{Configuration, runtime};
use crate::config::{Config, Period};
use crate::live::socket::Epochs;
use crate::{kernel, run, top};

const EXAMPLES: &str = "Examples:
  weir-sensor top
      what the running sensor of this host counts
  weir-sensor top --config /etc/weir/sensor.toml
      the same, where its configuration is not in the usual place
  weir-sensor top --interface eth0
      counts on eth0 itself, with no sensor and no control plane, until q; nothing is kept
  weir-sensor top --interface eth0 --once --seconds 30 --json
      no terminal: one report about 30 seconds

Keys: 1 to 5 or Tab choose a table, s and S the column that it is sorted by, r turns it round, / filters by words,
p holds it, arrows and pages move, q ends.

Needs root: the running sensor's socket is its own (0600), and counting needs what `run` needs.";

/// The usual place of the configuration.
const USUAL: &str = "/etc/weir/sensor.toml";
/// A sensor of our own attaches within so long.
const START: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Print one report instead of taking the terminal
    #[arg(long)]
    once: bool,
    /// What is shown is about so many of the last seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Rows of each table of a report
    #[arg(long, value_name = "N", default_value_t = 20, requires = "once")]
    rows: usize,
    /// The report as one JSON object: rates in bits and packets a second
    #[arg(long, requires = "once")]
    json: bool,
}

pub(super) fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !(arguments.once || terminal) {
        eprintln!("weir-sensor: top needs a terminal; --once prints a report");
        return Ok(ExitCode::from(EXIT_INPUT));
    }
    let itself = arguments.configuration.names_interfaces();
    arguments.configuration.or_usual(Path::new(USUAL));
    let loaded = arguments.configuration.load();
    let config = match loaded {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    if itself {
        kernel::drop_privileges(config.processes.enabled && config.processes.executables)
            .context("give up privileges that counting does not need")?;
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        if itself {
            Own::start(config).show(&arguments).await
        } else {
            let folder = config.spool.folder;
            let epochs = Epochs::of(&folder).await.with_context(|| {
                format!(
                    "no sensor answers in spool.folder = {}; is one running, and is this root? \
                     `weir-sensor top --interface IF` counts by itself",
                    folder.display()
                )
            })?;
            show(epochs, &arguments).await
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn show(epochs: Epochs, arguments: &Arguments) -> anyhow::Result<()> {
    let span = Duration::from_secs(arguments.seconds.into());
    if arguments.once {
        let report = top::Report { span, rows: arguments.rows, json: arguments.json };
        return top::report(epochs, report, &mut io::stdout().lock()).await;
    }
    top::watch(epochs, span).await
}

/// A sensor in this process, for as long as somebody looks: it keeps nothing and tells nobody.
struct Own {
    folder: PathBuf,
    sensor: JoinHandle<anyhow::Result<()>>,
}

impl Own {
    fn start(mut config: Config) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-top-{}", uuid::Uuid::new_v4()));
        config.control_plane = None;
        config.pins.enabled = false;
        // What a running sensor drops and marks is its own business.
        config.threats.lists.clear();
        config.metrics.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.epoch = Period(Duration::from_secs(1));
        config.spool.folder.clone_from(&folder);
        let same = config.clone();
        let reload = Box::new(move |_: &Settings| Ok(same.clone()));
        Self { folder, sensor: tokio::spawn(run::run(config, reload)) }
    }

    async fn show(mut self, arguments: &Arguments) -> anyhow::Result<()> {
        let began = Instant::now();
        let outcome = loop {
            if let Ok(epochs) = Epochs::of(&self.folder).await {
                break tokio::select! {
                    ended = &mut self.sensor => Err(why(ended)),
                    shown = show(epochs, arguments) => shown,
                };
            }
            if self.sensor.is_finished() {
                break Err(why((&mut self.sensor).await));
            }
            if began.elapsed() > START {
                break Err(anyhow::anyhow!("counting did not begin within {} s", START.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if !self.sensor.is_finished() {
            // As Ctrl-C does: the programs are taken off.
            raise(Signal::SIGINT).context("stop counting")?;
            let stopped = tokio::time::timeout(START, &mut self.sensor).await;
            stopped.context("counting did not stop")?.context("stop counting")??;
        }
        // It held the socket alone.
        let _ = std::fs::remove_dir_all(&self.folder);
        outcome
    }
}

fn why(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("counting has ended"),
        Ok(Err(error)) => error.context("count by itself"),
        Err(error) => anyhow::Error::new(error).context("count by itself"),
    }
}
