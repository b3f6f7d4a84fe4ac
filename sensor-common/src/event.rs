//! Events: packets whose bytes userspace wants to read, as the programs hand them over.
//!
//! A record of the ring is an [`EventHeader`] and behind it `captured` octets of the frame, from where the frame
//! begins at its point (the link header, or the IP header on a layer-3 device).

/// Octets of the ring that all CPUs share.
pub const RING_OCTETS: u32 = 1 << 20;

/// The most octets of a frame that a record can have.
pub const MAX_SNAP: u32 = 4096;

/// Entries of the table of hellos that go on in further segments.
pub const CONTINUATIONS: u32 = 1024;

/// What a record is about. Numbers are bits of the mask of wanted classes, so they are below 32.
pub mod class {
    pub const NONE: u32 = 0;
    pub const ARP: u32 = 1;
    /// `ICMPv6` 133 to 137: router and neighbour discovery.
    pub const NDP: u32 = 2;
    pub const DHCPV4: u32 = 3;
    pub const DHCPV6: u32 = 4;
    /// UDP and TCP port 53.
    pub const DNS: u32 = 5;
    pub const MDNS: u32 = 6;
    pub const LLMNR: u32 = 7;
    pub const NBNS: u32 = 8;
    pub const SSDP: u32 = 9;
    /// A segment that begins with a `ClientHello`, or goes on with one; or a DTLS record that does.
    pub const TLS_CLIENT: u32 = 10;
    pub const TLS_SERVER: u32 = 11;
    /// A QUIC Initial packet, of either side.
    pub const QUIC: u32 = 12;
    /// The segment in which an HTTP/1 request begins.
    pub const HTTP: u32 = 13;
    pub const LLDP: u32 = 14;
    pub const CDP: u32 = 15;
    /// One more than the last.
    pub const END: u32 = 16;
}

/// [`EventHeader::tag`] of a frame whose tags are all in its bytes.
pub const NO_TAG: u32 = u32::MAX;

/// Bits of [`EventHeader::flags`].
pub mod flag {
    pub const EGRESS: u8 = 1;
    /// The frame begins with an IP header.
    pub const LAYER3: u8 = 2;
}

/// Before the octets of a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventHeader {
    /// Kernel clock.
    pub time_ns: u64,
    pub ifindex: u32,
    /// Octets of the frame (of a GSO packet: of the whole of it), without a tag that was taken out.
    pub octets: u32,
    /// Octets of it that follow.
    pub captured: u32,
    /// Payload of a full segment of a GSO packet, else 0.
    pub gso_size: u32,
    /// Tag control information of a tag that is not in the bytes: the outermost one. Or [`NO_TAG`].
    pub tag: u32,
    /// See [`class`].
    pub class: u8,
    /// Observation point.
    pub point: u8,
    /// See [`flag`].
    pub flags: u8,
    pub reserved: u8,
}

const _: () = assert!(size_of::<EventHeader>() == 32);

/// What one CPU did with the packets of one class. Counters only grow:
/// `selected == delivered + over_budget + ring_full + unreadable`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventState {
    pub selected: u64,
    pub delivered: u64,
    /// Octets of frames in what was delivered.
    pub delivered_octets: u64,
    /// Delivered, but cut at the snap length.
    pub cut: u64,
    pub over_budget: u64,
    pub ring_full: u64,
    /// The bytes could not be read.
    pub unreadable: u64,
    // The budget: time that was not spent on events yet, when that was reckoned, and the tick it was in.
    pub credit_ns: u64,
    pub reckoned_ns: u64,
    pub tick: u64,
}

const _: () = assert!(size_of::<EventState>() == 80);
