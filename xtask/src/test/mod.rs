//! `cargo xtask test`: every test there is, and one verdict over all of them.
//!
//! Unit and property tests run first: they are quick and say best where a fault is. Then the integration
//! tests of every crate (kernel, Postgres, namespaces, end to end) in two lanes, then the examples in the docs,
//! then the datapath on other kernels. `--all` adds a bounded run of the fuzzers.

mod lanes;

use std::ops::Add;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{cargo, fuzz, kernels, screen, setup};

#[derive(clap::Args)]
#[command(
    about = "Run every test: unit, property, kernel, Postgres, end to end, docs, other kernels",
    after_help = "Examples:
  sudo -E cargo xtask test                  every test, and the kernel matrix
  sudo -E cargo xtask test --all            and every fuzz target for 20 seconds, as CI does
  sudo -E cargo xtask test --filter ingest  the tests whose name holds `ingest`
  sudo -E cargo xtask test --faults         the fault test alone, in its bounded form
  sudo -E cargo xtask test --faults --rounds 200 --seed 7

Needs root: the kernel tests load programs and the end-to-end tests make network namespaces. No test is
skipped for the lack of anything."
)]
pub struct Args {
    /// Only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Fuzz as well, for 20 seconds a target
    #[arg(long, conflicts_with = "filter")]
    all: bool,
    /// Only the fault test: the whole chain under traffic while everything breaks
    #[arg(long, conflicts_with_all = ["filter", "all"])]
    faults: bool,
    /// With --faults: how many rounds
    #[arg(long, value_name = "N", requires = "faults")]
    rounds: Option<u32>,
    /// With --faults: where randomness starts; printed by each run
    #[arg(long, value_name = "N", requires = "faults")]
    seed: Option<u64>,
}

/// Sums of the `test result:` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

pub fn run(args: &Args) -> Result<()> {
    weir_testbed::require_root("cargo xtask test (kernel programs, network namespaces)")?;
    setup::ensure()?;
    if args.faults {
        return faults(args);
    }
    screen::step("building everything and its tests");
    // At once and with the features that the phases below use, so that none of them compiles again.
    cargo::run(cargo::cargo().args(["test", "--workspace", "--no-run"]))?;
    let began = Instant::now();
    let mut total = Counts::default();
    let mut failed = Vec::new();
    let [busy, waiting] = lanes::lanes()?;
    let of = |lane: &[String]| test(args, lane.iter().flat_map(|name| ["--test", name]));
    let phases = [
        ("unit and property tests", vec![test(args, ["--lib", "--bins"])]),
        ("kernel, Postgres and end-to-end tests", vec![of(&busy), of(&waiting)]),
        ("examples in the docs", vec![test(args, ["--doc"])]),
    ];
    for (name, commands) in phases {
        screen::step(name);
        let (counts, good) = lanes::run(commands)?;
        total = total + counts;
        if !good {
            failed.push(name);
        }
    }
    if total.passed + total.failed == 0 {
        bail!(
            "no test ran{}",
            args.filter.as_ref().map(|f| format!(": no name holds `{f}`")).unwrap_or_default()
        );
    }
    if args.filter.is_none() {
        failed.extend(also("kernel matrix", || kernels::run(&kernels::Args::standard())));
    }
    if args.all {
        failed.extend(also("fuzzing", || fuzz::run(&fuzz::Args::bounded())));
    }
    println!();
    for name in &failed {
        println!("failed: {name}");
    }
    let Counts { passed, failed: failures, ignored } = total;
    screen::verdict(
        failed.is_empty(),
        &format!(
            "test result: {}. {passed} passed; {failures} failed; {ignored} ignored; 0 measured; \
             0 filtered out; finished in {:.2}s",
            if failed.is_empty() { "ok" } else { "FAILED" },
            began.elapsed().as_secs_f64()
        ),
    );
    if failed.is_empty() { Ok(()) } else { bail!("tests failed") }
}

/// Runs what is not cargo's; its name, if it failed.
fn also(name: &'static str, run: impl FnOnce() -> Result<()>) -> Option<&'static str> {
    screen::step(name);
    let error = run().err()?;
    screen::failure(&error);
    Some(name)
}

/// The fault test, which takes its length and its seed from the environment.
fn faults(args: &Args) -> Result<()> {
    screen::step("the fault test");
    let mut test = cargo::end_to_end("faults")?;
    test.envs(args.rounds.map(|rounds| ("WEIR_FAULT_ROUNDS", rounds.to_string())));
    test.envs(args.seed.map(|seed| ("WEIR_FAULT_SEED", seed.to_string())));
    cargo::run(&mut test)
}

/// Runs these of all tests.
fn test<'a>(args: &'a Args, which: impl IntoIterator<Item = &'a str>) -> Command {
    let mut test = cargo::cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]).args(which).args(args.filter.as_deref());
    test
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

impl Counts {
    /// Takes a line; whether it told the results of a test program.
    fn read(&mut self, line: &str) -> bool {
        let Some((_, results)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return false;
        };
        for result in results.split("; ") {
            let Some((number, what)) = result.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 9 filtered out; finished in 1.92s",
            "test a_name ... ok",
        ] {
            counts.read(line);
        }
        assert_eq!(counts, Counts { passed: 5, failed: 1, ignored: 4 });
    }
}
