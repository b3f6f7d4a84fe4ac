//! The sensor's own ledger: what was seen, and what became of it, over any range of time.
//!
//! Summed over the epochs' records. It adds up when every frame has a verdict, every packet in flows is in a
//! part or has crossed, every part's packets have a fate, and no epoch is missing between two of its
//! generation.

use std::collections::BTreeMap;

use redb::{ReadableDatabase as _, ReadableTable as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_wire::Totals;

use super::error::StoreError;
use super::record::{EpochRecord, Fate};
use super::store::{EPOCHS, Store, epoch};

/// Gaps that are listed; all are counted.
const MAX_GAPS: usize = 100;

/// Epochs whose window begins within; both ends may be open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Nanoseconds since the Unix epoch.
    pub from_ns: Option<i64>,
    pub to_ns: Option<i64>,
}

/// Sums over a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub epochs: u64,
    /// Nanoseconds since the Unix epoch.
    pub first_ns: Option<i64>,
    pub last_ns: Option<i64>,
    pub frames: u64,
    pub in_flows: u64,
    pub overflow: u64,
    pub non_ip: u64,
    pub malformed: u64,
    pub filtered: u64,
    /// Packets of `in_flows` that were seen at a further point: in no record.
    pub crossing: u64,
    /// Packets in records: `in_flows` less `crossing`.
    pub spooled: u64,
    /// Of `spooled`: acknowledged by the control plane.
    pub shipped: u64,
    /// Acknowledged as stored by an earlier delivery.
    pub duplicate: u64,
    pub waiting: u64,
    pub quarantined: u64,
    /// Given up, by reason; a tombstone says so to the control plane.
    pub dropped: BTreeMap<String, u64>,
    /// Given up without a tombstone.
    pub lost: u64,
    /// Epochs that are missing.
    pub missing_epochs: u64,
    /// The first of the gaps.
    pub gaps: Vec<Gap>,
    /// Records of epochs that are not what was stored.
    pub damaged_records: u64,
    pub adds_up: bool,
}

/// Epochs of a generation that have no record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub generation: Uuid,
    pub first: u64,
    pub last: u64,
}

impl Ledger {
    pub(super) fn of(store: &Store, range: Range) -> Result<Self, StoreError> {
        let read = store.database.begin_read()?;
        let epochs = read.open_table(EPOCHS)?;
        let mut ledger = Self::default();
        let mut last: BTreeMap<Uuid, u64> = BTreeMap::new();
        for entry in epochs.iter()? {
            let (number, sealed) = entry?;
            match epoch(number.value(), sealed.value()) {
                Some(record) => ledger.add(&record, range, &mut last),
                None => ledger.damaged_records += 1,
            }
        }
        ledger.adds_up = ledger.check();
        Ok(ledger)
    }

    fn add(&mut self, record: &EpochRecord, range: Range, last: &mut BTreeMap<Uuid, u64>) {
        let start = record.window_start_ns;
        let outside =
            range.from_ns.is_some_and(|from| start < from) || range.to_ns.is_some_and(|to| start >= to);
        let before = last.insert(record.generation(), record.epoch);
        if outside {
            return;
        }
        if let Some(before) = before.filter(|before| record.epoch > before + 1) {
            self.missing_epochs += record.epoch - before - 1;
            if self.gaps.len() < MAX_GAPS {
                let (first, last) = (before + 1, record.epoch - 1);
                self.gaps.push(Gap { generation: record.generation(), first, last });
            }
        }
        self.epochs += 1;
        self.first_ns = Some(self.first_ns.map_or(start, |first| first.min(start)));
        let end = record.window_end_ns;
        self.last_ns = Some(self.last_ns.map_or(end, |last| last.max(end)));
        let Totals { frames, flow_packets, overflow, non_ip, malformed, filtered, .. } = record.totals;
        for (sum, more) in [
            (&mut self.frames, frames),
            (&mut self.in_flows, flow_packets),
            (&mut self.overflow, overflow),
            (&mut self.non_ip, non_ip),
            (&mut self.malformed, malformed),
            (&mut self.filtered, filtered),
            (&mut self.crossing, record.crossing_packets),
        ] {
            *sum = sum.saturating_add(more);
        }
        for part in &record.parts {
            self.spooled += part.packets;
            let sum = match (part.fate(), part.dropped) {
                (Fate::Lost, _) => &mut self.lost,
                (_, Some(dropped)) => self.dropped.entry(dropped.reason().word().to_owned()).or_default(),
                (Fate::Waiting, None) => &mut self.waiting,
                (Fate::Shipped, None) => &mut self.shipped,
                (Fate::Duplicate, None) => &mut self.duplicate,
                (Fate::Quarantined, None) => &mut self.quarantined,
            };
            *sum += part.packets;
        }
    }

    fn check(&self) -> bool {
        let verdicts = self.in_flows + self.overflow + self.non_ip + self.malformed + self.filtered;
        let fates = self.shipped
            + self.duplicate
            + self.waiting
            + self.quarantined
            + self.dropped.values().sum::<u64>()
            + self.lost;
        self.frames == verdicts
            && self.in_flows == self.spooled + self.crossing
            && self.spooled == fates
            && self.lost == 0
            && self.missing_epochs == 0
            && self.damaged_records == 0
    }
}
