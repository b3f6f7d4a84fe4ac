//! Who learns of the link from what packets say: of its devices, and of what is wrong on it.
//!
//! Shown observations by the witness thread; asked by the merge at the end of each epoch. Neither holds a lock for long.

use std::sync::{Arc, Mutex, MutexGuard};

use super::{Sighting, Witness};
use tokio::sync::watch;

use crate::config::{Config, Detect};
use crate::detect::{Detection, Watch};
use crate::device::{Device, SharedDevices, VendorsError};
use crate::flow::Record;
use crate::metrics::Metrics;
use crate::threat::Known;

/// Two hold it: the thread, as a [`Witness`], and the merge.
#[derive(Clone)]
pub struct Onlooker {
    /// Absent where the operator wants none.
    devices: Option<SharedDevices>,
    watch: Arc<Mutex<Watch>>,
}

impl Onlooker {
    /// Reads the registry of vendors. `lists`: what threat lists say of names, where there are any.
    pub fn new(config: &Config, lists: Option<watch::Receiver<Arc<Known>>>) -> Result<Self, VendorsError> {
        let devices = config.devices.enabled.then(|| SharedDevices::new(&config.devices)).transpose()?;
        let watch = Watch::new(&config.detect).with_lists(lists);
        Ok(Self { devices, watch: Arc::new(Mutex::new(watch)) })
    }

    /// Takes other parameters of detectors.
    pub fn retune(&self, detect: &Detect) {
        self.watch().retune(detect);
    }

    /// What is to be told at the end of an epoch with these records.
    pub fn epoch(&self, records: &[Record], end_ns: i64, metrics: &Metrics) -> (Vec<Device>, Vec<Detection>) {
        let devices = self.devices.as_ref().map(|devices| {
            let told = devices.epoch(records, end_ns);
            metrics.devices(&devices.lock());
            told
        });
        let mut watch = self.watch();
        metrics.watched(&watch);
        (devices.unwrap_or_default(), watch.take())
    }

    /// Who panicked under the lock left something half done: what was remembered is forgotten.
    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(|poisoned| {
            let mut watch = poisoned.into_inner();
            watch.begin_anew();
            self.watch.clear_poison();
            watch
        })
    }
}

impl Witness for Onlooker {
    fn name(&self) -> &'static str {
        "devices"
    }

    fn observe(&mut self, sighting: &Sighting<'_>) {
        if let Some(devices) = &self.devices {
            devices.observe(sighting.observation);
        }
        self.watch().observe(sighting.observation);
    }

    fn begin_anew(&mut self) {
        if let Some(devices) = &self.devices {
            devices.lock().clear();
        }
        self.watch().begin_anew();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Arp, Mac, Observation, Origin, Seen};
    use weir_wire::Direction;

    #[test]
    fn what_the_thread_is_shown_is_told_at_the_end_of_the_epoch() {
        let onlooker = Onlooker::new(&Config::default(), None).expect("the registry reads");
        let mut thread: Box<dyn Witness> = Box::new(onlooker.clone());
        let metrics = Metrics::new().expect("the metrics");
        let interface: Arc<str> = "eth0".into();
        let mut shown = |seconds: i64, last: u8| {
            let message = Arp {
                operation: 2,
                sender: Mac([0xb0, 0xc5, 0x54, 1, 2, last]),
                sender_ip: [10, 0, 0, 1].into(),
                target: Mac([0; 6]),
                target_ip: [10, 0, 0, 2].into(),
            };
            let time_ns = seconds * 1_000_000_000;
            let observation = Observation { time_ns, origin: Origin::default(), seen: Seen::Arp(message) };
            let sighting = Sighting {
                observation: &observation,
                interface: &interface,
                ifindex: 2,
                direction: Direction::Ingress,
                exchange: None,
            };
            thread.observe(&sighting);
        };
        (0..6).for_each(|n| shown(n, (n % 2) as u8));
        let (devices, found) = onlooker.epoch(&[], 10_000_000_000, &metrics);
        assert_eq!((devices.len(), found.len()), (2, 1));
        let (devices, found) = onlooker.epoch(&[], 15_000_000_000, &metrics);
        assert_eq!((devices.len(), found.len()), (0, 0), "it was told");
        thread.begin_anew();
        let (devices, _) = onlooker.epoch(&[], 900_000_000_000, &metrics);
        assert_eq!(devices.len(), 0, "all is forgotten");
    }
}
