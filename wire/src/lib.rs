//! What a sensor and a control plane say to each other.
//!
//! A [`Batch`] is a part of one drained epoch. Its key `(sensor, generation, epoch, part)` is what makes
//! delivery exactly-once: the sensor comes from the credential of the request, the rest is in the batch.
//! Encoded as protobuf, compressed with zstd ([`encode`], [`decode`]); both directions know the limits in
//! [`limits`]. Field numbers are never reused; a change that an old reader would misread raises
//! [`VERSION`].
#![forbid(unsafe_code)]

mod batch;
mod codec;
mod detection;
mod device;
pub mod link;
mod names;
mod private;
mod process;
pub mod settings;
pub mod text;

pub use batch::{
    Batch, Direction, DropReason, Dropped, EndReason, Flow, LinkStack, Point, Spool, TcpState, Totals,
};
pub use codec::{CodecError, decode, encode};
pub use detection::{Detection, Fact, FactValue, Severity};
pub use device::{Device, DeviceAddress, DeviceFact, DeviceReason, DeviceType};
pub use names::{NameSource, Place};
pub use private::PRIVATE;
pub use process::Process;

/// Version of the batch format that this crate writes.
pub const VERSION: u32 = 1;

/// `Content-Type` of a batch.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
/// `Content-Encoding` of a batch.
pub const CONTENT_ENCODING: &str = "zstd";
/// Request header with the sensor's wall clock at sending, milliseconds since the Unix epoch. It is
/// outside the batch so that a retry is byte for byte the same batch.
pub const SENT_AT_HEADER: &str = "weir-sent-at";

/// Limits that both sides keep.
pub mod limits {
    /// Flow records in one batch.
    pub const MAX_RECORDS: usize = 50_000;
    /// Bytes of a compressed batch.
    pub const MAX_COMPRESSED: usize = 8 << 20;
    /// Bytes of a decompressed batch: 50,000 records of the largest encoding, with room for the rest.
    pub const MAX_DECOMPRESSED: usize = 32 << 20;
    /// Observation points of one sensor.
    pub const MAX_POINTS: usize = 256;
    /// Distinct link stacks in one batch.
    pub const MAX_LINK_STACKS: usize = 65_536;
    /// Headers (VLAN tags, PPPoE, MPLS labels, SNAP) in one link stack.
    pub const MAX_LINK_DEPTH: usize = 16;
    /// Bytes of an interface name (`IFNAMSIZ` less its NUL).
    pub const MAX_INTERFACE_NAME: usize = 15;
    /// Observation points in one flow's path.
    pub const MAX_PATH: usize = 16;
    /// Distinct names of flows in one batch.
    pub const MAX_NAMES: usize = 8_192;
    /// Bytes of a name: a domain name has at most 253 as text (RFC 1035).
    pub const MAX_NAME: usize = 255;
    /// Distinct places in one batch.
    pub const MAX_PLACES: usize = 4_096;
    /// Bytes of the name of an organisation.
    pub const MAX_ORGANISATION: usize = 128;
    /// Distinct processes in one batch.
    pub const MAX_PROCESSES: usize = 4_096;
    /// Bytes of a task's name: 15 octets, each of which may have to be written out.
    pub const MAX_PROCESS_NAME: usize = 96;
    /// Bytes of the path of an executable.
    pub const MAX_EXECUTABLE: usize = 512;
    /// Bytes of a container's id or name.
    pub const MAX_CONTAINER: usize = 64;
    /// Bytes of the name of a unit.
    pub const MAX_UNIT: usize = 255;
    /// Detections in one batch; only part 0 has any.
    pub const MAX_DETECTIONS: usize = 256;
    /// Detections in what stands for a dropped batch, without their evidence: tens of thousands of those may
    /// wait.
    pub const MAX_KEPT_DETECTIONS: usize = 16;
    /// Bytes of a detection's kind, technique and source, and of a fact's name.
    pub const MAX_WORD: usize = 32;
    /// Bytes of a detection's subject, and of a fact's text.
    pub const MAX_TEXT: usize = 256;
    /// Facts in one detection's evidence.
    pub const MAX_FACTS: usize = 32;
    /// Devices in one batch; only part 0 has any, and none what stands for a dropped batch: they are told again.
    pub const MAX_DEVICES: usize = 256;
    /// What a device is known by.
    pub const MAX_DEVICE_KEYS: usize = 16;
    /// Addresses of a device, the last ones that it had.
    pub const MAX_DEVICE_ADDRESSES: usize = 32;
    pub const MAX_DEVICE_NAMES: usize = 16;
    /// Rules that held for a device.
    pub const MAX_DEVICE_REASONS: usize = 64;
    /// Bytes of what a device is known by: a DUID has at most 130, written in hexadecimal.
    pub const MAX_DEVICE_KEY: usize = 288;
}
