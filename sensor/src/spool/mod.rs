//! The durable spool: batches wait here until they are acknowledged, and the sensor's ledger is kept here.
//!
//! One file under redb, owned by one thread ([`keeper`]); [`Spool`] is how the pipeline, the courier and
//! the command line reach it. What must stay true:
//!
//! - when an epoch is called safe, its batches are on the disk, or acknowledged by the control plane;
//! - what is given up (bounds, damage, the quarantine's bound) leaves a tombstone under the same key, so that
//!   the loss has a name and a number at the control plane; what cannot even leave that is counted as lost;
//! - nothing that is read from the disk is believed without its checksum, and a damaged file is put aside;
//! - memory does not grow with the spool: bodies are read one at a time.

mod age;
mod bound;
mod change;
mod degraded;
mod disk;
mod error;
mod handle;
mod held;
mod keeper;
mod ledger;
pub mod list;

mod reader;
mod record;
mod salvage;
mod seal;

pub mod socket;
mod standing;
mod store;
#[cfg(test)]
mod tests;
mod tombstone;

use std::path::PathBuf;

use uuid::Uuid;

pub use bound::Bounds;
pub use error::StoreError;
pub use handle::{Intake, Spool};
pub use ledger::{Gap, Ledger, Range};
pub use list::{Listed, State};
pub use reader::Reader;
pub use standing::Standing;

use crate::ship::Packed;
use record::{EpochRecord, Fate, PartRecord};

/// Tombstones that are kept: some 300 bytes each.
pub const MAX_TOMBSTONES: u64 = 50_000;
/// Batches in the quarantine: a control plane that refuses everything fills it.
pub const MAX_QUARANTINE_BATCHES: u64 = 10_000;

/// Where the spool is and how much it holds.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: PathBuf,
    pub bounds: Bounds,
}

impl Settings {
    /// The file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.join("spool.redb")
    }

    /// Where a running sensor answers for it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("weir-sensor.sock")
    }
}

/// What became of a batch that was offered for delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Stored by this delivery.
    Shipped,
    /// Stored by an earlier one.
    Duplicate,
    /// Never to be stored.
    Refused { status: u16, detail: String },
}

/// A batch that waits, and its number in the spool.
#[derive(Clone, Debug)]
pub struct Offer {
    pub number: u64,
    pub batch: Packed,
}

/// A merged epoch on its way into the spool.
#[derive(Debug)]
pub(crate) struct Epoch {
    generation: Uuid,
    number: u64,
    record: EpochRecord,
    first_number: u64,
    batches: Vec<Packed>,
}

impl Epoch {
    /// All parts of one epoch; `None` if there is none.
    fn of(batches: Vec<Packed>) -> Option<Self> {
        let first = batches.first()?;
        let (generation, number) = (first.generation, first.epoch);
        let mut record = EpochRecord {
            generation: generation.as_bytes().to_vec(),
            epoch: number,
            window_start_ns: first.husk.window_start_ns,
            window_end_ns: first.husk.window_end_ns,
            ..EpochRecord::default()
        };
        for totals in first.husk.points.iter().filter_map(|point| point.totals) {
            record.totals += totals;
        }
        for batch in &batches {
            record.crossing_packets += batch.husk.crossing_packets;
            record.crossing_octets += batch.husk.crossing_octets;
            record.parts.push(PartRecord {
                records: batch.records,
                packets: batch.packets,
                octets: batch.octets,
                fate: Fate::Waiting.into(),
                dropped: None,
            });
        }
        Some(Self { generation, number, record, first_number: 0, batches })
    }

    fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.body.len()).sum()
    }
}
