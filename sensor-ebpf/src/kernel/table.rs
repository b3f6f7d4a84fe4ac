//! The flow tables: find the slot of a flow or make it.
//!
//! One writer per slot: a region belongs to one CPU, and the programs run with bottom halves off. So there
//! are no locks, no atomics and no lost increments here.

use weir_sensor_common::{Count, Flags, Mark, PROBE, Region, Slot4, Slot6};
use weir_sensor_ebpf::{Headers, Ipv4, Ipv6, hash4, hash6};

use super::{
    maps::{WEIR_FLOWS4, WEIR_FLOWS6},
    settings::{WEIR_REPLAY, WEIR_SEED, WEIR_SLOT4_BITS, WEIR_SLOT6_BITS},
};

/// What is added to a flow.
#[derive(Clone, Copy)]
pub struct Addition {
    pub packets: u64,
    pub octets: u64,
}

/// A kernel table: what differs between IPv4 and IPv6.
pub trait Table {
    type Slot;

    /// Binary logarithm of the slots of a region.
    fn bits() -> u32;
    /// Where the probe starts.
    fn hash(&self, key: u64) -> u32;
    fn slot(index: u32) -> Option<*mut Self::Slot>;
    fn holds(&self, key: u64, slot: &Self::Slot) -> bool;
    fn write_key(&self, key: u64, slot: &mut Self::Slot);
    fn fields(slot: &mut Self::Slot) -> Fields<'_>;
    fn used(region: &mut Region) -> &mut u64;
    fn headers(&self) -> &Headers;
    /// Both addresses as filter rules see them, and the IP version.
    fn addresses(&self) -> (u32, [u64; 2], [u64; 2]);
}

/// The part of a slot that both tables have.
pub struct Fields<'a> {
    pub count: &'a mut u64,
    pub octets: &'a mut u64,
    pub last: &'a mut u64,
    pub first_ns: &'a mut u64,
    pub flags: &'a mut u64,
}

/// Where a flow is or could be.
pub enum Place<S> {
    Found(*mut S),
    Free(*mut S),
    Full,
}

/// Looks for the flow in a region.
#[inline(always)]
pub fn find<T: Table>(table: &T, region: u32, key: u64) -> Place<T::Slot> {
    let bits = T::bits();
    let mask = (1_u32 << bits) - 1;
    let first = region << bits;
    let start = table.hash(key);
    for step in 0..PROBE {
        let index = first | (start.wrapping_add(step) & mask);
        let Some(slot) = T::slot(index) else { return Place::Full };
        // SAFETY: the pointer is a map value of this CPU's own region.
        let view = unsafe { &mut *slot };
        if table.holds(key, view) {
            return Place::Found(slot);
        }
        if *T::fields(view).count == 0 {
            return Place::Free(slot);
        }
    }
    Place::Full
}

/// Adds to a slot that holds the flow; the packets that it had before.
#[inline(always)]
pub fn add(fields: Fields<'_>, addition: Addition, flags: u64, now: u64) -> u64 {
    let before = Count(*fields.count);
    *fields.count = before.add(addition.packets, flags).0;
    *fields.octets += addition.octets;
    if WEIR_REPLAY.load() == 0 {
        *fields.last = now;
    } else {
        // A capture's clock may go backwards.
        *fields.first_ns = (*fields.first_ns).min(now);
        *fields.last = (*fields.last).max(now);
    }
    before.packets()
}

/// Fills a free slot.
#[inline(always)]
pub fn start<T: Table>(table: &T, key: u64, slot: &mut T::Slot, addition: Addition, now_ns: u64, mark: Mark) {
    table.write_key(key, slot);
    let fields = T::fields(slot);
    *fields.octets = addition.octets;
    *fields.first_ns = now_ns;
    *fields.last = now_ns;
    *fields.flags = table.headers().flags | Flags::pack_mark(mark);
    let guarded = if mark.drops() { Count::GUARDED } else { 0 };
    *fields.count = Count(guarded).add(addition.packets, table.headers().flags).0;
}

impl Table for Ipv4 {
    type Slot = Slot4;

    #[inline(always)]
    fn bits() -> u32 {
        WEIR_SLOT4_BITS.load()
    }

    #[inline(always)]
    fn hash(&self, key: u64) -> u32 {
        hash4(WEIR_SEED.load(), pair(self), key)
    }

    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot4> {
        WEIR_FLOWS4.get_ptr_mut(index)
    }

    #[inline(always)]
    fn holds(&self, key: u64, slot: &Slot4) -> bool {
        slot.addresses == pair(self) && slot.key == key
    }

    #[inline(always)]
    fn write_key(&self, key: u64, slot: &mut Slot4) {
        slot.addresses = pair(self);
        slot.key = key;
    }

    #[inline(always)]
    fn fields(slot: &mut Slot4) -> Fields<'_> {
        Fields {
            count: &mut slot.count,
            octets: &mut slot.octets,
            last: &mut slot.last,
            first_ns: &mut slot.first_ns,
            flags: &mut slot.flags,
        }
    }

    #[inline(always)]
    fn used(region: &mut Region) -> &mut u64 {
        &mut region.used4
    }

    #[inline(always)]
    fn headers(&self) -> &Headers {
        &self.headers
    }

    #[inline(always)]
    fn addresses(&self) -> (u32, [u64; 2], [u64; 2]) {
        (4, [self.src as u64, 0], [self.dst as u64, 0])
    }
}

/// Both IPv4 addresses in one word.
#[inline(always)]
fn pair(packet: &Ipv4) -> u64 {
    packet.src as u64 | (packet.dst as u64) << 32
}

impl Table for Ipv6 {
    type Slot = Slot6;

    #[inline(always)]
    fn bits() -> u32 {
        WEIR_SLOT6_BITS.load()
    }

    #[inline(always)]
    fn hash(&self, key: u64) -> u32 {
        hash6(WEIR_SEED.load(), self.src, self.dst, key)
    }

    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot6> {
        WEIR_FLOWS6.get_ptr_mut(index)
    }

    #[inline(always)]
    fn holds(&self, key: u64, slot: &Slot6) -> bool {
        slot.key == key
            && slot.src[0] == self.src[0]
            && slot.src[1] == self.src[1]
            && slot.dst[0] == self.dst[0]
            && slot.dst[1] == self.dst[1]
    }

    #[inline(always)]
    fn write_key(&self, key: u64, slot: &mut Slot6) {
        slot.src = self.src;
        slot.dst = self.dst;
        slot.key = key;
    }

    #[inline(always)]
    fn fields(slot: &mut Slot6) -> Fields<'_> {
        Fields {
            count: &mut slot.count,
            octets: &mut slot.octets,
            last: &mut slot.last,
            first_ns: &mut slot.first_ns,
            flags: &mut slot.flags,
        }
    }

    #[inline(always)]
    fn used(region: &mut Region) -> &mut u64 {
        &mut region.used6
    }

    #[inline(always)]
    fn headers(&self) -> &Headers {
        &self.headers
    }

    #[inline(always)]
    fn addresses(&self) -> (u32, [u64; 2], [u64; 2]) {
        (6, self.src, self.dst)
    }
}
