//! The memory that Weir's kernel programs and the sensor share, and nothing else.
//!
//! Every type is `repr(C)` with explicit padding and its size asserted, because both sides read the same
//! bytes: the programs through BPF maps, the sensor through `mmap`. A change here raises
//! [`LAYOUT_VERSION`].
//!
//! How the tables are addressed: a region is the part of a table that one CPU writes in one half,
//! `region = (epoch & 1) * cpus + cpu`. Slots of region `r` are `r << bits .. (r + 1) << bits`, counters of
//! region `r` and point `p` are at `r * points + p`.
#![no_std]
#![allow(clippy::inline_always, reason = "the kernel programs must inline what they call per packet")]

mod counters;
pub mod event;
pub mod filter;
pub mod link;
pub mod listed;
pub mod pins;
mod slot;
pub mod socket;

pub use counters::{Control, Counters, HalfControl, PointEntry, Region, Wakeup, wake};
pub use event::{EventHeader, EventState};
pub use filter::FilterRule;
pub use link::LinkStack;
pub use listed::{Guard, ListCounts, Mark};
pub use slot::{Count, Flags, Key, Slot4, Slot6, TICKS, fragment};
pub use socket::{Join, Owner, SentTuple};

/// Version of the layout of every shared type; stored beside tables that outlive the sensor.
pub const LAYOUT_VERSION: u32 = 1;

/// Slots that are tried for one key before the packet counts as overflow. At a load of one half, linear
/// probing finds a free slot within 16 for all but about one key in 100,000.
pub const PROBE: u32 = 16;

/// Interface indexes below this are looked up in an array, others in a hash: hosts that make many
/// containers reach high indexes, most hosts never do.
pub const DIRECT_IFINDEXES: u32 = 4096;

/// Observation points, 1-based; they must fit the eight bits of a flow key. Point 0 is "not observed".
pub const MAX_POINTS: u32 = 255;
