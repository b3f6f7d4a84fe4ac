//! `cargo xtask bench`: builds optimised and runs the benches, each of which lives beside what it measures.
//!
//! `kernel`, `lists` and `drain` measure the sensor's datapath, `sensor` the whole of it, `ingest`, `query` and `api`
//! the control plane on a private, durable Postgres that the bench itself starts.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{cargo, screen, setup};

#[derive(clap::Args)]
#[command(
    about = "Measure: cost of a packet, of a drain, of ingest, of queries, of streams",
    after_help = "Examples:
  sudo -E cargo xtask bench                 all of them
  sudo -E cargo xtask bench kernel --json   one line a row, for a machine
  sudo -E cargo xtask bench kernel --object peer.o --program count
                                            a program of another project, in the same rig

Needs root for kernel, lists, drain and sensor. Run it on an otherwise idle machine."
)]
pub struct Args {
    /// Which; all if none is named
    #[arg(value_enum)]
    bench: Option<Bench>,
    /// One JSON object a line instead of tables
    #[arg(long)]
    json: bool,
    /// With `kernel`: octets of payload in each packet
    #[arg(long, value_name = "OCTETS")]
    payload: Option<u16>,
    /// With `kernel`: measure this object's program as well
    #[arg(long, value_name = "FILE", requires = "program")]
    object: Option<PathBuf>,
    /// The program of --object
    #[arg(long, value_name = "NAME", requires = "object")]
    program: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// Nanoseconds a packet above an empty program
    Kernel,
    /// What threat lists cost: to load a million, for a packet
    Lists,
    /// Milliseconds to drain a million flows
    Drain,
    /// Cores and memory of a sensor at 10,000 new flows a second, and under floods
    Sensor,
    /// Rows a second, as a ratio to a raw COPY
    Ingest,
    /// Medians of the dashboard's queries over 20 million rows
    Query,
    /// Questions and a thousand live streams beside eight sensors at full rate
    Api,
}

pub fn run(args: &Args) -> Result<()> {
    if (args.object.is_some() || args.payload.is_some()) && args.bench != Some(Bench::Kernel) {
        anyhow::bail!("--object and --payload are for `cargo xtask bench kernel`");
    }
    let all =
        [Bench::Kernel, Bench::Lists, Bench::Drain, Bench::Sensor, Bench::Ingest, Bench::Query, Bench::Api];
    let benches = args.bench.as_ref().map_or(&all[..], std::slice::from_ref);
    setup::ensure()?;
    for bench in benches {
        let (name, mut command) = match bench {
            Bench::Kernel => ("kernel", datapath(args, "kernel")?),
            Bench::Lists => ("lists", datapath(args, "lists")?),
            Bench::Drain => ("drain", datapath(args, "drain")?),
            Bench::Sensor => ("sensor", whole(args)?),
            Bench::Ingest => ("ingest", store(args, "ingest")),
            Bench::Query => ("query", store(args, "query")),
            Bench::Api => ("api", store(args, "api")),
        };
        screen::step(&format!("bench {name}"));
        cargo::run(&mut command)?;
    }
    Ok(())
}

/// The sensor's bench of the kernel programs and their tables.
fn datapath(args: &Args, bench: &str) -> Result<Command> {
    const PROGRAM: &str = "weir-bench-kernel";
    weir_testbed::require_root(&format!("cargo xtask bench {bench} (kernel programs)"))?;
    screen::step("building the bench of the datapath");
    cargo::run(cargo::cargo().args(["build", "--release", "--package", "weir-sensor", "--bin", PROGRAM]))?;
    let mut command = Command::new(cargo::programs(true).join(PROGRAM));
    command.arg(bench).args(args.json.then_some("--json"));
    if let Some(octets) = args.payload {
        command.arg("--payload").arg(octets.to_string());
    }
    if let (Some(object), Some(program)) = (&args.object, &args.program) {
        command.arg("--object").arg(object).arg("--program").arg(program);
    }
    Ok(command)
}

/// The bench of a whole sensor, which wants both programs beside it.
fn whole(args: &Args) -> Result<Command> {
    const PROGRAM: &str = "weir-bench-sensor";
    weir_testbed::require_root("cargo xtask bench sensor (kernel programs, network namespaces)")?;
    screen::step("building both programs and their bench");
    let programs = ["weir-sensor", "weir-control-plane", PROGRAM].map(|program| ["--bin", program]);
    cargo::run(cargo::cargo().args(["build", "--release", "--workspace"]).args(programs.as_flattened()))?;
    let mut command = Command::new(cargo::programs(true).join(PROGRAM));
    command.args(args.json.then_some("--json"));
    Ok(command)
}

/// The control plane's bench of its store.
fn store(args: &Args, bench: &str) -> Command {
    let mut command = cargo::cargo();
    command.args(["bench", "--quiet", "--package", "weir-control-plane", "--bench", "store", "--", bench]);
    command.args(args.json.then_some("--json"));
    command
}
