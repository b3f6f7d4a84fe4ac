//! New device: a network card that was not on this network before. CIS Controls 1.3 and 13.9 (know what is on the
//! network); MITRE ATT&CK T1200 (hardware additions).
//!
//! **Method.** Link addresses that a maker assigned are remembered as they speak on the link (ARP, neighbour discovery,
//! DHCP). Those of the first `learn` are known; one after it is told, once. Addresses that devices make up are not
//! looked at: phones would be news every day.
//!
//! Also finds: everybody's new laptop; hence of low severity. A sensor that restarts learns anew; the devices
//! themselves are kept by the control plane, whose topic `devices` tells of every new one.
//!
//! **Counts** cards. **Memory**: 16,384 of them; of invented ones `most` are told in an hour.

use std::net::IpAddr;

use super::memory::{Memory, Told, nanoseconds};
use super::networks::contains;
use super::watch::Looker;
use super::{Detection, Evidence, Kind, Severity, Subject};
use crate::config::detect::NewDevice as Settings;
use crate::observe::{Mac, NdpKind, Observation, Seen};

const CARDS: usize = 16_384;
const HOUR_NS: i64 = 3_600 * 1_000_000_000;

pub(super) struct NewDevice {
    settings: Settings,
    /// When the first card was seen.
    began_ns: Option<i64>,
    known: Memory<Mac, bool>,
    hour_ns: i64,
    told: usize,
    found: Vec<Detection>,
    untold: u64,
}

impl NewDevice {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            began_ns: None,
            known: Memory::new(CARDS),
            hour_ns: 0,
            told: 0,
            found: Vec::new(),
            untold: 0,
        }
    }
}

impl Looker for NewDevice {
    fn observe(&mut self, observation: &Observation) {
        let (mac, address, host) = match &observation.seen {
            Seen::Arp(arp) => (Some(arp.sender), Some(IpAddr::from(arp.sender_ip)), None),
            Seen::Ndp(ndp) if ndp.kind == NdpKind::NeighbourAdvertisement => {
                (ndp.link_address, ndp.target.map(IpAddr::V6), None)
            }
            Seen::Dhcp4(message) if !message.reply => (message.client, None, message.hostname.as_deref()),
            _ => return,
        };
        if address.is_some_and(|address| contains(&self.settings.allow, address)) {
            return;
        }
        let assigned = |mac: &Mac| !(mac.is_zero() || mac.is_group() || mac.is_locally_administered());
        let Some(mac) = mac.filter(assigned) else { return };
        let at_ns = observation.time_ns;
        let began_ns = *self.began_ns.get_or_insert(at_ns);
        let known = std::mem::replace(self.known.entry(mac), true);
        if known || at_ns.saturating_sub(began_ns) < nanoseconds(self.settings.learn.0) {
            return;
        }
        if at_ns.saturating_sub(self.hour_ns) >= HOUR_NS {
            (self.hour_ns, self.told) = (at_ns, 0);
        }
        if self.told >= self.settings.most {
            self.untold += 1;
            return;
        }
        self.told += 1;
        let told = Told { first_ns: at_ns, last_ns: at_ns, count: 1 };
        let evidence = Evidence::default().with_all("address", address).with_all("host", host);
        self.found.push(Detection::new(Kind::NewDevice, Severity::Low, Subject::Card(mac), told, evidence));
    }

    fn take(&mut self) -> Vec<Detection> {
        std::mem::take(&mut self.found)
    }

    fn kind(&self) -> Kind {
        Kind::NewDevice
    }

    fn forgotten(&self) -> u64 {
        self.known.forgotten() + self.untold
    }
}
