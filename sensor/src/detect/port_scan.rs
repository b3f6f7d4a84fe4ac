//! Port scan: one source tries many hosts or ports, most of them in vain. MITRE ATT&CK T1046.
//!
//! **Method.** After Jung et al., "Fast Portscan Detection Using Sequential Hypothesis Testing" (IEEE S&P
//! 2004): a scanner is told from a busy client by how often its first contacts fail. In place of their
//! likelihood ratio, which four failures in a row satisfy, different targets tried in vain are counted in a
//! window and must be `failed_percent` of all that were tried. Three windows run side by side:
//!
//! - *horizontal*: one source, one TCP port, `hosts` hosts in `window`;
//! - *vertical*: one source, one host, `ports` TCP ports (`udp_ports` UDP ports) in `window`;
//! - *slow*: one source, `slow_targets` pairs of host and port in `slow_window`.
//!
//! A TCP attempt failed if its initiator never sent an ACK (no answer, refused, or a half-open probe); packets
//! with no flag or FIN alone (NULL, FIN, Xmas scans) are attempts, too. A UDP attempt failed if nothing came
//! back; answers that a capture begins with, and traceroute's ports, do not count.
//!
//! **Counts** attempts of windows that reached their threshold. **Memory**: 4,096 entries for each of the
//! three, each as large as its threshold; a source that never fails has none.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use super::memory::{Burst, Distinct, Memory, Told};
use super::networks::{contains, unicast};
use super::{Attempt, Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::detect::PortScan as Settings;
use crate::flow::Record;

const ENTRIES: usize = 4_096;
const UDP: u8 = 17;
/// Where traceroute sends to.
const TRACEROUTE: std::ops::RangeInclusive<u16> = 33_434..=33_534;

pub(super) struct PortScan {
    settings: Settings,
    /// By source and port: hosts.
    horizontal: Fans<(IpAddr, u16), IpAddr>,
    /// By source, host and protocol: ports.
    vertical: Fans<(IpAddr, IpAddr, u8), u16>,
    /// By source: hosts and ports.
    slow: Fans<IpAddr, (IpAddr, u16)>,
}

/// What was tried, by who tried it.
struct Fans<K, T> {
    fans: Memory<K, Fan<T>>,
    /// Those with something to tell in this epoch.
    alight: Vec<K>,
}

struct Fan<T> {
    burst: Burst,
    vain: Distinct<T>,
    failed: u64,
    answered: u64,
}

impl<T> Default for Fan<T> {
    fn default() -> Self {
        Self { burst: Burst::default(), vain: Distinct::default(), failed: 0, answered: 0 }
    }
}

/// When is it a scan?
#[derive(Clone, Copy)]
struct Threshold {
    window: Duration,
    targets: usize,
    failed_percent: u32,
}

impl<K: Hash + Eq + Clone, T: Ord + Copy> Fans<K, T> {
    fn new() -> Self {
        Self { fans: Memory::new(ENTRIES), alight: Vec::new() }
    }

    /// A target was tried in vain; whether that is part of a scan.
    fn failed(&mut self, key: K, target: T, at_ns: i64, threshold: Threshold) -> bool {
        let fan = self.fans.entry(key.clone());
        fan.turn(at_ns, threshold.window);
        fan.burst.add(at_ns, 1);
        fan.failed += 1;
        let targets = fan.vain.add(target, threshold.targets);
        let share = 100 * fan.failed >= u64::from(threshold.failed_percent) * (fan.failed + fan.answered);
        if targets >= threshold.targets && share {
            fan.burst.kindle();
        }
        let alight = fan.burst.alight();
        if fan.burst.announces() {
            self.alight.push(key);
        }
        alight
    }

    /// A target answered: only of interest for those that others did not answer.
    fn answered(&mut self, key: &K, at_ns: i64, window: Duration) {
        if let Some(fan) = self.fans.get(key) {
            fan.turn(at_ns, window);
            fan.answered += 1;
        }
    }

    /// Everything that is to be told.
    fn take(&mut self) -> Vec<(K, Told, Vec<T>)> {
        let mut told = Vec::new();
        for key in std::mem::take(&mut self.alight) {
            if let Some(fan) = self.fans.get(&key)
                && let Some(burst) = fan.burst.take()
            {
                told.push((key, burst, fan.vain.values().to_vec()));
            }
        }
        told
    }
}

impl<T: Ord + Copy> Fan<T> {
    fn turn(&mut self, at_ns: i64, window: Duration) {
        if self.burst.turn(at_ns, window) {
            self.vain.clear();
            (self.failed, self.answered) = (0, 0);
        }
    }
}

impl PortScan {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, horizontal: Fans::new(), vertical: Fans::new(), slow: Fans::new() }
    }

    fn fast(&self, targets: usize) -> Threshold {
        Threshold { window: self.settings.window.0, targets, failed_percent: self.settings.failed_percent }
    }

    fn allowed(&self, src: IpAddr, dst: IpAddr) -> bool {
        contains(&self.settings.allow, src) || contains(&self.settings.allow, dst)
    }
}

impl Detector for PortScan {
    fn record(&mut self, record: &Record, _: &View<'_>) {
        let key = &record.key;
        let tried = key.protocol == UDP
            && record.start_ns == record.first_ns
            && record.reverse_packets == 0
            && !record.fragment
            && key.dst_port != 0
            // An answer whose question was not seen goes from a service's port to a higher one.
            && key.src_port > key.dst_port
            && !TRACEROUTE.contains(&key.dst_port);
        if tried && unicast(key.dst) && !self.allowed(key.src, key.dst) {
            let threshold = Threshold { failed_percent: 0, ..self.fast(self.settings.udp_ports) };
            self.vertical.failed((key.src, key.dst, UDP), key.dst_port, record.start_ns, threshold);
        }
    }

    fn attempt(&mut self, attempt: &Attempt, _: &View<'_>) {
        let Attempt { src, dst, port, at_ns, completed } = *attempt;
        if self.allowed(src, dst) {
            return;
        }
        let (across, down) = ((src, port), (src, dst, super::attempts::TCP));
        if completed {
            self.horizontal.answered(&across, at_ns, self.settings.window.0);
            self.vertical.answered(&down, at_ns, self.settings.window.0);
            self.slow.answered(&src, at_ns, self.settings.slow_window.0);
            return;
        }
        let (hosts, ports) = (self.fast(self.settings.hosts), self.fast(self.settings.ports));
        // Each attempt is told as part of one scan.
        let told = self.horizontal.failed(across, dst, at_ns, hosts);
        if !told && !self.vertical.failed(down, port, at_ns, ports) {
            let slow = Threshold {
                window: self.settings.slow_window.0,
                targets: self.settings.slow_targets,
                failed_percent: self.settings.failed_percent,
            };
            self.slow.failed(src, (dst, port), at_ns, slow);
        }
    }

    fn tell(&mut self, view: &View<'_>, found: &mut Vec<Detection>) {
        let mut tell = |src: IpAddr, told: Told, evidence: Evidence| {
            let severity = view.by_origin(src, Severity::High, Severity::Low);
            found.push(Detection::new(Kind::PortScan, severity, Subject::Address(src), told, evidence));
        };
        for ((src, port), told, hosts) in self.horizontal.take() {
            self.slow.fans.remove(&src);
            let evidence = Evidence::default().with("mode", "horizontal").with("port", port);
            tell(src, told, evidence.with_all("host", hosts));
        }
        for ((src, dst, protocol), told, ports) in self.vertical.take() {
            self.slow.fans.remove(&src);
            let evidence = Evidence::default()
                .with("mode", "vertical")
                .with("protocol", if protocol == UDP { "udp" } else { "tcp" })
                .with("host", dst);
            tell(src, told, evidence.with_all("port", ports));
        }
        for (src, told, targets) in self.slow.take() {
            let evidence = Evidence::default().with("mode", "slow");
            let evidence = evidence.with_all("host", targets.iter().map(|(host, _)| *host));
            tell(src, told, evidence.with_all("port", targets.iter().map(|(_, port)| *port)));
        }
    }

    fn kind(&self) -> Kind {
        Kind::PortScan
    }

    fn forgotten(&self) -> u64 {
        self.horizontal.fans.forgotten() + self.vertical.fans.forgotten() + self.slow.fans.forgotten()
    }
}
