//! The maps. Sizes of 1 are placeholders: the sensor sets them when it loads the object.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use weir_sensor_common::{
    Control, Counters, DIRECT_IFINDEXES, FilterRule, LinkStack, PointEntry, Region, Slot4, Slot6, filter,
    link,
};
use weir_sensor_ebpf::Walk;

use super::filter::Subject;

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
