//! Attaching the programs: which hook, which mode, and what is in the way.

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcError, qdisc_add_clsact},
        xdp::XdpLinkId,
    },
    sys::SyscallError,
};

use super::{
    KernelError,
    error::chain,
    interface::{Framing, Interface, Offloads},
    object::Features,
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
    Xdp(&'static str, XdpLinkId),
    Tc(&'static str, SchedClassifierLinkId),
}

pub(super) const TC_EGRESS: &str = "weir_tc_egress";
pub(super) const TC_INGRESS: &str = "weir_tc_ingress";

/// The programs of the object.
pub(super) struct Programs<'a> {
    pub object: &'a mut Ebpf,
    pub features: Features,
}

impl Programs<'_> {
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

    pub fn ingress(
        &mut self,
        interface: &Interface,
        mode: IngressMode,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(Hook, String)>, KernelError> {
        let by_tc = interface.framing == Framing::Layer3 || interface.bond;
        match mode {
            IngressMode::Off => Ok(None),
            IngressMode::Tc => self.tc_hook(interface, TC_INGRESS, TcAttachType::Ingress, None).map(Some),
            IngressMode::Auto if by_tc => {
                self.tc_hook(interface, TC_INGRESS, TcAttachType::Ingress, None).map(Some)
            }
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
    ) -> Result<Option<(Hook, String)>, KernelError> {
        let wanted = match mode {
            EgressMode::Off => return Ok(None),
            EgressMode::Auto => None,
            EgressMode::Tcx => Some(true),
            EgressMode::Clsact => Some(false),
        };
        self.tc_hook(interface, TC_EGRESS, TcAttachType::Egress, wanted).map(Some)
    }

    fn xdp_hook(&mut self, interface: &Interface, mode: XdpMode) -> Result<(Hook, String), KernelError> {
        let name = self.features.xdp_program();
        let native = matches!(mode, XdpMode::Driver);
        let what = if native { "XDP in native mode" } else { "XDP in generic mode" };
        let link = self.xdp()?.attach_to_if_index(interface.index, mode).map_err(|source| {
            if matches!(errno(&source), Some(libc::EBUSY | libc::EEXIST)) {
                return taken(interface);
            }
            KernelError::Attach {
                what,
                interface: interface.name.clone(),
                remedy: remedy(&source, interface, native),
                source: Box::new(source),
            }
        })?;
        Ok((Hook::Xdp(name, link), if native { "xdp native" } else { "xdp generic" }.to_owned()))
    }

    /// `tcx`: `None` takes what the kernel offers. Ours goes first in the chain: a program before it that
    /// decides for itself would hide packets from it.
    fn tc_hook(
        &mut self,
        interface: &Interface,
        name: &'static str,
        direction: TcAttachType,
        tcx: Option<bool>,
    ) -> Result<(Hook, String), KernelError> {
        let tcx = tcx.unwrap_or(self.features.tcx);
        let failed = |source: ProgramError, remedy: &str| KernelError::Attach {
            what: if tcx { "TCX" } else { "a clsact filter" },
            interface: interface.name.clone(),
            source: Box::new(source),
            remedy: remedy.to_owned(),
        };
        let options = if tcx {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            // It may stand there already: then the attachment below says what is wrong, if anything is.
            if let Err(error) = qdisc_add_clsact(&interface.name)
                && !chain(&error).contains("File exists")
            {
                return Err(failed(error.into(), "`tc qdisc show` lists what is in the way"));
            }
            TcAttachOptions::Netlink(NlOptions { priority: 1, ..NlOptions::default() })
        };
        let link = self
            .tc(name)?
            .attach_with_options(&interface.name, direction, options)
            .map_err(|source| failed(source, "`weir-sensor check` says what this kernel offers"))?;
        Ok((Hook::Tc(name, link), if tcx { "tcx" } else { "clsact" }.to_owned()))
    }

    pub fn detach(&mut self, hook: Hook) -> Result<(), KernelError> {
        match hook {
            Hook::Xdp(name, link) => self.xdp()?.detach(link).map_err(KernelError::program(name)),
            Hook::Tc(name, link) => self.tc(name)?.detach(link).map_err(KernelError::program(name)),
        }
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
