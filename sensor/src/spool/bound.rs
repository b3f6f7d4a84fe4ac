//! The spool's bounds: bytes, age, tombstones, the quarantine, and the ledger's records.
//!
//! Over bytes or age the oldest batches become their own tombstones. Tombstones are bounded, too: beyond
//! that the oldest goes, and is a gap. All of it happens within the transaction that made it necessary.

use std::time::Duration;

use redb::{ReadableTable as _, ReadableTableMetadata as _};
use weir_wire::DropReason;

use super::change::Change;
use super::error::StoreError;
use super::record::{Fate, Header};
use super::store::{BODIES, EPOCHS, Given, QUARANTINE, Sealed, WAITING, header};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of batches that wait, with what is kept beside them.
    pub bytes: u64,
    pub age: Duration,
    /// Of refused batches.
    pub quarantine_bytes: u64,
    pub quarantine_batches: u64,
    /// Records of epochs, for the ledger.
    pub epochs: u64,
    /// Tombstones: some 300 bytes each.
    pub tombstones: u64,
}

impl Change {
    pub(super) fn bound(&mut self, bounds: &Bounds, in_flight: Option<u64>) -> Result<(), StoreError> {
        self.quarantined(bounds)?;
        self.age(bounds, in_flight)?;
        self.bytes(bounds, in_flight)?;
        self.tombstones(bounds)?;
        self.epochs(bounds)
    }

    fn bytes(&mut self, bounds: &Bounds, in_flight: Option<u64>) -> Result<(), StoreError> {
        while self.sums.bytes > bounds.bytes {
            let Some((number, header)) = self.oldest_full(in_flight)? else { break };
            self.bury(number, &header, DropReason::SpoolBytes)?;
        }
        // Only tombstones are left.
        while self.sums.bytes > bounds.bytes && self.sums.tombstones > 0 {
            if !self.lose_oldest_tombstone()? {
                break;
            }
        }
        Ok(())
    }

    fn age(&mut self, bounds: &Bounds, in_flight: Option<u64>) -> Result<(), StoreError> {
        while let Some((number, header)) = self.oldest_full(in_flight)? {
            let age = header.stored.as_ref().map_or(Duration::ZERO, |stored| self.clock.age(stored));
            if age <= bounds.age {
                break;
            }
            self.bury(number, &header, DropReason::SpoolAge)?;
        }
        Ok(())
    }

    fn tombstones(&mut self, bounds: &Bounds) -> Result<(), StoreError> {
        while self.sums.tombstones > bounds.tombstones {
            if !self.lose_oldest_tombstone()? {
                break;
            }
        }
        Ok(())
    }

    /// The oldest batch that still has its flows and is not being sent right now.
    fn oldest_full(&mut self, in_flight: Option<u64>) -> Result<Option<(u64, Header)>, StoreError> {
        let mut from = self.first_full;
        let found = loop {
            let Some((number, found)) = self.first(WAITING, from)? else { break None };
            match found {
                Some(header) if !header.is_bare() && Some(number) != in_flight => {
                    break Some((number, header));
                }
                _ => from = number + 1,
            }
            // One that is being sent comes into question again.
            if in_flight.is_none_or(|in_flight| in_flight < self.first_full || in_flight >= from) {
                self.first_full = from;
            }
        };
        Ok(found)
    }

    fn lose_oldest_tombstone(&mut self) -> Result<bool, StoreError> {
        let mut from = 0;
        loop {
            match self.first(WAITING, from)? {
                None => return Ok(false),
                Some((number, Some(header))) if header.is_bare() => {
                    self.sums.remove(&header);
                    self.write.open_table(WAITING)?.remove(number)?;
                    self.write.open_table(BODIES)?.remove(number)?;
                    self.effects.lost.push(Given::from(&header));
                    self.fate(&header, Fate::Lost)?;
                    return Ok(true);
                }
                Some((number, _)) => from = number + 1,
            }
        }
    }

    fn quarantined(&mut self, bounds: &Bounds) -> Result<(), StoreError> {
        while self.sums.quarantined_bytes > bounds.quarantine_bytes
            || self.sums.quarantined_batches > bounds.quarantine_batches
        {
            let Some((number, header)) = self.first(QUARANTINE, 0)? else { break };
            self.write.open_table(QUARANTINE)?.remove(number)?;
            let Some(header) = header else { continue };
            self.sums.release(&header);
            // As if it waited: what replaces it does.
            self.sums.add(&header);
            self.bury(number, &header, DropReason::Quarantine)?;
        }
        Ok(())
    }

    fn epochs(&mut self, bounds: &Bounds) -> Result<(), StoreError> {
        let mut epochs = self.write.open_table(EPOCHS)?;
        while epochs.len()? > bounds.epochs.max(1) {
            let Some((number, _)) =
                epochs.first()?.map(|(number, value)| (number.value(), value.value().len()))
            else {
                break;
            };
            epochs.remove(number)?;
            self.sums.epochs = self.sums.epochs.saturating_sub(1);
        }
        Ok(())
    }

    /// The first entry from a number on; without a header where that is damaged.
    fn first(&self, table: Sealed, from: u64) -> Result<Option<(u64, Option<Header>)>, StoreError> {
        let table = self.write.open_table(table)?;
        let mut range = table.range(from..)?;
        let Some(entry) = range.next() else { return Ok(None) };
        let (number, sealed) = entry?;
        let number = number.value();
        Ok(Some((number, header(number, sealed.value()))))
    }
}
