//! Connections that were counted already: one that goes on has a record in each epoch.

use super::memory::Memory;
use crate::flow::Record;
use crate::kernel::FlowKey;

/// Told apart by when they began, since ports are used again.
pub(super) struct Counted(Memory<FlowKey, Option<i64>>);

impl Counted {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Memory::new(capacity))
    }

    /// Whether the record's connection was not counted yet; it is from now on.
    pub(super) fn is_new(&mut self, record: &Record) -> bool {
        self.0.entry(record.key).replace(record.start_ns) != Some(record.start_ns)
    }

    /// Connections forgotten for want of room, ever.
    pub(super) fn forgotten(&self) -> u64 {
        self.0.forgotten()
    }
}
