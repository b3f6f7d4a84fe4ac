//! The kernel side: loads and attaches the programs, owns the tables, flips epochs.
//!
//! Called by the pipeline in `run` and by `pcap`. Nothing above this module knows a map or a slot: a
//! [`Drained`] is all that leaves.
#![allow(unsafe_code, reason = "shared memory, ioctls and system calls; each block says why it is sound")]

mod attach;
pub mod bench;
mod check;
mod clock;
mod datapath;
mod drained;
mod error;
mod event;
mod geometry;
mod grace;
mod identity;
mod interface;
mod lists;
mod memory;
mod object;
mod observation;
pub mod pins;
mod points;
mod predecessor;
mod privileges;
mod replay;
mod settings;
mod sockets;
mod sys;
mod tables;
mod wakeups;

pub use attach::{Attachment, EgressMode, IngressMode};
pub use check::{Finding, Verdict, check, check_interface, check_pins};
pub use datapath::{Datapath, Opened};
pub use drained::{DrainFigures, Drained, FlowKey, FlowObservation, Listed, PointTotals, fragment};
pub use error::KernelError;
pub use event::{Event, EventClass, EventCounts, EventSettings, EventTally, Events, MAX_SNAP_OCTETS};
use geometry::Geometry;
pub use interface::{Framing, Interface, Offloads, host_addresses};
pub use lists::{Enforced, Heart, ListedPrefix, Lists, MAX_LISTS, MAX_PREFIXES, address_bits};
pub use pins::Pinning;
pub use predecessor::Predecessor;
pub use privileges::drop_privileges;
pub use replay::{Replay, ReplayLink, ReplayProgram};
pub use settings::{FilterAction, FilterRule, KernelLog, MAX_FILTER_RULES, Settings, TableSizes};
pub use sockets::{Readable, Sockets};
pub use wakeups::{WakeReason, Wakeup, Wakeups};
pub use weir_sensor_common::Owner;
