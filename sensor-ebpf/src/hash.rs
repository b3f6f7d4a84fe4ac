//! Which slot a flow starts its probe at.
//!
//! Two rounds of a multiply and a fold, seeded at load time with a number that a stranger cannot know, so
//! that nobody can aim flows at one slot. Collisions cost probes or overflow counts, never a wrong count.

const ODD_1: u64 = 0x9e37_79b9_7f4a_7c15;
const ODD_2: u64 = 0xd6e8_feb8_6659_fd93;

#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(ODD_1);
    product ^ product >> 32
}

#[inline(always)]
const fn finish(state: u64) -> u32 {
    (state.wrapping_mul(ODD_2) >> 32) as u32
}

/// Of an IPv4 flow: both addresses in one word, then the packed key.
#[inline(always)]
#[must_use]
pub const fn hash4(seed: u64, addresses: u64, key: u64) -> u32 {
    finish(mix(mix(seed, addresses), key))
}

/// Of an IPv6 flow.
#[inline(always)]
#[must_use]
pub const fn hash6(seed: u64, src: [u64; 2], dst: [u64; 2], key: u64) -> u32 {
    finish(mix(mix(mix(mix(mix(seed, src[0]), src[1]), dst[0]), dst[1]), key))
}
