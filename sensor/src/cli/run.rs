//! `weir-sensor run`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::runtime::Runtime;
use weir_wire::settings::Settings;

use super::EXIT_INPUT;
use crate::config::{Config, LogFormat, Overrides, environment};
use crate::{kernel, run};

const EXAMPLES: &str = "Examples:
  weir-sensor run --interface eth0
      counts on eth0; metrics on http://127.0.0.1:9465/metrics
  weir-sensor run --config /etc/weir/sensor.toml
      as the file says
  weir-sensor run --config sensor.toml --set sampling.interval=10 --print-config
      the configuration in force, secrets hidden
  WEIR_SENSOR__CONTROL_PLANE__TOKEN=… weir-sensor run --config sensor.toml
      any key from the environment: sections and keys in capitals, joined by two underscores

SIGTERM and SIGINT: one last drain, what can be delivered is, the rest waits on disk, exit code 0.
SIGHUP: epoch, sampling, filter, connections and detect are read again, without detaching. The control plane may
push some of them: `weir-sensor config show` says where each comes from.

Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root).";

/// The configuration is the file, then the environment, then the flags.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) configuration: Configuration,
    /// Print the configuration in force as TOML, secrets hidden, and exit
    #[arg(long)]
    print_config: bool,
}

/// Where settings come from; the same for every subcommand that has any.
#[derive(Debug, Args)]
pub(super) struct Configuration {
    /// Configuration in TOML
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Watch this interface, too; may be repeated
    #[arg(long = "interface", short, value_name = "IF")]
    interfaces: Vec<String>,
    /// Set one key, such as `epoch=1s`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Configuration {
    pub(super) fn load(&self) -> Result<Config, crate::config::ConfigError> {
        self.load_with(&Settings::new())
    }

    /// With what the control plane pushed.
    pub(super) fn load_with(&self, pushed: &Settings) -> Result<Config, crate::config::ConfigError> {
        Config::load(self.config.as_deref(), &self.overrides(pushed))
    }

    pub(super) fn overrides(&self, pushed: &Settings) -> Overrides {
        Overrides {
            environment: environment(),
            settings: self.settings.clone(),
            interfaces: self.interfaces.clone(),
            pushed: pushed.clone(),
        }
    }

    /// With the file in the usual place, where none is named and one is there.
    pub(super) fn or_usual(&mut self, usual: &Path) {
        if self.config.is_none() && usual.exists() {
            self.config = Some(usual.to_owned());
        }
    }

    /// Whether the command line names interfaces.
    pub(super) fn names_interfaces(&self) -> bool {
        !self.interfaces.is_empty()
    }

    /// The file that was named.
    pub(super) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = match arguments.configuration.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    if arguments.print_config {
        print(&config.to_toml()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if config.interfaces.is_empty() {
        eprintln!(
            "weir-sensor: nothing to watch: name an interface with --interface, or as [[interfaces]] in the \
             configuration"
        );
        return Ok(ExitCode::from(EXIT_INPUT));
    }
    log(&config);
    // While this is the only thread: threads keep what they were started with.
    kernel::drop_privileges(config.processes.enabled && config.processes.executables)
        .context("give up privileges that counting does not need")?;
    let runtime = runtime()?;
    let reload = Box::new(move |pushed: &Settings| arguments.configuration.load_with(pushed));
    runtime.block_on(run::run(config, reload))?;
    // A blocking call that hangs must not keep a stopped sensor alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// What a sensor runs on.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Draining and merging block; a sensor leaves the other cores to the host.
        .worker_threads(2)
        .thread_name("weir-sensor")
        .build()
        .context("start the runtime")
}

/// The log goes to standard error: standard output belongs to results.
fn log(config: &Config) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::from(config.log.level))
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

pub(super) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    std::io::stdout().write_all(text.as_bytes()).context("write the configuration")
}
