//! Tables that have a successor: drained to their end, then removed.

use std::path::PathBuf;

use uuid::Uuid;

use super::{
    Drained, FilterAction, KernelError,
    clock::Clocks,
    datapath::{adopt_tables, flip},
    object::Maps,
    pins::{Generation, discard},
    points::Points,
    settings::Steering,
    tables::Tables,
};

/// A generation of tables that no program counts into any more, once the interfaces are attached with their
/// successors.
pub struct Predecessor {
    path: PathBuf,
    tables: Tables,
    points: Points,
    clocks: Clocks,
}

impl Predecessor {
    pub(super) fn open(generation: Generation, clocks: Clocks) -> Result<Self, KernelError> {
        let Generation { path, identity } = generation;
        // Nothing more is counted: what is wanted of the next epoch does not matter.
        let steering = Steering::new(1, &[], FilterAction::Allow)?;
        let (tables, points) = adopt_tables(Maps::Pins(&path), &path, identity, steering)?;
        Ok(Self { path, tables, points, clocks })
    }

    /// Identity of the tables.
    pub fn generation(&self) -> Uuid {
        self.tables.identity().generation()
    }

    /// The next epoch that holds something or may, to be made safe and [released](Self::release); `None` when
    /// there is no more, and [`Self::discard`] may follow. `spooled` is the last epoch of this generation that
    /// is safe elsewhere.
    pub fn next(&mut self, spooled: Option<u64>) -> Result<Option<Drained>, KernelError> {
        if self.tables.resume(spooled)? {
            return flip(&mut self.tables, &self.points, &self.clocks).map(Some);
        }
        let epoch = self.tables.epoch();
        let identity = self.tables.identity();
        match identity.ended() {
            Some(ended) if epoch >= ended => return Ok(None),
            // Before the flip: a sensor that is killed after it knows that no further epoch is to come.
            _ => identity.set_ended(epoch + 1),
        }
        flip(&mut self.tables, &self.points, &self.clocks).map(Some)
    }

    /// Zeroes what [`Self::next`] gave: only when it is safe elsewhere.
    pub fn release(&mut self, epoch: u64) -> Result<(), KernelError> {
        self.tables.release(epoch)?;
        self.points.forget(epoch);
        Ok(())
    }

    /// Removes the tables.
    pub fn discard(self) -> Result<(), KernelError> {
        discard(&self.path)
    }
}
