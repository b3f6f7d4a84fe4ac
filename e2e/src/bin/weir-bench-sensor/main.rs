//! `cargo xtask bench sensor`: what a whole sensor costs its host while new flows arrive at a fixed rate, with all that
//! it can read of them, beside one that only counts; and what it holds under floods of names, cards and addresses.
//!
//! The sensor, its kernel programs, the control plane and Postgres are the real ones, in namespaces of the bench's own.
//! Every case ends with the ledger: a figure of a run that lost a packet without a name for it is none.

mod process;
mod traffic;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::json;
use weir_e2e::hosts::{Host, introduce};
use weir_e2e::{Site, wire};
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::scratch::Scratch;
use weir_testbed::traffic::Replay;
use weir_testbed::weir::{Sensor, Watch};

use process::{Clock, Cores, Peak};
use traffic::Kind;

const SENDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A service at the other end, for connections of the sensor's own host.
const SERVICE: u16 = 7_000;
/// Between two connections of the sensor's own host.
const LOCAL_EVERY: Duration = Duration::from_millis(5);
/// A capture is so long; it is sent again and again. Its flows have ended for long when they come again.
const CAPTURE_S: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);
const EPOCH: Duration = Duration::from_secs(5);
/// Addresses on the bench's threat list.
const LISTED: u32 = 100_000;

#[derive(Parser)]
#[command(
    version,
    about = "Measures a whole sensor at a fixed rate of new flows",
    after_help = "Examples:\n  weir-bench-sensor\n  weir-bench-sensor --flows 20000 --seconds 120 --json"
)]
struct Cli {
    /// New flows a second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    flows: u32,
    /// For so long in each case, in whole captures of 20 s
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(20..=3_600))]
    seconds: u32,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A sensor's settings, and what is sent to it.
struct Case {
    name: &'static str,
    traffic: Kind,
    settings: String,
}

/// What came of it.
struct Figures {
    packets_per_s: f64,
    cores: Cores,
    peak: Peak,
    drains: u64,
    early_drains: u64,
    /// Mean wait for what packets say, before an epoch's flows are named.
    wait_ms: f64,
    late: u64,
    chosen: u64,
    refused: u64,
    named: u64,
    forgotten: u64,
    overflow: u64,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let folder = Scratch::new("bench-sensor")?;
    let list = folder.path().join("listed");
    let addresses: Vec<String> =
        (0..LISTED).map(|number| Ipv4Addr::from_bits(0xc612_0000 + number * 7).to_string()).collect();
    fs::write(&list, addresses.join("\n")).with_context(|| format!("write {}", list.display()))?;
    let all = everything(&list, folder.path());
    let nothing = format!(
        "{TABLES}[events]\nenabled = false\n[devices]\nenabled = false\n[detect]\nenabled = false\n\
         [processes]\nenabled = false\n"
    );
    let cases = [
        ("counts alone", Kind::Ordinary, &nothing),
        ("everything", Kind::Ordinary, &all),
        ("flood of names", Kind::Names, &all),
        ("flood of cards", Kind::Cards, &all),
        ("flood of addresses", Kind::Addresses, &all),
    ]
    .map(|(name, traffic, settings)| Case { name, traffic, settings: settings.to_owned() });
    let site = Site::new()?;
    let ground = Ground::new(&site)?;
    let mut counts_alone = None;
    if !cli.json {
        println!(
            "{:<20} {:>9} {:>7} {:>7} {:>6} {:>8} {:>8} {:>7} {:>9} {:>5} {:>9} {:>9} {:>9} {:>10} {:>9}",
            "case",
            "packets/s",
            "user",
            "system",
            "ratio",
            "own MiB",
            "all MiB",
            "drains",
            "wait ms",
            "late",
            "events",
            "refused",
            "named",
            "forgotten",
            "overflow"
        );
    }
    for case in cases {
        let capture = folder.path().join("capture");
        case.traffic.write(cli.flows * CAPTURE_S, &capture)?;
        let figures = ground.measure(&site, &case, &cli, &capture)?;
        let busy = figures.cores.user + figures.cores.system;
        let ratio = busy / *counts_alone.get_or_insert(busy);
        print(&cli, &case, &figures, ratio);
    }
    Ok(())
}

fn print(cli: &Cli, case: &Case, figures: &Figures, ratio: f64) {
    let Figures { packets_per_s, cores, peak, drains, early_drains, wait_ms, late, .. } = figures;
    let Figures { chosen, refused, named, forgotten, overflow, .. } = figures;
    if cli.json {
        let line = json!({
            "bench": "sensor", "case": case.name, "flows_per_s": cli.flows, "packets_per_s": packets_per_s.round(),
            "user_cores": cores.user, "system_cores": cores.system, "ratio": ratio, "own_mib": peak.own, "resident_mib": peak.resident,
            "drains": drains, "early_drains": early_drains, "event_wait_ms": wait_ms, "events_late": late,
            "events_chosen": chosen, "events_refused": refused, "named_records": named,
            "names_forgotten": forgotten, "overflow_packets": overflow,
        });
        println!("{line}");
    } else {
        println!(
            "{:<20} {packets_per_s:>9.0} {:>7.3} {:>7.3} {ratio:>6.2} {:>8.1} {:>8.1} {drains:>4}+{early_drains:<2} \
             {wait_ms:>9.1} {late:>5} {chosen:>9} {refused:>9} {named:>9} {forgotten:>10} {overflow:>9}",
            case.name, cores.user, cores.system, peak.own, peak.resident,
        );
    }
}

/// Tables for twice the slots of an epoch, as at every such rate.
const TABLES: &str = "[tables]\nipv4_slots = 262144\n";

/// Settings with all that a sensor can read turned on, and budgets that refuse nothing of an ordinary load.
fn everything(list: &Path, folder: &Path) -> String {
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sensor/tests/data");
    format!(
        "{TABLES}[events]\nper_second = 100000\nburst = 50000\n\
         [places]\ndatabases = [\"{0}/GeoIP2-Country-Test.mmdb\", \"{0}/GeoLite2-ASN-Test.mmdb\"]\n\
         [threats]\nfolder = \"{1}\"\n[[threats.lists]]\nname = \"bench\"\nfile = \"{2}\"\n",
        places.display(),
        folder.join("lists").display(),
        list.display(),
    )
}

/// A wire, with the sensor's host at one end and the sender at the other.
struct Ground {
    sender: Namespace,
    host: Namespace,
}

impl Ground {
    fn new(site: &Site) -> Result<Self> {
        let sender = site.member("sender", 0)?;
        let host = site.member("host", 1)?;
        wire((&sender, "out"), (&host, "in"), Veth::default())?;
        introduce(
            Host { namespace: &sender, interface: "out", address: SENDER },
            Host { namespace: &host, interface: "in", address: HOST },
        )?;
        let service =
            sender.enter(|| TcpListener::bind((SENDER, SERVICE)))?.context("listen at the sender")?;
        // For as long as the bench runs.
        thread::spawn(move || service.incoming().for_each(drop));
        Ok(Self { sender, host })
    }

    fn measure(&self, site: &Site, case: &Case, cli: &Cli, capture: &Path) -> Result<Figures> {
        let watch =
            Watch { epoch: EPOCH, more: case.settings.clone(), ..Watch::interface("in", "native", "auto") };
        let name = case.name.replace(' ', "-");
        let mut sensor = site.sensor(&name, &watch, &self.host)?;
        site.ledger_when(&name, "the first epoch", |ledger| ledger.epochs > 0);
        let pid = sensor.process().id();
        let loops = cli.seconds.div_ceil(CAPTURE_S);
        let rate = case.traffic.frames(cli.flows);
        let replay = Replay { loops, pps: Some(rate), at_most_s: loops * CAPTURE_S * 3 };
        let before = Clock::read(pid)?;
        let began = Instant::now();
        let (sent, peak) =
            self.beside_local_connections(pid, || replay.send(&self.sender, "out", capture))?;
        let sent = sent?;
        let seconds = began.elapsed().as_secs_f64();
        let cores = Clock::read(pid)?.since(&before);
        let ledger = site.ledger_when(&name, "every frame", |ledger| {
            ledger.balanced && ledger.point("in", "ingress").frames >= sent.frames
        });
        if ledger.dropped_packets > 0 {
            bail!("{name}: the spool gave up {} packets", ledger.dropped_packets);
        }
        let metric = |name: &str| count(&sensor, name);
        let wait_ms = 1e3 * sum(&sensor, "event_wait_seconds_sum")?
            / sum(&sensor, "event_wait_seconds_count")?.max(1.0);
        let figures = Figures {
            packets_per_s: sent.frames as f64 / seconds,
            cores,
            peak,
            drains: metric("drains_total")?,
            early_drains: metric("early_drains_total")?,
            wait_ms,
            late: metric("events_late_total")?,
            chosen: metric("events_chosen_total")?,
            refused: metric("events_refused_total")?,
            named: metric("named_records_total")?,
            forgotten: metric("names_forgotten_total")?,
            overflow: ledger.total.overflow,
        };
        sensor.stop()?;
        Ok(figures)
    }

    /// Does `work` while programs of the sensor's host connect to the service at the other end; and what the sensor
    /// held meanwhile.
    fn beside_local_connections<T>(&self, sensor: u32, work: impl FnOnce() -> T) -> Result<(T, Peak)> {
        let over = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let (stop, stops) = (Arc::clone(&over), Arc::clone(&over));
            let local = scope.spawn(move || {
                self.host.enter(|| -> std::io::Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        drop(TcpStream::connect((SENDER, SERVICE))?);
                        thread::sleep(LOCAL_EVERY);
                    }
                    Ok(())
                })
            });
            let peak = scope.spawn(move || -> Result<Peak> {
                let mut peak = Peak::default();
                while !stops.load(Ordering::Relaxed) {
                    peak.look(sensor)?;
                    thread::sleep(LOOK_EVERY);
                }
                Ok(peak)
            });
            let worked = work();
            over.store(true, Ordering::Relaxed);
            let local = local.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            local?.context("connect from the sensor's host")?;
            let peak = peak.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((worked, peak))
        })
    }
}

/// The sum of a metric over its labels; 0 where there is none of that name.
fn sum(sensor: &Sensor, name: &str) -> Result<f64> {
    Ok(sensor.metric(&format!("weir_sensor_{name}"))?.unwrap_or_default())
}

fn count(sensor: &Sensor, name: &str) -> Result<u64> {
    Ok(sum(sensor, name)? as u64)
}
