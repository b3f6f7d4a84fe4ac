//! The grace period: after it, no program still holds what it read before.
//!
//! XDP and TC programs run inside an RCU read-side section, so waiting for RCU waits for them. Two system
//! calls wait: `membarrier`, unless the kernel runs with `nohz_full`, and the update of a map of maps.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use super::KernelError;

/// How this kernel lets us wait.
#[derive(Debug)]
pub enum Grace {
    Membarrier,
    MapOfMaps { outer: OwnedFd, inner: OwnedFd },
}

impl Grace {
    /// The first that works here.
    pub fn find() -> Result<Self, KernelError> {
        if membarrier().is_ok() { Ok(Self::Membarrier) } else { Self::map_of_maps() }
    }

    /// The fallback for `nohz_full`.
    pub fn map_of_maps() -> Result<Self, KernelError> {
        let create = |kind, inner| {
            create_map(kind, inner).map_err(KernelError::system("create the map that waits for RCU"))
        };
        let inner = create(BPF_MAP_TYPE_ARRAY, None)?;
        let outer = create(BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(inner.as_raw_fd()))?;
        Ok(Self::MapOfMaps { outer, inner })
    }

    /// Blocks until every program that ran when it was called has returned: 1 to 50 ms.
    pub fn wait(&self) -> Result<(), KernelError> {
        match self {
            Self::Membarrier => membarrier(),
            Self::MapOfMaps { outer, inner } => update_map(outer.as_raw_fd(), inner.as_raw_fd()),
        }
        .map_err(KernelError::system("wait until no program holds the old epoch"))
    }
}

const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

fn membarrier() -> io::Result<()> {
    // SAFETY: three integers and no memory.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

// linux/bpf.h: the parts of `union bpf_attr` that the two calls read.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn create_map(map_type: u32, inner: Option<RawFd>) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: inner.unwrap_or(0) as u32,
    };
    let fd = bpf(BPF_MAP_CREATE, &attributes)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn update_map(outer: RawFd, inner: RawFd) -> io::Result<()> {
    let (key, value) = (0_u32, inner as u32);
    let attributes = MapUpdate {
        map_fd: outer as u32,
        pad: 0,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the attributes are a prefix of `union bpf_attr` with its size beside it, and what they point
    // at outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}
