//! Threat lists: which list has a packet's addresses, and whether the packet may go on.
//!
//! The trie is asked once for each flow, half and CPU, when no slot has the flow yet; what it said stands in
//! the slot. A packet without a slot asks for itself, and only where something is to be dropped.

use aya_ebpf::{helpers::bpf_ktime_get_ns, maps::lpm_trie::Key};
use weir_sensor_common::{
    Guard, Mark,
    listed::{KEY_OCTETS, bits, loaded},
};

use super::{
    account::outcome,
    maps::{WEIR_GUARD, WEIR_LIST_COUNTS, WEIR_LISTED, WEIR_LISTED_BITS},
    settings::WEIR_REPLAY,
    table::{Addition, Table},
};

/// What the lists say of a packet, if all of `wanted` is loaded.
#[inline(always)]
pub fn mark<T: Table>(packet: &T, wanted: u64) -> Mark {
    let Some(guard) = WEIR_GUARD.get_ptr(0) else { return Mark(0) };
    // SAFETY: a word of a map value that the sensor replaces at once.
    if unsafe { loaded_of(guard).read_volatile() } & wanted == 0 {
        return Mark(0);
    }
    let (version, src, dst) = packet.addresses();
    if version == 6 {
        return Mark(weir_listed(src[0], src[1], dst[0], dst[1]));
    }
    Mark(weir_listed(0, mapped(src[0]), 0, mapped(dst[0])))
}

#[inline(always)]
fn loaded_of(guard: *const Guard) -> *const u64 {
    // SAFETY: a field of a map value.
    unsafe { &raw const (*guard).loaded }
}

/// The first half of that word, as the machine reads it.
const MAPPED: u32 = 0xffff_0000;

/// The second word of `::ffff:a.b.c.d`, from an IPv4 address in network byte order.
#[inline(always)]
const fn mapped(address: u64) -> u64 {
    MAPPED as u64 | address << 32
}

/// A packet that has no slot to remember its mark: an [`outcome`].
#[inline(always)]
pub fn without_slot<T: Table>(packet: &T, addition: Addition) -> u32 {
    let mark = mark(packet, loaded::DROPS);
    if mark.drops() { verdict(mark, addition) } else { outcome::PASS }
}

/// What becomes of a packet whose mark drops it: an [`outcome`].
#[inline(always)]
pub fn verdict(mark: Mark, addition: Addition) -> u32 {
    weir_enforce(mark.0, addition.packets, addition.octets)
}

/// The mark of two addresses. Followed by the verifier on its own, like the functions of `outline`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_listed(src_high: u64, src_low: u64, dst_high: u64, dst_low: u64) -> u32 {
    Mark::of(value(src_high, src_low), value(dst_high, dst_low)).0
}

/// Whether the trie need be asked.
#[inline(always)]
fn may_be_listed(high: u64, low: u64) -> bool {
    if high == 0 && low as u32 == MAPPED {
        return is_set(bits::v4(u32::from_be((low >> 32) as u32)));
    }
    let high = u64::from_be(high);
    is_set(bits::v6_48(high)) || is_set(bits::v6_32(high)) || is_set(bits::v6_16(high))
}

#[inline(always)]
fn is_set(bit: u32) -> bool {
    let Some(word) = WEIR_LISTED_BITS.get_ptr(bit >> 6) else { return false };
    // SAFETY: a map value, of which the sensor replaces words at once.
    unsafe { word.read_volatile() >> (bit & 63) & 1 != 0 }
}

/// The trie's value for an address; 0 where it has none.
#[inline(always)]
fn value(high: u64, low: u64) -> u32 {
    if !may_be_listed(high, low) {
        return 0;
    }
    let mut address = [0; KEY_OCTETS];
    address[..8].copy_from_slice(&high.to_ne_bytes());
    address[8..].copy_from_slice(&low.to_ne_bytes());
    let key = Key::new(KEY_OCTETS as u32 * 8, address);
    // SAFETY: a value lives until no program can hold it (RCU); it is read at once.
    WEIR_LISTED.get_value_ptr_mut(0, &key).map_or(0, |value| unsafe { *value })
}

/// Counts a packet that a list drops as dropped, or as spared where enforcement does not hold.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_enforce(mark: u32, packets: u64, octets: u64) -> u32 {
    let Some(counts) = WEIR_LIST_COUNTS.get_ptr_mut(Mark(mark).dropping()) else { return outcome::PASS };
    // SAFETY: this CPU's own value; bottom halves are off.
    let counts = unsafe { &mut *counts };
    if !is_enforced() {
        counts.spared += packets;
        counts.spared_octets += octets;
        return outcome::PASS;
    }
    counts.dropped += packets;
    counts.dropped_octets += octets;
    outcome::DROP
}

/// Whether the sensor that wants it is alive. A replay drops nothing.
#[inline(always)]
fn is_enforced() -> bool {
    if WEIR_REPLAY.load() != 0 {
        return false;
    }
    let Some(guard) = WEIR_GUARD.get_ptr(0) else { return false };
    // SAFETY: a word of a map value that the sensor replaces at once.
    let until_ns = unsafe { (&raw const (*guard).enforce_until_ns).read_volatile() };
    // SAFETY: a helper without arguments.
    until_ns != 0 && unsafe { bpf_ktime_get_ns() } < until_ns
}
