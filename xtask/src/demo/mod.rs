//! `cargo xtask demo`: Weir end to end, on one machine, in a minute, leaving nothing.
//!
//! ```text
//! sender namespace --veth--> receiver namespace            host
//! tcpreplay                  sensor -> control plane <--veth-- you
//!                                          |
//!                                       Postgres
//! ```
//!
//! All of Weir lives in the receiver's namespace: its ports meet nothing of the host's, and only the
//! host reaches them, by a link of its own. With `--interface` there are no namespaces, and it watches an
//! interface of the host from the host.

mod report;
mod scene;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weir_testbed::netns::Counters;
use weir_testbed::traffic::Sent;
use weir_testbed::weir::Ledger;

use self::scene::{Scene, Weir};
use crate::interrupt::Interrupt;
use crate::{build, cargo, sample, screen};

#[derive(clap::Args)]
#[command(
    about = "Show Weir end to end: replay a capture, count it, keep it in Postgres, ask the API",
    after_help = "Examples:
  sudo -E cargo xtask demo                            the capture that comes with Weir
  sudo -E cargo xtask demo --pcap traffic.pcap        a capture of your own
  sudo -E cargo xtask demo --keep                     stay up until Ctrl-C, to try the API
  sudo -E cargo xtask demo --interface eth0 --seconds 60   live traffic

Needs root: it loads kernel programs and makes network namespaces. Exit status: 0 if every frame is
accounted for, 1 if not or if something failed."
)]
pub struct Args {
    /// Replay this capture (Ethernet, pcap or pcapng)
    #[arg(long, value_name = "FILE", conflicts_with = "interface")]
    pcap: Option<PathBuf>,
    /// Watch this interface of the host instead of a replay
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// How long to watch the interface
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "interface",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Stay up until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// How long the last epoch may take to arrive; a healthy system needs its epoch and a second.
const ARRIVES_WITHIN: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// What went over the wire, as two others count it.
struct Wire {
    sent: Sent,
    received: Counters,
}

pub fn run(args: &Args) -> Result<()> {
    weir_testbed::require_root("cargo xtask demo (kernel programs, network namespaces)")?;
    let interrupt = Interrupt::listen()?;
    let pcap = args.pcap.clone().unwrap_or_else(sample::path);
    if args.interface.is_none() {
        std::fs::metadata(&pcap).with_context(|| format!("read {}", pcap.display()))?;
    }
    build::programs(false)?;
    interrupt.check()?;

    let scene = match &args.interface {
        Some(interface) => Scene::host(interface),
        None => Scene::namespaces(args.pcap.is_some())?,
    };
    let mut weir = Weir::start(&scene, &cargo::programs(false), &interrupt)?;
    let wire = if args.interface.is_some() {
        screen::step(&format!("watching {} for {} s", scene.interface(), args.seconds));
        interrupt.sleep(Duration::from_secs(args.seconds));
        if !args.keep {
            weir.stop_sensor()?;
        }
        None
    } else {
        screen::step(&format!("replaying {}", pcap.display()));
        Some(scene.replay(&pcap, &interrupt)?)
    };
    let ledger = arrival(&weir, scene.interface(), wire.as_ref(), &interrupt)?;
    report::talkers(&weir)?;
    let good = report::ledger(&ledger, scene.interface(), wire.as_ref());
    report::addresses(&weir, args.keep);
    if args.keep {
        screen::step("up until Ctrl-C");
        interrupt.wait();
    }
    screen::step("cleaning up");
    drop(weir);
    drop(scene);
    if good { Ok(()) } else { bail!("the ledger does not add up") }
}

/// The ledger, once it shows all that was received; or as it is after [`ARRIVES_WITHIN`].
fn arrival(weir: &Weir, interface: &str, wire: Option<&Wire>, interrupt: &Interrupt) -> Result<Ledger> {
    screen::step("waiting until all of it is in Postgres");
    let began = Instant::now();
    let deadline = began + ARRIVES_WITHIN;
    loop {
        let ledger = weir.ledger()?;
        let seen = ledger.point(interface, "ingress").frames;
        let complete = wire.is_none_or(|wire| seen >= wire.received.rx_packets) && ledger.balanced;
        if complete {
            screen::detail(&format!("{} ms after the last frame", began.elapsed().as_millis()));
        }
        if complete || Instant::now() >= deadline {
            return Ok(ledger);
        }
        interrupt.check()?;
        interrupt.sleep(POLL);
    }
}
