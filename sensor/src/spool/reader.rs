//! The file without a sensor: for the command line, while none has it open. Nothing is changed.

use super::error::StoreError;
use super::keeper::guarded;
use super::list;
use super::store::Store;
use super::{Ledger, Listed, Range, Settings, Standing};

/// An open file.
pub struct Reader {
    store: Store,
    capacity_bytes: u64,
}

impl Reader {
    /// Fails with [`StoreError::InUse`] while a sensor has it.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let store = guarded(|| Store::open_to_read(&settings.file()))?;
        Ok(Self { store, capacity_bytes: settings.bounds.bytes })
    }

    /// At most so many batches, from a number on.
    pub fn list(&self, from: u64, limit: usize) -> Result<Vec<Listed>, StoreError> {
        guarded(|| list::list(&self.store, from, limit))
    }

    /// A batch's body, compressed.
    pub fn body(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| list::body(&self.store, number))
    }

    pub fn ledger(&self, range: Range) -> Result<Ledger, StoreError> {
        guarded(|| Ledger::of(&self.store, range))
    }

    pub fn standing(&self) -> Result<Standing, StoreError> {
        let sums = self.store.sums;
        Ok(Standing {
            batches: sums.batches,
            bytes: sums.bytes,
            capacity_bytes: self.capacity_bytes,
            tombstones: sums.tombstones,
            oldest_age: guarded(|| list::oldest(&self.store))?.unwrap_or_default(),
            quarantined_batches: sums.quarantined_batches,
            quarantined_packets: sums.quarantined_packets,
            quarantined_bytes: sums.quarantined_bytes,
            epochs: sums.epochs,
            next_number: self.store.next_number,
            ..Standing::default()
        })
    }
}
