//! What this host offers, each with a verdict and a way out: `weir-sensor check`.
//!
//! Whatever can be tried is tried: the programs are loaded (and dropped again), not guessed about.

use std::fs;

use super::{
    Geometry, KernelError, Pinning, Settings, Sockets, TableSizes,
    attach::{Programs, xdp_holder},
    grace::Grace,
    interface::{Framing, Interface, Offloads},
    object::{self, Clock, Features, Load},
    pins,
};

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// It works, with a cost or a limit that `detail` names.
    Warning,
    /// The sensor cannot work, or not as configured.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    pub subject: String,
    pub verdict: Verdict,
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

pub(super) fn finding(
    subject: &str,
    verdict: Verdict,
    detail: impl Into<String>,
    remedy: Option<&str>,
) -> Finding {
    Finding { subject: subject.to_owned(), verdict, detail: detail.into(), remedy: remedy.map(str::to_owned) }
}

/// The host: privileges, kernel features, whether the programs load.
pub fn check() -> Vec<Finding> {
    let features = Features::detect();
    let mut findings = vec![privileges(), jit(), grace()];
    findings.push(if features.tcx {
        finding("egress hook", Verdict::Ok, "TCX", None)
    } else {
        finding("egress hook", Verdict::Warning, "no TCX (kernel 6.6): a clsact filter is used instead", None)
    });
    findings.push(if features.xdp_frags {
        finding("frames in several buffers", Verdict::Ok, "XDP takes them", None)
    } else {
        let detail = "no XDP fragments (kernel 5.18): drivers refuse native XDP on large MTUs";
        finding(
            "frames in several buffers",
            Verdict::Warning,
            detail,
            Some("set `ingress = \"generic\"` there"),
        )
    });
    findings.push(if features.xdp_frags {
        finding("events", Verdict::Ok, "bytes of packets, also of those in several buffers", None)
    } else {
        let detail = "bytes of packets; XDP copies them without a helper (kernel 5.18)";
        finding("events", Verdict::Ok, detail, None)
    });
    findings.push(if features.maps_are_accounted {
        finding("memory of maps", Verdict::Ok, "charged to the memory control group", None)
    } else {
        let detail = "charged to the limit of locked memory (kernels before 5.11), which the sensor raises";
        finding("memory of maps", Verdict::Warning, detail, Some("`LimitMEMLOCK=infinity` in systemd"))
    });
    findings.extend(programs(features));
    findings.push(processes());
    findings
}

/// What tells processes of local flows: tried, and taken off again.
fn processes() -> Finding {
    const SUBJECT: &str = "processes of local flows";
    match Sockets::attach(1_024) {
        Ok(_) => finding(SUBJECT, Verdict::Ok, "programs at the root of the control groups, and /proc", None),
        Err(error) => finding(
            SUBJECT,
            Verdict::Warning,
            format!("/proc alone, which misses what lives for a moment: {error}"),
            Some("mount cgroup2; or set `processes.enabled = false`"),
        ),
    }
}

/// What is pinned, what it is good for, and what is stale.
pub fn check_pins(pinning: &Pinning, settings: &Settings, interfaces: &[String]) -> Vec<Finding> {
    pins::check_pins(pinning, settings, interfaces)
}

/// One interface: how its frames begin, and what would hide packets from the programs.
pub fn check_interface(name: &str) -> Vec<Finding> {
    let subject = format!("interface {name}");
    let interface = match Interface::find(name) {
        Ok(interface) => interface,
        Err(error) => {
            let remedy = Some("correct the name, or leave the interface out");
            return vec![finding(&subject, Verdict::Missing, error.to_string(), remedy)];
        }
    };
    let mut findings = vec![match interface.framing {
        Framing::Ethernet => finding(&subject, Verdict::Ok, format!("Ethernet, MTU {}", interface.mtu), None),
        Framing::Layer3 => {
            let detail = "frames begin with IP: ingress is seen by a TC program";
            finding(&subject, Verdict::Ok, detail, None)
        }
        Framing::Other(kind) => {
            let detail = format!("link type {kind} is neither Ethernet nor IP");
            finding(&subject, Verdict::Missing, detail, Some("leave the interface out"))
        }
    }];
    if let Some((id, program)) = xdp_holder(&interface) {
        findings.push(finding(
            &subject,
            Verdict::Missing,
            format!("XDP program `{program}` (id {id}) is attached already; it is never replaced"),
            Some("detach it, or set `ingress = \"tc\"`"),
        ));
    }
    if let Some(offloads) = Offloads::of(&interface) {
        if offloads.gro || offloads.lro {
            findings.push(finding(
                &subject,
                Verdict::Warning,
                "received packets are merged (GRO or LRO): generic XDP would count merged ones as one",
                Some("native XDP and `ingress = \"tc\"` are exact; or `ethtool -K IF gro off lro off`"),
            ));
        }
        if offloads.rx_vlan {
            findings.push(finding(
                &subject,
                Verdict::Warning,
                "the device takes VLAN tags out of received frames: XDP does not see them",
                Some("`ethtool -K IF rxvlan off`, or `ingress = \"tc\"`, which sees the tag"),
            ));
        }
    }
    findings
}

/// Capabilities by their number in linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAPABILITIES: [(u32, &str); 3] =
    [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// What kernels before 5.8 asked for, and it still stands for the BPF ones.
const CAP_SYS_ADMIN: u32 = 21;

fn privileges() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |number: u32| effective >> number & 1 != 0;
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(number, _)| !has(*number) && (*number == CAP_NET_ADMIN || !has(CAP_SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return finding("privileges", Verdict::Ok, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON", None);
    }
    let remedy =
        Some("run as root, or give the service these capabilities (AmbientCapabilities= in systemd)");
    finding("privileges", Verdict::Missing, format!("without {}", missing.join(", ")), remedy)
}

fn jit() -> Finding {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => {
            let remedy = Some("`sysctl net.core.bpf_jit_enable=1`");
            finding("BPF compiler", Verdict::Warning, "off: each packet costs several times more", remedy)
        }
        Ok(_) => finding("BPF compiler", Verdict::Ok, "on", None),
        Err(_) => finding("BPF compiler", Verdict::Ok, "always on in this kernel", None),
    }
}

fn grace() -> Finding {
    match Grace::find() {
        Ok(Grace::Membarrier) => finding("epoch flips", Verdict::Ok, "wait by membarrier", None),
        Ok(Grace::MapOfMaps { .. }) => {
            let detail = "no membarrier (nohz_full): the update of a map of maps waits instead";
            finding("epoch flips", Verdict::Warning, detail, None)
        }
        Err(error) => {
            let remedy = Some("run with the privileges above");
            finding("epoch flips", Verdict::Missing, error.to_string(), remedy)
        }
    }
}

/// Loads each program once, with the smallest tables.
fn programs(features: Features) -> Vec<Finding> {
    let settings = Settings {
        tables: TableSizes { ipv4_slots: 16, ipv6_slots: 16 },
        max_points: 2,
        ..Settings::default()
    };
    let loaded = Geometry::new(&settings)
        .and_then(|geometry| object::load(&settings, Load::unpinned(geometry, Clock::Kernel)));
    let mut object = match loaded {
        Ok(object) => object,
        Err(error) => {
            let remedy = Some("kernel 5.10 or newer, and the privileges above");
            return vec![finding("kernel maps", Verdict::Missing, first_line(&error), remedy)];
        }
    };
    [
        ("ingress program", features.xdp_program()),
        ("egress program", "weir_tc_egress"),
        ("layer-3 ingress program", "weir_tc_ingress"),
    ]
    .into_iter()
    .map(|(subject, program)| match Programs::unpinned(&mut object, features).load(program) {
        Ok(()) => finding(subject, Verdict::Ok, "loads", None),
        Err(error) => {
            let remedy = Some("kernel 5.10 or newer, and the privileges above");
            finding(subject, Verdict::Missing, first_line(&error), remedy)
        }
    })
    .collect()
}

/// Without the verifier's log, which can be long.
fn first_line(error: &KernelError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_missing() {
        for name in ["no-such-if", "../../proc", ""] {
            let findings = check_interface(name);
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].verdict, Verdict::Missing, "{name}");
            assert!(findings[0].remedy.is_some());
        }
    }

    #[test]
    fn loopback_is_ethernet() {
        assert_eq!(check_interface("lo")[0].verdict, Verdict::Ok);
    }
}
