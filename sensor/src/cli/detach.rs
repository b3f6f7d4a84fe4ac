//! `weir-sensor detach`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::EXIT_INPUT;
use super::run::Configuration;
use crate::kernel::pins::{self, Pinning, Removed};

const EXAMPLES: &str = "Examples:
  weir-sensor detach
      takes the programs of /sys/fs/bpf/weir/main off their interfaces and removes their tables
  weir-sensor detach --config /etc/weir/sensor.toml --json | jq .undrained_packets
      the pins that this configuration names

A sensor that is stopped or killed leaves its programs counting, for the next one to take over. This ends
that. Stop the sensor first: while it runs, this is refused. With nothing pinned there is nothing to do, and
the exit code is 0. Needs the same privileges as `run` (CAP_BPF, CAP_NET_ADMIN, or root).";

/// Ends the counting that outlived a sensor.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    folder: String,
    hooks: &'a [String],
    generations: usize,
    undrained_packets: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match arguments.configuration.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    // Also with pins off: what they name may be there from before.
    let pinning = Pinning::new(&config.pins.folder, &config.pins.name);
    let removed = pins::remove(&pinning)?;
    let mut out = std::io::stdout().lock();
    let folder = pinning.path().display().to_string();
    print(&folder, &removed, arguments.json, &mut out).context("write what was removed")?;
    Ok(ExitCode::SUCCESS)
}

fn print(folder: &str, removed: &Removed, json: bool, out: &mut impl Write) -> std::io::Result<()> {
    let Removed { hooks, generations, undrained_packets } = removed;
    if json {
        let line = Line {
            folder: folder.to_owned(),
            hooks,
            generations: *generations,
            undrained_packets: *undrained_packets,
        };
        serde_json::to_writer(&mut *out, &line)?;
        return writeln!(out);
    }
    if removed.is_nothing() {
        return writeln!(out, "nothing is pinned in {folder}");
    }
    for hook in hooks {
        writeln!(out, "detached  {hook}")?;
    }
    writeln!(out, "removed   {generations} generation(s) of tables in {folder}")?;
    match undrained_packets {
        Some(packets) => writeln!(
            out,
            "lost      at most {packets} packets that were counted and not drained (none of those that the \
             spool holds)"
        ),
        None => writeln!(out, "lost      an unknown number of packets: these tables cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(removed: &Removed, json: bool) -> String {
        let mut out = Vec::new();
        print("/sys/fs/bpf/weir/main", removed, json, &mut out).expect("a Vec takes everything");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn what_was_removed_is_told_with_what_it_cost() {
        let removed = Removed {
            hooks: vec!["eth0 (index 7) ingress, xdp native".to_owned()],
            generations: 1,
            undrained_packets: Some(42),
        };
        let text = printed(&removed, false);
        assert!(text.contains("eth0 (index 7)") && text.contains("at most 42 packets"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&printed(&removed, true)).expect("JSON");
        assert_eq!(json["undrained_packets"], 42);
        assert_eq!(printed(&Removed::default(), false), "nothing is pinned in /sys/fs/bpf/weir/main\n");
    }
}
