//! Namespaces of the probe's own, the captures with their truth, and how a drain compares with it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weir_e2e::{Counted, Flows};
use weir_sensor::kernel::{Drained, EventSettings, Settings, TableSizes};
use weir_testbed::capture::Capture;
use weir_testbed::netns::{End, Namespace, Veth, ip};
use weir_testbed::process::Launch;
use weir_wire::{Direction, Totals};

/// The watched end of the wire, in the probe's own namespace, and the other end.
pub const NEAR: &str = "near";
pub const FAR: &str = "far";

pub struct Ground {
    pub kernel: String,
    /// Those that can be compared frame by frame, and what they hold together.
    pub captures: Vec<Capture>,
    pub truth: Flows,
    pub frames: u64,
    /// Where the other end of the wire is.
    pub peer: Namespace,
}

impl Ground {
    /// Leaves the caller's namespaces. Must come before any thread is started.
    pub fn new() -> Result<Self> {
        weir_testbed::require_root("the kernel probe (kernel programs, network namespaces)")?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("leave the namespaces")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
        // One that shows the interfaces of the new namespace.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mount /sys")?;
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).context("mount bpffs")?;
        for scope in ["all", "default", "lo"] {
            let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
            fs::write(&path, "1").with_context(|| format!("write {path}"))?;
        }
        ip(&["link", "set", "lo", "up"])?;
        let captures = weir_e2e::captures()?;
        let truth = weir_e2e::truth(&captures);
        ensure!(truth.len() > 100, "the captures hold {} flows, too few to show anything", truth.len());
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .context("read the kernel's release")?
                .trim()
                .to_owned(),
            frames: captures.iter().map(|capture| capture.truth.totals.frames).sum(),
            captures,
            truth,
            peer: Namespace::new("peer")?,
        })
    }

    /// A wire between [`NEAR`] and [`FAR`] without a stray frame on it.
    pub fn wire(&self) -> Result<Wire> {
        let ends =
            (End { namespace: None, interface: NEAR }, End { namespace: Some(&self.peer), interface: FAR });
        Veth::default().join(ends.0, ends.1)?;
        let wire = Wire(NEAR);
        let off = ["gro", "gso", "tso", "tx", "rx", "rxvlan", "txvlan"].map(|name| [name, "off"]);
        Launch::new("ethtool").args(["-K", NEAR]).args(off.iter().flatten()).run()?;
        Ok(wire)
    }

    /// Sends every capture out of an interface: [`NEAR`] in our namespace, [`FAR`] in the peer's.
    pub fn replay(&self, interface: &str) -> Result<()> {
        let launch = if interface == FAR { self.peer.launch("tcpreplay") } else { Launch::new("tcpreplay") };
        // Slow enough for an emulated machine; a veth has no queue of its own.
        let launch = launch.args(["--quiet", "--pps=4000", &format!("--intf1={interface}")]);
        let report = launch.args(self.captures.iter().map(|capture| &capture.pcap)).run()?;
        ensure!(report.contains("Failed packets:            0"), "frames were not sent: {report}");
        Ok(())
    }
}

/// An interface that goes with this.
pub struct Wire(pub &'static str);

impl Drop for Wire {
    fn drop(&mut self) {
        if let Err(error) = ip(&["link", "delete", self.0]) {
            eprintln!("delete {}: {error}", self.0);
        }
    }
}

/// Tables that hold the captures' flows, and load quickly.
pub fn settings() -> Settings {
    Settings {
        tables: TableSizes { ipv4_slots: 1 << 14, ipv6_slots: 1 << 11 },
        max_points: 8,
        ..Settings::default()
    }
}

/// The same without events, for what they have no part in: an emulated verifier takes twenty seconds for what hands
/// them over, and three for the rest.
pub fn counting() -> Settings {
    Settings { events: EventSettings::none(), ..settings() }
}

/// What was counted in one direction.
#[derive(Debug, Default)]
pub struct Tally {
    pub totals: Totals,
    pub flows: Flows,
}

impl Tally {
    /// Adds what one drain has of an interface and a direction.
    pub fn add(&mut self, drained: &Drained, interface: &str, direction: Direction) {
        for point in &drained.points {
            if point.interface != interface || point.direction != direction {
                continue;
            }
            self.totals += point.totals;
            for flow in drained.flows.iter().filter(|flow| flow.point == point.id) {
                let labels = |stack: &Vec<u32>| -> Vec<String> {
                    stack.iter().map(|header| weir_wire::link::label(*header).unwrap_or_default()).collect()
                };
                let link = (flow.link as usize).checked_sub(1).and_then(|index| drained.links.get(index));
                let key = &flow.key;
                let key = (
                    key.src.to_string(),
                    key.dst.to_string(),
                    key.protocol,
                    key.src_port,
                    key.dst_port,
                    link.map(labels).unwrap_or_default(),
                );
                *self.flows.entry(key).or_default() += Counted { packets: flow.packets, octets: flow.octets };
            }
        }
    }

    /// The same for what was sent several times.
    pub fn check_times(&self, truth: &Flows, frames: u64, times: u64) -> Result<()> {
        let of =
            |counted: &Counted| Counted { packets: counted.packets * times, octets: counted.octets * times };
        let truth = truth.iter().map(|(key, counted)| (key.clone(), of(counted))).collect();
        self.check(&truth, frames * times)
    }

    /// The ledger adds up, and the flows are those of the truth, packet by packet and octet by octet.
    pub fn check(&self, truth: &Flows, frames: u64) -> Result<()> {
        let totals = &self.totals;
        ensure!(totals.accounted() == totals.frames, "the ledger does not add up: {totals:?}");
        ensure!(totals.frames == frames, "{} frames instead of {frames}: {totals:?}", totals.frames);
        let wrong = |(key, counted): (&_, &Counted)| {
            let found = self.flows.get(key).copied().unwrap_or_default();
            (found != *counted).then(|| format!("{key:?}: {found:?} instead of {counted:?}"))
        };
        let differences: Vec<String> = truth.iter().filter_map(wrong).collect();
        if let Some(first) = differences.first() {
            anyhow::bail!("{} flows differ, the first is {first}; {totals:?}", differences.len());
        }
        let strange = self.flows.keys().find(|key| !truth.contains_key(*key));
        ensure!(strange.is_none(), "a flow that was not sent: {strange:?}");
        Ok(())
    }
}
