//! Devices: who is on the network, found without sending a packet.
//!
//! Called with every observation and with every epoch's records, by the daemon and by `replay`. [`Devices`] owns
//! the table of devices ([`book`]), the registry of vendors and what was told of each. What must stay true:
//!
//! - one record for each device where the evidence says that it is one, and two where it does not ([`identity`]);
//! - what is told of a device is all that is known of it, so that the control plane may join what it gets in any
//!   order and any number of times, and what got lost comes again;
//! - memory is bounded whatever arrives, and what is forgotten for want of room is counted;
//! - every text in it was cleaned by `observe` (I6).

mod book;
mod identity;
mod kinds;
mod shared;
mod sighting;
#[cfg(test)]
mod tests;
mod vendor;

use std::net::IpAddr;

use weir_wire::TcpState;

pub use book::{Device, Timed};
pub use identity::{Identifier, Worth};
pub use kinds::{ENOUGH, Evidence, Reasons, Signal, Type};
pub use shared::SharedDevices;
pub use sighting::NameSource;
pub use vendor::{Vendors, VendorsError};

use crate::config;
use crate::flow::Record;
use crate::observe::Observation;
use book::Book;

/// Everything that is known of the devices of this network.
#[derive(Debug)]
pub struct Devices {
    book: Book,
    vendors: Vendors,
    /// After so long an active device is told again, though nothing is new.
    refresh_ns: i64,
}

impl Devices {
    /// Reads the registry of vendors.
    pub fn new(settings: &config::Devices) -> Result<Self, VendorsError> {
        Ok(Self {
            book: Book::new(settings.max),
            vendors: Vendors::load(&settings.vendors)?,
            refresh_ns: i64::try_from(settings.refresh.0.as_nanos()).unwrap_or(i64::MAX),
        })
    }

    /// Takes in what was observed.
    pub fn observe(&mut self, observation: &Observation) {
        let Self { book, vendors, .. } = self;
        sighting::read(observation, &mut |sighting| {
            book.see(sighting, observation.time_ns, |mac| vendors.of(mac));
        });
    }

    /// Takes in who talked, and which services answered.
    pub fn flows(&mut self, records: &[Record]) {
        const TCP: u8 = 6;
        for record in records {
            let mut active = |address: IpAddr, packets: u64, service: Option<u16>| {
                let Some(device) = self.book.at_mut(address).filter(|_| packets > 0) else { return };
                device.last_ns = device.last_ns.max(record.last_ns);
                if let Some(port) = service {
                    device.news |= device.reasons.look(Signal::Port, &port.to_string(), record.last_ns);
                }
            };
            let key = &record.key;
            active(key.src, record.packets, None);
            let answers = key.protocol == TCP
                && matches!(record.tcp_state, TcpState::Established | TcpState::Closing | TcpState::Closed);
            active(key.dst, record.reverse_packets, answers.then_some(key.dst_port));
        }
    }

    /// What is to be told at this time, at most so many devices: those of which something is new, and then those
    /// that were told longest ago.
    pub fn take(&mut self, most: usize, now_ns: i64) -> Vec<Device> {
        let due_before = now_ns.saturating_sub(self.refresh_ns);
        let mut due: Vec<&mut Device> = self
            .book
            .devices_mut()
            .filter(|device| {
                device.news || device.told_ns.is_none_or(|told| told <= due_before && device.last_ns > told)
            })
            .collect();
        due.sort_by_key(|device| (!device.news, device.told_ns, device.first_ns));
        due.truncate(most);
        due.into_iter()
            .map(|device| {
                (device.news, device.told_ns) = (false, Some(now_ns));
                device.clone()
            })
            .collect()
    }

    /// All that are known.
    pub fn all(&self) -> impl Iterator<Item = &Device> {
        self.book.devices()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.book.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but what was counted.
    pub fn clear(&mut self) {
        self.book.clear();
    }

    /// Devices that were forgotten for want of room, ever.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.book.forgotten
    }

    /// Devices that turned out to be another one, ever.
    #[must_use]
    pub fn joined(&self) -> u64 {
        self.book.joined
    }
}
