//! The kernel object: loaded with the sizes and switches of this sensor and this kernel.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
    util::KernelVersion,
};

use super::{Geometry, KernelError, Settings, event, lists, sys};

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
    /// Maps are charged to the memory control group, 5.11; else to the limit of locked memory, which is raised.
    pub maps_are_accounted: bool,
}

impl Features {
    /// Of the running kernel.
    pub fn detect() -> Self {
        // A version that cannot be read promises nothing.
        let at_least = |major, minor| {
            KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
        };
        Self { xdp_frags: at_least(5, 18), tcx: at_least(6, 6), maps_are_accounted: at_least(5, 11) }
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

/// Fingerprint of the programs that this sensor attaches: of the object with its stamp, and of the settings
/// that are compiled into the programs. The tables' sizes are not among them; they belong to the tables.
pub fn fingerprint(settings: &Settings, features: Features) -> u64 {
    fingerprint_of(OBJECT, settings, features)
}

fn fingerprint_of(object: &[u8], settings: &Settings, features: Features) -> u64 {
    // Another compiler's hash of the same object would differ, and cost an update of programs: no harm.
    let mut hasher = DefaultHasher::new();
    object.hash(&mut hasher);
    settings.log_level.level().hash(&mut hasher);
    settings.events.hash(&mut hasher);
    features.xdp_program().hash(&mut hasher);
    // 0 is "not known".
    hasher.finish().max(1)
}

/// The maps that outlive the sensor: what the programs count into, what steers them, and the rings that they
/// write to. The others are scratch space of one program run.
pub const PINNED: [&str; 11] = [
    "WEIR_CONTROL",
    "WEIR_FLOWS4",
    "WEIR_FLOWS6",
    "WEIR_COUNTERS",
    "WEIR_REGIONS",
    "WEIR_POINTS_DIRECT",
    "WEIR_POINTS_HASHED",
    "WEIR_LINKS",
    "WEIR_FILTER",
    "WEIR_WAKEUPS",
    "AYA_LOGS",
];

/// Maps of the same kind that came later: tables of an earlier build may be without. They are made then.
pub const PINNED_LATER: [&str; 2] = [event::RING, event::STATES];

/// How an object is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    pub geometry: Geometry,
    pub clock: Clock,
    /// Secret of the hash.
    pub seed: u64,
    /// Where the maps that outlive the sensor are pinned; what is there is used, what is not is made.
    pub pins: Option<&'a Path>,
}

impl Load<'_> {
    /// Maps of this process alone.
    pub fn unpinned(geometry: Geometry, clock: Clock) -> Self {
        Self { geometry, clock, seed: rand::random(), pins: None }
    }
}

/// Loads maps and relocates programs; programs go to the kernel one by one, when they are wanted.
pub fn load(settings: &Settings, load: Load<'_>) -> Result<Ebpf, KernelError> {
    let features = Features::detect();
    if !features.maps_are_accounted {
        sys::unlimit_locked_memory();
    }
    let replay = u8::from(load.clock == Clock::Replay);
    let level = settings.log_level.level();
    let Geometry { cpus, table_cpus, points, slots4_bits, slots6_bits } = load.geometry;
    let events = settings.events.globals(load.clock == Clock::Kernel);
    let xdp_helpers = u8::from(features.xdp_frags);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("WEIR_CPUS", &cpus, true)
        .override_global("WEIR_TABLE_CPUS", &table_cpus, true)
        .override_global("WEIR_POINTS", &points, true)
        .override_global("WEIR_SLOT4_BITS", &slots4_bits, true)
        .override_global("WEIR_SLOT6_BITS", &slots6_bits, true)
        .override_global("WEIR_SEED", &load.seed, true)
        .override_global("WEIR_REPLAY", &replay, true)
        .override_global("WEIR_EVENT_CLASSES", &events.classes, true)
        .override_global("WEIR_EVENT_COST_NS", &events.cost_ns, true)
        .override_global("WEIR_EVENT_BURST_NS", &events.burst_ns, true)
        .override_global("WEIR_EVENT_SNAP", &events.snap, true)
        .override_global("WEIR_EVENT_PACKETS", &events.packets, true)
        .override_global("WEIR_XDP_HELPERS", &xdp_helpers, true)
        .override_global(aya_log::LEVEL, &level, true)
        .map_max_entries("WEIR_FLOWS4", load.geometry.all_slots(slots4_bits)?)
        .map_max_entries("WEIR_FLOWS6", load.geometry.all_slots(slots6_bits)?)
        .map_max_entries("WEIR_COUNTERS", 2 * cpus * points)
        .map_max_entries("WEIR_REGIONS", 2 * cpus);
    if let Some(folder) = load.pins {
        for name in PINNED.into_iter().chain(PINNED_LATER).chain(lists::PINNED) {
            loader.map_pin_path(name, folder.join(name));
        }
    }
    loader.load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))
}

/// Where the maps of tables are.
pub enum Maps<'a> {
    /// In an object that was just loaded.
    Object(&'a mut Ebpf),
    /// In a folder, without programs.
    Pins(&'a Path),
}

impl Maps<'_> {
    /// The same, for a second taker.
    pub fn again(&mut self) -> Maps<'_> {
        match self {
            Self::Object(object) => Maps::Object(object),
            Self::Pins(folder) => Maps::Pins(folder),
        }
    }

    /// The plain map behind an array.
    pub fn array(&mut self, name: &'static str) -> Result<MapData, KernelError> {
        match self {
            Self::Object(object) => array(take(object, name)?, name),
            Self::Pins(folder) => MapData::from_pin(folder.join(name)).map_err(KernelError::map(name)),
        }
    }

    /// An array or a hash, as the caller knows it to be.
    pub fn map(&mut self, name: &'static str, kind: impl FnOnce(MapData) -> Map) -> Result<Map, KernelError> {
        match self {
            Self::Object(object) => take(object, name),
            Self::Pins(_) => self.array(name).map(kind),
        }
    }
}

/// Takes a map out of the object.
pub fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    object.take_map(name).ok_or(KernelError::MissingMap(name))
}

fn array(map: Map, name: &'static str) -> Result<MapData, KernelError> {
    match map {
        Map::Array(map) => Ok(map),
        _ => Err(KernelError::MissingMap(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_another_stamp_is_another_build() {
        const STAMP: &[u8] = b"weir-build-stamp";
        let places: Vec<usize> = OBJECT
            .windows(STAMP.len())
            .enumerate()
            .filter(|(_, bytes)| *bytes == STAMP)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(places.len(), 1, "the stamp stands in the object once");
        let mut newer = OBJECT.to_vec();
        newer[places[0]] ^= 1;
        let (settings, features) = (Settings::default(), Features::detect());
        let print = |object: &[u8]| fingerprint_of(object, &settings, features);
        assert_eq!(print(OBJECT), fingerprint(&settings, features));
        assert_ne!(print(&newer), print(OBJECT));
    }
}
