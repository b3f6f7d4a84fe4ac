//! What a batch may not say any more, since the device that it is about was erased meanwhile (I5).
//!
//! Flows stay, since every packet is counted: the device's end of them becomes the unspecified address, as it became
//! in what was stored before (`docs/decisions/0160-erasing-a-device.md`). Detections about it go. Facts about it are
//! cut where they are stored (`store::devices`), under the lock that says whose keys are whose.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use serde_json::Value;

use super::batch::Batch;
use super::device::{Device, FactKind};

/// What stands for an erased key or address in the evidence of others.
pub const ERASED: &str = "erased device";

/// What of a batch's words was an erased device's.
#[derive(Clone, Debug, Default)]
pub struct Erased {
    /// The last tombstone that was looked at; 0 if there is none.
    pub edition: i64,
    pub held: Vec<Held>,
}

/// A key or an address, and for how long it was an erased device's, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub word: String,
    pub from_us: i64,
    pub until_us: i64,
}

/// What was left out of a batch, and for which tombstones it was looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clipped {
    pub edition: i64,
    pub flows: u64,
    pub detections: u64,
}

/// What in a batch may be a key or an address of a device.
#[must_use]
pub fn words(batch: &Batch) -> Vec<String> {
    let addresses: HashSet<IpAddr> = batch.flows.iter().flat_map(|flow| [flow.src(), flow.dst()]).collect();
    let mut words: BTreeSet<String> = addresses.iter().map(ToString::to_string).collect();
    for detection in &batch.detections {
        words.extend(of_subject(&detection.subject).map(str::to_owned));
        words.extend(detection.address.map(|address| address.to_string()));
        words.extend(texts(detection.evidence.values()).map(str::to_owned));
    }
    words.into_iter().collect()
}

/// Takes out what is about an erased device. To do so again changes nothing.
pub fn clip(batch: &mut Batch, erased: &Erased) {
    batch.clipped.edition = erased.edition;
    let mut held: HashMap<&str, Vec<&Held>> = HashMap::new();
    for it in &erased.held {
        held.entry(&it.word).or_default().push(it);
    }
    let base_ns = batch.base_ns();
    let was = |held: Option<&Vec<&Held>>, (first_ns, last_ns): (i64, i64)| {
        let time = |ns: i64| base_ns.saturating_add(ns).div_euclid(1_000);
        let (first, last) = (time(first_ns.min(last_ns)), time(last_ns.max(first_ns)));
        held.is_some_and(|held| held.iter().any(|it| first <= it.until_us && last >= it.from_us))
    };
    let addresses: HashMap<IpAddr, &Vec<&Held>> =
        held.iter().filter_map(|(word, held)| Some((word.parse().ok()?, held))).collect();
    if !addresses.is_empty() {
        for flow in &mut batch.flows {
            let seen = (flow.first_ns, flow.last_ns);
            let [of_source, of_destination] =
                [flow.src(), flow.dst()].map(|address| was(addresses.get(&address).copied(), seen));
            if of_source {
                (flow.src_high, flow.src_low, flow.src_place, flow.src_process) = (0, 0, 0, 0);
            }
            if of_destination {
                (flow.dst_high, flow.dst_low, flow.dst_place, flow.dst_process) = (0, 0, 0, 0);
            }
            if of_source || of_destination {
                // Its own name, or what it asked for.
                (flow.name, flow.name_source) = (0, 0);
                batch.clipped.flows += 1;
            }
        }
        let used: HashSet<u32> = batch.flows.iter().map(|flow| flow.name).collect();
        for (name, number) in batch.context.names.iter_mut().zip(1..) {
            if !used.contains(&number) {
                name.clear();
            }
        }
    }
    let before = batch.detections.len();
    batch.detections.retain(|it| {
        let seen = (it.first_ns, it.last_ns);
        let address = it.address.map(|address| address.to_string());
        !of_subject(&it.subject).chain(address.as_deref()).any(|word| was(held.get(word), seen))
    });
    batch.clipped.detections += (before - batch.detections.len()) as u64;
    for detection in &mut batch.detections {
        let seen = (detection.first_ns, detection.last_ns);
        for value in detection.evidence.values_mut().filter_map(Value::as_array_mut).flatten() {
            if value.as_str().is_some_and(|text| was(held.get(text), seen)) {
                *value = ERASED.into();
            }
        }
    }
}

/// What is to be kept of told devices, some of whose keys were erased ones' until a time in microseconds; and how many
/// facts are not.
pub fn clip_devices(batch: &Batch, erased: &BTreeMap<String, i64>) -> (Vec<Device>, u64) {
    let mut clipped = 0;
    let mut kept = Vec::with_capacity(batch.devices.len());
    for device in &batch.devices {
        let Some(at_us) = device.keys().filter_map(|(_, value)| erased.get(value)).max() else {
            kept.push(device.clone());
            continue;
        };
        // Since then, by the batch's times.
        let since_ns = at_us.saturating_add(1).saturating_mul(1_000).saturating_sub(batch.base_ns());
        let mut facts = device.facts.clone();
        facts.retain(|fact| fact.last_ns >= since_ns);
        for fact in &mut facts {
            fact.first_ns = fact.first_ns.max(since_ns);
        }
        let is = |kind| facts.iter().any(|fact| fact.kind == kind);
        if !is(FactKind::Seen) || !is(FactKind::Key) {
            facts.clear();
        }
        clipped += (device.facts.len() - facts.len()) as u64;
        if !facts.is_empty() {
            kept.push(Device { facts });
        }
    }
    (kept, clipped)
}

/// A subject's addresses and link addresses: `10.0.0.1 > 192.0.2.1:53`, `2001:db8::1 > [2001:db8::2]:53`.
fn of_subject(subject: &str) -> impl Iterator<Item = &str> {
    subject.split(|char: char| char.is_whitespace() || "[]>".contains(char)).flat_map(|word| {
        let without_port = word.rsplit_once(':').map(|(host, _)| host).filter(|host| host.contains('.'));
        [Some(word), without_port].into_iter().flatten().filter(|word| !word.is_empty())
    })
}

fn texts<'a>(values: impl Iterator<Item = &'a Value>) -> impl Iterator<Item = &'a str> {
    values.filter_map(Value::as_array).flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_subject_are_what_a_device_may_be_known_by() {
        let of = |subject| of_subject(subject).collect::<Vec<_>>();
        assert_eq!(of("10.0.0.66"), ["10.0.0.66"]);
        assert_eq!(of("10.0.0.66 > 192.0.2.1:53"), ["10.0.0.66", "192.0.2.1:53", "192.0.2.1"]);
        assert_eq!(of("2001:db8::1 > [2001:db8::2]:53"), ["2001:db8::1", "2001:db8::2", ":53"]);
        assert_eq!(of("02:01:01:01:01:01"), ["02:01:01:01:01:01"]);
    }
}
