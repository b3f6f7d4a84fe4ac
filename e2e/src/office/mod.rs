//! A small office with everything real that such a place has: a gateway between its LAN and the Internet, DHCP and
//! names by dnsmasq, stations that get their addresses by DHCP.
//!
//! ```text
//!   station --+
//!   station --+-- switch -- lan [gateway] wan -- internet
//!   station --+                  |mgmt
//!                               core
//! ```
//!
//! A sensor belongs on the gateway: what stations send to each other alone it does not see, as on any switched network.

mod dnsmasq;
pub mod frames;
mod internet;
mod station;

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_testbed::Result;
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::process::Process;
use weir_testbed::scratch::Scratch;

pub use dnsmasq::Lease;
pub use internet::{BEACON, CLOCK, NTP, PLAIN, SINK, SSH, TELNET};
pub use station::Station;

use crate::{Site, wire};

/// The gateway on the LAN.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd07, 7, 0, 0, 0, 0, 0, 1);
pub const GATEWAY_MAC: &str = "4c:5e:0c:00:00:01";
/// Its end of the LAN.
pub const LAN: &str = "lan";
/// Its way to the Internet, and the provider's router there.
pub const WAN: &str = "wan";
pub const WAN_MAC: &str = "4c:5e:0c:00:00:02";
pub const PROVIDER_MAC: &str = "00:05:85:00:00:01";

/// A machine of the office, as who runs the network knows it.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub name: &'static str,
    pub mac: &'static str,
    pub address: Ipv4Addr,
    /// What it says to DHCP that it is; `busybox` says its own version.
    pub class: Option<&'static str>,
    pub lease: Lease,
}

/// The gateway, its switch and what is behind it. Fields are in the order in which they end.
pub struct Office {
    _dnsmasq: Process,
    _servers: Vec<Process>,
    pub gateway: Namespace,
    pub internet: Namespace,
    switch: Namespace,
    folder: Scratch,
}

impl Office {
    /// Where those of `roster` get their addresses, and `names` are known; no other name exists.
    pub fn open(site: &Site, roster: &[Profile], names: &[(&str, Ipv4Addr)]) -> Result<Self> {
        let folder = Scratch::new("office")?;
        let (gateway, internet) = (site.member("gateway", 0)?, Namespace::new("internet")?);
        let switch = Namespace::new("switch")?;
        switch.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        switch.ip(&["link", "set", "br0", "up"])?;
        let veth = Veth { arp: true, ..Veth::default() };
        wire((&gateway, LAN), (&switch, "gateway"), veth)?;
        gateway.ip(&["link", "set", LAN, "address", GATEWAY_MAC])?;
        switch.ip(&["link", "set", "gateway", "master", "br0"])?;
        gateway.ip(&["addr", "add", &format!("{GATEWAY}/24"), "dev", LAN])?;
        for sysctl in ["accept_dad", "disable_ipv6"] {
            gateway.set(&format!("net.ipv6.conf.{LAN}.{sysctl}"), "0")?;
        }
        gateway.ip(&["addr", "add", &format!("{GATEWAY_V6}/64"), "dev", LAN, "nodad"])?;
        gateway.set("net.ipv4.ip_forward", "1")?;
        gateway.set("net.ipv6.conf.all.forwarding", "1")?;
        wire((&gateway, WAN), (&internet, internet::CARD), veth)?;
        gateway.ip(&["link", "set", WAN, "address", WAN_MAC])?;
        internet.ip(&["link", "set", internet::CARD, "address", PROVIDER_MAC])?;
        gateway.ip(&["addr", "add", "100.64.0.1/30", "dev", WAN])?;
        gateway.ip(&["route", "add", "default", "via", "100.64.0.2"])?;
        internet::connect(&internet)?;
        internet::sink(&gateway)?;
        let servers = internet::serve(&internet, folder.path())?;
        let dnsmasq = dnsmasq::of_the_gateway(&gateway, roster, names, folder.path())?;
        Ok(Self { _dnsmasq: dnsmasq, _servers: servers, gateway, internet, switch, folder })
    }

    /// Plugs a machine in; it has no address yet.
    pub fn plug_in(&self, profile: Profile) -> Result<Station> {
        let namespace = Namespace::new(profile.name)?;
        wire(
            (&namespace, station::CARD),
            (&self.switch, profile.name),
            Veth { arp: true, ..Veth::default() },
        )?;
        namespace.ip(&["link", "set", station::CARD, "address", profile.mac])?;
        self.switch.ip(&["link", "set", profile.name, "master", "br0"])?;
        Ok(Station { namespace, profile })
    }

    /// A station begins to give addresses to those of `victims`, and to advertise itself as a router.
    pub fn rogue(&self, station: &Station, victims: &[Profile]) -> Result<Process> {
        dnsmasq::rogue(station, victims, self.folder.path())
    }
}
