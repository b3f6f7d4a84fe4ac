//! `weir-sensor ledger`

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::access::Access;
use super::render::time;
use super::run::Configuration;
use super::{EXIT_FAILED, EXIT_INPUT};
use crate::spool::{Ledger, Range};

const EXAMPLES: &str = "Examples:
  weir-sensor ledger
      everything that the ledger remembers
  weir-sensor ledger --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z --json

Exit code 0: it adds up. 1: a frame has no verdict, a packet no fate, or an epoch is missing.";

/// What this sensor has seen, and what became of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// Epochs that began at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<jiff::Timestamp>,
    /// Epochs that began before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<jiff::Timestamp>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match arguments.configuration.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    let ns = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let range = Range { from_ns: arguments.from.map(ns), to_ns: arguments.to.map(ns) };
    let ledger = Access::open(config.spool.settings())?.ledger(range)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &ledger)?;
        writeln!(out)?;
    } else {
        print(&ledger, &mut out).context("write the ledger")?;
    }
    Ok(if ledger.adds_up { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn print(ledger: &Ledger, out: &mut impl Write) -> std::io::Result<()> {
    let window = match (ledger.first_ns, ledger.last_ns) {
        (Some(first), Some(last)) => format!("{} to {}", time(first), time(last)),
        _ => "none".to_owned(),
    };
    writeln!(out, "{} epochs, {window}\n", ledger.epochs)?;
    let mut line = |depth: usize, name: &str, packets: u64| {
        writeln!(
            out,
            "{:indent$}{name:<width$} {packets:>16}",
            "",
            indent = 2 * depth,
            width = 40 - 2 * depth
        )
    };
    line(0, "frames", ledger.frames)?;
    line(1, "in flows", ledger.in_flows)?;
    line(2, "crossing (seen at a further point)", ledger.crossing)?;
    line(2, "spooled", ledger.spooled)?;
    line(3, "shipped", ledger.shipped)?;
    line(3, "acknowledged as duplicate", ledger.duplicate)?;
    line(3, "waiting", ledger.waiting)?;
    line(3, "quarantined", ledger.quarantined)?;
    for (reason, packets) in &ledger.dropped {
        line(3, &format!("dropped: {reason}"), *packets)?;
    }
    line(3, "lost without a name", ledger.lost)?;
    line(1, "overflow", ledger.overflow)?;
    line(1, "non-IP", ledger.non_ip)?;
    line(1, "malformed", ledger.malformed)?;
    line(1, "filtered", ledger.filtered)?;
    writeln!(out)?;
    for gap in &ledger.gaps {
        writeln!(out, "gap: epochs {} to {} of tables {}", gap.first, gap.last, gap.generation)?;
    }
    if ledger.damaged_records > 0 {
        writeln!(out, "{} records are damaged", ledger.damaged_records)?;
    }
    let verdict = if ledger.adds_up { "it adds up" } else { "IT DOES NOT ADD UP" };
    writeln!(out, "{verdict}; {} epochs are missing", ledger.missing_epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_sum() {
        let ledger = Ledger {
            frames: 100,
            in_flows: 90,
            crossing: 10,
            spooled: 80,
            shipped: 50,
            dropped: [("spool_bytes".to_owned(), 30)].into(),
            non_ip: 10,
            missing_epochs: 3,
            ..Ledger::default()
        };
        let mut out = Vec::new();
        print(&ledger, &mut out).expect("a Vec takes everything");
        let text = String::from_utf8(out).expect("UTF-8");
        for (name, packets) in [("frames", "100"), ("dropped: spool_bytes", "30"), ("shipped", "50")] {
            assert!(
                text.lines().any(|line| line.trim().starts_with(name) && line.ends_with(packets)),
                "{name} in {text}"
            );
        }
        assert!(text.ends_with("IT DOES NOT ADD UP; 3 epochs are missing\n"), "{text}");
    }
}
