//! What is known of the traffic of the last seconds, of batches as they are shipped; and the rows that are made of it.
//!
//! Bounded: of each epoch the largest flows are kept ([`FLOWS`]), totals are of all of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use ratatui::layout::Constraint;
use weir_wire::{Batch, Device, DeviceType, FactValue, Flow, NameSource, Severity};

use super::table::{Cell, Table, Unit};
use crate::device::ENOUGH;
use crate::flow::words::{endpoint, protocol};

/// Flows that are kept of an epoch.
const FLOWS: usize = 4_096;
/// Devices, and detections, that are remembered.
const REMEMBERED: usize = 2_048;

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    Flows,
    Talkers,
    Devices,
    Names,
    Detections,
}

impl Tab {
    pub const ALL: [Self; 5] = [Self::Flows, Self::Talkers, Self::Devices, Self::Names, Self::Detections];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Talkers => "talkers",
            Self::Devices => "devices",
            Self::Names => "names",
            Self::Detections => "detections",
        }
    }

    #[must_use]
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Flows => &["from", "to", "proto", "name", "traffic", "packets", "process"],
            Self::Talkers => &["address", "traffic", "sent", "received", "flows", "peers"],
            Self::Names => &["name", "learned from", "clients", "traffic", "flows"],
            Self::Devices => &["name", "type", "vendor", "addresses", "last seen"],
            Self::Detections => &["severity", "kind", "subject", "count", "last", "evidence"],
        }
    }

    /// Of its columns.
    pub(super) fn widths(self) -> Vec<Constraint> {
        let narrow = |least: u16| Constraint::Length(least);
        let wide = |least: u16| Constraint::Min(least);
        match self {
            Self::Flows => {
                vec![wide(21), wide(21), narrow(7), wide(24), narrow(12), narrow(9), narrow(16)]
            }
            Self::Talkers => vec![wide(39), narrow(12), narrow(12), narrow(12), narrow(7), narrow(7)],
            Self::Devices => vec![wide(20), narrow(16), wide(20), wide(30), narrow(10)],
            Self::Names => vec![wide(40), narrow(13), narrow(8), narrow(12), narrow(7)],
            Self::Detections => {
                vec![narrow(11), narrow(18), wide(36), narrow(8), narrow(8), wide(20)]
            }
        }
    }

    /// The column that is sorted by at first, the greatest first.
    #[must_use]
    pub fn first_order(self) -> usize {
        match self {
            Self::Flows | Self::Devices => 4,
            Self::Talkers => 1,
            Self::Names => 3,
            Self::Detections => 0,
        }
    }
}

/// A flow of an epoch.
struct Seen {
    key: Key,
    name: Option<(String, NameSource)>,
    process: String,
    packets: u64,
    octets: u64,
    /// To the initiator.
    reverse_octets: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    protocol: u32,
    src_port: u16,
    dst_port: u16,
}

#[derive(Default)]
struct Epoch {
    number: u64,
    start_ns: i64,
    end_ns: i64,
    flows: Vec<Seen>,
    totals: Totals,
}

/// Of everything, whether it is kept or not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    pub flows: u64,
    pub packets: u64,
    pub octets: u64,
    pub seconds: f64,
}

struct Found {
    severity: Severity,
    count: u64,
    last_ns: i64,
    evidence: String,
}

/// The last seconds.
pub struct View {
    /// How many nanoseconds of epochs are kept.
    span_ns: i64,
    epochs: VecDeque<Epoch>,
    devices: Vec<(Device, i64)>,
    detections: HashMap<(String, String), Found>,
}

impl View {
    #[must_use]
    pub fn new(span: std::time::Duration) -> Self {
        let span_ns = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        Self { span_ns, epochs: VecDeque::new(), devices: Vec::new(), detections: HashMap::new() }
    }

    /// Takes in a part of an epoch.
    pub fn add(&mut self, batch: Batch) {
        if self.epochs.back().is_none_or(|last| last.number != batch.epoch) {
            let (start_ns, end_ns) = (batch.window_start_ns, batch.window_end_ns);
            self.epochs.push_back(Epoch { number: batch.epoch, start_ns, end_ns, ..Epoch::default() });
        }
        let Some(epoch) = self.epochs.back_mut() else { return };
        for flow in &batch.flows {
            epoch.totals.flows += 1;
            epoch.totals.packets += flow.packets + flow.reverse_packets;
            epoch.totals.octets += flow.octets + flow.reverse_octets;
            epoch.flows.push(Seen::of(flow, &batch));
        }
        if epoch.flows.len() > FLOWS {
            epoch.flows.select_nth_unstable_by_key(FLOWS, |flow| {
                std::cmp::Reverse(flow.octets.saturating_add(flow.reverse_octets))
            });
            epoch.flows.truncate(FLOWS);
        }
        let oldest = epoch.end_ns.saturating_sub(self.span_ns);
        while self.epochs.front().is_some_and(|first| first.end_ns <= oldest) {
            self.epochs.pop_front();
        }
        for detection in &batch.detections {
            self.found(detection, batch.window_start_ns);
        }
        for device in batch.devices {
            self.met(device, batch.window_start_ns);
        }
    }

    fn found(&mut self, detection: &weir_wire::Detection, start_ns: i64) {
        let key = (detection.kind.clone(), detection.subject.clone());
        if self.detections.len() >= REMEMBERED && !self.detections.contains_key(&key) {
            return;
        }
        let evidence = detection.evidence.iter().filter_map(|fact| {
            let value = match fact.value.as_ref()? {
                FactValue::Number(number) => number.to_string(),
                FactValue::Text(text) => text.clone(),
                FactValue::Address(bytes) => address(bytes)?.to_string(),
            };
            Some(format!("{}={value}", fact.name))
        });
        let evidence = evidence.collect::<Vec<_>>().join(" ");
        let found = self.detections.entry(key).or_insert(Found {
            severity: detection.severity(),
            count: 0,
            last_ns: 0,
            evidence: String::new(),
        });
        found.severity = found.severity.max(detection.severity());
        found.count = found.count.saturating_add(detection.count);
        found.last_ns = found.last_ns.max(start_ns.saturating_add(detection.last_ns));
        if !evidence.is_empty() {
            found.evidence = evidence;
        }
    }

    /// What is told of a device is all that is known of it: it stands for what was told before of any of its keys.
    fn met(&mut self, device: Device, start_ns: i64) {
        let keys: HashSet<_> = device.keys.iter().map(|key| (&key.source, &key.value)).collect();
        self.devices
            .retain(|(known, _)| !known.keys.iter().any(|key| keys.contains(&(&key.source, &key.value))));
        if self.devices.len() < REMEMBERED {
            let last_ns = start_ns.saturating_add(device.last_ns);
            self.devices.push((device, last_ns));
        }
    }

    /// Of all epochs that are kept.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for epoch in &self.epochs {
            sum.flows += epoch.totals.flows;
            sum.packets += epoch.totals.packets;
            sum.octets += epoch.totals.octets;
            sum.seconds += epoch.end_ns.saturating_sub(epoch.start_ns) as f64 / 1e9;
        }
        sum
    }

    /// The rows of a tab, in no order.
    #[must_use]
    pub fn table(&self, tab: Tab) -> Table {
        match tab {
            Tab::Flows => self.flows(),
            Tab::Talkers => self.talkers(),
            Tab::Devices => self.devices(),
            Tab::Names => self.names(),
            Tab::Detections => self.detections(),
        }
    }

    fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.epochs.iter().flat_map(|epoch| &epoch.flows)
    }

    /// Of so many octets, and of so many events, the rate.
    fn rates(&self) -> (impl Fn(u64) -> Cell, impl Fn(u64) -> Cell) {
        let seconds = self.totals().seconds.max(0.001);
        let bits = move |octets: u64| Cell::Number(octets as f64 * 8.0 / seconds, Unit::BitRate);
        let events = move |events: u64| Cell::Number(events as f64 / seconds, Unit::Rate);
        (bits, events)
    }

    fn flows(&self) -> Table {
        let mut sums: HashMap<Key, (u64, u64, &Seen)> = HashMap::new();
        for flow in self.seen() {
            let sum = sums.entry(flow.key).or_insert((0, 0, flow));
            sum.0 += flow.octets + flow.reverse_octets;
            sum.1 += flow.packets;
            if sum.2.name.is_none() {
                sum.2 = flow;
            }
        }
        let (bits, rate) = self.rates();
        let row = |(key, (octets, packets, flow)): (Key, (u64, u64, &Seen))| {
            let name = flow.name.as_ref().map_or("", |(name, _)| name);
            vec![
                Cell::text(&endpoint(key.src, key.src_port)),
                Cell::text(&endpoint(key.dst, key.dst_port)),
                Cell::text(&protocol(key.protocol)),
                Cell::text(name),
                bits(octets),
                rate(packets),
                Cell::text(&flow.process),
            ]
        };
        Table { columns: Tab::Flows.columns(), rows: sums.into_iter().map(row).collect() }
    }

    fn talkers(&self) -> Table {
        #[derive(Default)]
        struct Talker {
            sent: u64,
            received: u64,
            flows: HashSet<Key>,
            peers: HashSet<IpAddr>,
        }
        let mut talkers: HashMap<IpAddr, Talker> = HashMap::new();
        for flow in self.seen() {
            let sides = [
                (flow.key.src, flow.key.dst, flow.octets, flow.reverse_octets),
                (flow.key.dst, flow.key.src, flow.reverse_octets, flow.octets),
            ];
            for (one, other, sent, received) in sides {
                let talker = talkers.entry(one).or_default();
                talker.sent += sent;
                talker.received += received;
                talker.flows.insert(flow.key);
                talker.peers.insert(other);
            }
        }
        let (bits, _) = self.rates();
        let row = |(address, talker): (IpAddr, Talker)| {
            vec![
                Cell::text(&address.to_string()),
                bits(talker.sent + talker.received),
                bits(talker.sent),
                bits(talker.received),
                Cell::Number(talker.flows.len() as f64, Unit::Count),
                Cell::Number(talker.peers.len() as f64, Unit::Count),
            ]
        };
        Table { columns: Tab::Talkers.columns(), rows: talkers.into_iter().map(row).collect() }
    }

    fn names(&self) -> Table {
        #[derive(Default)]
        struct Named {
            octets: u64,
            flows: HashSet<Key>,
            clients: HashSet<IpAddr>,
        }
        let mut names: HashMap<(&str, &'static str), Named> = HashMap::new();
        for flow in self.seen() {
            let Some((name, source)) = &flow.name else { continue };
            let named = names.entry((name, source.word())).or_default();
            named.octets += flow.octets + flow.reverse_octets;
            named.flows.insert(flow.key);
            named.clients.insert(flow.key.src);
        }
        let (bits, _) = self.rates();
        let row = |((name, source), named): ((&str, &'static str), Named)| {
            vec![
                Cell::text(name),
                Cell::text(source),
                Cell::Number(named.clients.len() as f64, Unit::Count),
                bits(named.octets),
                Cell::Number(named.flows.len() as f64, Unit::Count),
            ]
        };
        Table { columns: Tab::Names.columns(), rows: names.into_iter().map(row).collect() }
    }

    fn devices(&self) -> Table {
        let row = |(device, last_ns): &(Device, i64)| {
            // The newest of each: the sensor's own ranking of names travels in no batch.
            let name = device.names.iter().max_by_key(|name| name.last_ns).map_or("", |name| &name.value);
            let mut addresses: Vec<_> = device.addresses.iter().collect();
            addresses.sort_by_key(|address| std::cmp::Reverse(address.last_ns));
            let shown = addresses.iter().filter_map(|it| address(&it.address)).take(3);
            let shown: Vec<String> = shown.map(|address| address.to_string()).collect();
            vec![
                Cell::text(name),
                Cell::text(kind(device)),
                Cell::text(&device.vendor),
                Cell::text(&shown.join(" ")),
                Cell::text(&clock(*last_ns)),
            ]
        };
        Table { columns: Tab::Devices.columns(), rows: self.devices.iter().map(row).collect() }
    }

    fn detections(&self) -> Table {
        let row = |((kind, subject), found): (&(String, String), &Found)| {
            // Sorted by how bad it is, not by the word for it.
            let severity = format!("{} {}", found.severity as i32, found.severity.word());
            vec![
                Cell::text(&severity),
                Cell::text(kind),
                Cell::text(subject),
                Cell::Number(found.count as f64, Unit::Count),
                Cell::text(&clock(found.last_ns)),
                Cell::text(&found.evidence),
            ]
        };
        Table { columns: Tab::Detections.columns(), rows: self.detections.iter().map(row).collect() }
    }
}

impl Seen {
    fn of(flow: &Flow, batch: &Batch) -> Self {
        let name = (flow.name as usize).checked_sub(1).and_then(|at| batch.names.get(at));
        let process = |number: u32| (number as usize).checked_sub(1).and_then(|at| batch.processes.get(at));
        let process = process(flow.src_process).or_else(|| process(flow.dst_process));
        Self {
            key: Key {
                src: flow.src(),
                dst: flow.dst(),
                protocol: flow.protocol,
                src_port: flow.src_port as u16,
                dst_port: flow.dst_port as u16,
            },
            name: name.map(|name| (name.clone(), flow.name_source())),
            process: process.map(|process| process.name.clone()).unwrap_or_default(),
            packets: flow.packets + flow.reverse_packets,
            octets: flow.octets,
            reverse_octets: flow.reverse_octets,
        }
    }
}

/// The type with the most weight behind it, where that is enough.
fn kind(device: &Device) -> &'static str {
    let mut weights: HashMap<DeviceType, u32> = HashMap::new();
    for reason in &device.reasons {
        *weights.entry(reason.device_type()).or_default() += reason.weight;
    }
    let most = weights.into_iter().max_by_key(|(kind, weight)| (*weight, std::cmp::Reverse(*kind)));
    most.filter(|(_, weight)| *weight >= ENOUGH).map_or("", |(kind, _)| kind.word())
}

/// Of 4 or 16 octets.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Time of day, UTC.
fn clock(ns: i64) -> String {
    jiff::Timestamp::from_second(ns.div_euclid(1_000_000_000))
        .map_or_else(|_| ns.to_string(), |time| time.strftime("%H:%M:%S").to_string())
}

#[cfg(test)]
mod tests;
