//! From bytes to a flow key, a layer a file. Rules and their sources:
//!
//! - lengths are the IP header's own claim; one that claims more than the frame holds is malformed, one
//!   that claims less than its own header (as captures of segmentation offload show) is counted as it
//!   claims, and its transport header is read to the end of the frame;
//! - tunnels count as their outermost IP header; ICMP errors say nothing of the packet they quote;
//! - a later fragment, or a transport header cut before its ports, has ports 0.

mod ipv4;
mod ipv6;
mod link;
mod payload;
mod transport;
mod window;

pub use ipv4::{Ipv4, ipv4};
pub use ipv6::{Chain, Ipv6, Ipv6Start, Walk, extensions, ipv6, ipv6_start, is_extension};
pub use link::{Link, Network, beside_ip, is_vlan, layer3, link, stacked};
pub use payload::{
    Hello, Prefix, TransportStart, hello, is_dns, of_datagram, of_ports, of_segment, prefix, transport_start,
};
pub use window::{Window, bounded};

/// Why a frame is not counted into a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// No IP header where the link layers end, or more link headers than we follow.
    NonIp,
    /// A header that contradicts itself or the frame.
    Malformed,
    /// The bytes at hand end inside a header. The frame may go on where we cannot read (fragments of an
    /// XDP frame, an skb that is not linear); the caller knows.
    Truncated,
}

/// What the network and transport layers say of a packet, addresses aside. Fields are the packed words of a
/// flow slot, so that a program carries two of them along and not eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// IANA protocol number of the transport.
    pub protocol: u8,
    /// Source port below, destination port above, host byte order.
    pub ports: u32,
    /// Layer-3 octets by the IP header's own claim.
    pub octets: u32,
    /// Octets from the start of the IP header to the transport header.
    pub network_octets: u32,
    /// Octets from the start of the IP header to the end of the transport header: what each segment of
    /// a GSO packet repeats.
    pub header_octets: u32,
    /// Packed [`Flags`](weir_sensor_common::Flags).
    pub flags: u64,
}

impl Headers {
    #[inline(always)]
    #[must_use]
    pub const fn src_port(&self) -> u16 {
        self.ports as u16
    }

    #[inline(always)]
    #[must_use]
    pub const fn dst_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// Octets behind the transport header, of which `left` are there from the IP header on: where the IP header
    /// does not say how long the packet is, all of them.
    #[inline(always)]
    #[must_use]
    pub const fn payload_octets(&self, left: u32) -> u32 {
        let end = if self.octets < self.header_octets { left } else { self.octets };
        end.saturating_sub(self.header_octets)
    }
}
