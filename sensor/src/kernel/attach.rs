//! Attaching the programs: which hook, which mode, and what is in the way.
//!
//! With pins, a hook that is there already is taken over: it stays as it is where its program is this build's,
//! else its program is replaced at once, so that no packet passes unseen and none is seen twice. Only where
//! another kind of hook is wanted does the old one go before the new one comes.

use std::{os::fd::AsFd as _, path::Path};

use aya::{
    Ebpf,
    programs::{
        Link as _, LinkOrder, Program, ProgramError, ProgramFd, SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{
            NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError, TcHandle,
            qdisc_add_clsact,
        },
        xdp::XdpLinkId,
    },
    sys::SyscallError,
};
use weir_wire::Direction;

use super::{
    KernelError,
    error::chain,
    interface::{Framing, Interface, Offloads},
    object::Features,
    pins::{HookKind, Hooks, PinnedHook, interface_name},
    sys::{self, LinkPlace},
};

/// How packets that arrive are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IngressMode {
    /// Native XDP, else generic XDP; TC where frames begin with IP, and on bonds.
    #[default]
    Auto,
    /// XDP in the driver.
    Native,
    /// XDP in the stack, after GRO.
    Generic,
    /// A TC program: after GRO, but it sees how many packets were merged.
    Tc,
    Off,
}

/// How packets that leave are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EgressMode {
    /// TCX, else clsact.
    #[default]
    Auto,
    Tcx,
    Clsact,
    Off,
}

/// What became of an interface.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    /// The hook, as in `xdp native`; `None` where that direction is off.
    pub ingress: Option<String>,
    pub egress: Option<String>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// A program on a hook.
pub(super) enum Hook {
    /// It goes with this process.
    Xdp(&'static str, XdpLinkId),
    Tc(&'static str, SchedClassifierLinkId),
    /// It stays.
    Pinned(PinnedHook),
}

pub(super) const TC_EGRESS: &str = "weir_tc_egress";
pub(super) const TC_INGRESS: &str = "weir_tc_ingress";

/// Priority of our clsact filters: before all others.
const PRIORITY: u16 = 1;

/// The handle of a sensor's clsact filters: the same each time it starts, so that a filter which a killed
/// sensor left is found and replaced; another one for each folder of pins, so that sensors do not replace
/// each other's.
pub(super) fn filter_handle(pins: Option<&Path>) -> TcHandle {
    let path = pins.map_or(&[][..], |path| path.as_os_str().as_encoded_bytes());
    // FNV-1a: the same in every build.
    let hash =
        path.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    // "we", for Weir.
    TcHandle::new(0x7765, (hash >> 16) as u16 ^ hash as u16)
}

const fn tc_direction(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

/// Takes a clsact filter of ours off an interface; it is well if there is none.
pub(super) fn remove_filter(ifindex: u32, direction: Direction, handle: TcHandle) -> Result<(), KernelError> {
    let Some(name) = interface_name(ifindex) else { return Ok(()) };
    let Ok(filter) = SchedClassifierLink::attached(&name, tc_direction(direction), PRIORITY, handle, None)
    else {
        return Ok(());
    };
    match filter.detach() {
        // No filter, no qdisc, no interface.
        Err(error) if !matches!(errno(&error), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
            Err(KernelError::program("a clsact filter")(error))
        }
        _ => Ok(()),
    }
}

/// The programs of the object.
pub(super) struct Programs<'a> {
    pub object: &'a mut Ebpf,
    pub features: Features,
    /// Where hooks outlive this process.
    pub hooks: Option<&'a Hooks>,
    /// Fingerprint of these programs.
    pub build: u64,
    pub handle: TcHandle,
}

impl<'a> Programs<'a> {
    /// Whose hooks go with this process.
    pub fn unpinned(object: &'a mut Ebpf, features: Features) -> Self {
        Self { object, features, hooks: None, build: 0, handle: filter_handle(None) }
    }

    fn xdp(&mut self) -> Result<&mut Xdp, KernelError> {
        let name = self.features.xdp_program();
        self.object
            .program_mut(name)
            .ok_or(KernelError::MissingMap(name))?
            .try_into()
            .map_err(KernelError::program(name))
    }

    fn tc(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        self.object
            .program_mut(name)
            .ok_or(KernelError::MissingMap(name))?
            .try_into()
            .map_err(KernelError::program(name))
    }

    /// Loads a program into the kernel.
    pub fn load(&mut self, name: &'static str) -> Result<(), KernelError> {
        match self.object.program_mut(name) {
            Some(Program::Xdp(program)) => program.load(),
            Some(Program::SchedClassifier(program)) => program.load(),
            _ => return Err(KernelError::MissingMap(name)),
        }
        .map_err(KernelError::program(name))
    }

    /// `running` is the fingerprint of the program that a hook which outlived a sensor may have.
    pub fn ingress(
        &mut self,
        interface: &Interface,
        mode: IngressMode,
        running: u64,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(Hook, String)>, KernelError> {
        use HookKind::{Clsact, Generic, Native, Tcx};
        let by_tc = interface.framing == Framing::Layer3 || interface.bond;
        let suits = |kind| match mode {
            IngressMode::Auto if by_tc => matches!(kind, Tcx | Clsact),
            IngressMode::Auto => matches!(kind, Native | Generic),
            IngressMode::Native => kind == Native,
            IngressMode::Generic => kind == Generic,
            IngressMode::Tc => matches!(kind, Tcx | Clsact),
            IngressMode::Off => false,
        };
        if let Some(kept) = self.take_over(interface, Direction::Ingress, suits, running, warnings)? {
            return Ok(Some(kept));
        }
        match mode {
            IngressMode::Off => Ok(None),
            IngressMode::Tc => self.tc_hook(interface, Direction::Ingress, None).map(Some),
            IngressMode::Auto if by_tc => self.tc_hook(interface, Direction::Ingress, None).map(Some),
            IngressMode::Native if interface.bond => Err(KernelError::Bond(interface.name.clone())),
            IngressMode::Native => self.xdp_hook(interface, XdpMode::Driver).map(Some),
            IngressMode::Generic => {
                warn_of_offloads(interface, warnings);
                self.xdp_hook(interface, XdpMode::Skb).map(Some)
            }
            IngressMode::Auto => match self.xdp_hook(interface, XdpMode::Driver) {
                Ok(hook) => Ok(Some(hook)),
                Err(error @ (KernelError::XdpTaken { .. } | KernelError::Program { .. })) => Err(error),
                Err(error) => {
                    warnings.push(format!("{error}; generic XDP is used instead, which costs more a packet"));
                    warn_of_offloads(interface, warnings);
                    self.xdp_hook(interface, XdpMode::Skb).map(Some)
                }
            },
        }
    }

    pub fn egress(
        &mut self,
        interface: &Interface,
        mode: EgressMode,
        running: u64,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(Hook, String)>, KernelError> {
        use HookKind::{Clsact, Tcx};
        let suits = |kind| match mode {
            EgressMode::Auto => matches!(kind, Tcx | Clsact),
            EgressMode::Tcx => kind == Tcx,
            EgressMode::Clsact => kind == Clsact,
            EgressMode::Off => false,
        };
        if let Some(kept) = self.take_over(interface, Direction::Egress, suits, running, warnings)? {
            return Ok(Some(kept));
        }
        let wanted = match mode {
            EgressMode::Off => return Ok(None),
            EgressMode::Auto => None,
            EgressMode::Tcx => Some(true),
            EgressMode::Clsact => Some(false),
        };
        self.tc_hook(interface, Direction::Egress, wanted).map(Some)
    }

    /// The hook that an earlier sensor left there, if it is of a kind that suits; others are removed.
    fn take_over(
        &mut self,
        interface: &Interface,
        direction: Direction,
        suits: impl Fn(HookKind) -> bool,
        running: u64,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(Hook, String)>, KernelError> {
        let Some(hooks) = self.hooks else { return Ok(None) };
        let mut kept = None;
        for hook in hooks.find(interface.index, direction)? {
            let shown = hook.kind.shown();
            if !hook.is_alive()? {
                hook.remove()?;
            } else if kept.is_some() || !suits(hook.kind) {
                self.detach(Hook::Pinned(hook))?;
                warnings.push(format!(
                    "{shown} of the sensor before was removed, because the configuration asks for another \
                     hook: packets until that one was attached are not counted"
                ));
            } else if hook.kind == HookKind::Clsact {
                // Always: unlike a link, a filter can be removed by anybody.
                self.clsact(interface, direction)?;
                kept = Some((Hook::Pinned(hook), format!("{shown}, taken over")));
            } else if running == self.build {
                kept = Some((Hook::Pinned(hook), format!("{shown}, taken over")));
            } else {
                let program = match hook.kind {
                    HookKind::Native | HookKind::Generic => self.features.xdp_program(),
                    _ => tc_program(direction),
                };
                hook.replace(self.program_fd(program)?.as_fd())?;
                kept = Some((Hook::Pinned(hook), format!("{shown}, taken over with a new program")));
            }
        }
        Ok(kept)
    }

    fn program_fd(&self, name: &'static str) -> Result<ProgramFd, KernelError> {
        self.object
            .program(name)
            .ok_or(KernelError::MissingMap(name))?
            .fd()
            .and_then(|fd| fd.try_clone().map_err(Into::into))
            .map_err(KernelError::program(name))
    }

    fn xdp_hook(&mut self, interface: &Interface, mode: XdpMode) -> Result<(Hook, String), KernelError> {
        let name = self.features.xdp_program();
        let native = matches!(mode, XdpMode::Driver);
        let kind = if native { HookKind::Native } else { HookKind::Generic };
        let what = if native { "XDP in native mode" } else { "XDP in generic mode" };
        let failed = |source: ProgramError| {
            if matches!(errno(&source), Some(libc::EBUSY | libc::EEXIST)) {
                return taken(interface);
            }
            KernelError::Attach {
                what,
                interface: interface.name.clone(),
                remedy: remedy(&source, interface, native),
                source: Box::new(source),
            }
        };
        let hook = if let Some(hooks) = self.hooks {
            let place = if native { LinkPlace::XdpNative } else { LinkPlace::XdpGeneric };
            let link = self.link(name, interface, place)?.map_err(failed)?;
            let spot = (interface.index, Direction::Ingress, kind);
            Hook::Pinned(hooks.pin(spot, |path| sys::pin(link.as_fd(), path))?)
        } else {
            Hook::Xdp(name, self.xdp()?.attach_to_if_index(interface.index, mode).map_err(failed)?)
        };
        Ok((hook, kind.shown().to_owned()))
    }

    /// Attaches a program by a link of our own: one that can be pinned.
    fn link(
        &self,
        name: &'static str,
        interface: &Interface,
        place: LinkPlace,
    ) -> Result<Result<std::os::fd::OwnedFd, ProgramError>, KernelError> {
        let program = self.program_fd(name)?;
        Ok(sys::create_link(program.as_fd(), interface.index, place)
            .map_err(|io_error| SyscallError { call: "bpf_link_create", io_error }.into()))
    }

    /// `tcx`: `None` takes what the kernel offers. Ours goes first in the chain: a program before it that
    /// decides for itself would hide packets from it.
    fn tc_hook(
        &mut self,
        interface: &Interface,
        direction: Direction,
        tcx: Option<bool>,
    ) -> Result<(Hook, String), KernelError> {
        let name = tc_program(direction);
        if !tcx.unwrap_or(self.features.tcx) {
            let mark = self.hooks.map(|hooks| hooks.mark(interface.index, direction)).transpose()?;
            let attached = self.clsact(interface, direction);
            let hook = match (attached, mark) {
                (Ok(Some(link)), _) => Hook::Tc(name, link),
                (Ok(None), Some(mark)) => Hook::Pinned(mark),
                (Ok(None), None) => return Err(KernelError::MissingMap(name)),
                (Err(error), mark) => {
                    if let Some(mark) = mark {
                        mark.remove()?;
                    }
                    return Err(error);
                }
            };
            return Ok((hook, HookKind::Clsact.shown().to_owned()));
        }
        let failed = |source| attach_failed("TCX", interface, source);
        let hook = if let Some(hooks) = self.hooks {
            let place = match direction {
                Direction::Ingress => LinkPlace::TcxIngress,
                Direction::Egress => LinkPlace::TcxEgress,
            };
            let link = self.link(name, interface, place)?.map_err(failed)?;
            let spot = (interface.index, direction, HookKind::Tcx);
            Hook::Pinned(hooks.pin(spot, |path| sys::pin(link.as_fd(), path))?)
        } else {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let attached =
                self.tc(name)?.attach_with_options(&interface.name, tc_direction(direction), options);
            Hook::Tc(name, attached.map_err(failed)?)
        };
        Ok((hook, HookKind::Tcx.shown().to_owned()))
    }

    /// Attaches a clsact filter, in place of the one that an earlier sensor of ours left, if it did. With
    /// pins there is no link to keep: the filter stays until it is removed.
    fn clsact(
        &mut self,
        interface: &Interface,
        direction: Direction,
    ) -> Result<Option<SchedClassifierLinkId>, KernelError> {
        let (handle, pinned) = (self.handle, self.hooks.is_some());
        let failed = |source| attach_failed("a clsact filter", interface, source);
        // The qdisc may stand there already: then the attachment below says what is wrong, if anything is.
        if let Err(error) = qdisc_add_clsact(&interface.name)
            && !chain(&error).contains("File exists")
        {
            return Err(KernelError::Attach {
                what: "a clsact qdisc",
                interface: interface.name.clone(),
                source: Box::new(error.into()),
                remedy: "`tc qdisc show` lists what is in the way".to_owned(),
            });
        }
        let program = self.tc(tc_program(direction))?;
        let way = tc_direction(direction);
        // One netlink request replaces the filter, and fails where there is none.
        let left = SchedClassifierLink::attached(&interface.name, way, PRIORITY, handle, None)
            .map_err(|error| failed(TcError::IoError(error).into()))?;
        let link = if let Ok(link) = program.attach_to_link(left) {
            link
        } else {
            let options = NlOptions { priority: PRIORITY, handle, ..NlOptions::default() };
            let options = TcAttachOptions::Netlink(options);
            program.attach_with_options(&interface.name, way, options).map_err(failed)?
        };
        if pinned {
            // Dropped, it would detach the filter.
            std::mem::forget(program.take_link(link).map_err(KernelError::program("a clsact filter"))?);
            return Ok(None);
        }
        Ok(Some(link))
    }

    pub fn detach(&mut self, hook: Hook) -> Result<(), KernelError> {
        match hook {
            Hook::Xdp(name, link) => self.xdp()?.detach(link).map_err(KernelError::program(name)),
            Hook::Tc(name, link) => self.tc(name)?.detach(link).map_err(KernelError::program(name)),
            Hook::Pinned(hook) => {
                if hook.kind == HookKind::Clsact {
                    remove_filter(hook.ifindex, hook.direction, self.handle)?;
                }
                hook.remove()
            }
        }
    }
}

const fn tc_program(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => TC_INGRESS,
        Direction::Egress => TC_EGRESS,
    }
}

fn attach_failed(what: &'static str, interface: &Interface, source: ProgramError) -> KernelError {
    KernelError::Attach {
        what,
        interface: interface.name.clone(),
        source: Box::new(source),
        remedy: "`weir-sensor check` says what this kernel offers".to_owned(),
    }
}

fn warn_of_offloads(interface: &Interface, warnings: &mut Vec<String>) {
    let Some(offloads) = Offloads::of(interface) else { return };
    if offloads.gro || offloads.lro {
        warnings.push(format!(
            "`{0}` merges received packets (GRO or LRO) before generic XDP sees them: merged packets count \
             as one. Set `ingress = \"tc\"`, which sees how many were merged, or `ethtool -K {0} gro off lro off`",
            interface.name
        ));
    }
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::TcError(TcError::IoError(error)) => error.raw_os_error(),
        ProgramError::TcError(TcError::NetlinkError(error)) | ProgramError::NetlinkError(error) => {
            error.raw_os_error()
        }
        _ => None,
    }
}

fn remedy(error: &ProgramError, interface: &Interface, native: bool) -> String {
    match errno(error) {
        Some(libc::EPERM | libc::EACCES) => {
            "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".to_owned()
        }
        Some(libc::ERANGE | libc::EINVAL) if native && interface.mtu > 3498 => format!(
            "the MTU of {} may be too large for native XDP in this driver; lower it, or set `ingress = \"generic\"`",
            interface.mtu
        ),
        _ if native => "the driver may not support it; set `ingress = \"generic\"`".to_owned(),
        _ => "set `ingress = \"tc\"`".to_owned(),
    }
}

fn taken(interface: &Interface) -> KernelError {
    let (id, program) = xdp_holder(interface).unwrap_or((0, "unknown".to_owned()));
    KernelError::XdpTaken { interface: interface.name.clone(), id, program }
}

/// Who holds the XDP hook, id and name, as far as `ip` can tell.
pub(super) fn xdp_holder(interface: &Interface) -> Option<(u32, String)> {
    let output = std::process::Command::new("ip")
        .args(["-json", "-details", "link", "show", "dev", &interface.name])
        .output()
        .ok()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let program = &links[0]["xdp"]["prog"];
    let id = program["id"].as_u64()? as u32;
    Some((id, program["name"].as_str().unwrap_or("unnamed").to_owned()))
}
