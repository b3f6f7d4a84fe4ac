//! Proof that an attached program sees packets: the interface's own counters beside the program's.
//!
//! A program can be attached and blind: shadowed by one that ends the chain before it, or on a device that
//! delivers past it. Called by the drain task with the totals of every epoch.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use weir_wire::Direction;

use crate::kernel::PointTotals;
use crate::metrics::{Metrics, direction};

/// Packets that an interface must have moved before its program is suspected: a few may be counted on
/// either side of a flip, or be such that no program sees them.
const SUSPICIOUS: u64 = 16;
/// Epochs in a row.
const STRIKES: u32 = 2;

/// Watches every observation point.
pub struct Proof {
    /// `/sys/class/net`, but in tests.
    root: PathBuf,
    /// Where a program is attached: the other direction of an interface has a point, too, and is not blind
    /// but off.
    attached: HashSet<(String, Direction)>,
    points: HashMap<u16, Watched>,
}

#[derive(Default)]
struct Watched {
    counter: Option<u64>,
    strikes: u32,
    seen: bool,
}

impl Proof {
    #[must_use]
    pub fn new(root: PathBuf, attached: HashSet<(String, Direction)>) -> Self {
        Self { root, attached, points: HashMap::new() }
    }

    /// Compares an epoch's totals with what the interfaces say they moved meanwhile.
    pub fn judge(&mut self, points: &[PointTotals], metrics: &Metrics) {
        self.points.retain(|id, _| points.iter().any(|point| point.id == *id));
        for point in points {
            if !self.attached.contains(&(point.interface.clone(), point.direction)) {
                continue;
            }
            let counter = self.counter(point);
            let watched = self.points.entry(point.id).or_default();
            let moved = match (watched.counter, counter) {
                (Some(before), Some(now)) => now.saturating_sub(before),
                _ => 0,
            };
            watched.counter = counter;
            let (interface, way) = (point.interface.as_str(), direction(point.direction));
            let blind = metrics.blind.with_label_values(&[interface, way]);
            if point.totals.frames > 0 {
                if watched.strikes >= STRIKES {
                    tracing::info!(interface, direction = way, "the kernel program sees packets now");
                } else if !watched.seen {
                    tracing::info!(interface, direction = way, "proved: the kernel program sees packets");
                }
                watched.seen = true;
                watched.strikes = 0;
                blind.set(0);
            } else if moved >= SUSPICIOUS {
                watched.strikes += 1;
                if watched.strikes == STRIKES {
                    blind.set(1);
                    tracing::warn!(
                        interface,
                        direction = way,
                        moved,
                        "the interface moves packets that the kernel program does not see: another program may \
                         end the chain before it, or the device delivers past it; `weir-sensor check` tells \
                         more, and ingress = \"generic\" or \"tc\" may help"
                    );
                }
            }
        }
    }

    fn counter(&self, point: &PointTotals) -> Option<u64> {
        let file = match point.direction {
            Direction::Ingress => "rx_packets",
            Direction::Egress => "tx_packets",
        };
        let path = self.root.join(&point.interface).join("statistics").join(file);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::Totals;

    fn point(frames: u64) -> Vec<PointTotals> {
        vec![PointTotals {
            id: 1,
            interface: "eth0".to_owned(),
            ifindex: 2,
            direction: Direction::Ingress,
            stack: 0,
            totals: Totals { frames, ..Totals::default() },
        }]
    }

    #[test]
    fn a_blind_program_is_found_and_one_that_sees_again_is_cleared() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("eth0/statistics");
        std::fs::create_dir_all(&folder).expect("a folder");
        let metrics = Metrics::new().expect("metrics");
        let attached = HashSet::from([("eth0".to_owned(), Direction::Ingress)]);
        let mut proof = Proof::new(root.path().to_owned(), attached);
        let mut epoch = |received: u64, frames: u64| {
            std::fs::write(folder.join("rx_packets"), format!("{received}\n")).expect("a counter");
            proof.judge(&point(frames), &metrics);
            metrics.blind.with_label_values(&["eth0", "ingress"]).get()
        };
        // What the interface moved before is no sign.
        assert_eq!(epoch(1_000_000, 0), 0);
        assert_eq!(epoch(1_000_015, 0), 0, "too few to tell");
        assert_eq!(epoch(1_000_100, 0), 0, "once may be chance");
        assert_eq!(epoch(1_000_200, 0), 1);
        assert_eq!(epoch(1_000_300, 5), 0);
        std::fs::remove_file(folder.join("rx_packets")).expect("the interface goes");
        proof.judge(&point(0), &metrics);

        // The same signs where nothing is attached.
        let mut proof = Proof::new(root.path().to_owned(), HashSet::new());
        for received in [0, 1_000, 2_000, 3_000] {
            std::fs::write(folder.join("rx_packets"), format!("{received}\n")).expect("a counter");
            proof.judge(&point(0), &metrics);
        }
        assert_eq!(metrics.blind.with_label_values(&["eth0", "ingress"]).get(), 0);
    }
}
