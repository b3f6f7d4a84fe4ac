//! What the host's build of the parser makes of frames, counted as the kernel program counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_sensor::kernel::{FlowKey, ReplayLink};
use weir_sensor_common::{Flags, LinkStack, link};
use weir_sensor_ebpf::{Headers, Link, Network, Reject, Window, ipv4, ipv6, layer3, link as first, stacked};

use super::{Counted, Flow, Way};

/// Both addresses, link stack, and what the headers say.
type Packet = (IpAddr, IpAddr, Vec<u32>, Headers);

pub fn count(way: Way, frames: &[&[u8]]) -> Counted {
    let mut counted = Counted::default();
    for frame in frames {
        let totals = &mut counted.totals;
        totals.frames += 1;
        totals.octets_l2 += frame.len() as u64;
        match parse(frame, way.link) {
            Err(Reject::NonIp) => totals.non_ip += 1,
            Err(Reject::Malformed | Reject::Truncated) => totals.malformed += 1,
            Ok((src, dst, stack, headers)) => {
                let octets = u64::from(headers.octets);
                totals.flow_packets += 1;
                totals.flow_octets += octets;
                let flags = Flags::unpack(headers.flags);
                let key = FlowKey {
                    src,
                    dst,
                    protocol: headers.protocol,
                    src_port: headers.src_port(),
                    dst_port: headers.dst_port(),
                };
                let flow = Flow { packets: 1, octets, tcp_flags: flags.tcp, fragments: flags.fragments };
                counted.add((key, stack), flow);
            }
        }
    }
    counted
}

fn parse(frame: &[u8], framing: ReplayLink) -> Result<Packet, Reject> {
    let mut window = Window::new(frame);
    let begin = match framing {
        ReplayLink::Ethernet => first(&mut window, None)?,
        ReplayLink::RawIp => layer3(&window)?,
    };
    let (network, stack) = match begin {
        Link::V4(number) => (Network::V4, named(number)),
        Link::V6(number) => (Network::V6, named(number)),
        Link::Stacked => {
            let mut stack = LinkStack::default();
            window = Window::new(frame);
            let network = stacked(&mut window, None, &mut stack)?;
            (network, stack.headers[..stack.depth as usize].to_vec())
        }
    };
    let left = (frame.len() as u32).wrapping_sub(window.taken());
    Ok(match network {
        Network::V4 => {
            let packet = ipv4(&mut window, left)?;
            let address = |word: u32| IpAddr::from(Ipv4Addr::from(word.to_ne_bytes()));
            (address(packet.src), address(packet.dst), stack, packet.headers)
        }
        Network::V6 => {
            let packet = ipv6(&mut window, left)?;
            let address = |words: [u64; 2]| {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(&words[0].to_ne_bytes());
                octets[8..].copy_from_slice(&words[1].to_ne_bytes());
                IpAddr::from(Ipv6Addr::from(octets))
            };
            (address(packet.src), address(packet.dst), stack, packet.headers)
        }
    })
}

/// The stack of a link number that needs no look-up.
fn named(number: u16) -> Vec<u32> {
    match number {
        link::BARE => Vec::new(),
        tag => vec![link::VLAN | u32::from(tag - link::SINGLE_VLAN)],
    }
}
