//! File systems of a test's own, mounted on a scratch folder and gone on drop.
//!
//! Made before a program is launched into a namespace, they are seen there too: `ip netns exec` hides what
//! the host mounts below `/sys`, and nothing else.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::scratch::Scratch;
use crate::{Error, Result, require_root};

/// The file that takes the room; see [`Mount::fill`].
const BALLAST: &str = "ballast";

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Mount {
    folder: Scratch,
}

impl Mount {
    /// A bpffs: pins live here, and go with it.
    pub fn bpffs(label: &str) -> Result<Self> {
        Self::new(label, "bpf", None)
    }

    /// The control groups of version 2, where a launched program sees them.
    pub fn cgroup2(label: &str) -> Result<Self> {
        Self::new(label, "cgroup2", None)
    }

    /// A disk of so many bytes, in memory.
    pub fn tmpfs(label: &str, bytes: u64) -> Result<Self> {
        Self::new(label, "tmpfs", Some(&format!("size={bytes}")))
    }

    fn new(label: &str, kind: &str, options: Option<&str>) -> Result<Self> {
        require_root("mounting a file system")?;
        let folder = Scratch::new(label)?;
        let path = folder.path();
        mount(Some(kind), path, Some(kind), MsFlags::empty(), options)
            .map_err(|errno| Error::io(format!("mount {kind} on {}", path.display()))(errno.into()))?;
        Ok(Self { folder })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let path = self.path().join(BALLAST);
        let what = || format!("fill {}", path.display());
        let mut file = File::options().create(true).append(true).open(&path).map_err(Error::io(what()))?;
        // Whole pages, then single bytes of the last one.
        for size in [1 << 20, 4096, 1] {
            let block = vec![0x5a; size];
            loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(Error::io(what())(error)),
                }
            }
        }
        Ok(())
    }

    /// Gives back what [`Self::fill`] took; fine if it took nothing.
    pub fn free(&self) -> Result<()> {
        let path = self.path().join(BALLAST);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Detached: a program that still runs must not keep the folder from going.
        if let Err(errno) = umount2(self.path(), MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {errno}", self.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(path: &Path) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts are listed");
        mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
    }

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed() {
        let disk = Mount::tmpfs("disk", 1 << 20).expect("root mounts");
        disk.fill().expect("it fills");
        let file = disk.path().join("file");
        assert!(fs::write(&file, "x").is_err_and(|error| error.kind() == ErrorKind::StorageFull));
        disk.free().expect("it is freed");
        fs::write(&file, vec![1; 900 << 10]).expect("there is room again");
        disk.free().expect("nothing is there to be freed");
    }

    #[test]
    fn a_mount_goes_with_its_guard() {
        let pins = Mount::bpffs("pins").expect("root mounts");
        let path = pins.path().to_owned();
        assert!(mounted(&path));
        drop(pins);
        assert!(!mounted(&path) && !path.exists());
    }
}
