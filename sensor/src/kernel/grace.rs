//! The grace period: after it, no program still holds what it read before.
//!
//! XDP and TC programs run inside an RCU read-side section, so waiting for RCU waits for them. Two system
//! calls wait: `membarrier`, unless the kernel runs with `nohz_full`, and the update of a map of maps.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use super::{
    KernelError,
    sys::{self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS, MapCreate},
};

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
        let create = |map_type, inner_map_fd| {
            let one = MapCreate {
                map_type,
                key_size: 4,
                value_size: 4,
                max_entries: 1,
                inner_map_fd,
                ..MapCreate::default()
            };
            sys::create_map(&one).map_err(KernelError::system("create the map that waits for RCU"))
        };
        let inner = create(BPF_MAP_TYPE_ARRAY, 0)?;
        let outer = create(BPF_MAP_TYPE_ARRAY_OF_MAPS, inner.as_raw_fd() as u32)?;
        Ok(Self::MapOfMaps { outer, inner })
    }

    /// Blocks until every program that ran when it was called has returned: 1 to 50 ms.
    pub fn wait(&self) -> Result<(), KernelError> {
        match self {
            Self::Membarrier => membarrier(),
            Self::MapOfMaps { outer, inner } => sys::set_inner_map(outer.as_fd(), inner.as_fd()),
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
