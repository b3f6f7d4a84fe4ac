//! The file: tables, and the transactions that change them.
//!
//! Owned by the [`super::keeper`]'s thread. What must stay true: an epoch's parts, its record and "last
//! drained epoch of its generation" are written by one transaction or not at all; a batch leaves only by
//! [`Store::settle`], or becomes its own tombstone; every value that is read has passed its checksum.

use std::path::Path;

use prost::Message as _;
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use uuid::Uuid;
use weir_wire::DropReason;

use super::age::Clock;
use super::change::Change;
use super::disk::{Disk, Overlay};
use super::error::StoreError;
use super::record::{EpochRecord, Header};
use super::seal::{self, Kind};
use super::{Bounds, Epoch, Settlement};

const FORMAT: u64 = 1;
/// Pages that redb keeps in memory: the spool is written once and read once, so there is little to gain.
const CACHE_BYTES: usize = 4 << 20;

pub(super) type Sealed = TableDefinition<'static, u64, &'static [u8]>;
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// By generation: its last drained epoch, and the number of that epoch's record.
pub(super) const GENERATIONS: TableDefinition<u128, (u64, u64)> = TableDefinition::new("generations");
/// Headers of batches that wait, by number: in the order in which they came.
pub(super) const WAITING: Sealed = TableDefinition::new("waiting");
pub(super) const QUARANTINE: Sealed = TableDefinition::new("quarantine");
/// Bodies of both.
pub(super) const BODIES: Sealed = TableDefinition::new("bodies");
pub(super) const EPOCHS: Sealed = TableDefinition::new("epochs");

/// The open file, and sums that are kept beside it.
pub(super) struct Store {
    pub(super) database: Database,
    pub(super) clock: Clock,
    pub(super) sums: Sums,
    pub(super) next_number: u64,
    pub(super) next_record: u64,
    /// All below are bare: where the next batch to be given up is looked for.
    pub(super) first_full: u64,
}

/// What the tables hold, without looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) batches: u64,
    pub(super) bytes: u64,
    /// Tombstones, and batches of idle epochs, which have as little to give up.
    pub(super) tombstones: u64,
    pub(super) quarantined_batches: u64,
    pub(super) quarantined_packets: u64,
    pub(super) quarantined_bytes: u64,
    pub(super) epochs: u64,
}

/// What a transaction did beside what it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Batches that became tombstones.
    pub(super) dropped: Vec<(DropReason, Given)>,
    /// Tombstones, and batches that could not even become one: gaps.
    pub(super) lost: Vec<Given>,
}

/// What was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) generation: Uuid,
    pub(super) epoch: u64,
    pub(super) part: u32,
    pub(super) records: u64,
    pub(super) packets: u64,
}

impl From<&Header> for Given {
    fn from(header: &Header) -> Self {
        let (generation, epoch, part) = header.key();
        Self { generation, epoch, part, records: header.records, packets: header.packets }
    }
}

impl Store {
    /// Opens the file, or begins it, and looks through all of it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let disk = Disk::open(path)?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let mut database = builder.create_with_backend(disk)?;
        // Every page has a checksum, but reading does not look at it.
        if !database.check_integrity()? {
            return Err(StoreError::damaged("pages do not have their checksums"));
        }
        let write = begin(&database, Durability::Immediate)?;
        {
            let mut meta = write.open_table(META)?;
            let format = meta.get("format")?.map(|value| value.value());
            match format {
                Some(FORMAT) => {}
                None => drop(meta.insert("format", FORMAT)?),
                Some(other) => {
                    return Err(StoreError::Damaged(format!("its format {other} is not {FORMAT}")));
                }
            }
            write.open_table(GENERATIONS)?;
            for table in [WAITING, QUARANTINE, BODIES, EPOCHS] {
                write.open_table(table)?;
            }
        }
        write.commit()?;
        Self::over(database)
    }

    /// Opens a file that cannot be written, for reading; what is done to it is forgotten.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let overlay = Overlay::open(path)?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        Self::over(builder.create_with_backend(overlay)?)
    }

    fn over(database: Database) -> Result<Self, StoreError> {
        let read = database.begin_read()?;
        let (waiting, quarantine) = (read.open_table(WAITING)?, read.open_table(QUARANTINE)?);
        let mut sums = Sums::default();
        for entry in waiting.iter()? {
            let (number, sealed) = entry?;
            if let Some(header) = header(number.value(), sealed.value()) {
                sums.add(&header);
            }
        }
        for entry in quarantine.iter()? {
            let (number, sealed) = entry?;
            if let Some(header) = header(number.value(), sealed.value()) {
                sums.quarantine(&header);
            }
        }
        let epochs = read.open_table(EPOCHS)?;
        sums.epochs = redb::ReadableTableMetadata::len(&epochs)?;
        let meta = read.open_table(META)?;
        let next = |name| Ok::<u64, StoreError>(meta.get(name)?.map_or(0, |value| value.value()));
        // Beside what the file says: a body that lost its header is under a number, too.
        let past = |key: Option<u64>| key.map_or(0, |number| number + 1);
        let bodies = read.open_table(BODIES)?;
        let last_body = bodies.last()?.map(|(number, _)| number.value());
        let last_record = epochs.last()?.map(|(number, _)| number.value());
        let next_number = next("next_number")?.max(past(last_body));
        let next_record = next("next_record")?.max(past(last_record));
        drop((waiting, quarantine, epochs, meta, bodies));
        drop(read);
        Ok(Self { database, clock: Clock::new(), sums, next_number, next_record, first_full: 0 })
    }

    /// The last drained epoch of every generation that is known.
    pub(super) fn drained(&self) -> Result<Vec<(Uuid, u64)>, StoreError> {
        let read = self.database.begin_read()?;
        let generations = read.open_table(GENERATIONS)?;
        let mut drained = Vec::new();
        for entry in generations.iter()? {
            let (generation, last) = entry?;
            drained.push((Uuid::from_u128(generation.value()), last.value().0));
        }
        Ok(drained)
    }

    /// Writes epochs with all their parts and what is over the bounds, in one transaction. `settled` are
    /// parts that were settled before they could be written.
    pub(super) fn put(
        &mut self,
        epochs: &[Epoch],
        settled: &[(u64, Settlement)],
        bounds: &Bounds,
        in_flight: Option<u64>,
    ) -> Result<Effects, StoreError> {
        let mut change = self.change(Durability::Immediate)?;
        for epoch in epochs {
            change.insert(epoch)?;
        }
        for (number, settlement) in settled {
            change.settle(*number, settlement)?;
        }
        change.bound(bounds, in_flight)?;
        self.commit(change)
    }

    /// Takes batches out, or into the quarantine.
    ///
    /// A delivery that a crash makes us forget is repeated, and answered as a repetition: so it does not
    /// wait for the disk. A refusal does.
    pub(super) fn settle(
        &mut self,
        settled: &[(u64, Settlement)],
        bounds: &Bounds,
    ) -> Result<Effects, StoreError> {
        let refused = settled.iter().any(|(_, settlement)| matches!(settlement, Settlement::Refused { .. }));
        let mut change = self.change(if refused { Durability::Immediate } else { Durability::None })?;
        for (number, settlement) in settled {
            change.settle(*number, settlement)?;
        }
        change.bound(bounds, None)?;
        self.commit(change)
    }

    /// Gives up what is too old or too much.
    pub(super) fn bound(&mut self, bounds: &Bounds, in_flight: Option<u64>) -> Result<Effects, StoreError> {
        let mut change = self.change(Durability::Immediate)?;
        change.bound(bounds, in_flight)?;
        self.commit(change)
    }

    /// Puts what a damaged file still held into this one.
    pub(super) fn adopt(&mut self, number: u64, header: &Header, body: &[u8]) -> Result<(), StoreError> {
        let mut change = self.change(Durability::None)?;
        change.next_number = change.next_number.max(number + 1);
        change.write_batch(WAITING, number, header, Some(body))?;
        change.sums.add(header);
        self.commit(change).map(drop)
    }

    /// From the quarantine back to where it waits; how many.
    pub(super) fn retry(&mut self, numbers: &[u64]) -> Result<u64, StoreError> {
        let mut change = self.change(Durability::Immediate)?;
        let mut moved = 0;
        for number in numbers {
            moved += u64::from(change.retry(*number)?);
        }
        self.commit(change)?;
        Ok(moved)
    }

    /// A batch whose body is not what was stored becomes a tombstone.
    pub(super) fn corrupt(&mut self, number: u64) -> Result<Effects, StoreError> {
        let mut change = self.change(Durability::Immediate)?;
        change.corrupt(number)?;
        self.commit(change)
    }

    pub(super) fn change(&self, durability: Durability) -> Result<Change, StoreError> {
        Ok(Change {
            write: begin(&self.database, durability)?,
            now: self.clock.now(),
            clock: self.clock.clone(),
            sums: self.sums,
            next_number: self.next_number,
            next_record: self.next_record,
            first_full: self.first_full,
            effects: Effects::default(),
        })
    }

    pub(super) fn commit(&mut self, change: Change) -> Result<Effects, StoreError> {
        let Change { write, sums, next_number, next_record, first_full, effects, .. } = change;
        {
            let mut meta = write.open_table(META)?;
            meta.insert("next_number", next_number)?;
            meta.insert("next_record", next_record)?;
        }
        write.commit()?;
        (self.sums, self.first_full) = (sums, first_full);
        (self.next_number, self.next_record) = (next_number, next_record);
        Ok(effects)
    }
}

fn begin(database: &Database, durability: Durability) -> Result<WriteTransaction, StoreError> {
    let mut write = database.begin_write()?;
    if matches!(durability, Durability::Immediate) {
        // So that pages without their checksum are damage, and never a commit that a crash cut short.
        write.set_two_phase_commit(true);
    }
    write.set_durability(durability).map_err(StoreError::damaged)?;
    Ok(write)
}

/// A batch's header, if it is what was stored.
pub(super) fn header(number: u64, sealed: &[u8]) -> Option<Header> {
    Header::decode(seal::open(Kind::Header, number, sealed)?).ok()
}

/// An epoch's record, if it is what was stored.
pub(super) fn epoch(number: u64, sealed: &[u8]) -> Option<EpochRecord> {
    EpochRecord::decode(seal::open(Kind::Epoch, number, sealed)?).ok()
}

impl Sums {
    pub(super) fn add(&mut self, header: &Header) {
        self.batches += 1;
        self.bytes += header.footprint();
        self.tombstones += u64::from(header.is_bare());
    }

    pub(super) fn remove(&mut self, header: &Header) {
        self.batches = self.batches.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(header.footprint());
        self.tombstones = self.tombstones.saturating_sub(u64::from(header.is_bare()));
    }

    pub(super) fn quarantine(&mut self, header: &Header) {
        self.quarantined_batches += 1;
        self.quarantined_packets += header.packets;
        self.quarantined_bytes += header.footprint();
    }

    pub(super) fn release(&mut self, header: &Header) {
        self.quarantined_batches = self.quarantined_batches.saturating_sub(1);
        self.quarantined_packets = self.quarantined_packets.saturating_sub(header.packets);
        self.quarantined_bytes = self.quarantined_bytes.saturating_sub(header.footprint());
    }
}
