//! One transaction: what it may do to batches, epochs and the ledger.

use prost::Message as _;
use redb::{ReadableTable as _, Table, WriteTransaction};
use uuid::Uuid;
use weir_wire::{Batch, DropReason};

use super::age::Clock;
use super::error::StoreError;
use super::record::{Fate, Header, Moment, Refusal};
use super::seal::{self, Kind};
use super::store::{
    BODIES, EPOCHS, Effects, GENERATIONS, Given, QUARANTINE, Sealed, Sums, WAITING, epoch, header,
};
use super::tombstone;
use super::{Epoch, Settlement};

/// Generations whose last drained epoch is remembered; beyond it those that were written to the longest ago
/// go. Kernel tables of so many starts ago are gone.
const MAX_GENERATIONS: u64 = 256;

/// A transaction under way; dropped, it changes nothing.
pub(super) struct Change {
    pub(super) write: WriteTransaction,
    pub(super) now: Moment,
    pub(super) clock: Clock,
    pub(super) sums: Sums,
    pub(super) next_number: u64,
    pub(super) next_record: u64,
    pub(super) first_full: u64,
    pub(super) effects: Effects,
}

impl Change {
    /// All of an epoch, unless it is here already.
    pub(super) fn insert(&mut self, epoch: &Epoch) -> Result<(), StoreError> {
        {
            let mut generations = self.write.open_table(GENERATIONS)?;
            let generation = epoch.generation.as_u128();
            let last = generations.get(generation)?.map(|last| last.value().0);
            if last.is_some_and(|last| last >= epoch.number) {
                return Ok(());
            }
            generations.insert(generation, (epoch.number, self.next_record))?;
            forget_oldest(&mut generations)?;
        }
        let record = self.next_record;
        self.next_record += 1;
        put(&mut self.write.open_table(EPOCHS)?, Kind::Epoch, record, &epoch.record.encode_to_vec())?;
        self.sums.epochs += 1;
        for (number, batch) in (epoch.first_number..).zip(&epoch.batches) {
            let header = Header {
                record,
                records: batch.records,
                packets: batch.packets,
                octets: batch.octets,
                bytes: batch.body.len() as u64,
                stored: Some(self.now.clone()),
                husk: Some((*batch.husk).clone()),
                refusal: None,
            };
            self.write_batch(WAITING, number, &header, Some(&batch.body))?;
            self.sums.add(&header);
        }
        self.next_number = self.next_number.max(epoch.first_number + epoch.batches.len() as u64);
        Ok(())
    }

    pub(super) fn settle(&mut self, number: u64, settlement: &Settlement) -> Result<(), StoreError> {
        let Some(header) = self.header(WAITING, number)? else { return Ok(()) };
        self.sums.remove(&header);
        self.write.open_table(WAITING)?.remove(number)?;
        let fate = match settlement {
            Settlement::Shipped => Fate::Shipped,
            Settlement::Duplicate => Fate::Duplicate,
            // A tombstone that is refused is nothing worth keeping.
            Settlement::Refused { .. } if header.dropped().is_some() => {
                self.effects.lost.push(Given::from(&header));
                Fate::Lost
            }
            Settlement::Refused { status, detail } => {
                let refusal =
                    Refusal { status: u32::from(*status), detail: detail.clone(), wall_ns: self.now.wall_ns };
                let header = Header { refusal: Some(refusal), ..header.clone() };
                self.write_batch(QUARANTINE, number, &header, None)?;
                self.sums.quarantine(&header);
                return self.fate(&header, Fate::Quarantined);
            }
        };
        self.write.open_table(BODIES)?.remove(number)?;
        self.fate(&header, fate)
    }

    pub(super) fn retry(&mut self, number: u64) -> Result<bool, StoreError> {
        let Some(header) = self.header(QUARANTINE, number)? else { return Ok(false) };
        self.sums.release(&header);
        self.write.open_table(QUARANTINE)?.remove(number)?;
        let header = Header { refusal: None, ..header };
        self.write_batch(WAITING, number, &header, None)?;
        self.sums.add(&header);
        self.first_full = self.first_full.min(number);
        self.fate(&header, Fate::Waiting)?;
        Ok(true)
    }

    pub(super) fn corrupt(&mut self, number: u64) -> Result<(), StoreError> {
        let body = self.write.open_table(BODIES)?.get(number)?.map(|sealed| sealed.value().to_vec());
        let body = body.as_deref().and_then(|sealed| seal::open(Kind::Body, number, sealed));
        match (self.header(WAITING, number)?, body) {
            (Some(_), Some(_)) => Ok(()),
            (Some(header), None) => self.bury(number, &header, DropReason::Corrupt),
            (None, body) => {
                // Its header is gone: the body says all that it said, but for where its record is.
                let batch = body.and_then(|body| Some((weir_wire::decode(body).ok()?, body.to_vec())));
                self.write.open_table(WAITING)?.remove(number)?;
                self.write.open_table(BODIES)?.remove(number)?;
                match batch {
                    Some((batch, body)) => {
                        let header = Header::of(batch, body.len(), self.now.clone());
                        self.write_batch(WAITING, number, &header, Some(&body))?;
                        self.sums.add(&header);
                    }
                    None => self.effects.lost.push(Given {
                        generation: Uuid::nil(),
                        epoch: 0,
                        part: 0,
                        records: 0,
                        packets: 0,
                    }),
                }
                Ok(())
            }
        }
    }

    /// Puts a batch's tombstone in its place.
    pub(super) fn bury(
        &mut self,
        number: u64,
        header: &Header,
        reason: DropReason,
    ) -> Result<(), StoreError> {
        self.sums.remove(header);
        let given = Given::from(header);
        let Some((tombstone, body)) = tombstone::of(header, reason) else {
            self.write.open_table(WAITING)?.remove(number)?;
            self.write.open_table(BODIES)?.remove(number)?;
            self.effects.lost.push(given);
            return self.fate(header, Fate::Lost);
        };
        self.write_batch(WAITING, number, &tombstone, Some(&body))?;
        self.sums.add(&tombstone);
        self.effects.dropped.push((reason, given));
        self.fate(&tombstone, Fate::Waiting)
    }

    pub(super) fn header(&self, table: Sealed, number: u64) -> Result<Option<Header>, StoreError> {
        let table = self.write.open_table(table)?;
        let sealed = table.get(number)?;
        Ok(sealed.and_then(|sealed| header(number, sealed.value())))
    }

    pub(super) fn write_batch(
        &mut self,
        table: Sealed,
        number: u64,
        header: &Header,
        body: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        put(&mut self.write.open_table(table)?, Kind::Header, number, &header.encode_to_vec())?;
        if let Some(body) = body {
            put(&mut self.write.open_table(BODIES)?, Kind::Body, number, body)?;
        }
        Ok(())
    }

    /// Notes in the ledger what became of a part; one whose record is gone needs no note.
    pub(super) fn fate(&mut self, header: &Header, fate: Fate) -> Result<(), StoreError> {
        let mut epochs = self.write.open_table(EPOCHS)?;
        let record = epochs.get(header.record)?.and_then(|sealed| epoch(header.record, sealed.value()));
        let (generation, number, part) = header.key();
        let Some(mut record) = record else { return Ok(()) };
        if (record.generation(), record.epoch) != (generation, number) {
            return Ok(());
        }
        if let Some(part) = record.parts.get_mut(part as usize) {
            part.fate = fate.into();
            part.dropped = header.dropped();
        }
        put(&mut epochs, Kind::Epoch, header.record, &record.encode_to_vec())
    }
}

impl Header {
    /// Of a batch whose header is gone.
    pub(super) fn of(batch: Batch, bytes: usize, stored: Moment) -> Self {
        let packed = crate::ship::Packed::of(batch, bytes::Bytes::new());
        Self {
            // No record has this number: where it was is not known.
            record: u64::MAX,
            records: packed.records,
            packets: packed.packets,
            octets: packed.octets,
            bytes: bytes as u64,
            stored: Some(stored),
            husk: Some(*packed.husk),
            refusal: None,
        }
    }
}

fn put(
    table: &mut Table<'_, u64, &'static [u8]>,
    kind: Kind,
    number: u64,
    bytes: &[u8],
) -> Result<(), StoreError> {
    table.insert(number, seal::seal(kind, number, bytes).as_slice())?;
    Ok(())
}

fn forget_oldest(generations: &mut Table<'_, u128, (u64, u64)>) -> Result<(), StoreError> {
    if redb::ReadableTableMetadata::len(generations)? <= MAX_GENERATIONS {
        return Ok(());
    }
    let mut oldest: Option<(u64, u128)> = None;
    for entry in generations.iter()? {
        let (generation, last) = entry?;
        let this = (last.value().1, generation.value());
        oldest = Some(oldest.map_or(this, |oldest| oldest.min(this)));
    }
    if let Some((_, generation)) = oldest {
        generations.remove(generation)?;
    }
    Ok(())
}
