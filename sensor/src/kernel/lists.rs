//! Threat lists in the kernel: another trie for the programs at once, enforcement that the sensor must keep
//! alive, and what was done to packets.
//!
//! Owned by the task that keeps the lists (`threat`), not by the drain: to fill a trie takes longer than an
//! epoch may wait. The maps are pinned beside the tables, so that lists hold while the sensor is replaced.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, PerCpuArray},
};
use nix::time::{ClockId, clock_gettime};
use weir_sensor_common::{
    Guard, ListCounts,
    listed::{self as layout, DROP, KEY_OCTETS, LIST_MASK, loaded},
};

use super::{
    KernelError,
    memory::MapMemory,
    object,
    sys::{self, MapCreate},
};

const LISTED: &str = "WEIR_LISTED";
const BITS: &str = "WEIR_LISTED_BITS";
const GUARD: &str = "WEIR_GUARD";
const COUNTS: &str = "WEIR_LIST_COUNTS";

/// The maps of lists. They outlive the sensor like the tables; unlike those they are made where they are
/// missing, because a build that had no lists may have made the tables.
pub(super) const PINNED: [&str; 4] = [LISTED, BITS, GUARD, COUNTS];

/// Prefixes that a trie may hold.
pub const MAX_PREFIXES: usize = 1 << 24;
/// Lists that have a number of their own, from 1.
pub const MAX_LISTS: usize = weir_sensor_common::listed::MAX_LISTS as usize;

/// One listed prefix. Of several that hold an address the longest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedPrefix {
    /// IPv4 as `::ffff:a.b.c.d`.
    pub bits: u128,
    /// 0 to 128; of an IPv4 prefix 96 more than it is written with.
    pub length: u8,
    /// Number of the list; 0 takes the prefix out of a wider one.
    pub list: u8,
    /// Whether its packets shall be dropped.
    pub drops: bool,
}

/// An address as [`ListedPrefix::bits`] has it.
#[must_use]
pub fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Counts(ListCounts);

// SAFETY: four plain numbers without padding, by the definition in `weir-sensor-common`.
unsafe impl Pod for Counts {}

/// What was done to packets of flows that a list would drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    pub dropped: u64,
    pub dropped_octets: u64,
    /// What would have been dropped if enforcement held.
    pub spared: u64,
    pub spared_octets: u64,
}

/// The maps.
pub struct Lists {
    /// An array of one trie.
    outer: MapData,
    /// What is asked before the trie.
    bits: MapMemory<u64>,
    guard: MapMemory<Guard>,
    counts: PerCpuArray<MapData, Counts>,
}

impl Lists {
    /// Takes them out of an object whose programs are loaded.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, KernelError> {
        let plain = |map: Map, name| match map {
            Map::Array(map) | Map::ArrayOfMaps(map) => Ok(map),
            _ => Err(KernelError::MissingMap(name)),
        };
        Ok(Self {
            outer: plain(object::take(object, LISTED)?, LISTED)?,
            bits: MapMemory::new(
                BITS,
                plain(object::take(object, BITS)?, BITS)?,
                layout::bits::WORDS as usize,
            )?,
            guard: MapMemory::new(GUARD, plain(object::take(object, GUARD)?, GUARD)?, 1)?,
            counts: PerCpuArray::try_from(object::take(object, COUNTS)?).map_err(KernelError::map(COUNTS))?,
        })
    }

    /// Puts these prefixes in the place of all before, at once: a packet sees the old ones or the new ones.
    /// Where it fails the old ones stay. Blocks for a second or two with a million; how long it took.
    pub fn install(&mut self, prefixes: &[ListedPrefix]) -> Result<Duration, KernelError> {
        if prefixes.len() > MAX_PREFIXES {
            return Err(KernelError::Setting {
                key: "threats.lists",
                value: format!("{} prefixes", prefixes.len()),
                allowed: "at most 16777216 in all lists together",
            });
        }
        let started = Instant::now();
        let trie = sys::create_map(&MapCreate {
            map_type: sys::BPF_MAP_TYPE_LPM_TRIE,
            key_size: size_of::<Key>() as u32,
            value_size: 4,
            max_entries: MAX_PREFIXES as u32,
            map_flags: sys::BPF_F_NO_PREALLOC,
            inner_map_fd: 0,
        })
        .map_err(KernelError::system("make the kernel's trie of listed prefixes"))?;
        fill(trie.as_fd(), prefixes)
            .map_err(KernelError::system("fill the kernel's trie of listed prefixes"))?;
        let asked = bits(prefixes);
        // First the bits of both, then the trie, then its own alone: a bit too many costs time, one too few an
        // answer that is the new lists' already.
        for (place, word) in asked.iter().enumerate().filter(|(_, word)| **word != 0) {
            self.bit_word(place).fetch_or(*word, Ordering::AcqRel);
        }
        sys::set_inner_map(self.outer.fd().as_fd(), trie.as_fd())
            .map_err(KernelError::system("put new lists in the place of the old"))?;
        for (place, word) in asked.iter().enumerate() {
            self.bit_word(place).store(*word, Ordering::Release);
        }
        let mut holds = 0;
        if !prefixes.is_empty() {
            holds |= loaded::ANY;
        }
        if prefixes.iter().any(|prefix| prefix.drops) {
            holds |= loaded::DROPS;
        }
        word(&self.guard, |guard| &raw mut guard.loaded).store(holds, Ordering::Release);
        Ok(started.elapsed())
    }

    fn bit_word(&self, place: usize) -> &AtomicU64 {
        // SAFETY: an aligned word of the mapping that lives as long as `self`; programs only read it.
        unsafe { AtomicU64::from_ptr(self.bits.element(place)) }
    }

    /// What keeps enforcement alive, for an owner of its own: a trie takes a while to fill.
    pub fn heart(&self) -> Result<Heart, KernelError> {
        self.guard.share(GUARD).map(Heart)
    }

    /// What was done on behalf of a list since these maps were made.
    pub fn enforced(&self, list: u8) -> Result<Enforced, KernelError> {
        let cpus = self.counts.get(&u32::from(list), 0).map_err(KernelError::map(COUNTS))?;
        Ok(cpus.iter().fold(Enforced::default(), |sum, Counts(cpu)| Enforced {
            dropped: sum.dropped + cpu.dropped,
            dropped_octets: sum.dropped_octets + cpu.dropped_octets,
            spared: sum.spared + cpu.spared,
            spared_octets: sum.spared_octets + cpu.spared_octets,
        }))
    }
}

/// Enforcement: it must be renewed, or it ends.
pub struct Heart(MapMemory<Guard>);

impl Heart {
    /// Lets the programs drop what lists would drop, for so long from now on. Zero lifts it at once.
    pub fn enforce_for(&self, time: Duration) {
        let until_ns = if time.is_zero() { 0 } else { monotonic_ns() + time.as_nanos() as u64 };
        word(&self.0, |guard| &raw mut guard.enforce_until_ns).store(until_ns, Ordering::Release);
    }

    /// Whether packets are dropped now.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.0.read(0).enforce_until_ns > monotonic_ns()
    }
}

fn word(memory: &MapMemory<Guard>, field: impl FnOnce(&mut Guard) -> *mut u64) -> &AtomicU64 {
    // SAFETY: an aligned word of the mapping that lives as long as `memory`; no reference to the element
    // outlives this line, and programs only read it.
    unsafe { AtomicU64::from_ptr(field(&mut *memory.element(0))) }
}

fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// What is asked before the trie, for these prefixes. One that takes addresses out of a wider one needs no bit.
fn bits(prefixes: &[ListedPrefix]) -> Vec<u64> {
    use layout::bits::{WORDS, v4, v6_16, v6_32, v6_48};
    let mut words = vec![0_u64; WORDS as usize];
    let mut set = |bit: u32| words[(bit >> 6) as usize] |= 1 << (bit & 63);
    for prefix in prefixes.iter().filter(|prefix| prefix.list != 0) {
        let last = prefix.bits | u128::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
        let (from, to) = ((prefix.bits >> 64) as u64, (last >> 64) as u64);
        if prefix.length >= 96 && prefix.bits >> 32 == 0xffff {
            (v4(prefix.bits as u32)..=v4(last as u32)).for_each(&mut set);
        } else if prefix.length >= 48 {
            set(v6_48(from));
        } else if prefix.length >= 32 {
            set(v6_32(from));
        } else {
            (v6_16(from)..=v6_16(to)).for_each(&mut set);
        }
    }
    words
}

/// A key of the trie, as the kernel lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    length: u32,
    address: [u8; KEY_OCTETS],
}

/// Prefixes that one system call takes, where the kernel has one for many.
const BATCH: usize = 4096;

fn fill(trie: BorrowedFd<'_>, prefixes: &[ListedPrefix]) -> io::Result<()> {
    let mut keys = Vec::with_capacity(BATCH);
    let mut values = Vec::with_capacity(BATCH);
    let mut batches = true;
    for chunk in prefixes.chunks(BATCH) {
        keys.clear();
        values.clear();
        for prefix in chunk {
            keys.push(Key { length: prefix.length.into(), address: prefix.bits.to_be_bytes() });
            values.push(u32::from(prefix.list) & LIST_MASK | if prefix.drops { DROP } else { 0 });
        }
        if batches {
            match sys::update_batch(trie, &keys, &values) {
                Ok(()) => continue,
                // Kernels before 5.13 have no batches for tries.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP | 524)) => {
                    batches = false;
                }
                Err(error) => return Err(error),
            }
        }
        for (key, value) in keys.iter().zip(&values) {
            sys::update(trie.as_raw_fd(), key, value)?;
        }
    }
    Ok(())
}
