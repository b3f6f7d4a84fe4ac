//! What outlives the sensor: a folder on a bpffs that holds maps and links, so that the programs count on
//! when the sensor is killed, stopped, restarted or replaced by another version.
//!
//! ```text
//! /sys/fs/bpf/weir/main/            locked (flock) by the sensor that uses it
//!   links/7-ingress-native          a hook: interface index, direction, kind
//!   links/7-egress-clsact           a mark only: clsact filters live in the qdisc by themselves
//!   0c4f…32 hexadecimal digits…/    a generation of tables: a pin for each map, IDENTITY, POINTS
//!   making/                         tables that a killed sensor did not finish: removed by the next one
//!   discarded/                      tables that a killed sensor did not finish to remove: the same
//! ```
//!
//! A generation is made under the name `making` and renamed when it is whole; it is renamed to `discarded`
//! before its first pin is removed. So a folder with the name of a generation is always complete. Of several
//! generations the one with the highest sequence is written; the others are drained to their end.
//!
//! | killed while | left behind | the next sensor |
//! | --- | --- | --- |
//! | maps are made | `making`, no program uses it | removes it |
//! | hooks are switched to new tables | both generations, hooks of both | switches the rest, then drains the old one |
//! | a hook is attached | nothing (the link was not pinned yet) or a pinned hook | attaches, or adopts |
//! | a clsact filter is attached | its mark, perhaps the filter | replaces the filter, or attaches it |
//! | a program is replaced | a hook whose program is "not known" | replaces it again |
//! | a hook is detached | a link without interface, or a mark without filter | removes the pin |
//! | an old generation is drained | R, Z and E as the table in `tables` says | goes on there |
//! | tables are removed | `discarded` | removes it |

mod hooks;
mod survey;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{FsType, fstatfs, statfs},
};
use uuid::Uuid;
use weir_sensor_common::LAYOUT_VERSION;

use super::{
    Geometry, KernelError,
    identity::{IDENTITY, Identity, namespace},
    object::PINNED,
    points::RECORDS,
};
pub(super) use hooks::{HookKind, Hooks, PinnedHook, interface_name};
pub(super) use survey::check_pins;
pub use survey::{Removed, remove};

/// Where a sensor's maps and links outlive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinning {
    /// On a bpffs.
    pub folder: PathBuf,
    /// The folder below it that is this sensor's alone.
    pub name: String,
    /// Stands in for the fingerprint of the programs, where a test wants to be another build.
    #[doc(hidden)]
    pub build: Option<u64>,
}

impl Pinning {
    pub fn new(folder: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { folder: folder.into(), name: name.into(), build: None }
    }

    /// The sensor's own folder.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }
}

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS: i64 = 0xcafe_4a11;

/// How long the lock is tried for.
const LOCKED_WITHIN: Duration = Duration::from_millis(500);

const LINKS: &str = "links";
const MAKING: &str = "making";
const DISCARDED: &str = "discarded";

/// A sensor's folder, locked.
pub(super) struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Makes the folder if it must, takes the lock, and removes what was left half made.
    pub fn lock(pinning: &Pinning) -> Result<Self, KernelError> {
        let path = pinning.path();
        on_bpffs(&path)?;
        loop {
            make(&path.join(LINKS))?;
            let folder = open(&path)?;
            let lock = lock(folder, &path)?;
            // `detach` may have removed the folder between the two: then the lock is on nothing.
            let still = |metadata: fs::Metadata| {
                lock.metadata()
                    .is_ok_and(|locked| (locked.dev(), locked.ino()) == (metadata.dev(), metadata.ino()))
            };
            if fs::metadata(&path).is_ok_and(still) {
                let folder = Self { path, _lock: lock };
                folder.sweep()?;
                return Ok(folder);
            }
        }
    }

    /// The same, where there is a folder; `None` where there is none.
    fn lock_existing(pinning: &Pinning) -> Result<Option<Self>, KernelError> {
        let path = pinning.path();
        if !path.exists() {
            return Ok(None);
        }
        Self::lock(pinning).map(Some)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn hooks(&self) -> Hooks {
        Hooks::new(self.path.join(LINKS))
    }

    /// Where new tables are pinned until they are whole.
    pub fn begin(&self) -> Result<PathBuf, KernelError> {
        let path = self.path.join(MAKING);
        make(&path)?;
        Ok(path)
    }

    /// Gives tables that are whole the name of their generation.
    pub fn finish(&self, generation: Uuid) -> Result<PathBuf, KernelError> {
        let path = self.path.join(generation.simple().to_string());
        fs::rename(self.path.join(MAKING), &path)
            .map_err(KernelError::pins("name the folder of a generation", &path))?;
        Ok(path)
    }

    fn sweep(&self) -> Result<(), KernelError> {
        remove_folder(&self.path.join(MAKING))?;
        remove_folder(&self.path.join(DISCARDED))
    }

    /// Every generation that is there, the current one last.
    pub fn generations(&self) -> Result<Vec<Generation>, KernelError> {
        let mut generations = generation_folders(&self.path)?
            .into_iter()
            .map(|path| Generation::open(path)?.known())
            .collect::<Result<Vec<_>, KernelError>>()?;
        generations.sort_by_key(|generation| generation.identity.read().sequence);
        Ok(generations)
    }

    /// Removes the folder itself, with what is left in it.
    pub fn remove(self) -> Result<(), KernelError> {
        self.sweep()?;
        remove_folder(&self.path.join(LINKS))?;
        fs::remove_dir(&self.path).map_err(KernelError::pins("remove the folder of pins", &self.path))?;
        // Another sensor may have its pins beside ours.
        if let Some(parent) = self.path.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

/// Removes a generation of tables. The caller has the folder above it locked.
pub(super) fn discard(generation: &Path) -> Result<(), KernelError> {
    let discarded = generation.with_file_name(DISCARDED);
    remove_folder(&discarded)?;
    fs::rename(generation, &discarded)
        .map_err(KernelError::pins("set a generation of tables aside", generation))?;
    remove_folder(&discarded)
}

/// Folders that bear the name of a generation.
fn generation_folders(path: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let entries = fs::read_dir(path).map_err(KernelError::pins("list the folder of pins", path))?;
    let is_generation = |name: &str| name.len() == 32 && Uuid::try_parse(name).is_ok();
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_generation))
        .collect();
    folders.sort();
    Ok(folders)
}

/// A generation of tables that is pinned.
pub(super) struct Generation {
    pub path: PathBuf,
    pub identity: Identity,
}

impl Generation {
    fn open(path: PathBuf) -> Result<Self, KernelError> {
        let damaged = |what: &str| KernelError::DamagedPins { path: path.clone(), what: what.to_owned() };
        let file = path.join(IDENTITY);
        if !file.exists() {
            return Err(damaged("a generation of tables has no identity"));
        }
        let identity =
            Identity::open(&file)?.ok_or_else(|| damaged("the identity of the tables is no identity"))?;
        Ok(Self { path, identity })
    }

    /// The same, if this sensor knows the layout and every map is there.
    fn known(self) -> Result<Self, KernelError> {
        let found = self.identity.read().layout;
        if found != LAYOUT_VERSION {
            return Err(KernelError::OtherLayout { path: self.path, found, ours: LAYOUT_VERSION });
        }
        if let Some(missing) = PINNED.into_iter().chain([RECORDS]).find(|name| !self.path.join(name).exists())
        {
            let what = format!("map {missing} is missing");
            return Err(KernelError::DamagedPins { path: self.path, what });
        }
        Ok(self)
    }

    /// Whether a sensor with this geometry can go on counting here.
    pub fn suits(&self, geometry: Geometry) -> bool {
        self.identity.ended().is_none() && self.identity.geometry() == geometry
    }

    /// Whether the interface indexes are another network namespace's.
    pub fn is_elsewhere(&self) -> bool {
        self.identity.read().namespace != namespace()
    }
}

/// An error unless what is made at this path will be on a bpffs.
fn on_bpffs(path: &Path) -> Result<(), KernelError> {
    let nearest = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let found = statfs(nearest).map_err(|errno| KernelError::pins("look at", nearest)(errno.into()))?;
    if found.filesystem_type() == FsType(BPFFS) {
        return Ok(());
    }
    // What systemd and every guide mount.
    let usual = Path::new("/sys/fs/bpf");
    let mount = if path.starts_with(usual) { usual } else { path.parent().unwrap_or(path) };
    Err(KernelError::NotBpffs(path.to_owned(), mount.to_owned()))
}

fn make(path: &Path) -> Result<(), KernelError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(KernelError::pins("make the folder of pins", path))
}

fn open(path: &Path) -> Result<File, KernelError> {
    let failed = KernelError::pins("open the folder of pins", path);
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(error) => return Err(failed(error)),
    };
    match fstatfs(folder.as_fd()) {
        Ok(found) if found.filesystem_type() == FsType(BPFFS) => Ok(folder),
        Ok(_) => Err(KernelError::NotBpffs(path.to_owned(), path.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Takes the lock. A process that was killed while it started another may leave the lock to that one until it
/// is executed: so it is tried for a moment.
fn lock(mut folder: File, path: &Path) -> Result<Flock<File>, KernelError> {
    let until = Instant::now() + LOCKED_WITHIN;
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if errno != Errno::EWOULDBLOCK => {
                return Err(KernelError::pins("lock the folder of pins", path)(errno.into()));
            }
            Err(_) if Instant::now() > until => {
                return Err(KernelError::PinsInUse { folder: path.to_owned(), pid: holder(path) });
            }
            Err((unlocked, _)) => {
                folder = unlocked;
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Removes a folder of pins; it is well if there is none.
fn remove_folder(path: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::pins("remove a folder of pins", path)(error))
        }
        _ => Ok(()),
    }
}

/// The process that has the folder locked, as far as /proc shows it.
fn holder(path: &Path) -> Option<u32> {
    let inode = fs::metadata(path).ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 1234 00:1d:4711 0 EOF"
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let pid = words.nth(2)?;
        let place = words.next()?;
        (kind == "FLOCK" && place.rsplit(':').next() == Some(inode.as_str())).then(|| pid.parse().ok())?
    })
}
