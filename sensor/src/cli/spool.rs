//! `weir-sensor spool`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::access::Access;
use super::export::Exported;
use super::render::{seconds, time};
use super::run::Configuration;
use super::{EXIT_FAILED, EXIT_INPUT};
use crate::spool::list::State;
use crate::spool::{Listed, Standing};

const EXAMPLES: &str = "Examples:
  weir-sensor spool ls
      what waits in /var/lib/weir-sensor, oldest first
  weir-sensor spool stat --config /etc/weir/sensor.toml --json | jq .bytes
  weir-sensor spool export > flows.ndjson
      every batch that is in the spool, decoded, one JSON object a line
  weir-sensor spool export --raw backup/
      every batch as it is sent (zstd of protobuf), one file each
  weir-sensor spool quarantine ls
      what the control plane refused for good, and why
  weir-sensor spool quarantine retry 4711
  weir-sensor spool quarantine retry --all

A running sensor answers for its spool on a socket in spool.folder; without one the file is read.";

/// What waits for delivery, on disk.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the batches in the spool, oldest first
    Ls(Show),
    /// Sums and bounds
    Stat(Show),
    /// Write out the batches that are in the spool; they stay there
    Export(Export),
    /// What the control plane refused for good
    #[command(subcommand)]
    Quarantine(Quarantine),
}

#[derive(Debug, Subcommand)]
enum Quarantine {
    /// List the refused batches and what the control plane said
    Ls(Show),
    /// Let refused batches wait for delivery again
    Retry(Retry),
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    configuration: Configuration,
    /// Print JSON: one object, or one a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    configuration: Configuration,
    /// Write each batch as it is sent into this folder, instead of NDJSON to standard output
    #[arg(long, value_name = "FOLDER")]
    raw: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Retry {
    #[command(flatten)]
    configuration: Configuration,
    /// Numbers of batches, as `ls` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "NUMBER")]
    numbers: Vec<u64>,
    /// All of the quarantine
    #[arg(long)]
    all: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let configuration = match &arguments.command {
        Command::Ls(Show { configuration, .. })
        | Command::Stat(Show { configuration, .. })
        | Command::Export(Export { configuration, .. })
        | Command::Quarantine(
            Quarantine::Ls(Show { configuration, .. }) | Quarantine::Retry(Retry { configuration, .. }),
        ) => configuration,
    };
    let config = match configuration.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("weir-sensor: {error}");
            return Ok(ExitCode::from(EXIT_INPUT));
        }
    };
    let access = Access::open(config.spool.settings())?;
    let mut out = std::io::stdout().lock();
    match &arguments.command {
        Command::Ls(show) => list(&access, show.json, false, &mut out)?,
        Command::Quarantine(Quarantine::Ls(show)) => list(&access, show.json, true, &mut out)?,
        Command::Stat(show) => stat(&access, show.json, &mut out)?,
        Command::Export(Export { raw: Some(folder), .. }) => return raw(&access, folder),
        Command::Export(Export { raw: None, .. }) => return export(&access, &mut out),
        Command::Quarantine(Quarantine::Retry(retry)) => {
            let numbers = (!retry.all).then(|| retry.numbers.clone());
            let asked = numbers.as_ref().map(Vec::len);
            let moved = access.retry(numbers)?;
            writeln!(out, "{moved} batches wait for delivery again")?;
            if asked.is_some_and(|asked| asked as u64 != moved) {
                eprintln!("weir-sensor: the other numbers are not in the quarantine");
                return Ok(ExitCode::from(EXIT_FAILED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(access: &Access, json: bool, quarantine: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if !json {
        writeln!(
            out,
            "{:>8}  {:<11} {:<8} {:>10} {:>4}  {:<20} {:>8} {:>10} {:>9} {:>8}  why",
            "number", "state", "tables", "epoch", "part", "window", "records", "packets", "bytes", "age"
        )?;
    }
    access.each(|batch| {
        if quarantine && batch.state != State::Quarantined {
            return Ok(());
        }
        if json {
            serde_json::to_writer(&mut *out, &batch)?;
            return Ok(writeln!(out)?);
        }
        row(&batch, out).context("write the list")
    })
}

fn row(batch: &Listed, out: &mut impl Write) -> std::io::Result<()> {
    let state = match batch.state {
        State::Waiting => "waiting",
        State::Tombstone => "tombstone",
        State::Quarantined => "quarantined",
        State::Damaged => "damaged",
    };
    let why = match (&batch.refused, &batch.dropped) {
        (Some(refused), _) => format!("{} {}", refused.status, refused.detail),
        (None, Some(dropped)) => dropped.clone(),
        (None, None) => String::new(),
    };
    // Enough of it to tell generations apart.
    let tables: String = batch.generation.simple().to_string().chars().take(8).collect();
    writeln!(
        out,
        "{:>8}  {state:<11} {tables:<8} {:>10} {:>4}  {:<20} {:>8} {:>10} {:>9} {:>8}  {why}",
        batch.number,
        batch.epoch,
        batch.part,
        time(batch.window_start_ns),
        batch.records,
        batch.packets,
        batch.bytes,
        seconds(batch.age_seconds),
    )
}

fn stat(access: &Access, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let standing = access.standing()?;
    if json {
        serde_json::to_writer(&mut *out, &standing)?;
        return Ok(writeln!(out)?);
    }
    let Standing { batches, bytes, capacity_bytes, tombstones, oldest_age, epochs, .. } = &standing;
    writeln!(out, "folder       {}", access.folder().display())?;
    writeln!(out, "waiting      {batches} batches, {tombstones} of them without flows")?;
    writeln!(out, "bytes        {bytes} of {capacity_bytes}")?;
    writeln!(out, "oldest       {}", seconds(oldest_age.as_secs_f64()))?;
    writeln!(
        out,
        "quarantine   {} batches, {} bytes, {} packets",
        standing.quarantined_batches, standing.quarantined_bytes, standing.quarantined_packets
    )?;
    writeln!(out, "ledger       {epochs} epochs")?;
    if let Some(reason) = &standing.degraded {
        writeln!(out, "DEGRADED     {reason}; {} batches in memory only", standing.held_batches)?;
    }
    Ok(())
}

fn export(access: &Access, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut damaged = 0;
    access.each(|listed| {
        let batch = access.body(listed.number)?.and_then(|body| weir_wire::decode(&body).ok());
        let Some(batch) = batch else {
            damaged += 1;
            return Ok(());
        };
        serde_json::to_writer(&mut *out, &Exported::of(&listed, &batch))?;
        Ok(writeln!(out)?)
    })?;
    Ok(told(damaged))
}

fn raw(access: &Access, folder: &Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let (mut damaged, mut written) = (0, 0_u64);
    access.each(|Listed { number, generation, epoch, part, .. }| {
        let Some(body) = access.body(number)? else {
            damaged += 1;
            return Ok(());
        };
        let path = folder.join(name(generation, epoch, part));
        std::fs::write(&path, body).with_context(|| format!("write {}", path.display()))?;
        written += 1;
        Ok(())
    })?;
    eprintln!("weir-sensor: {written} batches in {}", folder.display());
    Ok(told(damaged))
}

fn name(generation: Uuid, epoch: u64, part: u32) -> String {
    format!("{}-{epoch:012}-{part:05}.pb.zst", generation.simple())
}

fn told(damaged: u64) -> ExitCode {
    if damaged == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("weir-sensor: {damaged} batches were delivered meanwhile or are not what was stored");
    ExitCode::from(EXIT_FAILED)
}
