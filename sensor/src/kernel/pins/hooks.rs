//! Hooks that outlive the sensor: a file for each, named after the interface's index, the direction and the
//! kind of hook. XDP and TCX hooks are links; a clsact filter lives in the qdisc, and its file is a mark.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use weir_wire::Direction;

use crate::kernel::{
    KernelError,
    sys::{self, BPF_MAP_TYPE_ARRAY, MapCreate},
};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    Native,
    Generic,
    Tcx,
    Clsact,
}

impl HookKind {
    const ALL: [Self; 4] = [Self::Native, Self::Generic, Self::Tcx, Self::Clsact];

    const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// As operators read it.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Native => "xdp native",
            Self::Generic => "xdp generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// A hook and the file that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedHook {
    pub ifindex: u32,
    pub direction: Direction,
    pub kind: HookKind,
    pub path: PathBuf,
}

impl PinnedHook {
    fn parse(path: PathBuf) -> Option<Self> {
        let mut words = path.file_name()?.to_str()?.splitn(3, '-');
        let ifindex = words.next()?.parse().ok()?;
        let direction = match words.next()? {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            _ => return None,
        };
        let word = words.next()?;
        let kind = HookKind::ALL.into_iter().find(|kind| kind.word() == word)?;
        Some(Self { ifindex, direction, kind, path })
    }

    /// The link of an XDP or TCX hook.
    pub fn link(&self) -> Result<OwnedFd, KernelError> {
        sys::pinned(&self.path).map_err(KernelError::pins("open the pinned link", &self.path))
    }

    /// Whether its interface is still there: a link says so itself, a mark by the interface's index.
    pub fn is_alive(&self) -> Result<bool, KernelError> {
        if self.kind == HookKind::Clsact {
            return Ok(interface_name(self.ifindex).is_some());
        }
        let info = sys::link_info(self.link()?.as_fd());
        let info = info.map_err(KernelError::pins("ask what a pinned link is on", &self.path))?;
        Ok(info.ifindex == self.ifindex)
    }

    /// Puts another program on an XDP or TCX hook, at once.
    pub fn replace(&self, program: BorrowedFd<'_>) -> Result<(), KernelError> {
        sys::update_link(self.link()?.as_fd(), program)
            .map_err(KernelError::pins("replace the program of the pinned link", &self.path))
    }

    /// Removes the file; a link is taken off its hook before, so that it is off when this returns.
    pub fn remove(&self) -> Result<(), KernelError> {
        if self.kind != HookKind::Clsact {
            // A link whose interface is gone is on no hook; then it only has to go.
            let _ = sys::detach_link(self.link()?.as_fd());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(KernelError::pins("remove the pin", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// The folder of a sensor's hooks.
#[derive(Clone, Debug)]
pub struct Hooks {
    folder: PathBuf,
}

impl Hooks {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub fn list(&self) -> Result<Vec<PinnedHook>, KernelError> {
        let entries = fs::read_dir(&self.folder)
            .map_err(KernelError::pins("list the folder of pinned links", &self.folder))?;
        let mut hooks: Vec<PinnedHook> =
            entries.filter_map(|entry| PinnedHook::parse(entry.ok()?.path())).collect();
        hooks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(hooks)
    }

    /// The hooks of one direction of an interface: one at most, unless a sensor was killed between two.
    pub fn find(&self, ifindex: u32, direction: Direction) -> Result<Vec<PinnedHook>, KernelError> {
        let mut hooks = self.list()?;
        hooks.retain(|hook| (hook.ifindex, hook.direction) == (ifindex, direction));
        Ok(hooks)
    }

    fn hook(&self, ifindex: u32, direction: Direction, kind: HookKind) -> PinnedHook {
        let way = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let path = self.folder.join(format!("{ifindex}-{way}-{}", kind.word()));
        PinnedHook { ifindex, direction, kind, path }
    }

    /// Pins a link that was just made.
    pub fn pin(
        &self,
        (ifindex, direction, kind): (u32, Direction, HookKind),
        pin: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<PinnedHook, KernelError> {
        let hook = self.hook(ifindex, direction, kind);
        pin(&hook.path).map_err(KernelError::pins("pin the link", &hook.path))?;
        Ok(hook)
    }

    /// Marks that a clsact filter is about to be attached.
    pub fn mark(&self, ifindex: u32, direction: Direction) -> Result<PinnedHook, KernelError> {
        let hook = self.hook(ifindex, direction, HookKind::Clsact);
        if hook.path.exists() {
            return Ok(hook);
        }
        let smallest = MapCreate {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            ..MapCreate::default()
        };
        sys::create_map(&smallest)
            .and_then(|mark| sys::pin(mark.as_fd(), &hook.path))
            .map_err(KernelError::pins("mark the clsact filter", &hook.path))?;
        Ok(hook)
    }
}

/// The name that an interface has now.
pub fn interface_name(ifindex: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok();
    // nix takes the null pointer that stands for "none" as success.
    name.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_name_says_what_it_keeps() {
        let hooks = Hooks::new(PathBuf::from("/x"));
        for kind in HookKind::ALL {
            for direction in [Direction::Ingress, Direction::Egress] {
                let hook = hooks.hook(12, direction, kind);
                assert_eq!(PinnedHook::parse(hook.path.clone()), Some(hook));
            }
        }
        for name in ["7-ingress", "x-ingress-tcx", "7-up-tcx", "7-egress-tcx-more"] {
            assert_eq!(PinnedHook::parse(Path::new("/x").join(name)), None, "{name}");
        }
    }
}
