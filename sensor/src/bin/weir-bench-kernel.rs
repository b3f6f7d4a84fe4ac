//! `cargo xtask bench kernel` and `cargo xtask bench drain`: what the datapath costs, beside what a peer's
//! tables would cost, in the same minute.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;
use weir_sensor::kernel::{
    EventSettings, FilterAction, FilterRule, KernelError, KernelLog, ListedPrefix, Settings, TableSizes,
    bench::{Hook, Ip, Rig, Subject},
};

#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Examples:\n  weir-bench-kernel kernel\n  weir-bench-kernel kernel \
    --json --object peer.o --program count\n  weir-bench-kernel drain --flows 1000000"
)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Nanoseconds a packet above an empty program, by hook, IP version and number of flows.
    Kernel {
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
        /// A foreign BPF object to measure as well; only the hook of its program is run then.
        #[arg(long, requires = "program", value_name = "FILE")]
        object: Option<PathBuf>,
        /// The program of the foreign object.
        #[arg(long, requires = "object", value_name = "NAME")]
        program: Option<String>,
        /// Measurements of each figure; the median counts.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=101))]
        rounds: u32,
        /// Numbers of flows to measure, ascending powers of two.
        #[arg(long, value_delimiter = ',', default_values_t = FLOWS,
              value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
        flows: Vec<u32>,
        /// Packets of one measurement.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
        packets: u32,
        /// Octets of payload in each packet.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1400))]
        payload: u16,
    },
    /// What threat lists cost: to load, for a packet of a known flow, for the first packet of a flow.
    Lists {
        #[arg(long)]
        json: bool,
        /// Listed addresses.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
        entries: u32,
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=101))]
        rounds: u32,
    },
    /// Milliseconds that reading and zeroing a table of flows take.
    Drain {
        #[arg(long)]
        json: bool,
        /// Flows in the table.
        #[arg(long, default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
        flows: u32,
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=101))]
        rounds: u32,
    },
}

/// Flows that are measured.
const FLOWS: [u32; 4] = [1, 16_384, 131_072, 1_048_576];

fn main() -> ExitCode {
    // One CPU: its caches and its region of the tables.
    let mut cpus = CpuSet::new();
    if cpus.set(0).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus)).is_err() {
        eprintln!("weir-bench-kernel: cannot stay on one CPU; figures will scatter");
    }
    let result = match Arguments::parse().bench {
        Bench::Kernel { json, object, program, rounds, flows, packets, payload } => {
            kernel(json, object.zip(program).as_ref(), Load { rounds, packets, payload }, &flows)
        }
        Bench::Lists { json, entries, rounds } => lists(json, entries, rounds),
        Bench::Drain { json, flows, rounds } => drain(json, flows, rounds),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench-kernel: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Serialize)]
struct KernelRow {
    bench: &'static str,
    program: &'static str,
    ip: u8,
    flows: u32,
    payload: u16,
    ns_above_empty: i64,
    no_events_ns: i64,
    lru_percpu_hash_ns: i64,
    percpu_hash_ns: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign_ns: Option<i64>,
}

/// All features on: a rule that every new flow is asked about, kernel messages, events, every packet counted.
fn settings() -> Settings {
    Settings {
        filter: vec![FilterRule {
            action: FilterAction::Deny,
            cidr: Some((std::net::Ipv4Addr::new(198, 51, 100, 0).into(), 24)),
            ports: Some(1..=1),
            protocol: Some(17),
        }],
        log_level: KernelLog::Debug,
        ..Settings::default()
    }
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Load {
    rounds: u32,
    packets: u32,
    payload: u16,
}

fn kernel(
    json: bool,
    foreign: Option<&(PathBuf, String)>,
    load: Load,
    numbers: &[u32],
) -> Result<(), KernelError> {
    if !json {
        println!(
            "{:<5} {:>2} {:>9} {:>10} {:>10} {:>10} {:>10} {:>8}{}",
            "hook",
            "ip",
            "flows",
            "weir ns",
            "no events",
            "lru ns",
            "hash ns",
            "weir/lru",
            if foreign.is_some() { " foreign ns" } else { "" }
        );
    }
    for (hook, name) in [(Hook::Xdp, "xdp"), (Hook::Tc, "tc")] {
        for (ip, number) in [(Ip::V4, 4), (Ip::V6, 6)] {
            for &flows in numbers {
                // Tables as an operator sizes them: at half load, and never below the default.
                let slots = (2 * flows.next_power_of_two()).max(TableSizes::default().ipv4_slots);
                let rig = |settings: &Settings| Rig::with_payload(hook, ip, slots, load.payload, settings);
                // One after the other: the tables of both would not fit into every machine.
                let without = Settings { events: EventSettings::none(), ..settings() };
                let no_events_ns = median_above_empty(&mut rig(&without)?, Subject::Weir, flows, load)?;
                let mut rig = rig(&settings())?;
                if let Some((object, program)) = foreign
                    && let Err(error) = rig.foreign(object, program)
                {
                    eprintln!("weir-bench-kernel: {name}: {error}");
                    break;
                }
                let mut median = |subject| median_above_empty(&mut rig, subject, flows, load);
                let row = KernelRow {
                    bench: "kernel",
                    program: name,
                    ip: number,
                    flows,
                    payload: load.payload,
                    no_events_ns,
                    ns_above_empty: median(Subject::Weir)?,
                    lru_percpu_hash_ns: median(Subject::LruPerCpuHash)?,
                    percpu_hash_ns: median(Subject::PerCpuHash)?,
                    foreign_ns: foreign.map(|_| median(Subject::Foreign)).transpose()?,
                };
                print(&row, json);
            }
        }
    }
    Ok(())
}

/// The first measurement fills the tables and does not count.
fn median_above_empty(
    rig: &mut Rig,
    subject: Subject,
    flows: u32,
    Load { rounds, packets, .. }: Load,
) -> Result<i64, KernelError> {
    rig.measure(subject, flows, packets.max(flows.saturating_mul(8)))?;
    let mut above = (0..rounds)
        .map(|_| {
            let (with, without) = rig.measure(subject, flows, packets)?;
            Ok(with as i64 - without as i64)
        })
        .collect::<Result<Vec<_>, KernelError>>()?;
    Ok(median(&mut above))
}

fn print(row: &KernelRow, json: bool) {
    if json {
        print_json(row);
        return;
    }
    let ratio = row.ns_above_empty as f64 / row.lru_percpu_hash_ns.max(1) as f64;
    println!(
        "{:<5} {:>2} {:>9} {:>10} {:>10} {:>10} {:>10} {:>8.2}{}",
        row.program,
        row.ip,
        row.flows,
        row.ns_above_empty,
        row.no_events_ns,
        row.lru_percpu_hash_ns,
        row.percpu_hash_ns,
        ratio,
        row.foreign_ns.map_or(String::new(), |ns| format!(" {ns:>10}"))
    );
    let _ = std::io::stdout().flush();
}

#[derive(Serialize)]
struct ListsRow {
    bench: &'static str,
    ip: u8,
    lists: &'static str,
    /// To fill the trie and put it in its place.
    load_ms: f64,
    /// Above an empty program.
    known_flow_ns: i64,
    new_flow_ns: i64,
    /// The same of a peer's table, which has no lists.
    lru_known_flow_ns: i64,
}

/// What is loaded, and whether it is enforced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Nothing,
    Observe,
    /// Nothing of it is hit.
    Drop,
    /// Every packet is dropped.
    DropAll,
}

fn lists(json: bool, entries: u32, rounds: u32) -> Result<(), KernelError> {
    const FLOWS: u32 = 1 << 20;
    // Of a million flows picked at random, few are met a second time.
    const NEW: u32 = 1 << 17;
    for (ip, number) in [(Ip::V4, 4), (Ip::V6, 6)] {
        for (loaded, name) in [
            (Loaded::Nothing, "none"),
            (Loaded::Observe, "observe"),
            (Loaded::Drop, "drop, none hit"),
            (Loaded::DropAll, "drop, all hit"),
        ] {
            let mut rig = Rig::new(Hook::Xdp, ip, 2 * FLOWS, &Settings::default())?;
            let load = rig.install(&listed(ip, loaded, entries))?;
            rig.enforce_for(std::time::Duration::from_hours(1))?;
            let mut new = Vec::new();
            for _ in 0..rounds {
                let (with, without) = rig.measure(Subject::Weir, FLOWS, NEW)?;
                new.push(with as i64 - without as i64);
                rig.drain()?;
            }
            let amount = Load { rounds, packets: 1_000_000, payload: 0 };
            let known = median_above_empty(&mut rig, Subject::Weir, 1 << 17, amount)?;
            let lru = median_above_empty(&mut rig, Subject::LruPerCpuHash, 1 << 17, amount)?;
            let row = ListsRow {
                bench: "lists",
                ip: number,
                lists: name,
                load_ms: load.as_secs_f64() * 1e3,
                known_flow_ns: known,
                new_flow_ns: median(&mut new),
                lru_known_flow_ns: lru,
            };
            if json {
                print_json(&row);
            } else {
                println!(
                    "IPv{number} {name:<14} loaded in {:>7.0} ms; a packet of a known flow {known:>4} ns, of a \
                     new one {:>5} ns; LRU per-CPU hash {lru} ns",
                    row.load_ms, row.new_flow_ns
                );
            }
        }
    }
    Ok(())
}

/// Addresses as the generator's: it varies the last word of the source, in every order.
fn listed(ip: Ip, loaded: Loaded, entries: u32) -> Vec<ListedPrefix> {
    let drops = loaded != Loaded::Observe;
    let base = match ip {
        Ip::V4 => 0xffff << 32,
        Ip::V6 => u128::from_be_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    };
    let mut prefixes = match loaded {
        Loaded::Nothing => Vec::new(),
        Loaded::DropAll => vec![ListedPrefix { bits: base, length: 96, list: 1, drops }],
        // An odd last octet, which the generator's addresses do not have: beside every flow and none of them.
        Loaded::Observe | Loaded::Drop => (0..entries)
            .map(|place| {
                let bits = base | u128::from(place.wrapping_mul(0x9e37_79b1) | 1);
                ListedPrefix { bits, length: 128, list: 1, drops }
            })
            .collect(),
    };
    prefixes.sort_unstable_by_key(|prefix| prefix.bits);
    prefixes.dedup();
    prefixes
}

#[derive(Serialize)]
struct DrainRow {
    bench: &'static str,
    ip: u8,
    flows: usize,
    read_ms: f64,
    release_ms: f64,
    grace_ms: f64,
}

fn drain(json: bool, flows: u32, rounds: u32) -> Result<(), KernelError> {
    for (ip, number) in [(Ip::V4, 4), (Ip::V6, 6)] {
        let mut rig = Rig::new(Hook::Xdp, ip, 2 * flows.next_power_of_two(), &Settings::default())?;
        let (mut read, mut release, mut grace, mut found) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            rig.measure(Subject::Weir, flows, flows.saturating_mul(12))?;
            let (drained, zeroed) = rig.drain()?;
            found = drained.flows.len();
            read.push(drained.figures.read.as_micros() as i64);
            release.push(zeroed.as_micros() as i64);
            grace.push(drained.figures.grace.as_micros() as i64);
        }
        let ms = |values: &mut Vec<i64>| median(values) as f64 / 1000.0;
        let row = DrainRow {
            bench: "drain",
            ip: number,
            flows: found,
            read_ms: ms(&mut read),
            release_ms: ms(&mut release),
            grace_ms: ms(&mut grace),
        };
        if json {
            print_json(&row);
        } else {
            println!(
                "IPv{number}: {found} flows read in {:.1} ms, zeroed in {:.1} ms, grace period {:.1} ms \
                 (medians of {rounds})",
                row.read_ms, row.release_ms, row.grace_ms
            );
        }
    }
    Ok(())
}

fn print_json(row: &impl Serialize) {
    match serde_json::to_string(row) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("weir-bench-kernel: {error}"),
    }
}

fn median(values: &mut [i64]) -> i64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
