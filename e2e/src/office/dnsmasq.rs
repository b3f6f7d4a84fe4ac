//! dnsmasq: the gateway's, for addresses and names, and one that nobody asked for.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use weir_testbed::netns::Namespace;
use weir_testbed::process::{Launch, Process};
use weir_testbed::{Error, Result};

use super::station::{CARD, Station};
use super::{GATEWAY, LAN, Profile};

const STARTS_WITHIN: Duration = Duration::from_mins(1);

/// Who gives a machine its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The gateway.
    Gateway,
    /// Not the gateway: it was told to ignore the machine.
    Elsewhere,
    /// Nobody: somebody typed it in.
    Fixed,
}

/// Reads no file of this machine's, and keeps all that it writes in the folder.
fn dnsmasq(namespace: &Namespace, label: &str, folder: &Path) -> Launch {
    let program =
        ["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-hosts", "--no-resolv"];
    let leases = folder.join(format!("{label}.leases"));
    namespace
        .launch("dnsmasq")
        .args(program)
        .args(["--pid-file=", "--log-facility=-", "--log-dhcp", "--no-ping"])
        .arg(format!("--dhcp-leasefile={}", leases.display()))
}

fn start(launch: Launch, label: &str, folder: &Path) -> Result<Process> {
    let log = folder.join(format!("{label}.log"));
    let mut process = launch.spawn(&format!("dnsmasq of the {label}"), &log)?;
    process.wait_until("it gives addresses", STARTS_WITHIN, || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("DHCP, IP range"))
    })?;
    Ok(process)
}

pub(super) fn of_the_gateway(
    gateway: &Namespace,
    roster: &[Profile],
    names: &[(&str, Ipv4Addr)],
    folder: &Path,
) -> Result<Process> {
    let hosts = roster.iter().filter_map(|profile| match profile.lease {
        Lease::Gateway => Some(format!("--dhcp-host={},{}", profile.mac, profile.address)),
        Lease::Elsewhere => Some(format!("--dhcp-host={},ignore", profile.mac)),
        Lease::Fixed => None,
    });
    let launch = dnsmasq(gateway, "gateway", folder)
        .args(["--bind-dynamic", "--except-interface=lo", &format!("--interface={LAN}")])
        .args(["--dhcp-authoritative", "--dhcp-range=192.168.7.100,192.168.7.199,255.255.255.0,1h"])
        .args(hosts)
        .args(["--enable-ra", &format!("--dhcp-range=::,constructor:{LAN},ra-only")])
        // What is not named here does not exist.
        .arg("--address=/#/")
        .args(names.iter().map(|(name, address)| format!("--host-record={name},{address}")));
    start(launch, "gateway", folder)
}

pub(super) fn rogue(station: &Station, victims: &[Profile], folder: &Path) -> Result<Process> {
    let namespace = &station.namespace;
    // It has a prefix of its own, and advertises no other; from an address that it need not try first.
    for sysctl in ["accept_ra", "accept_dad"] {
        namespace.set(&format!("net.ipv6.conf.{CARD}.{sysctl}"), "0")?;
    }
    station.speak_ipv6()?;
    namespace.ip(&["addr", "add", "fd66:6::1/64", "dev", CARD, "nodad"])?;
    let hosts = victims.iter().map(|victim| format!("--dhcp-host={},{}", victim.mac, victim.address));
    let launch = dnsmasq(namespace, "rogue", folder)
        .args(["--port=0", "--bind-dynamic", "--except-interface=lo", &format!("--interface={CARD}")])
        .args(["--dhcp-range=192.168.7.200,192.168.7.220,255.255.255.0,1h", "--dhcp-ignore=tag:!known"])
        .args(hosts)
        .args(["--enable-ra", &format!("--dhcp-range=::,constructor:{CARD},ra-only")]);
    start(launch, "rogue", folder)
}

/// What `udhcpc` calls with what it got.
pub(super) fn script(folder: &Path) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("lease.sh");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
         ip addr replace \"$ip/$mask\" dev \"$interface\"\n\
         ip route replace default via {GATEWAY}\n"
    );
    fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .map_err(Error::io(format!("make {} a program", path.display())))?;
    Ok(path)
}
