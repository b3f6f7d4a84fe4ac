//! What can go wrong between the sensor and the kernel, each with what was tried and a way out.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use thiserror::Error;

/// An error of the kernel module.
#[derive(Debug, Error)]
pub enum KernelError {
    #[error("load the kernel programs: {}", chain(.0))]
    Load(#[from] Box<EbpfError>),
    #[error("load kernel program `{program}`: {}", chain(.source))]
    Program { program: &'static str, source: Box<ProgramError> },
    #[error("attach {what} to `{interface}`: {}; {remedy}", chain(.source))]
    Attach { what: &'static str, interface: String, source: Box<ProgramError>, remedy: String },
    #[error(
        "attach XDP to `{interface}`: program `{program}` (id {id}) is attached already and is left alone; {}, \
         or set `ingress = \"tc\"` for this interface",
        detach(interface, program)
    )]
    XdpTaken { interface: String, id: u32, program: String },
    #[error(
        "attach XDP to `{0}` in native mode: on a bond it would run on the interfaces below; watch those, or set `ingress = \"tc\"`"
    )]
    Bond(String),
    #[error("interface `{0}` does not exist; `ip link` lists those that do")]
    NoInterface(String),
    #[error("interface `{0}` is attached already")]
    AttachedTwice(String),
    #[error("interface `{0}` is not attached")]
    NotAttached(String),
    #[error("no observation point is left for `{interface}`: {max} are in use (two for an interface)")]
    NoPointLeft { interface: String, max: u16 },
    #[error("kernel map `{map}`: {}", chain(.source))]
    Map { map: &'static str, source: Box<MapError> },
    #[error("kernel map `{0}` is not in the object: the sensor was built wrong")]
    MissingMap(&'static str),
    #[error("map the memory of kernel map `{map}` ({octets} bytes): {source}; smaller tables need less")]
    Mmap { map: &'static str, octets: usize, source: io::Error },
    #[error(
        "kernel map `{map}` has {} elements of {} bytes and should have {} of {}: the pins are damaged; \
         `weir-sensor detach` removes them, with what was counted and not drained",
        found.0, found.1, wanted.0, wanted.1
    )]
    MapSize { map: &'static str, found: (usize, usize), wanted: (usize, usize) },
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("`{key}` is {value}: {allowed}")]
    Setting { key: &'static str, value: String, allowed: &'static str },
    #[error("epoch {epoch} is drained and not released yet: release it before the next flip")]
    NotReleased { epoch: u64 },
    #[error("release epoch {asked}: {}", match .drained { Some(epoch) => format!("epoch {epoch} is the one drained"), None => "no epoch is drained".to_owned() })]
    NothingToRelease { asked: u64, drained: Option<u64> },
    #[error("give up privileges: {0}")]
    Privileges(String),
    #[error(
        "`{}` is not on a bpffs, so maps and programs cannot be pinned there and counting would end with the \
         sensor: `mount -t bpf bpf {}` (or name another folder in pins.folder), or set `pins.enabled = false`",
        .0.display(), .1.display()
    )]
    NotBpffs(PathBuf, PathBuf),
    #[error("{what} `{}`: {source}{}", path.display(), pins_remedy(source))]
    Pins { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the pins in `{}` are in use by another sensor{}: stop it, or give this one a name of its own \
         (pins.name)",
        folder.display(),
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    PinsInUse { folder: PathBuf, pid: Option<u32> },
    #[error(
        "the pinned tables in `{}` have layout {found}, and this sensor reads layout {ours}: stop it with the \
         version that made them, which drains them; or `weir-sensor detach` removes them, and what was \
         counted and not drained yet is lost",
        path.display()
    )]
    OtherLayout { path: PathBuf, found: u32, ours: u32 },
    #[error(
        "the pins in `{}` are damaged: {what}; `weir-sensor detach` removes them, with what was counted and \
         not drained",
        path.display()
    )]
    DamagedPins { path: PathBuf, what: String },
    #[error(
        "the pins in `{}` hold programs on interfaces of another network namespace: run this sensor there, \
         give it a name of its own (pins.name), or remove them with `weir-sensor detach`",
        .0.display()
    )]
    OtherNamespace(PathBuf),
    #[error(
        "`{0}` has index {index} in this network namespace, and /sys/class/net does not show it so: /sys is \
         mounted from another network namespace; start the sensor with `ip netns exec`, which mounts the right one"
    , index = .1)]
    OtherSysfs(String, u32),
    #[error("a frame of {0} octets cannot be run: the kernel takes 14 to 65,549")]
    FrameSize(usize),
    #[error("run a frame of {octets} octets through the kernel program: {}", chain(.source))]
    Run { octets: usize, source: Box<ProgramError> },
}

impl KernelError {
    pub(super) fn map(map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { map, source: Box::new(source) }
    }

    pub(super) fn program(program: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { program, source: Box::new(source) }
    }

    pub(super) fn pins(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Pins { what, path, source }
    }

    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// How to get rid of an XDP program: `ip` cannot remove a pinned one.
fn detach(interface: &str, program: &str) -> String {
    if program.starts_with("weir_") {
        return "it is another sensor's, or of one that is stopped and was not ended: then `weir-sensor detach` \
                (with its pins.name) removes it"
            .to_owned();
    }
    format!("detach it (`ip link set dev {interface} xdp off`)")
}

/// Whether a map has no such key.
pub(super) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

fn pins_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; run as the owner of the folder with CAP_BPF, or set `pins.enabled = false`"
        }
        Some(libc::EROFS | libc::ENOENT) => "; mount a bpffs there, or set `pins.enabled = false`",
        _ => "",
    }
}

/// An error with its causes in one line; what the loader says without them ("map error") helps nobody.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
