//! `cargo xtask kernels`: the datapath on other kernels than this machine's.
//!
//! Debian's cloud kernels boot in an emulator, without KVM, from an initramfs that holds the probe
//! (`e2e/src/bin/weir-kernel-probe`) and what it calls; the probe says what works there and how. Packages
//! are downloaded and unpacked below the target folder and kept there: nothing of the system changes.

mod initramfs;
mod machine;
mod package;
mod results;

use std::thread;

use anyhow::{Result, bail};

use crate::{cargo, screen, setup};
use package::Kernel;
use results::Outcome;

#[derive(clap::Args)]
#[command(
    about = "Run the datapath's checks on Debian's kernels, in an emulator",
    after_help = "Examples:
  sudo -E cargo xtask kernels                 5.10, 6.1, 6.12 and the newest: a table
  sudo -E cargo xtask kernels --kernel 6.18   the last 6.18 that Debian has; 6.12-rt has PREEMPT_RT
  sudo -E cargo xtask kernels --json          one object a line, for a machine

Kernels are kept in target/kernels; --refresh looks for newer ones. What a machine printed is kept there,
too. Debian has no cloud kernel with PREEMPT_RT: none is tried unless 6.12-rt is asked for."
)]
pub struct Args {
    /// A series (6.12) or `newest`; several may be given
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// One JSON object a line instead of the table
    #[arg(long)]
    json: bool,
    /// CPUs of each machine
    #[arg(long, value_name = "N", default_value_t = CPUS, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// Look for newer kernels than those that are kept
    #[arg(long)]
    refresh: bool,
}

impl Args {
    /// As CI and `cargo xtask test` run it.
    pub fn standard() -> Self {
        Self { kernel: Vec::new(), json: false, cpus: CPUS, refresh: false }
    }
}

/// The stable releases that are supported, and the newest: clsact and no frags (5.10), clsact and frags
/// (6.1), TCX and frags (6.12 on).
const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", package::NEWEST];

/// CPUs of a machine: with one, nothing would ever run beside anything.
const CPUS: u8 = 2;

/// Machines that run at once.
const AT_ONCE: usize = 2;

pub fn run(args: &Args) -> Result<()> {
    setup::ensure()?;
    let named: Vec<&str> = if args.kernel.is_empty() {
        KERNELS.to_vec()
    } else {
        args.kernel.iter().map(String::as_str).collect()
    };
    let kernels: Vec<(&str, Result<Kernel>)> =
        named.iter().map(|series| (*series, package::get(series, args.refresh))).collect();
    screen::step("building the kernel probe");
    // Of the whole workspace, as the tests before it: with one package's features most of what it rests on is compiled anew.
    cargo::run(cargo::cargo().args(["build", "--quiet", "--workspace", "--bin", initramfs::PROBE]))?;
    screen::step(&format!("booting {} kernels, {AT_ONCE} at once", kernels.len()));
    let mut outcomes = Vec::new();
    for some in kernels.chunks(AT_ONCE) {
        outcomes.extend(thread::scope(|scope| {
            let boots: Vec<_> = some
                .iter()
                .map(|(series, kernel)| scope.spawn(move || outcome(series, kernel, args.cpus)))
                .collect();
            boots.into_iter().map(|boot| boot.join().expect("a boot does not panic")).collect::<Vec<_>>()
        }));
    }
    if args.json {
        results::lines(&outcomes);
    } else {
        results::table(&outcomes);
    }
    let good = outcomes.iter().all(Outcome::is_good);
    let checks: usize = outcomes.iter().map(|outcome| outcome.features.len()).sum();
    if !args.json {
        let kernels = outcomes.len();
        let verdict = if good { "all work" } else { "NOT all work" };
        screen::verdict(good, &format!("kernel matrix: {checks} checks on {kernels} kernels, {verdict}"));
    }
    if good { Ok(()) } else { bail!("the kernel matrix has failures") }
}

/// What became of one kernel, whatever became of it.
fn outcome(series: &str, kernel: &Result<Kernel>, cpus: u8) -> Outcome {
    let ran = match kernel {
        Ok(kernel) => initramfs::build(kernel).and_then(|initramfs| machine::run(kernel, &initramfs, cpus)),
        Err(error) => {
            return Outcome::lost(series, format!("the kernel could not be had: {error:#}"));
        }
    };
    match ran {
        Ok(printed) => Outcome::read(series, &printed),
        Err(error) => Outcome::lost(series, format!("{error:#}")),
    }
}
