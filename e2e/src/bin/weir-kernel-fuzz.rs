//! Mutated frames through the kernel programs and through the host's parser until the time is over, or
//! until the two differ: `cargo xtask fuzz kernel`. Needs root.
//!
//! `weir-kernel-fuzz --seconds N --artifacts FOLDER [--seed N]`
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weir_e2e::differential::{Mutator, WAYS, compare, seeds, shrink};

/// Frames for each load of a program. Their link stacks, most of them unlike, must have numbers.
const BATCH: usize = 12_000;

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let (mut seconds, mut seed, mut artifacts) = (60, rand::random(), PathBuf::from("."));
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} wants a value"))?;
        let number = || value.parse::<u64>().with_context(|| format!("{name} wants a number, not {value}"));
        match name.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = number()?,
            "--artifacts" => artifacts = PathBuf::from(&value),
            _ => bail!("{name} is not known: --seconds, --seed, --artifacts"),
        }
    }
    println!("seed {seed}");
    let mut mutator = Mutator::new(seed, seeds()?);
    let began = Instant::now();
    let mut executions = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        for way in WAYS {
            let frames = mutator.frames(BATCH, way.link);
            executions += frames.len() as u64;
            if let Some(found) = compare(way, &frames)? {
                let found = shrink(found)?;
                std::fs::create_dir_all(&artifacts).context("make the folder of artefacts")?;
                let kept = artifacts.join(format!("kernel-{seed}-{executions}.txt"));
                std::fs::write(&kept, format!("{found:#02x?}\n")).context("keep the frame")?;
                println!("the kernel and the host differ: {:?}", found.way);
                for frame in found.frames.iter().take(3) {
                    println!("  frame:  {frame:02x?}");
                }
                println!("  kernel: {:?}\n  host:   {:?}", found.kernel, found.host);
                println!("  kept in {}", kept.display());
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let rate = executions as f64 / began.elapsed().as_secs_f64();
    println!("{executions} executions, {rate:.0} a second, no difference");
    Ok(ExitCode::SUCCESS)
}
