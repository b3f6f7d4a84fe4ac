//! The identity of a generation of tables: one element of shared memory that says whose they are and how far
//! they are drained. Owned by `tables`, pinned beside them.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use uuid::Uuid;
use weir_sensor_common::{LAYOUT_VERSION, pins as layout};

use super::{
    Geometry, KernelError,
    clock::WallClock,
    memory::MapMemory,
    sys::{self, BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY, MapCreate},
};

/// Its name among the pins.
pub const IDENTITY: &str = "IDENTITY";

/// The shared element.
pub struct Identity(MapMemory<layout::Identity>);

/// What a new generation is made with.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    pub geometry: Geometry,
    pub seed: u64,
    pub build: u64,
    pub sequence: u64,
}

impl Identity {
    /// Of a new generation, pinned nowhere yet.
    pub fn new(birth: Birth) -> Result<Self, KernelError> {
        let memory = array::<layout::Identity>(IDENTITY, 1)?;
        let Geometry { cpus, table_cpus, points, slots4_bits, slots6_bits } = birth.geometry;
        let identity = layout::Identity {
            magic: layout::MAGIC,
            layout: LAYOUT_VERSION,
            generation: Uuid::new_v4().into_bytes(),
            sequence: birth.sequence,
            made_ns: WallClock::measure().now(),
            namespace: namespace(),
            cpus,
            table_cpus,
            points,
            slots4_bits,
            slots6_bits,
            seed: birth.seed,
            build: birth.build,
            ..layout::Identity::default()
        };
        // SAFETY: within the mapping; nobody else knows the map yet.
        unsafe { memory.element(0).write_volatile(identity) };
        Ok(Self(memory))
    }

    /// Of a generation that is pinned; `None` where the file is no identity.
    pub fn open(path: &Path) -> Result<Option<Self>, KernelError> {
        let fd = sys::pinned(path).map_err(KernelError::pins("open the identity of pinned tables", path))?;
        let memory = map_memory(IDENTITY, fd, 1)?;
        let identity = Self(memory);
        Ok((identity.read().magic == layout::MAGIC).then_some(identity))
    }

    /// All of it, as it is now.
    pub fn read(&self) -> layout::Identity {
        self.0.read(0)
    }

    pub fn pin(&self, path: &Path) -> Result<(), KernelError> {
        sys::pin(self.0.fd(), path).map_err(KernelError::pins("pin the identity of the tables", path))
    }

    pub fn generation(&self) -> Uuid {
        Uuid::from_bytes(self.read().generation)
    }

    pub fn geometry(&self) -> Geometry {
        let layout::Identity { cpus, table_cpus, points, slots4_bits, slots6_bits, .. } = self.read();
        Geometry { cpus, table_cpus, points, slots4_bits, slots6_bits }
    }

    /// Epochs below this one are drained and zeroed.
    pub fn released(&self) -> u64 {
        self.word(|identity| &raw mut identity.released).load(Ordering::Acquire)
    }

    pub fn set_released(&self, epochs: u64) {
        self.word(|identity| &raw mut identity.released).store(epochs, Ordering::Release);
    }

    /// Epochs below this one are drained.
    pub fn zeroing(&self) -> u64 {
        self.word(|identity| &raw mut identity.zeroing).load(Ordering::Acquire)
    }

    pub fn set_zeroing(&self, epochs: u64) {
        self.word(|identity| &raw mut identity.zeroing).store(epochs, Ordering::Release);
    }

    /// The first epoch that these tables do not have, once they have a successor.
    pub fn ended(&self) -> Option<u64> {
        let ended = self.word(|identity| &raw mut identity.ended).load(Ordering::Acquire);
        (ended != 0).then_some(ended)
    }

    pub fn set_ended(&self, epoch: u64) {
        self.word(|identity| &raw mut identity.ended).store(epoch, Ordering::Release);
    }

    pub fn set_build(&self, build: u64) {
        self.word(|identity| &raw mut identity.build).store(build, Ordering::Release);
    }

    /// The points' interface indexes are this namespace's from now on.
    pub fn move_here(&self) {
        self.word(|identity| &raw mut identity.namespace).store(namespace(), Ordering::Release);
    }

    /// When the epoch of a half began.
    pub fn began(&self, half: u32) -> layout::Began {
        self.read().began[half as usize & 1]
    }

    /// Of a half that is not written, or of one that nothing has been counted into.
    pub fn set_began(&self, half: u32, began: layout::Began) {
        let identity = self.0.element(0);
        // SAFETY: within the mapping; only this process writes it, because the pins are locked.
        unsafe { (&raw mut (*identity).began[half as usize & 1]).write_volatile(began) };
    }

    fn word(&self, field: impl FnOnce(&mut layout::Identity) -> *mut u64) -> &AtomicU64 {
        // SAFETY: an aligned word of the mapping that lives as long as `self`; no reference to the element
        // outlives this line.
        unsafe { AtomicU64::from_ptr(field(&mut *self.0.element(0))) }
    }
}

/// An array of `len` that no program knows, in shared memory.
pub fn array<T: super::memory::Shared>(name: &'static str, len: usize) -> Result<MapMemory<T>, KernelError> {
    let attributes = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: size_of::<T>() as u32,
        max_entries: len as u32,
        map_flags: BPF_F_MMAPABLE,
        inner_map_fd: 0,
    };
    let fd = sys::create_map(&attributes).map_err(KernelError::system("create a map beside the tables"))?;
    map_memory(name, fd, len)
}

/// The memory of a map that is open.
pub fn map_memory<T: super::memory::Shared>(
    name: &'static str,
    fd: OwnedFd,
    len: usize,
) -> Result<MapMemory<T>, KernelError> {
    MapMemory::new(name, MapData::from_fd(fd).map_err(KernelError::map(name))?, len)
}

/// Inode of this thread's network namespace; 0 where it cannot be told.
pub fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino())
}
