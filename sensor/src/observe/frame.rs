//! From a frame to what its sender said: link addresses, flow, payload.
//!
//! The headers are read by the parser of the kernel programs, so an observation has the key that its flow is
//! counted under. What is no IP and still tells of devices (ARP, LLDP, CDP) is found here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;
use weir_sensor_common::{Flags, LinkStack, fragment, link};
use weir_sensor_ebpf::{
    Chain, Headers, Link, Network, Reject, Walk, Window, extensions, ipv4, ipv6_start, is_extension, is_vlan,
    layer3, link as first_link, stacked,
};

use super::cursor::Cursor;
use super::mac::Mac;
use crate::kernel::FlowKey;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Ethernet,
    /// An IP header: tunnels, and devices without link headers.
    Ip,
}

/// A frame as it was handed over.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub framing: Framing,
    pub bytes: &'a [u8],
    /// Octets that it had on the wire, at least as many as `bytes`.
    pub wire_octets: u32,
    /// A VLAN tag that was taken out of the bytes: the outermost one.
    pub offloaded_vlan: Option<u16>,
}

/// Who sent a frame, and by which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub src_mac: Option<Mac>,
    pub dst_mac: Option<Mac>,
    /// Headers between Ethernet and IP, outermost first, in the form of `weir_sensor_common::link`.
    pub link: SmallVec<[u32; 2]>,
    /// Absent where there is no IP header.
    pub flow: Option<FlowKey>,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carried<'a> {
    Udp(&'a [u8]),
    Tcp { sequence: u32, flags: u8, payload: &'a [u8] },
    Icmp6(&'a [u8]),
    Arp(&'a [u8]),
    Lldp(&'a [u8]),
    Cdp(&'a [u8]),
}

/// TCP flags of a segment that opens a connection.
pub(super) const SYN: u8 = 0x02;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMP6: u8 = 58;

/// Reads a frame. `None` where it carries nothing that is observed: fragments among it, of which only the first
/// says what follows.
pub(super) fn read<'a>(frame: &Frame<'a>) -> Option<(Origin, Carried<'a>)> {
    let mut origin = Origin::default();
    if frame.framing == Framing::Ethernet {
        let mut ethernet = Cursor::new(frame.bytes);
        origin.dst_mac = ethernet.array().map(Mac);
        origin.src_mac = ethernet.array().map(Mac);
    }
    match network(frame, &mut origin.link) {
        Ok((network, start)) => {
            let packet = frame.bytes.get(start as usize..)?;
            let left = frame.wire_octets.checked_sub(start)?;
            let (src, dst, headers, network_octets) = match network {
                Network::V4 => version4(packet, left)?,
                Network::V6 => version6(packet, left)?,
            };
            origin.flow = Some(FlowKey {
                src,
                dst,
                protocol: headers.protocol,
                src_port: headers.src_port(),
                dst_port: headers.dst_port(),
            });
            let carried = transport(packet, &headers, network_octets as usize)?;
            Some((origin, carried))
        }
        Err(Reject::NonIp) if frame.framing == Framing::Ethernet => {
            let carried = link_layer(frame, &mut origin.link)?;
            Some((origin, carried))
        }
        Err(_) => None,
    }
}

/// Which IP header begins where.
fn network(frame: &Frame<'_>, headers: &mut SmallVec<[u32; 2]>) -> Result<(Network, u32), Reject> {
    let mut window = Window::new(frame.bytes);
    let found = match frame.framing {
        Framing::Ethernet => first_link(&mut window, frame.offloaded_vlan)?,
        Framing::Ip => layer3(&window)?,
    };
    let (network, number) = match found {
        Link::V4(number) => (Network::V4, number),
        Link::V6(number) => (Network::V6, number),
        Link::Stacked => {
            let mut window = Window::new(frame.bytes);
            let mut stack = LinkStack::default();
            let network = stacked(&mut window, frame.offloaded_vlan, &mut stack)?;
            headers.extend_from_slice(&stack.headers[..stack.depth as usize]);
            return Ok((network, window.taken()));
        }
    };
    if number != link::BARE {
        headers.push(link::VLAN | u32::from(number - link::SINGLE_VLAN));
    }
    Ok((network, window.taken()))
}

/// Addresses, headers, and octets before the transport header.
type Packet = (IpAddr, IpAddr, Headers, u32);

fn version4(packet: &[u8], left: u32) -> Option<Packet> {
    let read = ipv4(&mut Window::new(packet), left).ok()?;
    let address = |word: u32| IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes()));
    let network_octets = u32::from(packet[0] & 0xf) * 4;
    Some((address(read.src), address(read.dst), read.headers, network_octets))
}

fn version6(packet: &[u8], left: u32) -> Option<Packet> {
    let mut window = Window::new(packet);
    let start = ipv6_start(&mut window, left).ok()?;
    let chain = if is_extension(start.next_header) {
        extensions(&window, start.next_header, start.rest, &mut Walk::default()).ok()?
    } else {
        Chain::none(start.next_header)
    };
    window.skip(chain.octets);
    let read = start.finish(&mut window, chain).ok()?;
    let address = |[high, low]: [u64; 2]| {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&high.to_ne_bytes());
        octets[8..].copy_from_slice(&low.to_ne_bytes());
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Some((address(read.src), address(read.dst), read.headers, 40 + chain.octets))
}

/// The payload of a transport that is read, cut at the end that the IP header claims.
fn transport<'a>(packet: &'a [u8], headers: &Headers, network_octets: usize) -> Option<Carried<'a>> {
    if Flags::unpack(headers.flags).fragments & (fragment::FIRST | fragment::LATER) != 0 {
        return None;
    }
    // Captures of segmentation offload claim less than the header itself: then the frame's end is the end.
    let claimed = headers.octets as usize;
    let end = if claimed <= network_octets { packet.len() } else { claimed.min(packet.len()) };
    let segment = packet.get(network_octets..end)?;
    let mut cursor = Cursor::new(segment);
    match headers.protocol {
        PROTOCOL_UDP => {
            let [_, _, _, _, high, low, _, _] = cursor.array()?;
            let octets = usize::from(u16::from_be_bytes([high, low]));
            let payload = cursor.rest();
            match octets.checked_sub(8) {
                Some(octets) => Some(Carried::Udp(&payload[..octets.min(payload.len())])),
                // No length: a jumbogram's.
                None if octets == 0 => Some(Carried::Udp(payload)),
                None => None,
            }
        }
        PROTOCOL_TCP => {
            let header: [u8; 20] = cursor.array()?;
            let header_octets = usize::from(header[12] >> 4) * 4;
            let payload = if header_octets < 20 { None } else { segment.get(header_octets..) }?;
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            Some(Carried::Tcp { sequence, flags: header[13], payload })
        }
        PROTOCOL_ICMP6 => Some(Carried::Icmp6(segment)),
        _ => None,
    }
}

const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const LLDP: u16 = 0x88cc;
const CDP: u16 = 0x2000;
const LLC_SNAP: [u8; 3] = [0xaa, 0xaa, 3];
const OUI_CISCO: [u8; 3] = [0, 0, 0x0c];

/// What stands behind Ethernet and its tags, where it is no IP.
fn link_layer<'a>(frame: &Frame<'a>, headers: &mut SmallVec<[u32; 2]>) -> Option<Carried<'a>> {
    headers.clear();
    headers.extend(frame.offloaded_vlan.map(|tci| link::VLAN | u32::from(tci & 0xfff)));
    let mut cursor = Cursor::new(frame.bytes.get(12..)?);
    let mut ethertype = cursor.u16()?;
    while is_vlan(ethertype) && headers.len() < link::MAX_DEPTH {
        headers.push(link::VLAN | u32::from(cursor.u16()? & 0xfff));
        ethertype = cursor.u16()?;
    }
    if ethertype < 0x600 {
        let octets = usize::from(ethertype);
        let rest = cursor.rest();
        cursor = Cursor::new(&rest[..octets.min(rest.len())]);
        let llc: [u8; 3] = cursor.array()?;
        let oui: [u8; 3] = cursor.array()?;
        let protocol = cursor.u16()?;
        return match (llc, oui, protocol) {
            (LLC_SNAP, [0, 0, 0], ARP) => Some(Carried::Arp(cursor.rest())),
            (LLC_SNAP, OUI_CISCO, CDP) => Some(Carried::Cdp(cursor.rest())),
            _ => None,
        };
    }
    match ethertype {
        ARP | RARP => Some(Carried::Arp(cursor.rest())),
        LLDP => Some(Carried::Lldp(cursor.rest())),
        _ => None,
    }
}
