//! What the spool's file says of a batch and of an epoch, and how it is encoded.

use prost::{Enumeration, Message};
use uuid::Uuid;
use weir_wire::{Batch, Dropped, Totals};

/// A batch without its flows: all that is needed to list it, to bound it, and to replace it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    /// The epoch's record in the ledger.
    #[prost(uint64, tag = "1")]
    pub(super) record: u64,
    #[prost(uint64, tag = "2")]
    pub(super) records: u64,
    /// Both directions, without what crossed.
    #[prost(uint64, tag = "3")]
    pub(super) packets: u64,
    #[prost(uint64, tag = "4")]
    pub(super) octets: u64,
    /// Bytes of the body.
    #[prost(uint64, tag = "5")]
    pub(super) bytes: u64,
    #[prost(message, optional, tag = "6")]
    pub(super) stored: Option<Moment>,
    /// The batch as it is, without flows and link stacks; with `dropped` in a tombstone.
    #[prost(message, optional, tag = "7")]
    pub(super) husk: Option<Batch>,
    /// Set in the quarantine.
    #[prost(message, optional, tag = "8")]
    pub(super) refusal: Option<Refusal>,
}

/// An instant, on a clock that no step moves and on one that a reboot leaves.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Moment {
    /// Identity of the boot.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) boot: Vec<u8>,
    /// `CLOCK_BOOTTIME`.
    #[prost(uint64, tag = "2")]
    pub(super) boot_ns: u64,
    /// Nanoseconds since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub(super) wall_ns: i64,
}

/// Why the control plane will never take a batch.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Refusal {
    #[prost(uint32, tag = "1")]
    pub(super) status: u32,
    #[prost(string, tag = "2")]
    pub(super) detail: String,
    /// Nanoseconds since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub(super) wall_ns: i64,
}

/// What became of an epoch: the sensor's ledger has one of these for each.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EpochRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) generation: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(super) epoch: u64,
    #[prost(int64, tag = "3")]
    pub(super) window_start_ns: i64,
    #[prost(int64, tag = "4")]
    pub(super) window_end_ns: i64,
    /// Over all points.
    #[prost(message, required, tag = "5")]
    pub(super) totals: Totals,
    #[prost(uint64, tag = "6")]
    pub(super) crossing_packets: u64,
    #[prost(uint64, tag = "7")]
    pub(super) crossing_octets: u64,
    #[prost(message, repeated, tag = "8")]
    pub(super) parts: Vec<PartRecord>,
}

/// What became of a part.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct PartRecord {
    #[prost(uint64, tag = "1")]
    pub(super) records: u64,
    #[prost(uint64, tag = "2")]
    pub(super) packets: u64,
    #[prost(uint64, tag = "3")]
    pub(super) octets: u64,
    #[prost(enumeration = "Fate", tag = "4")]
    pub(super) fate: i32,
    /// The flows were given up: a tombstone stands for them, whatever became of that.
    #[prost(message, optional, tag = "5")]
    pub(super) dropped: Option<Dropped>,
}

/// Where a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(super) enum Fate {
    Waiting = 0,
    /// Acknowledged: this delivery stored it.
    Shipped = 1,
    /// Acknowledged: an earlier delivery had stored it.
    Duplicate = 2,
    Quarantined = 3,
    /// Not even its tombstone could be kept or delivered: a gap.
    Lost = 4,
}

impl Header {
    /// The batch's husk; an empty one where the file has none.
    pub(super) fn husk(&self) -> Batch {
        self.husk.clone().unwrap_or_default()
    }

    pub(super) fn key(&self) -> (Uuid, u64, u32) {
        self.husk.as_ref().map_or_else(Default::default, |husk| {
            (Uuid::from_slice(&husk.generation).unwrap_or_default(), husk.epoch, husk.part)
        })
    }

    pub(super) fn dropped(&self) -> Option<Dropped> {
        self.husk.as_ref().and_then(|husk| husk.dropped)
    }

    /// Whether it has no flows to give up: a tombstone, or the batch of an idle epoch.
    pub(super) fn is_bare(&self) -> bool {
        self.records == 0 || self.dropped().is_some()
    }

    /// What the batch takes of the spool's bound.
    pub(super) fn footprint(&self) -> u64 {
        self.bytes + self.encoded_len() as u64 + 2 * super::seal::OVERHEAD as u64
    }
}

impl EpochRecord {
    pub(super) fn generation(&self) -> Uuid {
        Uuid::from_slice(&self.generation).unwrap_or_default()
    }
}
