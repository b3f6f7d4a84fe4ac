//! Totals, epochs and wake-ups.

/// What one CPU counted at one observation point in one half, flows aside: those are counted in their slots
/// and nowhere else. Over a drained half
/// `frames == packets of the point's slots + overflow + non_ip + malformed + filtered`,
/// and the sum is a check, because the two sides were counted apart.
///
/// One cache line: a packet that finds its flow touches this and its slot.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Frames on the wire: segments of a GSO packet count each.
    pub frames: u64,
    /// Layer-2 octets without the frame check sequence.
    pub octets_l2: u64,
    /// IP packets that found no slot.
    pub overflow: u64,
    /// Layer-3 octets of them.
    pub overflow_octets: u64,
    pub non_ip: u64,
    pub malformed: u64,
    /// Left out by a rule or by sampling.
    pub filtered: u64,
    /// The part of `filtered` that sampling left out.
    pub unsampled: u64,
}

const _: () = assert!(size_of::<Counters>() == 64);

/// What one CPU did in one half, over all points.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Region {
    /// Slots in use.
    pub used4: u64,
    pub used6: u64,
    /// Link stacks that this CPU has numbered.
    pub links: u64,
    pub reserved: [u64; 5],
}

const _: () = assert!(size_of::<Region>() == 64);

/// The one element that the sensor steers the programs with.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// The half that programs write is `epoch & 1`.
    pub epoch: u64,
    /// The clock of a replay, nanoseconds.
    pub replay_now_ns: u64,
    /// Settings of each half. The sensor changes those of the half that is not written.
    pub halves: [HalfControl; 2],
    /// A reading of both kernel clocks at one instant, by the program that exists for it.
    pub ticks: u64,
    pub ticks_ns: u64,
}

/// Settings that hold for one half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HalfControl {
    /// Count one packet in this many, chosen at random; 0 and 1 are every packet.
    pub sampling_interval: u32,
    /// Filter rules in force, from the start of the half's rules.
    pub rules: u32,
    /// What happens to a flow that no rule matches; see [`crate::filter`].
    pub default_action: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Control>() == 64);

/// What the programs know of an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PointEntry {
    /// Observation points of the two directions; 0 where that direction is not observed.
    pub ingress: u8,
    pub egress: u8,
    /// Frames begin with an IP header.
    pub layer3: u8,
    /// Set by the programs when they first see a frame, one bit for each direction.
    pub seen: u8,
    pub reserved: u32,
}

const _: () = assert!(size_of::<PointEntry>() == 8);

/// A wake-up: drain early.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wakeup {
    pub epoch: u64,
    pub cpu: u32,
    /// See [`wake`].
    pub reason: u32,
}

const _: () = assert!(size_of::<Wakeup>() == 16);

/// Reasons for a [`Wakeup`].
pub mod wake {
    /// A region of slots has passed three quarters.
    pub const FILLING: u32 = 1;
    /// The first packet of this half and CPU that found no slot.
    pub const OVERFLOW: u32 = 2;
}
