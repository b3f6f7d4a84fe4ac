//! Network namespaces and the veth pairs between them, gone when their guard is dropped.
//!
//! Names hold the id of the process that made them, so that what a killed run left behind is swept by
//! the next one. IPv6 is off in a new namespace and ARP can be turned off for each link: neither router
//! solicitations nor ARP may mix with the traffic that a test counts. Everything needs root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::process::Launch;
use crate::scratch::{is_alive, owner, serial};
use crate::{Error, Result, require_root};

/// Where iproute2 keeps named namespaces.
const FOLDER: &str = "/run/netns";
const PREFIX: &str = "weir-";

/// A named namespace; dropping it deletes it with every interface in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes `weir-<pid>-<n>-<label>` with its loopback up and IPv6 off.
    pub fn new(label: &str) -> Result<Self> {
        require_root("making a network namespace")?;
        sweep();
        let name = format!("{PREFIX}{}-{}-{label}", std::process::id(), serial());
        ip(&["netns", "add", &name])?;
        let namespace = Self { path: Path::new(FOLDER).join(&name), name };
        for scope in ["all", "default", "lo"] {
            namespace.set(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1")?;
        }
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A program to be run inside.
    #[must_use]
    pub fn launch(&self, program: impl AsRef<OsStr>) -> Launch {
        Launch::new(program).in_namespace(&self.path)
    }

    /// Runs `ip` on this namespace.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        ip(&[&["-n", self.name.as_str()], args].concat())
    }

    /// Calls `f` on a thread that is inside; see [`enter`].
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        enter(&self.path, f)
    }

    /// Writes a sysctl of the namespace, by its dotted name.
    pub fn set(&self, sysctl: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(sysctl.replace('.', "/"));
        self.enter(|| fs::write(&path, value))?
            .map_err(Error::io(format!("set {sysctl} to {value} in {}", self.name)))
    }

    /// Sets offloads of an interface: `("gro", false)` is `ethtool -K IF gro off`.
    pub fn offload(&self, interface: &str, features: &[(&str, bool)]) -> Result<()> {
        let switch = |on: bool| if on { "on" } else { "off" };
        let words = features.iter().flat_map(|&(feature, on)| [feature, switch(on)]);
        self.launch("ethtool").args(["-K", interface]).args(words).run().map(|_| ())
    }

    /// Puts a queue before an interface. A veth end has none of its own and drops what its peer cannot
    /// take at once; with a queue, kernels from 6.16 on hold the packet back instead.
    pub fn queue(&self, interface: &str) -> Result<()> {
        let queue = ["qdisc", "replace", "dev", interface, "root", "pfifo", "limit", "10000"];
        self.launch("tc").args(queue).run().map(|_| ())
    }

    /// The hardware address of an interface.
    pub fn mac(&self, interface: &str) -> Result<String> {
        let shown = self.ip(&["-br", "link", "show", "dev", interface])?;
        shown.split_whitespace().nth(2).map(str::to_owned).ok_or_else(|| {
            Error::malformed(format!("the hardware address of {interface}"), shown.trim().to_owned())
        })
    }

    pub fn counters(&self, interface: &str) -> Result<Counters> {
        let table = self
            .enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?
            .map_err(Error::io("read the interface counters"))?;
        Counters::parse(&table, interface)
            .ok_or_else(|| Error::malformed(format!("counters of {interface} in {}", self.name), table))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("delete the namespace {}: {error}", self.name);
        }
    }
}

/// One end of a link: an interface name and where it lives; `None` is the caller's own namespace.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    pub namespace: Option<&'a Namespace>,
    pub interface: &'a str,
}

/// How a veth pair is set.
#[derive(Clone, Copy, Debug)]
pub struct Veth {
    pub mtu: u32,
    /// Off for replays: the frames are not addressed to either end.
    pub arp: bool,
    /// Segmentation and aggregation (GSO, TSO, GRO) and checksum offload. Off, a frame on the wire is
    /// a frame at both hooks.
    pub offloads: bool,
}

impl Default for Veth {
    fn default() -> Self {
        Self { mtu: 1500, arp: false, offloads: false }
    }
}

impl Veth {
    /// Makes the pair, both ends up. It goes with either end's namespace.
    pub fn join(self, left: End<'_>, right: End<'_>) -> Result<()> {
        require_root("making a veth pair")?;
        let mtu = self.mtu.to_string();
        let mut words = vec!["link", "add", "name", left.interface];
        words.extend(left.namespace.iter().flat_map(|namespace| ["netns", namespace.name.as_str()]));
        words.extend(["type", "veth", "peer", "name", right.interface]);
        words.extend(right.namespace.iter().flat_map(|namespace| ["netns", namespace.name.as_str()]));
        ip(&words)?;
        for end in [left, right] {
            if !self.offloads
                && let Some(namespace) = end.namespace
            {
                let off = ["gro", "gso", "tso", "tx", "rx", "rxvlan", "txvlan"].map(|name| (name, false));
                namespace.offload(end.interface, &off)?;
            }
            let arp = if self.arp { "on" } else { "off" };
            let up = ["link", "set", "dev", end.interface, "mtu", &mtu, "arp", arp, "up"];
            match end.namespace {
                Some(namespace) => namespace.ip(&up)?,
                None => ip(&up)?,
            };
        }
        Ok(())
    }
}

/// What the kernel itself counted on an interface. Packets are what is on the wire. So are octets, with
/// Ethernet's header, except on both ends of a veth pair for the direction whose receiver has native XDP
/// attached: there, the driver counts octets without that header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub rx_octets: u64,
    pub rx_packets: u64,
    pub rx_dropped: u64,
    pub tx_octets: u64,
    pub tx_packets: u64,
    pub tx_dropped: u64,
}

impl Counters {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            rx_octets: self.rx_octets - earlier.rx_octets,
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_dropped: self.rx_dropped - earlier.rx_dropped,
            tx_octets: self.tx_octets - earlier.tx_octets,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_dropped: self.tx_dropped - earlier.tx_dropped,
        }
    }

    /// From the format of `/proc/net/dev`: eight columns received, eight sent.
    fn parse(table: &str, interface: &str) -> Option<Self> {
        let columns = table.lines().find_map(|line| {
            let (name, columns) = line.split_once(':')?;
            (name.trim() == interface).then_some(columns)
        })?;
        let columns: Vec<u64> = columns.split_whitespace().map_while(|word| word.parse().ok()).collect();
        Some(Self {
            rx_octets: *columns.first()?,
            rx_packets: *columns.get(1)?,
            rx_dropped: *columns.get(3)?,
            tx_octets: *columns.get(8)?,
            tx_packets: *columns.get(9)?,
            tx_dropped: *columns.get(11)?,
        })
    }
}

/// Calls `f` on a thread that is inside the namespace at this path: its sockets and
/// `/proc/thread-self/net` are the namespace's.
pub fn enter<T: Send>(namespace: &Path, f: impl FnOnce() -> T + Send) -> Result<T> {
    let what = format!("enter the namespace {}", namespace.display());
    let file = fs::File::open(namespace).map_err(Error::io(what.clone()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::io(what)(errno.into()))?;
            Ok(f())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Deletes the namespaces of processes that are gone.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if let Some(name) = name.to_str()
            && owner(name, PREFIX).is_some_and(|pid| !is_alive(pid))
        {
            // Another process may sweep at the same time.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

/// Runs `ip` in the caller's namespace.
pub fn ip(args: &[&str]) -> Result<String> {
    Launch::new("ip").args(args).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Inter-|   Receive          |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:   1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0
 eth01:   9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9
  eth0: 100 10 0 3 0 0 0 0 200 20 0 4 0 0 0 0
";

    #[test]
    fn counters_are_those_of_the_named_interface() {
        let counters = Counters::parse(TABLE, "eth0").expect("eth0 is in the table");
        let expected = Counters {
            rx_octets: 100,
            rx_packets: 10,
            rx_dropped: 3,
            tx_octets: 200,
            tx_packets: 20,
            tx_dropped: 4,
        };
        assert_eq!(counters, expected);
        assert_eq!(Counters::parse(TABLE, "eth"), None);
    }
}
