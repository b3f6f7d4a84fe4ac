//! Folders for one run. A folder's name holds the id of the process that made it, so that what a killed
//! run left behind is swept by the next one, and a running one is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;

use crate::{Error, Result};

const PREFIX: &str = "weir-testbed-";
/// Where Linux keeps a file system in memory for everybody.
const MEMORY: &str = "/dev/shm";
/// What must be free there, and of the memory itself, to be used: several times what all tests leave behind.
const ROOM: u64 = 8 << 30;

/// Distinguishes what one process makes.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A number that this process has not used yet.
pub(crate) fn serial() -> u32 {
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

/// A folder below the system's temporary folder, or in memory, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes a folder; `label` tells a person what it is for.
    pub fn new(label: &str) -> Result<Self> {
        Self::below(&std::env::temp_dir(), label)
    }

    /// The same in memory where there is plenty, for many small files that nobody wants back: a disk takes minutes to
    /// make and to remove what a memory does in seconds.
    pub fn in_memory(label: &str) -> Result<Self> {
        let memory = Path::new(MEMORY);
        let folder = if has_room(memory) { memory.to_owned() } else { std::env::temp_dir() };
        Self::below(&folder, label)
    }

    fn below(folder: &Path, label: &str) -> Result<Self> {
        sweep();
        let name = format!("{PREFIX}{}-{}-{label}", std::process::id(), serial());
        let path = folder.join(name);
        fs::create_dir(&path).map_err(Error::io(format!("make the folder {}", path.display())))?;
        Ok(Self { path, keep: false })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder where it is on drop, for a look at it after a failure.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}

/// Removes the folders of processes that are gone.
pub fn sweep() {
    let folders = [std::env::temp_dir(), MEMORY.into()];
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let name = entry.file_name();
        if let Some(owner) = name.to_str().and_then(|name| owner(name, PREFIX))
            && !is_alive(owner)
        {
            // A test that was killed may have left a file system mounted there; most did not.
            let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
            // Another process may sweep at the same time, or the folder may be another user's.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a folder is on a file system with room to spare, which the machine has memory for.
fn has_room(folder: &Path) -> bool {
    let free = statvfs(folder).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = available.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    free.min(kib << 10) >= ROOM
}

/// The process id in `PREFIX<pid>-…`.
pub(crate) fn owner(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split('-').next()?.parse().ok()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_gone_after_its_owner() {
        let scratch = Scratch::new("drop").expect("the temporary folder is writable");
        let path = scratch.path().to_owned();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_in_memory_is_gone_after_its_owner_too() {
        let scratch = Scratch::in_memory("drop").expect("one of both folders is writable");
        let path = scratch.path().to_owned();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_process_s_folder_is_swept_and_a_live_one_s_is_not() {
        // Above the largest pid that Linux gives out (2^22).
        let dead = std::env::temp_dir().join(format!("{PREFIX}4194999-0-dead"));
        fs::create_dir_all(&dead).expect("the temporary folder is writable");
        let live = Scratch::new("live").expect("the temporary folder is writable");
        sweep();
        assert!(!dead.exists());
        assert!(live.path().exists());
    }

    #[test]
    fn an_owner_is_read_only_from_names_of_ours() {
        assert_eq!(owner("weir-testbed-17-0-x", PREFIX), Some(17));
        assert_eq!(owner("weir-testbed-x-0", PREFIX), None);
        assert_eq!(owner("other-17-0", PREFIX), None);
    }
}
