//! What outlives the sensor beside the tables: who made them, how far they are drained, and which interface
//! each observation point is. The kernel programs read none of it; a sensor that takes the tables over does.

/// [`Identity::magic`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"weirpins");

/// The one element that names a generation of tables and says how far it is drained.
///
/// Words are written one by one, in the order that `sensor/src/kernel/tables.rs` explains, so that a sensor
/// which is killed between any two of them leaves a state that the next one understands.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    // The first 64 bytes are the same in every layout: a sensor reads them before it trusts the rest.
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::LAYOUT_VERSION`] of the sensor that made the tables.
    pub layout: u32,
    pub reserved: u32,
    /// UUID of this generation.
    pub generation: [u8; 16],
    /// Generations in one folder count upwards: the highest is the current one.
    pub sequence: u64,
    /// When the tables were made, nanoseconds since the Unix epoch.
    pub made_ns: i64,
    /// Inode of the network namespace whose interface indexes the points hold.
    pub namespace: u64,
    pub reserved_header: u64,

    /// Sizes of the tables.
    pub cpus: u32,
    pub table_cpus: u32,
    pub points: u32,
    pub slots4_bits: u32,
    pub slots6_bits: u32,
    pub reserved_sizes: u32,
    /// Secret of the hash; flows are found only with the same.
    pub seed: u64,
    /// Fingerprint of the build that made the tables.
    pub build: u64,
    /// Epochs below this one are drained and zeroed.
    pub released: u64,
    /// Epochs below this one are drained; the zeroing of the last of them may not be complete. One more
    /// than `released` while a half is zeroed, else the same.
    pub zeroing: u64,
    /// Not 0 once these tables have a successor: no epoch from this one on holds anything.
    pub ended: u64,

    /// When the epoch of each half began.
    pub began: [Began; 2],
}

const _: () = assert!(size_of::<Identity>() == 256);

/// All clocks at the instant at which an epoch began.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Began {
    pub epoch: u64,
    /// Tick counter and `CLOCK_MONOTONIC`, read together.
    pub ticks: u64,
    pub ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub wall_ns: i64,
    /// What was to be added to `CLOCK_MONOTONIC` to get the wall clock.
    pub offset_ns: i64,
    /// How long the machine had been in suspend: what `CLOCK_BOOTTIME` was ahead of `CLOCK_MONOTONIC`.
    pub asleep_ns: u64,
}

const _: () = assert!(size_of::<Began>() == 48);

/// An observation point, at the index of its number.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct PointRecord {
    /// 0 where the number is free; written last.
    pub used: u32,
    pub ifindex: u32,
    /// Interfaces that are stacked on each other share it.
    pub stack: u32,
    /// 0 ingress, 1 egress.
    pub direction: u8,
    /// Frames begin with an IP header.
    pub layer3: u8,
    pub reserved: [u8; 2],
    /// Name of the interface, zeros behind it.
    pub interface: [u8; 16],
    /// 0 while it is observed, else one more than the last epoch in which it may have counted.
    pub retired: u64,
    /// Fingerprint of the program on its hook; 0 where that is not known.
    pub program: u64,
    pub reserved_words: [u64; 2],
}

const _: () = assert!(size_of::<PointRecord>() == 64);
