//! The maps. Sizes of 1 are placeholders: the sensor sets them when it loads the object.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{ArrayOfMaps, LpmTrie},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use weir_sensor_common::{
    Control, Counters, DIRECT_IFINDEXES, EventState, FilterRule, Guard, LinkStack, ListCounts, PointEntry,
    Region, Slot4, Slot6, event, filter, link,
    listed::{KEY_OCTETS, MAX_LISTS, bits},
};
use weir_sensor_ebpf::Walk;

use super::{event::Record, filter::Subject};

/// Epoch and settings of each half.
#[map]
pub static WEIR_CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// IPv4 flows: halves x CPUs x slots.
#[map]
pub static WEIR_FLOWS4: Array<Slot4> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// IPv6 flows: halves x CPUs x slots.
#[map]
pub static WEIR_FLOWS6: Array<Slot6> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Totals: halves x CPUs x points.
#[map]
pub static WEIR_COUNTERS: Array<Counters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Fill of the tables: halves x CPUs.
#[map]
pub static WEIR_REGIONS: Array<Region> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Observed interfaces by index.
#[map]
pub static WEIR_POINTS_DIRECT: Array<PointEntry> = Array::with_max_entries(DIRECT_IFINDEXES, 0);

/// Observed interfaces with an index that the array does not reach.
#[map]
pub static WEIR_POINTS_HASHED: HashMap<u32, PointEntry> = HashMap::with_max_entries(256, 0);

/// Interned link stacks of both halves.
#[map]
pub static WEIR_LINKS: HashMap<LinkStack, u32> =
    HashMap::with_max_entries(2 * link::MAX_INTERNED, BPF_F_NO_PREALLOC);

/// Where a link stack is put together.
#[map]
pub static WEIR_LINK_SCRATCH: PerCpuArray<LinkStack> = PerCpuArray::with_max_entries(1, 0);

/// Filter rules: halves x rules.
#[map]
pub static WEIR_FILTER: Array<FilterRule> = Array::with_max_entries(2 * filter::MAX_RULES, 0);

/// The packet that the rules are asked about.
#[map]
pub static WEIR_FILTER_SCRATCH: PerCpuArray<Subject> = PerCpuArray::with_max_entries(1, 0);

/// Where the walk along a chain of IPv6 extension headers stands.
#[map]
pub static WEIR_WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// Wake-ups for the drain. A page holds 170; one or two are sent per CPU and epoch.
#[map]
pub static WEIR_WAKEUPS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Listed prefixes: the sensor puts another trie in its place when lists change, so that a packet sees the
/// old lists or the new ones. The size is a bound, not memory: a trie holds what is in it.
#[btf_map]
pub static WEIR_LISTED: ArrayOfMaps<LpmTrie<[u8; KEY_OCTETS], u32, { 1 << 24 }>, 1> = ArrayOfMaps::new();

/// What is asked before the trie. It has the bits of all prefixes of the trie, and while tries are exchanged
/// those of both.
#[map]
pub static WEIR_LISTED_BITS: Array<u64> = Array::with_max_entries(bits::WORDS, BPF_F_MMAPABLE);

/// What holds of the lists now.
#[map]
pub static WEIR_GUARD: Array<Guard> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What was done to packets, by list.
#[map]
pub static WEIR_LIST_COUNTS: PerCpuArray<ListCounts> = PerCpuArray::with_max_entries(MAX_LISTS + 1, 0);
/// Packets whose bytes userspace wants.
#[map]
pub static WEIR_EVENT_RING: RingBuf = RingBuf::with_byte_size(event::RING_OCTETS, 0);

/// What became of them, by class.
#[map]
pub static WEIR_EVENT_STATES: PerCpuArray<EventState> = PerCpuArray::with_max_entries(event::class::END, 0);

/// Where an event is put together.
#[map]
pub static WEIR_EVENT_SCRATCH: PerCpuArray<Record> = PerCpuArray::with_max_entries(1, 0);

/// Hellos that go on in further segments: hash of the flow above, sequence number of their end below.
#[map]
pub static WEIR_EVENT_HELLOS: Array<u64> = Array::with_max_entries(event::CONTINUATIONS, 0);
