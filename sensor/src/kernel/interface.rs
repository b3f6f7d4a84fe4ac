//! What the kernel says of an interface: sysfs and the ethtool ioctl.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use super::KernelError;

/// How frames begin on an interface (`ARPHRD_*` in `linux/if_arp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Ethernet,
    /// IP at once: tun, `WireGuard`, IP tunnels, raw-IP modems, PPP.
    Layer3,
    /// Something else, by its number.
    Other(u32),
}

/// One interface, as it is now.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub framing: Framing,
    pub mtu: u32,
    /// A bond: native XDP runs on the interfaces under it, which see packets under their own index.
    pub bond: bool,
}

impl Interface {
    pub fn find(name: &str) -> Result<Self, KernelError> {
        // The name becomes a path: it must be one plain component.
        let plain =
            !name.is_empty() && name.len() <= 15 && !name.contains(['/', '\0']) && !name.starts_with('.');
        let folder = Path::new("/sys/class/net").join(name);
        if !plain {
            return Err(KernelError::NoInterface(name.to_owned()));
        }
        // /sys shows the network namespace in which it was mounted, programs are attached in this thread's.
        let index = nix::net::if_::if_nametoindex(name).ok();
        let shown = number(&folder, "ifindex").ok();
        let index = match (index, shown) {
            (Some(index), Some(shown)) if index == shown => index,
            (Some(index), _) => return Err(KernelError::OtherSysfs(name.to_owned(), index)),
            (None, _) => return Err(KernelError::NoInterface(name.to_owned())),
        };
        let framing = match number(&folder, "type")? {
            // Ethernet and loopback.
            1 | 772 => Framing::Ethernet,
            512 | 519 | 768 | 769 | 776 | 778 | 823 | 65534 => Framing::Layer3,
            other => Framing::Other(other),
        };
        Ok(Self {
            name: name.to_owned(),
            index,
            framing,
            mtu: number(&folder, "mtu")?,
            bond: folder.join("bonding").exists(),
        })
    }

    /// Names of all interfaces.
    pub fn names() -> Vec<String> {
        let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name != "bonding_masters")
            .collect();
        names.sort();
        names
    }

    /// A number that all interfaces share which are stacked on each other, directly or through others: the
    /// lowest interface index among them.
    pub fn stack(&self) -> u32 {
        let mut index: BTreeMap<String, u32> = BTreeMap::new();
        let mut group: BTreeMap<String, String> = BTreeMap::new();
        for name in Self::names() {
            let folder = Path::new("/sys/class/net").join(&name);
            if let Ok(number) = number(&folder, "ifindex") {
                index.insert(name.clone(), number);
            }
            for lower in lower(&folder) {
                let (a, b) = (root(&group, &name), root(&group, &lower));
                if a != b {
                    group.insert(a, b);
                }
            }
        }
        let ours = root(&group, &self.name);
        index
            .iter()
            .filter(|(name, _)| root(&group, name) == ours)
            .map(|(_, index)| *index)
            .min()
            .unwrap_or(self.index)
    }
}

fn root(group: &BTreeMap<String, String>, name: &str) -> String {
    let mut at = name;
    while let Some(next) = group.get(at) {
        at = next;
    }
    at.to_owned()
}

/// Interfaces that an interface is built on.
fn lower(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix("lower_").map(str::to_owned))
        .collect()
}

fn number(folder: &Path, file: &'static str) -> Result<u32, KernelError> {
    let path: PathBuf = folder.join(file);
    let text = fs::read_to_string(path).map_err(KernelError::system("read an interface's sysfs"))?;
    text.trim().parse().map_err(|_| KernelError::System {
        what: "read an interface's sysfs",
        source: io::Error::new(io::ErrorKind::InvalidData, format!("`{file}` is {text:?}")),
    })
}

/// Offloads that change what XDP sees on ingress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Receive packets are merged before generic XDP and TC.
    pub gro: bool,
    /// The device merges packets.
    pub lro: bool,
    /// The device takes VLAN tags out of received frames.
    pub rx_vlan: bool,
}

// linux/ethtool.h and linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

#[repr(C)]
struct EthtoolValue {
    command: u32,
    value: u32,
}

impl Offloads {
    /// `None` where the device does not say.
    pub fn of(interface: &Interface) -> Option<Self> {
        // SAFETY: no memory is passed.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return None;
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let flags = ethtool(&socket, &interface.name, ETHTOOL_GFLAGS)?;
        Some(Self {
            gro: ethtool(&socket, &interface.name, ETHTOOL_GGRO)? != 0,
            lro: flags & ETH_FLAG_LRO != 0,
            rx_vlan: flags & ETH_FLAG_RXVLAN != 0,
        })
    }
}

fn ethtool(socket: &OwnedFd, name: &str, command: u32) -> Option<u32> {
    let mut value = EthtoolValue { command, value: 0 };
    // SAFETY: all zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value it points at outlive the call, and the kernel writes 8 bytes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    (result == 0).then_some(value.value)
}
/// Addresses of this host's interfaces; none where they cannot be read.
#[must_use]
pub fn host_addresses() -> Vec<IpAddr> {
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    addresses
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect()
}
