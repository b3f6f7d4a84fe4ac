//! Threat lists, as the kernel programs read them: a trie of prefixes, a guard that says what holds now, and
//! counters for each list.
//!
//! A packet's addresses are looked up when its flow gets a slot. What was found, the mark, stands in the slot
//! until the half is drained.

/// Lists are numbered from 1; 0 is "no list".
pub const MAX_LISTS: u32 = 63;

/// A value of the trie: the number of the list, and [`DROP`] where its packets shall be dropped.
pub const LIST_MASK: u32 = 0xff;
pub const DROP: u32 = 1 << 8;

/// A key of the trie after its prefix length: an IPv6 address, or an IPv4 address as `::ffff:a.b.c.d`.
pub const KEY_OCTETS: usize = 16;

/// Bits that are asked before the trie: an address whose bits are all clear is in no list. A trie of a million
/// prefixes costs a microsecond to ask, a bit a few nanoseconds, and most addresses are in no list.
pub mod bits {
    /// Words of 64 bits: one bit for each /24 of IPv4; hashed /32s and /48s of IPv6; one bit for each /16 of
    /// IPv6, for prefixes that are shorter than /32.
    pub const WORDS: u32 = V6_WIDE / 64 + (1 << 10);
    const V6: u32 = 1 << 24;
    const V6_WIDE: u32 = 2 << 24;

    /// The bit of an IPv4 address, in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: u32) -> u32 {
        address >> 8
    }

    /// The bit of the /48 around an IPv6 address, of which this is the upper half in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v6_48(high: u64) -> u32 {
        hashed(high >> 16)
    }

    /// The same of the /32.
    #[inline(always)]
    #[must_use]
    pub const fn v6_32(high: u64) -> u32 {
        hashed(high >> 32 | 1 << 63)
    }

    /// The same of the /16.
    #[inline(always)]
    #[must_use]
    pub const fn v6_16(high: u64) -> u32 {
        V6_WIDE + (high >> 48) as u32
    }

    #[inline(always)]
    const fn hashed(network: u64) -> u32 {
        V6 + (network.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
    }
}

/// Bits of [`Guard::loaded`].
pub mod loaded {
    /// The trie holds something.
    pub const ANY: u64 = 1;
    /// The trie holds a prefix whose packets shall be dropped.
    pub const DROPS: u64 = 2;
}

/// The one element that says what holds now.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Guard {
    /// 0 while there is nothing to look up; see [`loaded`].
    pub loaded: u64,
    /// Packets are dropped before this time of `CLOCK_MONOTONIC`, nanoseconds, and not after it: the sensor
    /// moves it on while it lives.
    pub enforce_until_ns: u64,
    pub reserved: [u64; 6],
}

/// What one CPU did with packets of flows that a list would drop. Never zeroed: it counts like the programs'
/// whole life.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListCounts {
    /// Packets that were dropped, and their layer-3 octets.
    pub dropped: u64,
    pub dropped_octets: u64,
    /// Packets that would have been dropped if enforcement held.
    pub spared: u64,
    pub spared_octets: u64,
}

const _: () = assert!(size_of::<Guard>() == 64);
const _: () = assert!(size_of::<ListCounts>() == 32);

/// What the lists said of a flow: 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub u32);

impl Mark {
    const DST_SHIFT: u32 = 8;
    const DROP_SRC: u32 = 1 << 16;
    const DROP_DST: u32 = 1 << 17;

    /// Of the trie's values for both sides; 0 where it has none.
    #[inline(always)]
    #[must_use]
    pub const fn of(src: u32, dst: u32) -> Self {
        let mut mark = src & LIST_MASK | (dst & LIST_MASK) << Self::DST_SHIFT;
        if src & DROP != 0 {
            mark |= Self::DROP_SRC;
        }
        if dst & DROP != 0 {
            mark |= Self::DROP_DST;
        }
        Self(mark)
    }

    /// The list of the source address; 0 for none.
    #[must_use]
    pub const fn src(self) -> u8 {
        self.0 as u8
    }

    /// The list of the destination address; 0 for none.
    #[must_use]
    pub const fn dst(self) -> u8 {
        (self.0 >> Self::DST_SHIFT) as u8
    }

    /// Whether its packets shall be dropped.
    #[inline(always)]
    #[must_use]
    pub const fn drops(self) -> bool {
        self.0 & (Self::DROP_SRC | Self::DROP_DST) != 0
    }

    /// The list on whose behalf they are: the source's, where both say so.
    #[inline(always)]
    #[must_use]
    pub const fn dropping(self) -> u32 {
        if self.0 & Self::DROP_SRC != 0 { self.0 & LIST_MASK } else { self.0 >> Self::DST_SHIFT & LIST_MASK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_both_lists_and_the_one_that_drops() {
        let mark = Mark::of(7, 63 | DROP);
        assert_eq!((mark.src(), mark.dst(), mark.drops(), mark.dropping()), (7, 63, true, 63));
        let mark = Mark::of(7 | DROP, 63 | DROP);
        assert_eq!(mark.dropping(), 7);
        let mark = Mark::of(0, 5);
        assert_eq!((mark.src(), mark.dst(), mark.drops()), (0, 5, false));
        assert_eq!(Mark::of(0, 0), Mark::default());
        assert!(Mark::of(u32::MAX, u32::MAX).0 < 1 << 24);
    }
}
