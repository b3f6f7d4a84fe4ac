//! Devices between the thread that learns of them and the merge, which tells what is known.
//!
//! What must stay true: neither holds the lock for long, and a panic under it costs what was known of devices, not the
//! sensor.

use std::sync::{Arc, Mutex, MutexGuard};

use super::{Device, Devices, VendorsError};
use crate::config;
use crate::flow::Record;
use crate::observe::Observation;

/// Records that are looked at before the other side has its turn.
const AT_ONCE: usize = 256;

/// Two or more hold it.
#[derive(Clone, Debug)]
pub struct SharedDevices(Arc<Mutex<Devices>>);

impl SharedDevices {
    /// Reads the registry of vendors.
    pub fn new(settings: &config::Devices) -> Result<Self, VendorsError> {
        Ok(Self(Arc::new(Mutex::new(Devices::new(settings)?))))
    }

    pub fn observe(&self, observation: &Observation) {
        self.lock().observe(observation);
    }

    /// Takes in an epoch's records; what is to be told at its end.
    #[must_use]
    pub fn epoch(&self, records: &[Record], end_ns: i64) -> Vec<Device> {
        for records in records.chunks(AT_ONCE) {
            self.lock().flows(records);
        }
        self.lock().take(weir_wire::limits::MAX_DEVICES, end_ns)
    }

    /// Who panicked under the lock left something half learned: all is forgotten, and learned again.
    pub fn lock(&self) -> MutexGuard<'_, Devices> {
        self.0.lock().unwrap_or_else(|poisoned| {
            let mut devices = poisoned.into_inner();
            devices.clear();
            self.0.clear_poison();
            devices
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::observe::{Arp, Mac, Origin, Seen};

    #[test]
    fn a_panic_under_the_lock_costs_what_was_known_and_no_more() {
        let shared = SharedDevices::new(&config::Devices::default()).expect("the registry reads");
        let message = Arp {
            operation: 1,
            sender: Mac([0xb0, 0xc5, 0x54, 1, 2, 3]),
            sender_ip: [10, 0, 0, 5].into(),
            target: Mac([0; 6]),
            target_ip: [10, 0, 0, 1].into(),
        };
        let seen = Observation { time_ns: 1, origin: Origin::default(), seen: Seen::Arp(message) };
        shared.observe(&seen);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _devices = shared.lock();
            panic!("half done");
        }));
        assert!(panicked.is_err());
        assert_eq!(shared.lock().len(), 0);
        shared.observe(&seen);
        assert_eq!(shared.epoch(&[], 5).len(), 1);
    }
}
