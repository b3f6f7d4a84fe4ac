//! From an observation to what it says of devices: who was there, under which identifiers, addresses and names.
//!
//! What stays on the link (ARP, neighbour discovery, DHCP, multicast and broadcast) is its sender's own word, and
//! its frame has the sender's link address. Anything else may have come through a router, whose address the frame
//! then has: it is credited to the device that is known to have both addresses, or to nobody.

use std::borrow::Cow;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::identity::{Habit, Identifier};
use super::kinds::Signal;
use crate::observe::{
    Arp, Dhcp4, Dhcp6, Dns, DnsKind, Mac, Name, Nbns, Ndp, NdpKind, Neighbour, Observation, Origin, Rdata,
    Seen, Ssdp,
};

/// Who told a name; the first is the one to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameSource {
    Dhcp,
    Mdns,
    Nbns,
    Llmnr,
    Neighbour,
}

impl NameSource {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Mdns => "mdns",
            Self::Nbns => "nbns",
            Self::Llmnr => "llmnr",
            Self::Neighbour => "neighbour",
        }
    }
}

/// Whom a sighting is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Who is known, or becomes known, by these.
    Known(SmallVec<[Identifier; 2]>),
    /// The device that has this address and, where a link address is named, that one, too; nobody if there is none.
    At(IpAddr, Option<Mac>),
}

/// What one observation says of one device.
#[derive(Clone, Debug)]
pub struct Sighting<'a> {
    pub who: Who,
    pub addresses: SmallVec<[IpAddr; 2]>,
    pub names: SmallVec<[(NameSource, Cow<'a, str>); 1]>,
    pub signals: SmallVec<[(Signal, Cow<'a, str>); 2]>,
    pub habit: Option<Habit>,
}

impl<'a> Sighting<'a> {
    fn of(who: Who) -> Self {
        Self {
            who,
            addresses: SmallVec::new(),
            names: SmallVec::new(),
            signals: SmallVec::new(),
            habit: None,
        }
    }

    fn known(mac: Option<Mac>, identifiers: impl IntoIterator<Item = Identifier>) -> Self {
        let mac = mac.filter(|mac| is_a_devices(*mac)).map(Identifier::Mac);
        Self::of(Who::Known(mac.into_iter().chain(identifiers).collect()))
    }

    fn having(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses.extend(addresses.into_iter().filter(|address| is_a_hosts(*address)));
        self
    }

    fn called(mut self, source: NameSource, name: impl Into<Cow<'a, str>>) -> Self {
        let name = name.into();
        if !name.trim().is_empty() {
            self.names.push((source, name));
        }
        self
    }

    fn says(mut self, signal: Signal, text: impl Into<Cow<'a, str>>) -> Self {
        self.signals.push((signal, text.into()));
        self
    }
}

/// Everything that an observation says of devices.
pub fn read<'a>(observation: &'a Observation, tell: &mut impl FnMut(Sighting<'a>)) {
    let origin = &observation.origin;
    match &observation.seen {
        Seen::Arp(message) => arp(message, tell),
        Seen::Ndp(message) => ndp(message, origin, tell),
        Seen::Dhcp4(message) => dhcp4(message, origin, tell),
        Seen::Dhcp6(message) => dhcp6(message, origin, tell),
        Seen::Dns(message) if message.kind != DnsKind::Dns => multicast_dns(message, origin, tell),
        Seen::Ssdp(message) => ssdp(message, origin, tell),
        Seen::Nbns(message) => nbns(message, origin, tell),
        Seen::Neighbour(message) => neighbour(message, origin, tell),
        Seen::ClientHello(hello) => {
            if let Some(sender) = sender(origin) {
                tell(sender.says(Signal::Ja4, hello.ja4.as_str()));
            }
        }
        Seen::Http(head) => {
            if let (Some(sender), Some(agent)) = (sender(origin), &head.user_agent) {
                tell(sender.says(Signal::HttpAgent, agent.as_str()));
            }
        }
        Seen::Dns(_) | Seen::ServerHello(_) => {}
    }
}

/// Whether a link address may be one device's.
fn is_a_devices(mac: Mac) -> bool {
    !mac.is_zero() && !mac.is_group()
}

/// Whether an address may be one device's on this link.
fn is_a_hosts(address: IpAddr) -> bool {
    let nobodys = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    !(nobodys || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// Who sent a packet that may have come through a router.
fn sender<'a>(origin: &Origin) -> Option<Sighting<'a>> {
    let flow = origin.flow?;
    Some(Sighting::of(Who::At(flow.src, Some(origin.src_mac?))))
}

/// Who sent a packet to a group, which no router forwards: its link and network address belong together.
fn on_link<'a>(origin: &Origin, identifiers: impl IntoIterator<Item = Identifier>) -> Option<Sighting<'a>> {
    origin.dst_mac.filter(|mac| mac.is_group())?;
    let flow = origin.flow?;
    Some(Sighting::known(origin.src_mac, identifiers).having([flow.src]))
}

fn arp<'a>(message: &Arp, tell: &mut impl FnMut(Sighting<'a>)) {
    let sender = Sighting::known(Some(message.sender), []);
    match message.operation {
        // A probe (RFC 5227) has no address of its own yet.
        1 | 2 => tell(sender.having([message.sender_ip.into()])),
        // RARP: a server answers what the target has.
        4 => tell(Sighting::known(Some(message.target), []).having([message.target_ip.into()])),
        _ => tell(sender),
    }
}

fn ndp<'a>(message: &Ndp, origin: &Origin, tell: &mut impl FnMut(Sighting<'a>)) {
    let Some(flow) = origin.flow else { return };
    // What is sent to one neighbour may do without the option (RFC 4861, 4.4).
    let mac = message.link_address.or(origin.src_mac);
    match message.kind {
        NdpKind::NeighbourAdvertisement => {
            tell(Sighting::known(mac, []).having(message.target.map(IpAddr::V6)));
        }
        NdpKind::NeighbourSolicitation | NdpKind::RouterSolicitation => {
            tell(Sighting::known(mac, []).having([flow.src]));
        }
        NdpKind::RouterAdvertisement => {
            let routes = message.router.as_ref().is_some_and(|router| router.lifetime_s > 0);
            let sighting = Sighting::known(mac, []).having([flow.src]);
            tell(if routes { sighting.says(Signal::Role, "router") } else { sighting });
        }
        // Of somebody else.
        NdpKind::Redirect => {}
    }
}

/// DHCP's acknowledgement: the address is the client's now.
const ACK: u8 = 5;
const REQUEST: u8 = 3;
const INFORM: u8 = 8;

fn dhcp4<'a>(message: &'a Dhcp4, origin: &Origin, tell: &mut impl FnMut(Sighting<'a>)) {
    let client_id = message.client_id.as_deref().and_then(Identifier::of_client_id);
    let mut client = Sighting::known(message.client, client_id);
    if message.reply {
        if message.message.is_none_or(|message| message == ACK) {
            client = client.having([message.assigned.into()]);
        }
        // From a server on this link: nothing stands between.
        let flow = origin.flow.filter(|_| message.relay.is_unspecified());
        if let Some(flow) = flow {
            tell(Sighting::known(origin.src_mac, []).having([flow.src]).says(Signal::Role, "dhcp_server"));
            for router in &message.routers {
                tell(Sighting::of(Who::At((*router).into(), None)).says(Signal::Role, "gateway"));
            }
        }
    } else {
        if matches!(message.message, Some(REQUEST | INFORM)) {
            client = client.having([message.client_ip.into()]);
        }
        let name = message.hostname.as_deref().or(message.client_fqdn.as_deref());
        let class = message.vendor_class.as_deref();
        client.habit = name.and_then(|name| Habit::of(name, &message.parameters, class));
        for name in [&message.hostname, &message.client_fqdn].into_iter().flatten() {
            client = client.called(NameSource::Dhcp, name.trim_end_matches('.'));
        }
        if let Some(class) = class {
            client = client.says(Signal::DhcpVendorClass, class);
        }
        if !message.parameters.is_empty() {
            let list: Vec<String> = message.parameters.iter().map(u8::to_string).collect();
            client = client.says(Signal::DhcpParameters, list.join(","));
        }
    }
    tell(client);
}

fn dhcp6<'a>(message: &'a Dhcp6, origin: &Origin, tell: &mut impl FnMut(Sighting<'a>)) {
    const REPLY: u8 = 7;
    let (Some(outer), Some(inner)) = (message.messages.first(), message.messages.last()) else { return };
    let relayed = outer != inner;
    let from_server = matches!(*inner, 2 | REPLY | 10);
    let client_mac = match (relayed, from_server) {
        (true, _) => None,
        (false, true) => origin.dst_mac,
        (false, false) => origin.src_mac,
    };
    let duid = message.client_id.as_deref().and_then(Identifier::of_duid);
    let mut client = Sighting::known(client_mac, duid);
    if *inner == REPLY {
        client = client.having(message.assigned.iter().copied().map(IpAddr::V6));
    }
    if from_server && !relayed {
        let server = message.server_id.as_deref().and_then(Identifier::of_duid);
        let addresses = origin.flow.map(|flow| flow.src);
        tell(Sighting::known(origin.src_mac, server).having(addresses).says(Signal::Role, "dhcp_server"));
    } else if !from_server {
        if let (false, Some(flow)) = (relayed, origin.flow) {
            client = client.having([flow.src]);
        }
        if let Some(name) = &message.client_fqdn {
            client = client.called(NameSource::Dhcp, name.trim_end_matches('.'));
        }
        for class in &message.vendor_class {
            client = client.says(Signal::DhcpVendorClass, class.as_str());
        }
    }
    tell(client);
}

/// The host part of a name of the link.
fn host(name: &Name) -> &str {
    let text = name.as_str();
    text.strip_suffix(".local").or_else(|| text.strip_suffix(".Local")).unwrap_or(text)
}

fn multicast_dns<'a>(message: &'a Dns, origin: &Origin, tell: &mut impl FnMut(Sighting<'a>)) {
    let source = if message.kind == DnsKind::Mdns { NameSource::Mdns } else { NameSource::Llmnr };
    let mut about_sender = message.response && message.kind == DnsKind::Mdns;
    if message.response {
        let mut named = false;
        for answer in &message.answers {
            let address: IpAddr = match answer.data {
                Rdata::A(address) => address.into(),
                Rdata::Aaaa(address) => address.into(),
                _ => continue,
            };
            named = true;
            // Whoever has the address is called so, whoever says it: some pass on what others said.
            tell(Sighting::of(Who::At(address, None)).called(source, host(&answer.name)));
            about_sender |= origin.flow.is_some_and(|flow| flow.src == address);
        }
        let own = |answer: &crate::observe::Answer| match (&answer.data, origin.flow) {
            (Rdata::A(address), Some(flow)) => flow.src == IpAddr::from(*address),
            (Rdata::Aaaa(address), Some(flow)) => flow.src == IpAddr::from(*address),
            _ => false,
        };
        about_sender &= !named || message.answers.iter().any(own);
    }
    let Some(mut sender) = on_link(origin, []) else { return };
    if about_sender && let Who::Known(identifiers) = &mut sender.who {
        let mut signals = SmallVec::<[(Signal, Cow<'a, str>); 2]>::new();
        for answer in &message.answers {
            let service = service_of(&answer.name);
            match (&answer.data, service) {
                // `_services._dns-sd._udp.local` lists what there is (RFC 6763, 9).
                (Rdata::Ptr(target), Some("_dns-sd._udp")) => {
                    signals.extend(service_of(target).map(|it| (Signal::MdnsService, it.into())));
                }
                (Rdata::Txt(texts), Some(service)) => {
                    signals.push((Signal::MdnsService, service.into()));
                    identifiers.extend(texts.iter().filter_map(|text| Identifier::of_service(service, text)));
                }
                (Rdata::Srv { .. } | Rdata::Ptr(_), Some(service)) => {
                    signals.push((Signal::MdnsService, service.into()));
                }
                _ => {}
            }
        }
        identifiers.truncate(8);
        sender.signals = signals;
    }
    tell(sender);
}

/// `_ipp._tcp` of `Office._ipp._tcp.local`.
fn service_of(name: &Name) -> Option<&str> {
    let text = name.as_str();
    let lower = ["._tcp", "._udp"]
        .into_iter()
        .filter_map(|protocol| text.rfind(protocol).map(|at| at + protocol.len()));
    let end = lower.max()?;
    let before = text[..end].rfind("._tcp").max(text[..end].rfind("._udp"))?;
    let start = text[..before].rfind("._").map_or(0, |at| at + 1);
    text[start..end].starts_with('_').then(|| &text[start..end])
}

fn ssdp<'a>(message: &'a Ssdp, origin: &Origin, tell: &mut impl FnMut(Sighting<'a>)) {
    let searches = message.method.as_deref() == Some("M-SEARCH");
    let leaves = message.subtype.as_deref() == Some("ssdp:byebye");
    let unique = message.unique_name.as_deref().filter(|_| !searches).and_then(Identifier::of_usn);
    let mut found = match on_link(origin, unique) {
        Some(found) => found,
        None => match sender(origin) {
            Some(found) => found,
            None => return,
        },
    };
    if searches {
        if let Some(agent) = &message.user_agent {
            found = found.says(Signal::SsdpAgent, agent.as_str());
        }
    } else if !leaves {
        if let Some(target) = &message.target {
            found = found.says(Signal::SsdpTarget, target.as_str());
        }
        if let Some(server) = &message.server {
            found = found.says(Signal::SsdpServer, server.as_str());
        }
    }
    tell(found);
}

fn nbns<'a>(message: &'a Nbns, origin: &Origin, tell: &mut impl FnMut(Sighting<'a>)) {
    /// The server service: a host's own name and never a group's.
    const SERVER: u8 = 0x20;
    const REGISTRATION: u8 = 5;
    const REFRESH: u8 = 8;
    let own = |names: &'a [crate::observe::NetbiosName]| {
        names.iter().filter(|name| name.suffix == SERVER).map(|name| name.name.as_str())
    };
    if message.response {
        let asked = message.addresses.first().map(|address| Who::At((*address).into(), None));
        if let (0, Some(who)) = (message.opcode, asked) {
            tell(own(&message.names).fold(Sighting::of(who), |it, name| it.called(NameSource::Nbns, name)));
        }
        if let Some(sender) = sender(origin) {
            tell(own(&message.own_names).fold(sender, |it, name| it.called(NameSource::Nbns, name)));
        }
    } else if let Some(sender) = on_link(origin, []) {
        let registers = matches!(message.opcode, REGISTRATION | REFRESH);
        let names: &[_] = if registers { &message.names } else { &[] };
        tell(own(names).fold(sender, |it, name| it.called(NameSource::Nbns, name)));
    }
}

fn neighbour<'a>(message: &'a Neighbour, origin: &Origin, tell: &mut impl FnMut(Sighting<'a>)) {
    let mut found = Sighting::known(origin.src_mac, []);
    if let Some(name) = &message.system_name {
        found = found.called(NameSource::Neighbour, name.as_str());
    }
    if let Some(description) = &message.description {
        found = found.says(Signal::Neighbour, description.as_str());
    }
    tell(found);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_the_last_two_labels_that_begin_with_an_underscore() {
        let of = |text: &str| service_of(&Name::from_dotted(text.as_bytes())).map(str::to_owned);
        assert_eq!(of("Office._ipp._tcp.local").as_deref(), Some("_ipp._tcp"));
        assert_eq!(of("_ipp._tcp.local").as_deref(), Some("_ipp._tcp"));
        assert_eq!(of("_services._dns-sd._udp.local").as_deref(), Some("_dns-sd._udp"));
        assert_eq!(of("_universal._sub._ipp._tcp.local").as_deref(), Some("_ipp._tcp"));
        assert_eq!(of("host.local"), None);
        assert_eq!(of("._tcp"), None);
    }
}
