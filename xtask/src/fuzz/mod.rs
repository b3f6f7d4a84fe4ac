//! `cargo xtask fuzz`: everything that reads what strangers wrote, fed with what nobody would send.
//!
//! The targets of `fuzz/` are driven by libFuzzer, with the address sanitizer, and check what must hold. The
//! target `kernel` runs mutated frames through the verified kernel programs and through the host's build of
//! the same parser, which must agree. What breaks a target is kept, and its path printed.

mod build;
mod run;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{screen, setup};
use run::Ran;

#[derive(clap::Args)]
#[command(
    about = "Fuzz the parsers, the kernel programs, ingest, captures, configuration",
    after_help = "Examples:
  sudo -E cargo xtask fuzz                      every target, 20 seconds each
  sudo -E cargo xtask fuzz parser --minutes 30  one target, longer
  sudo -E cargo xtask fuzz kernel --seed 7      the frames of an earlier run

Corpora grow in target/fuzz/corpus, inputs that break a target are kept in target/fuzz/artifacts. Needs root
for the target `kernel`."
)]
pub struct Args {
    /// Which; all if none is named
    #[arg(value_enum)]
    target: Vec<Target>,
    /// How long each target runs
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// How long each target runs
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// Where randomness starts; printed by each run
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// The packet parser, on the host
    Parser,
    /// The kernel programs against the host's parser
    Kernel,
    /// What is read of payloads: names, hellos, leases
    Observe,
    /// Bodies of batches: decoding and validation
    Ingest,
    /// Capture files
    Capture,
    /// The sensor's configuration
    SensorConfig,
    /// Threat lists in every format
    ThreatList,
    /// The control plane's configuration
    ControlPlaneConfig,
}

impl Target {
    const ALL: [Self; 8] = [
        Self::Parser,
        Self::Kernel,
        Self::Observe,
        Self::Ingest,
        Self::Capture,
        Self::ThreatList,
        Self::SensorConfig,
        Self::ControlPlaneConfig,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Parser => "parser",
            Self::Kernel => "kernel",
            Self::Observe => "observe",
            Self::Ingest => "ingest",
            Self::Capture => "capture",
            Self::ThreatList => "threat-list",
            Self::SensorConfig => "sensor-config",
            Self::ControlPlaneConfig => "control-plane-config",
        }
    }
}

/// As long as it is in CI.
const BOUNDED: Duration = Duration::from_secs(20);

impl Args {
    /// As CI and `cargo xtask test` run it.
    pub fn bounded() -> Self {
        Self { target: Vec::new(), seconds: None, minutes: None, seed: None }
    }

    fn each(&self) -> Duration {
        let given = self.seconds.or(self.minutes.map(|minutes| minutes.saturating_mul(60)));
        given.map_or(BOUNDED, Duration::from_secs)
    }
}

pub fn run(args: &Args) -> Result<()> {
    let targets = if args.target.is_empty() { &Target::ALL[..] } else { &args.target };
    if targets.contains(&Target::Kernel) {
        weir_testbed::require_root("cargo xtask fuzz kernel (kernel programs)")?;
    }
    setup::ensure()?;
    let (kernel, others): (Vec<Target>, Vec<Target>) =
        targets.iter().partition(|target| **target == Target::Kernel);
    if !kernel.is_empty() {
        build::kernel()?;
    }
    if !others.is_empty() {
        build::targets(&others.iter().map(|target| target.name()).collect::<Vec<_>>())?;
    }
    // One core each.
    let mut ran = Vec::new();
    for some in targets.chunks(2) {
        let names: Vec<&str> = some.iter().map(|target| target.name()).collect();
        screen::step(&format!("fuzzing {} for {} s", names.join(" and "), args.each().as_secs()));
        ran.extend(std::thread::scope(|scope| {
            let runs: Vec<_> = some
                .iter()
                .map(|target| scope.spawn(move || run::run(target.name(), args.each(), args.seed)))
                .collect();
            runs.into_iter().map(|run| run.join().expect("a run does not panic")).collect::<Vec<_>>()
        }));
    }
    let ran: Vec<Ran> = ran.into_iter().collect::<Result<_>>()?;
    let rows: Vec<Vec<String>> = ran.iter().map(Ran::row).collect();
    screen::table(&["target", "executions", "a second", "result"], &rows);
    for broken in ran.iter().filter(|ran| !ran.good) {
        println!("\n{}: {}", broken.target, broken.told);
    }
    let good = ran.iter().all(|ran| ran.good);
    screen::verdict(good, if good { "fuzzing: nothing broke" } else { "fuzzing: something broke" });
    if good { Ok(()) } else { bail!("a fuzz target broke; its input is kept") }
}
