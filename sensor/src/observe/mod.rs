//! From frames to observations: what devices say of themselves and of whom they talk to.
//!
//! Called by whoever has frames: the reader of the kernel's events, and `replay` of a capture. It asks nothing
//! of the kernel and does no input or output: bytes go in, typed observations come out. What must stay true:
//!
//! - no bytes make it panic, and what it remembers (the beginnings of streams and connections whose first
//!   message is not whole yet) is bounded in entries and octets, whatever strangers send;
//! - every text that leaves it is clean (`text`, I6);
//! - of payloads nothing is kept but the fields of these types.
//!
//! A protocol is recognised by its port where it has one of its own, and else by how it begins: TLS, DTLS, QUIC,
//! HTTP, and DNS where it is beyond doubt, are found on any port. Tunnels are not opened, packets that ICMP errors quote are not read, and IP
//! fragments are not put together: flows are counted by the outermost header, and so are these.

mod arp;
mod cursor;
mod dhcp4;
mod dhcp6;
mod dns;
mod frame;
mod hello;
mod http;
mod ja4;
mod mac;
mod nbns;
mod ndp;
mod neighbour;
mod pieces;
mod quic;
mod quic_keys;
mod streams;
pub mod text;
mod tls;

use std::num::NonZeroUsize;

use lru::LruCache;
use serde::Serialize;

pub use arp::Arp;
pub use dhcp4::Dhcp4;
pub use dhcp6::Dhcp6;
pub use dns::{Answer, Dns, DnsKind, Question, Rdata};
pub use frame::{Frame, Framing, Origin};
pub use hello::{Carrier, ClientHello, ServerHello};
pub use http::{Http, Ssdp};
pub use mac::Mac;
pub use nbns::{Nbns, NetbiosName};
pub use ndp::{Ndp, NdpKind, Prefix, Router};
pub use neighbour::{Neighbour, NeighbourKind};
pub use text::Name;

use crate::kernel::FlowKey;
use frame::{Carried, SYN};
use pieces::Pieces;
use streams::{Said, Segment};
use tls::Hello;

/// Something that was said, by whom, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Nanoseconds since the Unix epoch, of the frame with which it was whole.
    pub time_ns: i64,
    pub origin: Origin,
    pub seen: Seen,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Seen {
    Dns(Dns),
    ClientHello(ClientHello),
    ServerHello(ServerHello),
    Http(Http),
    Dhcp4(Dhcp4),
    Dhcp6(Dhcp6),
    Arp(Arp),
    Ndp(Ndp),
    Ssdp(Ssdp),
    Nbns(Nbns),
    Neighbour(Neighbour),
}

/// DTLS hellos in pieces that are remembered.
const MAX_DTLS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Octets that an [`Observer`] may hold.
pub const MAX_HELD: usize = streams::MAX_OCTETS + quic::MAX_OCTETS + MAX_DTLS.get() * 3 * tls::MAX_HELLO;

/// Reads frames; remembers what is not whole yet.
#[derive(Debug)]
pub struct Observer {
    streams: streams::Streams,
    connections: quic::Connections,
    /// By flow and message.
    dtls: LruCache<(FlowKey, u16), Pieces, std::hash::RandomState>,
    dtls_forgotten: u64,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            streams: streams::Streams::default(),
            connections: quic::Connections::default(),
            dtls: LruCache::with_hasher(MAX_DTLS, std::hash::RandomState::new()),
            dtls_forgotten: 0,
        }
    }
}

impl Observer {
    /// Octets of messages that are not whole yet; the bounds keep them under [`MAX_HELD`].
    #[must_use]
    pub fn octets_held(&self) -> usize {
        let dtls: usize = self.dtls.iter().map(|(_, pieces)| pieces.octets()).sum();
        self.streams.octets() + self.connections.octets() + dtls
    }

    /// Messages that were given up for want of room before they were whole.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.streams.forgotten() + self.connections.forgotten() + self.dtls_forgotten
    }

    /// Reads a frame; what it says, alone or with frames before it, goes to `found`.
    pub fn frame(&mut self, frame: &Frame<'_>, time_ns: i64, mut found: impl FnMut(Observation)) {
        let Some((origin, carried)) = frame::read(frame) else { return };
        let mut seen = |seen| found(Observation { time_ns, origin: origin.clone(), seen });
        match carried {
            Carried::Arp(bytes) => arp::read(bytes).map(Seen::Arp).map_or((), seen),
            Carried::Lldp(bytes) => neighbour::lldp(bytes).map(Seen::Neighbour).map_or((), seen),
            Carried::Cdp(bytes) => neighbour::cdp(bytes).map(Seen::Neighbour).map_or((), seen),
            Carried::Icmp6(bytes) => ndp::read(bytes).map(Seen::Ndp).map_or((), seen),
            Carried::Udp(bytes) => {
                if let Some(flow) = origin.flow {
                    self.datagram(&flow, bytes, &mut seen);
                }
            }
            Carried::Tcp { sequence, flags, payload } => {
                if let Some(flow) = origin.flow {
                    let segment = Segment { sequence, opens: flags & SYN != 0, payload };
                    self.streams.segment(&flow, &segment, &mut |said| {
                        seen(match said {
                            Said::Hello(hello) => hello.into(),
                            Said::Request(head) => Seen::Http(head),
                            Said::Dns(message) => Seen::Dns(message),
                        });
                    });
                }
            }
        }
    }

    fn datagram(&mut self, flow: &FlowKey, bytes: &[u8], seen: &mut impl FnMut(Seen)) {
        let ports = [flow.src_port, flow.dst_port];
        let has = |port: u16| ports.contains(&port);
        let message = if has(53) {
            dns::read(DnsKind::Dns, bytes).map(Seen::Dns)
        } else if has(67) || has(68) {
            dhcp4::read(bytes).map(Seen::Dhcp4)
        } else if has(137) {
            nbns::read(bytes).map(Seen::Nbns)
        } else if has(546) || has(547) {
            dhcp6::read(bytes).map(Seen::Dhcp6)
        } else if has(1900) {
            http::ssdp(bytes).map(Seen::Ssdp)
        } else if has(5353) {
            dns::read(DnsKind::Mdns, bytes).map(Seen::Dns)
        } else if has(5355) {
            dns::read(DnsKind::Llmnr, bytes).map(Seen::Dns)
        } else if quic::is_quic(bytes) {
            self.connections.datagram(flow, bytes, &mut |hello| seen(hello.into()));
            None
        } else if let Some(message) = dns::on_any_port(bytes) {
            Some(Seen::Dns(message))
        } else {
            self.dtls(flow, bytes, seen);
            None
        };
        if let Some(message) = message {
            seen(message);
        }
    }

    fn dtls(&mut self, flow: &FlowKey, bytes: &[u8], seen: &mut impl FnMut(Seen)) {
        for fragment in tls::dtls(bytes) {
            if fragment.octets > tls::MAX_HELLO {
                continue;
            }
            let key = (*flow, fragment.message);
            self.dtls_forgotten += u64::from(self.dtls.len() == MAX_DTLS.get() && !self.dtls.contains(&key));
            let pieces = self.dtls.get_or_insert_mut(key, Pieces::default);
            if !pieces.insert(fragment.place, fragment.bytes, tls::MAX_HELLO) {
                self.dtls.pop(&key);
            } else if let Some(hello) = fragment.whole(pieces.front()) {
                self.dtls.pop(&key);
                seen(hello.into());
            }
        }
    }
}

impl Seen {
    /// All words of [`Seen::word`].
    pub const WORDS: [&str; 11] = [
        "dns",
        "client_hello",
        "server_hello",
        "http",
        "dhcp4",
        "dhcp6",
        "arp",
        "ndp",
        "ssdp",
        "nbns",
        "neighbour",
    ];

    /// What it is, as in JSON.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        Self::WORDS[match self {
            Self::Dns(_) => 0,
            Self::ClientHello(_) => 1,
            Self::ServerHello(_) => 2,
            Self::Http(_) => 3,
            Self::Dhcp4(_) => 4,
            Self::Dhcp6(_) => 5,
            Self::Arp(_) => 6,
            Self::Ndp(_) => 7,
            Self::Ssdp(_) => 8,
            Self::Nbns(_) => 9,
            Self::Neighbour(_) => 10,
        }]
    }
}

impl From<Hello> for Seen {
    fn from(hello: Hello) -> Self {
        match hello {
            Hello::Client(hello) => Self::ClientHello(hello),
            Hello::Server(hello) => Self::ServerHello(hello),
        }
    }
}
