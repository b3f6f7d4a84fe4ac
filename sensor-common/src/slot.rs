//! Flow slots: one for each unidirectional flow, CPU, half and observation point.
//!
//! A slot whose count is 0 is free. The kernel writes a slot only from the CPU that owns its region;
//! the sensor reads and zeroes it only while no program can write its half.

use crate::Mark;

/// The last word of a flow key: everything but the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Ports in host byte order; 0 where there are none.
    pub src_port: u16,
    pub dst_port: u16,
    pub protocol: u8,
    /// Observation point, 1-based, so that no key is all zeros.
    pub point: u8,
    /// See [`crate::link`].
    pub link: u16,
}

impl Key {
    /// The word that stands in a slot.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.src_port as u64
            | (self.dst_port as u64) << 16
            | (self.protocol as u64) << 32
            | (self.point as u64) << 40
            | (self.link as u64) << 48
    }

    /// The same, from ports that are packed already: the source port below, the destination port above.
    #[inline(always)]
    #[must_use]
    pub const fn pack_with(ports: u32, protocol: u8, point: u8, link: u16) -> u64 {
        ports as u64 | (protocol as u64) << 32 | (point as u64) << 40 | (link as u64) << 48
    }

    /// The inverse of [`Key::pack`].
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            src_port: word as u16,
            dst_port: (word >> 16) as u16,
            protocol: (word >> 32) as u8,
            point: (word >> 40) as u8,
            link: (word >> 48) as u16,
        }
    }
}

/// Set in a slot's `last` where it is a number of ticks (jiffies) and not of nanoseconds.
pub const TICKS: u64 = 1 << 63;

/// The word that counts: packets in the low 48 bits, above them the flags that packets add to, so that a
/// packet which finds its flow writes them at once. 2^48 packets on one CPU in one epoch are out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl Count {
    const FLAGS_SHIFT: u32 = 48;

    /// Set where a list would drop the flow's packets: a packet that finds its flow sees it at once. It is the
    /// top bit of the fragment flags, which no packet has.
    pub const GUARDED: u64 = 1 << 63;

    /// Whether a list would drop the flow's packets.
    #[inline(always)]
    #[must_use]
    pub const fn is_guarded(self) -> bool {
        self.0 & Self::GUARDED != 0
    }

    /// `packets` more, with packed `flags` of which the accumulating ones are kept.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, packets: u64, flags: u64) -> Self {
        Self((self.0 + packets) | (flags & Flags::ACCUMULATED) << Self::FLAGS_SHIFT)
    }

    #[inline(always)]
    #[must_use]
    pub const fn packets(self) -> u64 {
        self.0 & ((1 << Self::FLAGS_SHIFT) - 1)
    }

    /// Packed flags, the accumulating ones only.
    #[must_use]
    pub const fn flags(self) -> u64 {
        (self.0 & !Self::GUARDED) >> Self::FLAGS_SHIFT
    }
}

/// What a slot remembers of its packets beside counts and times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// OR of byte 13 of the TCP headers.
    pub tcp: u8,
    /// OR of [`fragment`] bits.
    pub fragments: u8,
    /// Byte 13 of the first packet's TCP header.
    pub first_tcp: u8,
    /// Of the first packet.
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// What the lists said when the slot was taken.
    pub listed: Mark,
}

impl Flags {
    /// None, in a form that constants can be made of.
    pub const NONE: Self =
        Self { tcp: 0, fragments: 0, first_tcp: 0, icmp_type: 0, icmp_code: 0, listed: Mark(0) };

    const LISTED_SHIFT: u32 = 40;

    /// The part of the word that a mark is.
    #[inline(always)]
    #[must_use]
    pub const fn pack_mark(mark: Mark) -> u64 {
        (mark.0 as u64) << Self::LISTED_SHIFT
    }

    /// The mark in the word of a slot.
    #[inline(always)]
    #[must_use]
    pub const fn mark(word: u64) -> Mark {
        Mark((word >> Self::LISTED_SHIFT) as u32)
    }

    /// The bits that later packets add to; the others belong to the first packet.
    pub const ACCUMULATED: u64 = 0xffff;

    /// The word that stands in a slot.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.tcp as u64
            | (self.fragments as u64) << 8
            | (self.first_tcp as u64) << 16
            | (self.icmp_type as u64) << 24
            | (self.icmp_code as u64) << 32
            | Self::pack_mark(self.listed)
    }

    /// The inverse of [`Flags::pack`].
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            tcp: word as u8,
            fragments: (word >> 8) as u8,
            first_tcp: (word >> 16) as u8,
            icmp_type: (word >> 24) as u8,
            icmp_code: (word >> 32) as u8,
            listed: Self::mark(word),
        }
    }
}

/// Bits of [`Flags::fragments`].
pub mod fragment {
    /// Offset 0, more to come.
    pub const FIRST: u8 = 1;
    /// Offset above 0: no transport header.
    pub const LATER: u8 = 2;
    /// IPv6 fragment header around a whole packet (RFC 6946).
    pub const ATOMIC: u8 = 4;
}

/// An IPv4 flow: one cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Slot4 {
    /// Source in the low half, destination in the high half, each in network byte order.
    pub addresses: u64,
    /// [`Key::pack`].
    pub key: u64,
    /// [`Count`].
    pub count: u64,
    /// Layer-3 octets.
    pub octets: u64,
    /// Kernel clock: nanoseconds, or ticks with [`TICKS`] set.
    pub last: u64,
    /// [`Flags::pack`] of the first packet.
    pub flags: u64,
    /// Kernel clock, nanoseconds.
    pub first_ns: u64,
    pub reserved: u64,
}

/// An IPv6 flow: two cache lines, the first of which is all that most packets touch.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Slot6 {
    /// Network byte order.
    pub src: [u64; 2],
    pub dst: [u64; 2],
    /// [`Key::pack`].
    pub key: u64,
    /// [`Count`].
    pub count: u64,
    /// Layer-3 octets.
    pub octets: u64,
    /// Kernel clock: nanoseconds, or ticks with [`TICKS`] set.
    pub last: u64,
    /// [`Flags::pack`] of the first packet.
    pub flags: u64,
    /// Kernel clock, nanoseconds.
    pub first_ns: u64,
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<Slot4>() == 64);
const _: () = assert!(size_of::<Slot6>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_flags_survive_packing() {
        let key = Key { src_port: 0x1234, dst_port: 0xfedc, protocol: 132, point: 255, link: 0xabcd };
        assert_eq!(Key::unpack(key.pack()), key);
        let listed = Mark::of(7, 63 | crate::listed::DROP);
        let flags = Flags { tcp: 0x12, fragments: 5, first_tcp: 2, icmp_type: 128, icmp_code: 255, listed };
        assert_eq!(Flags::unpack(flags.pack()), flags);
        assert_eq!(flags.pack() & Flags::ACCUMULATED, 0x0512);
    }

    #[test]
    fn a_count_keeps_packets_and_flags_apart() {
        let syn = Flags { tcp: 2, first_tcp: 2, ..Flags::default() };
        let ack = Flags { tcp: 0x10, fragments: fragment::FIRST, icmp_code: 7, ..Flags::default() };
        let count = Count(0).add(1, syn.pack()).add(41, ack.pack());
        assert_eq!((count.packets(), count.flags(), count.is_guarded()), (42, 0x0112, false));
        let guarded = Count(count.0 | Count::GUARDED).add(1, 0);
        assert_eq!((guarded.packets(), guarded.flags(), guarded.is_guarded()), (43, 0x0112, true));
    }
}
