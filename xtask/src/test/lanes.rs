//! Integration tests in two lanes at once: the control plane's keep the processor busy, those of the kernel and of the
//! whole system mostly wait for time to pass.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};

use super::Counts;
use crate::cargo;

/// Packages whose tests need no interface: the first lane.
const BUSY: [&str; 2] = ["weir-control-plane", "weirctl"];

/// The integration tests of the workspace, lane by lane. Each lane builds what all lanes build, so that nothing is
/// compiled for one and again for another: tests of one name are in one lane, whichever package has them.
pub fn lanes() -> Result<[Vec<String>; 2]> {
    let metadata =
        cargo::read(cargo::cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("read cargo's metadata")?;
    let (mut busy, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    for package in metadata["packages"].as_array().context("cargo tells packages")? {
        let lane = if BUSY.iter().any(|name| package["name"] == *name) { &mut busy } else { &mut waiting };
        for target in package["targets"].as_array().context("a package has targets")? {
            if target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")) {
                lane.insert(target["name"].as_str().context("a target has a name")?.to_owned());
            }
        }
    }
    let waiting = waiting.difference(&busy).cloned().collect();
    Ok([busy.into_iter().collect(), waiting])
}

/// Runs commands of cargo's at once; their results together, and whether all were good. What they print comes
/// test program by test program.
pub fn run(commands: Vec<Command>) -> Result<(Counts, bool)> {
    thread::scope(|scope| {
        let lanes: Vec<_> = commands.into_iter().map(|command| scope.spawn(|| follow(command))).collect();
        let mut sum = (Counts::default(), true);
        for lane in lanes {
            let (counts, good) = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            sum = (sum.0 + counts, sum.1 && good);
        }
        Ok(sum)
    })
}

fn follow(mut command: Command) -> Result<(Counts, bool)> {
    let (output, input) = std::io::pipe().context("make a pipe")?;
    command.stdout(input.try_clone().context("share a pipe")?).stderr(input);
    let mut child = command.spawn().context("start cargo test")?;
    // It holds the pipe's other end.
    drop(command);
    let (mut counts, mut block) = (Counts::default(), Vec::new());
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    // Tests print what they like: not always UTF-8.
    while lines.read_until(b'\n', &mut line).context("read what cargo test prints")? > 0 {
        block.extend_from_slice(&line);
        if counts.read(String::from_utf8_lossy(&line).trim_end()) {
            std::io::stdout().write_all(&std::mem::take(&mut block)).context("print")?;
        }
        line.clear();
    }
    std::io::stdout().write_all(&block).context("print")?;
    let status = child.wait().context("wait for cargo test")?;
    Ok((counts, status.success()))
}
