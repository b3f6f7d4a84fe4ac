//! Devices of a batch: bounded, and with names that can be shown (I6).
//!
//! Words are refused where they are not words; free text comes from packets of strangers, so it is cleaned.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_wire::{DeviceFact, DeviceType, limits};

use super::context::clean;
use super::detection::{address, is_word};
use super::validate::{COARSE_CLOCK_NS, Invalid, MAX_CONNECTION_NS, PACKET_TIME_TOLERANCE_NS, invalid};

/// A weight that no rule exceeds.
const MAX_WEIGHT: u32 = 1_000;

/// What a sensor knows of a device. Times are nanoseconds after the window's start.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// The first one is that the device was there.
    pub facts: Vec<Fact>,
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FactKind {
    Seen,
    Key,
    Address,
    Name,
    Reason,
    Vendor,
}

impl FactKind {
    /// As the database has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Key => "key",
            Self::Address => "address",
            Self::Name => "name",
            Self::Reason => "reason",
            Self::Vendor => "vendor",
        }
    }
}

/// One fact with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    pub kind: FactKind,
    /// The kind of a key, who told a name, the rule of a reason.
    pub source: String,
    /// The key, the address, the name, the type, the vendor.
    pub value: String,
    pub address: Option<IpAddr>,
    pub weight: Option<i32>,
    pub detail: Option<String>,
    pub first_ns: i64,
    pub last_ns: i64,
}

impl Device {
    /// What it is known by: kind and value.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.facts.iter().filter(|fact| fact.kind == FactKind::Key);
        keys.map(|fact| (fact.source.as_str(), fact.value.as_str()))
    }
}

/// Checks all devices of a batch whose window is so long.
pub(super) fn check(
    devices: Vec<weir_wire::Device>,
    part: u32,
    length_ns: i64,
) -> Result<Vec<Device>, Invalid> {
    if devices.len() > limits::MAX_DEVICES {
        return invalid("devices", format!("{} devices, more than {}", devices.len(), limits::MAX_DEVICES));
    }
    if part != 0 && !devices.is_empty() {
        return invalid("devices", "belong to part 0");
    }
    let mut keys = BTreeSet::new();
    let mut checked = Vec::with_capacity(devices.len());
    for (index, device) in devices.into_iter().enumerate() {
        let at = |(field, message): (String, String)| Invalid {
            field: format!("devices[{index}].{field}"),
            message,
        };
        let device = one(device, length_ns).map_err(at)?;
        for (kind, value) in device.keys() {
            if !keys.insert((kind.to_owned(), value.to_owned())) {
                return Err(at(("keys".to_owned(), format!("{kind} `{value}` stands twice in the batch"))));
            }
        }
        checked.push(device);
    }
    Ok(checked)
}

type Fault = (String, String);

fn one(device: weir_wire::Device, length_ns: i64) -> Result<Device, Fault> {
    for (field, found, most) in [
        ("keys", device.keys.len(), limits::MAX_DEVICE_KEYS),
        ("addresses", device.addresses.len(), limits::MAX_DEVICE_ADDRESSES),
        ("names", device.names.len(), limits::MAX_DEVICE_NAMES),
        ("reasons", device.reasons.len(), limits::MAX_DEVICE_REASONS),
    ] {
        if found > most {
            return Err((field.to_owned(), format!("{found} are more than {most}")));
        }
    }
    if device.keys.is_empty() {
        return Err(("keys".to_owned(), "a device is known by something".to_owned()));
    }
    let mut facts = Vec::new();
    let mut add = |field: String, mut fact: Fact| {
        let (first, last) = (fact.first_ns, fact.last_ns);
        let latest = length_ns.saturating_add(PACKET_TIME_TOLERANCE_NS);
        if first < -MAX_CONNECTION_NS || first > last.saturating_add(COARSE_CLOCK_NS) || last > latest {
            return Err((field, format!("{first} to {last} ns is no time of this window or before it")));
        }
        fact.first_ns = first.min(last);
        facts.push(fact);
        Ok(())
    };
    let times = (device.first_ns, device.last_ns);
    add("last_ns".to_owned(), fact(FactKind::Seen, "", String::new(), times))?;
    for (index, key) in device.keys.into_iter().enumerate() {
        add(format!("keys[{index}]"), named(FactKind::Key, &key, "keys", index, limits::MAX_DEVICE_KEY)?)?;
    }
    for (index, name) in device.names.into_iter().enumerate() {
        add(format!("names[{index}]"), named(FactKind::Name, &name, "names", index, limits::MAX_TEXT)?)?;
    }
    for (index, it) in device.addresses.into_iter().enumerate() {
        let Some(address) = address(&it.address) else {
            return Err((format!("addresses[{index}].address"), "has not 4 or 16 bytes".to_owned()));
        };
        let plain = fact(FactKind::Address, "", address.to_string(), (it.first_ns, it.last_ns));
        add(format!("addresses[{index}]"), Fact { address: Some(address), ..plain })?;
    }
    for (index, it) in device.reasons.into_iter().enumerate() {
        if !is_word(&it.rule) || it.weight > MAX_WEIGHT {
            return Err((format!("reasons[{index}]"), "has no word for a rule, or no weight".to_owned()));
        }
        // A type that a newer sensor knows says nothing here.
        let Ok(of) = DeviceType::try_from(it.device_type) else { continue };
        let plain = fact(FactKind::Reason, &it.rule, of.word().to_owned(), (it.first_ns, it.last_ns));
        let detail = Some(clean(&it.detail, limits::MAX_TEXT));
        add(format!("reasons[{index}]"), Fact { weight: Some(it.weight as i32), detail, ..plain })?;
    }
    let vendor = clean(&device.vendor, limits::MAX_ORGANISATION);
    if !vendor.is_empty() {
        add("vendor".to_owned(), fact(FactKind::Vendor, "", vendor, times))?;
    }
    // Cleaned, two may be one.
    let mut known = BTreeSet::new();
    facts.retain(|fact| known.insert((fact.kind, fact.source.clone(), fact.value.clone())));
    Ok(Device { facts })
}

fn fact(kind: FactKind, source: &str, value: String, (first_ns, last_ns): (i64, i64)) -> Fact {
    Fact {
        kind,
        source: source.to_owned(),
        value,
        address: None,
        weight: None,
        detail: None,
        first_ns,
        last_ns,
    }
}

fn named(kind: FactKind, it: &DeviceFact, field: &str, index: usize, most: usize) -> Result<Fact, Fault> {
    let value = clean(&it.value, most);
    if !is_word(&it.source) || value.trim().is_empty() {
        return Err((format!("{field}[{index}]"), "has no word for its source, or is empty".to_owned()));
    }
    Ok(fact(kind, &it.source, value, (it.first_ns, it.last_ns)))
}
