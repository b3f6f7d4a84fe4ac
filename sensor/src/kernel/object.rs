//! The kernel object: loaded with the sizes and switches of this sensor and this kernel.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
    util::KernelVersion,
};

use super::{Geometry, KernelError, Settings};

/// The programs, built by the build script and embedded.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-kernel"));

/// What this kernel offers. Each has a fallback; `check` names what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// XDP programs that take frames in several buffers, 5.18; else interfaces with a large MTU may refuse
    /// native XDP.
    pub xdp_frags: bool,
    /// TCX, 6.6; else a clsact qdisc.
    pub tcx: bool,
}

impl Features {
    /// Of the running kernel.
    pub fn detect() -> Self {
        // A version that cannot be read promises nothing.
        let at_least = |major, minor| {
            KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
        };
        Self { xdp_frags: at_least(5, 18), tcx: at_least(6, 6) }
    }

    /// The XDP program that goes with this kernel.
    pub const fn xdp_program(self) -> &'static str {
        if self.xdp_frags { "weir_xdp_frags" } else { "weir_xdp" }
    }
}

/// Whose clock the programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Kernel,
    /// `Control::replay_now_ns`.
    Replay,
}

/// Loads maps and relocates programs; programs go to the kernel one by one, when they are wanted.
pub fn load(settings: &Settings, geometry: Geometry, clock: Clock) -> Result<Ebpf, KernelError> {
    let seed: u64 = rand::random();
    let replay = u8::from(clock == Clock::Replay);
    let level = settings.log_level.level();
    let Geometry { cpus, table_cpus, points, slots4_bits, slots6_bits } = geometry;
    EbpfLoader::new()
        .override_global("WEIR_CPUS", &cpus, true)
        .override_global("WEIR_TABLE_CPUS", &table_cpus, true)
        .override_global("WEIR_POINTS", &points, true)
        .override_global("WEIR_SLOT4_BITS", &slots4_bits, true)
        .override_global("WEIR_SLOT6_BITS", &slots6_bits, true)
        .override_global("WEIR_SEED", &seed, true)
        .override_global("WEIR_REPLAY", &replay, true)
        .override_global(aya_log::LEVEL, &level, true)
        .map_max_entries("WEIR_FLOWS4", geometry.all_slots(slots4_bits))
        .map_max_entries("WEIR_FLOWS6", geometry.all_slots(slots6_bits))
        .map_max_entries("WEIR_COUNTERS", 2 * cpus * points)
        .map_max_entries("WEIR_REGIONS", 2 * cpus)
        .load(OBJECT)
        .map_err(|error| KernelError::Load(Box::new(error)))
}

/// Takes a map out of the object.
pub fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    object.take_map(name).ok_or(KernelError::MissingMap(name))
}

/// The plain map behind an array.
pub fn array(map: Map, name: &'static str) -> Result<MapData, KernelError> {
    match map {
        Map::Array(map) => Ok(map),
        _ => Err(KernelError::MissingMap(name)),
    }
}
