//! One run of one target.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::build::{folder, program};
use crate::{cargo, screen};

/// The target `kernel`.
pub const KERNEL: &str = "weir-kernel-fuzz";

/// An input that takes longer is a finding, seconds: a stranger could send it again and again.
const SLOW_INPUT_S: u32 = 20;
/// Longer inputs find nothing more.
const LARGEST_INPUT: u32 = 16 << 10;
/// Memory of a target; the sanitizer takes several times what it watches. MiB.
const MEMORY_MIB: u32 = 3072;
/// Lines of a target's last words.
const TAIL: usize = 30;

/// What became of a target.
#[derive(Debug)]
pub struct Ran {
    pub target: &'static str,
    pub good: bool,
    executions: u64,
    elapsed: Duration,
    /// The end of its log.
    pub told: String,
}

impl Ran {
    pub fn row(&self) -> Vec<String> {
        let rate = self.executions as f64 / self.elapsed.as_secs_f64().max(0.001);
        vec![
            self.target.to_owned(),
            screen::grouped(self.executions),
            screen::grouped(rate as u64),
            if self.good { "ok" } else { "BROKE" }.to_owned(),
        ]
    }
}

/// Runs a target for some time, or until it breaks.
pub fn run(target: &'static str, time: Duration, seed: Option<u32>) -> Result<Ran> {
    let artifacts = folder().join("artifacts").join(target);
    fs::create_dir_all(&artifacts).with_context(|| format!("make {}", artifacts.display()))?;
    let log = artifacts.join("log");
    let output = fs::File::create(&log).with_context(|| format!("make {}", log.display()))?;
    let mut command = if target == "kernel" {
        kernel(time, seed, &artifacts)
    } else {
        libfuzzer(target, time, seed, &artifacts)?
    };
    command.stdout(output.try_clone().context("share a log")?).stderr(output);
    let began = Instant::now();
    let status = command.status().with_context(|| format!("start the target {target}"))?;
    let said = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Ok(Ran {
        target,
        good: status.success(),
        executions: executions(&said).unwrap_or(0),
        elapsed: began.elapsed(),
        told: format!("{status}; kept in {}\n{tail}", artifacts.display()),
    })
}

fn kernel(time: Duration, seed: Option<u32>, artifacts: &Path) -> Command {
    let mut command = Command::new(cargo::programs(false).join(KERNEL));
    command.arg("--seconds").arg(time.as_secs().to_string()).arg("--artifacts").arg(artifacts);
    if let Some(seed) = seed {
        command.arg("--seed").arg(seed.to_string());
    }
    command
}

fn libfuzzer(target: &str, time: Duration, seed: Option<u32>, artifacts: &Path) -> Result<Command> {
    let corpus = folder().join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("make {}", corpus.display()))?;
    let mut command = Command::new(program(target));
    command
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-timeout={SLOW_INPUT_S}"))
        .arg(format!("-max_len={LARGEST_INPUT}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg("-print_final_stats=1")
        .args(seed.map(|seed| format!("-seed={seed}")))
        .arg(corpus);
    Ok(command)
}

/// What a target says that it executed: libFuzzer's last figure, or the kernel fuzzer's.
fn executions(said: &str) -> Option<u64> {
    let number = |text: &str| text.split_whitespace().next()?.parse().ok();
    said.lines().rev().find_map(|line| {
        if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
            return number(rest);
        }
        if line.contains(" executions, ") { number(line) } else { number(line.strip_prefix('#')?) }
    })
}

#[cfg(test)]
mod tests {
    use super::executions;

    #[test]
    fn executions_are_read_of_either_fuzzer() {
        assert_eq!(executions("#12\tINITED cov: 3\n#4096\tpulse  cov: 5\n"), Some(4096));
        assert_eq!(executions("Done\nstat::number_of_executed_units: 88\nstat::average: 1\n"), Some(88));
        assert_eq!(executions("seed 7\n360000 executions, 21117 a second, no difference\n"), Some(360_000));
        assert_eq!(executions("seed 7\n"), None);
    }
}
