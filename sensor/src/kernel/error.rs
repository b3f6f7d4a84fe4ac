//! What can go wrong between the sensor and the kernel, each with what was tried and a way out.

use std::io;

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
        "attach XDP to `{interface}`: program `{program}` (id {id}) is attached already and is left alone; \
         detach it (`ip link set dev {interface} xdp off`), or set `ingress = \"tc\"` for this interface"
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
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("`{key}` is {value}: {allowed}")]
    Setting { key: &'static str, value: String, allowed: &'static str },
    #[error("epoch {epoch} is drained and not released yet: release it before the next flip")]
    NotReleased { epoch: u64 },
    #[error("release epoch {asked}: {}", match .drained { Some(epoch) => format!("epoch {epoch} is the one drained"), None => "no epoch is drained".to_owned() })]
    NothingToRelease { asked: u64, drained: Option<u64> },
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

    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
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
