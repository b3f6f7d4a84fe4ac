//! The memory of array maps: read and zeroed without a system call for each element.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

use super::KernelError;

/// Types that lie in shared maps: plain numbers, any bytes are a value.
///
/// # Safety
/// `repr(C)`, no invalid bit patterns, no padding that matters.
pub unsafe trait Shared: Copy {}

// SAFETY: numbers and arrays of numbers, by their definitions in `weir-sensor-common`.
unsafe impl Shared for weir_sensor_common::Slot4 {}
// SAFETY: as above.
unsafe impl Shared for weir_sensor_common::Slot6 {}
// SAFETY: as above.
unsafe impl Shared for weir_sensor_common::Counters {}
// SAFETY: as above.
unsafe impl Shared for weir_sensor_common::Region {}
// SAFETY: as above.
unsafe impl Shared for weir_sensor_common::Control {}
// SAFETY: as above.
unsafe impl Shared for weir_sensor_common::pins::Identity {}
// SAFETY: as above.
unsafe impl Shared for weir_sensor_common::pins::PointRecord {}
// SAFETY: as above.
unsafe impl Shared for weir_sensor_common::Guard {}
// SAFETY: as above.
unsafe impl Shared for u64 {}

/// The elements of one map.
#[derive(Debug)]
pub struct MapMemory<T> {
    memory: MmapRaw,
    /// Programs that are loaded later refer to the map by this descriptor.
    map: MapData,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Shared> MapMemory<T> {
    /// Maps the `len` elements of the array map `name`, which `BPF_F_MMAPABLE` made mappable.
    pub fn new(name: &'static str, map: MapData, len: usize) -> Result<Self, KernelError> {
        let octets = len * size_of::<T>();
        // A pinned map was made by somebody else: beyond its end there is no memory.
        let info = map.info().map_err(KernelError::map(name))?;
        let (wanted, found) =
            ((len, size_of::<T>()), (info.max_entries() as usize, info.value_size() as usize));
        if found != wanted {
            return Err(KernelError::MapSize { map: name, found, wanted });
        }
        let memory = MmapOptions::new()
            .len(octets)
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map_err(|source: io::Error| KernelError::Mmap { map: name, octets, source })?;
        Ok(Self { memory, map, len, elements: PhantomData })
    }

    /// The same memory, for another owner.
    pub fn share(&self, name: &'static str) -> Result<Self, KernelError> {
        let fd = self.fd().try_clone_to_owned().map_err(KernelError::system("duplicate a descriptor"))?;
        Self::new(name, MapData::from_fd(fd).map_err(KernelError::map(name))?, self.len)
    }

    /// The map's descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "element {index} of a map of {}", self.len);
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.memory.as_mut_ptr().cast::<T>().add(index) }
    }

    /// One element, as it is now. While programs write it, its fields may be of different instants.
    pub fn read(&self, index: usize) -> T {
        // SAFETY: within the mapping, aligned to a page, and any bytes are a `T`.
        unsafe { self.at(index).read_volatile() }
    }

    /// A pointer to a field that programs read while we write it.
    pub fn element(&self, index: usize) -> *mut T {
        self.at(index)
    }

    /// The elements of a range that no program writes: a half after its grace period.
    pub fn quiet(&self, range: std::ops::Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len, "a range of {}", self.len);
        // SAFETY: within the mapping; the caller holds the half alone, as the module's contract says.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<T>().add(range.start), range.len()) }
    }

    /// Zeroes a range that no program writes.
    pub fn zero_range(&mut self, range: std::ops::Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len, "a range of {}", self.len);
        // SAFETY: within the mapping, by the assertion; all zeros are a `T`.
        unsafe { self.memory.as_mut_ptr().cast::<T>().add(range.start).write_bytes(0, range.len()) }
    }

    /// Zeroes one element of a range that no program writes.
    pub fn zero(&mut self, index: usize) {
        // SAFETY: as in `read`; all zeros are a `T`.
        unsafe { self.at(index).write_bytes(0, 1) }
    }
}
