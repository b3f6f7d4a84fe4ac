//! `[events]`: which packets are read for names and devices, and what is remembered of them.
//!
//! What a packet is chosen by is told in `docs/architecture.md`, what is kept of it in `docs/enrichment.md`.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{Bytes, Period};
use super::validate::Check;
use crate::enrich::names::Limits;
use crate::kernel;

/// Packets whose bytes are read, for names and devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    pub enabled: bool,
    pub classes: Vec<EventClass>,
    /// For each class on each CPU.
    pub per_second: u32,
    pub burst: u32,
    /// Octets of a frame.
    pub snap_octets: u32,
    /// Packets of a flow, in each direction and epoch, that are looked at for TLS, QUIC, HTTP, and DNS over TCP.
    pub packets: u32,
    /// What was handed over and waits to be read.
    pub queue: Bytes,
    pub names: Names,
}

/// What is remembered to name flows; the least recently used goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Names {
    /// Clients that looked names up.
    pub clients: u32,
    /// Addresses of one client.
    pub addresses: u32,
    /// Names of all clients.
    pub looked_up: Bytes,
    /// Flows that carried a name.
    pub flows: u32,
    /// Names of all such flows.
    pub carried: Bytes,
    /// Questions that wait for an answer.
    pub questions: u32,
    /// How long they wait.
    pub timeout: Period,
    /// Different names that flows are given in a day (UTC).
    pub per_day: u32,
}

/// What is read of packets, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventClass(pub kernel::EventClass);

impl Serialize for EventClass {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for EventClass {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let known = kernel::EventClass::ALL.into_iter().find(|class| class.name() == name);
        known.map(Self).ok_or_else(|| {
            let names = kernel::EventClass::ALL.map(kernel::EventClass::name).join(", ");
            serde::de::Error::custom(format!("{name:?} is no class of events; there are {names}"))
        })
    }
}

impl Default for Events {
    fn default() -> Self {
        let kernel::EventSettings { classes, per_second, burst, snap_octets, packets } =
            kernel::EventSettings::default();
        Self {
            enabled: true,
            classes: classes.into_iter().map(EventClass).collect(),
            per_second,
            burst,
            snap_octets,
            packets,
            queue: Bytes(8 << 20),
            names: Names::default(),
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            clients: limits.clients.get() as u32,
            addresses: limits.addresses.get() as u32,
            looked_up: Bytes(limits.octets as u64),
            flows: limits.flows.get() as u32,
            carried: Bytes(limits.flow_octets as u64),
            questions: limits.questions.get() as u32,
            timeout: Period(Duration::from_nanos(limits.timeout_ns as u64)),
            per_day: 200_000,
        }
    }
}

impl Names {
    /// As the names of flows take them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let number = |number: u32| NonZeroUsize::new(number as usize).unwrap_or(NonZeroUsize::MIN);
        Limits {
            clients: number(self.clients),
            addresses: number(self.addresses),
            octets: self.looked_up.0 as usize,
            flows: number(self.flows),
            flow_octets: self.carried.0 as usize,
            questions: number(self.questions),
            timeout_ns: i64::try_from(self.timeout.0.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

impl Events {
    /// As the kernel side takes them.
    #[must_use]
    pub fn settings(&self) -> kernel::EventSettings {
        let &Self { enabled, ref classes, per_second, burst, snap_octets, packets, .. } = self;
        let classes = if enabled { classes.iter().map(|class| class.0).collect() } else { Vec::new() };
        kernel::EventSettings { classes, per_second, burst, snap_octets, packets }
    }

    /// Notes everything that is out of bounds.
    pub(super) fn problems(&self, check: &mut Check<'_>) {
        let mut seen = Vec::new();
        for class in &self.classes {
            check.that(!seen.contains(class), "events.classes", || {
                format!("names {} a second time", class.0.name())
            });
            seen.push(*class);
        }
        check.that(!(self.enabled && self.classes.is_empty()), "events.classes", || {
            "is empty; name what is to be read, or set events.enabled = false".to_owned()
        });
        let names = &self.names;
        for (key, value, least, most) in [
            ("events.per_second", self.per_second, 1, 1_000_000),
            ("events.burst", self.burst, 1, 1_000_000),
            ("events.snap_octets", self.snap_octets, 128, kernel::MAX_SNAP_OCTETS),
            ("events.packets", self.packets, 1, 1_000_000),
            ("events.names.clients", names.clients, 1, 1 << 20),
            ("events.names.addresses", names.addresses, 1, 1 << 20),
            ("events.names.flows", names.flows, 1, 1 << 24),
            ("events.names.questions", names.questions, 1, 1 << 20),
            ("events.names.per_day", names.per_day, 1, 1 << 24),
        ] {
            check.that((least..=most).contains(&value), key, || {
                format!("is {value}; {least} to {most} are allowed")
            });
        }
        for (key, value) in [
            ("events.queue", self.queue),
            ("events.names.looked_up", names.looked_up),
            ("events.names.carried", names.carried),
        ] {
            check.that((64 << 10..=4 << 30).contains(&value.0), key, || {
                format!("is {} bytes; 64KiB to 4GiB are allowed", value.0)
            });
        }
        let (least, most) = (Duration::from_millis(100), Duration::from_mins(5));
        check.period("events.names.timeout", names.timeout, least, most);
    }
}
