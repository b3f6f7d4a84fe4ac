//! Results of functions that the verifier follows on their own: it lets such a function take the context and
//! numbers, and give one number.

use weir_sensor_ebpf::{Chain, Network, Reject, bounded};

/// No link number was left.
pub const NO_NUMBER: u16 = u16::MAX;

const OK: u8 = 0;
const NON_IP: u8 = 1;
const MALFORMED: u8 = 2;
const TRUNCATED: u8 = 3;

#[inline(always)]
pub const fn reject(reject: Reject) -> u64 {
    (match reject {
        Reject::NonIp => NON_IP,
        Reject::Malformed => MALFORMED,
        Reject::Truncated => TRUNCATED,
    }) as u64
}

/// Whether the function passed its part.
#[inline(always)]
pub const fn accepted(packed: u64) -> Result<(), Reject> {
    match packed as u8 {
        OK => Ok(()),
        NON_IP => Err(Reject::NonIp),
        MALFORMED => Err(Reject::Malformed),
        _ => Err(Reject::Truncated),
    }
}

/// The same number, which the verifier takes for any. A constant on each path would make it follow what comes after
/// once for each; `any` is a number that it does not know.
#[inline(always)]
pub fn hidden(number: u64, any: u64) -> u64 {
    let (mut number, mut nothing) = (number, any);
    // SAFETY: registers only: `nothing` becomes 0.
    unsafe {
        core::arch::asm!(
            "{nothing} -= {any}",
            "{number} += {nothing}",
            number = inout(reg) number,
            nothing = inout(reg) nothing,
            any = in(reg) any,
        );
    }
    let _ = nothing;
    number
}

/// A link stack that was passed: what follows, its number, the octets it took.
#[inline(always)]
pub const fn link(network: Network, number: u16, taken: u32) -> u64 {
    let six = matches!(network, Network::V6) as u64;
    six << 8 | (number as u64) << 16 | (taken as u64) << 32
}

// The parts of a packed result, one by one: a struct of them would go through memory byte by byte, and the
// verifier would lose the bounds.

#[inline(always)]
pub const fn link_is_v6(packed: u64) -> bool {
    packed >> 8 & 1 != 0
}

#[inline(always)]
pub const fn link_number(packed: u64) -> u16 {
    (packed >> 16) as u16
}

#[inline(always)]
pub fn link_taken(packed: u64) -> u32 {
    bounded::<0xff>(packed >> 32)
}

/// A chain of extension headers that was passed.
#[inline(always)]
pub const fn chain(chain: Chain) -> u64 {
    (chain.protocol as u64) << 8
        | (chain.fragments as u64) << 16
        | (chain.readable as u64) << 24
        | (chain.octets as u64) << 32
}

#[inline(always)]
pub const fn chain_protocol(packed: u64) -> u8 {
    (packed >> 8) as u8
}

#[inline(always)]
pub const fn chain_fragments(packed: u64) -> u8 {
    (packed >> 16) as u8
}

#[inline(always)]
pub const fn chain_readable(packed: u64) -> bool {
    packed >> 24 & 1 != 0
}

#[inline(always)]
pub fn chain_octets(packed: u64) -> u32 {
    bounded::<0x7fff>(packed >> 32)
}
