//! What a slot says: addresses, link stack and times resolved.

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::maps::{HashMap, MapData};
use weir_sensor_common::{self as layout, Count, Flags, Key, Slot4, Slot6};

use super::{FlowKey, FlowObservation, KernelError, Listed, clock::WallClock, tables::Element};

/// Link numbers of a half, resolved.
#[derive(Default)]
pub struct Links {
    pub stacks: Vec<Vec<u32>>,
    /// Link number to index into `stacks`.
    known: std::collections::HashMap<u16, u32>,
}

impl Links {
    /// Takes over what the kernel interned; returns the map's keys.
    pub fn intern(
        &mut self,
        map: &HashMap<MapData, Element<layout::LinkStack>, u32>,
        half: u32,
    ) -> Result<Vec<layout::LinkStack>, KernelError> {
        let mut keys = Vec::new();
        for entry in map {
            let (Element(stack), number) = entry.map_err(KernelError::map("WEIR_LINKS"))?;
            if stack.half == half {
                let depth = (stack.depth as usize).min(layout::link::MAX_DEPTH);
                self.add(number as u16, stack.headers[..depth].to_vec());
                keys.push(stack);
            }
        }
        Ok(keys)
    }

    fn add(&mut self, number: u16, headers: Vec<u32>) -> u32 {
        let index = self.stacks.len() as u32;
        self.stacks.push(headers);
        self.known.insert(number, index);
        index
    }

    /// Index into `stacks` plus one; 0 is a bare frame.
    fn resolve(&mut self, number: u16) -> u32 {
        if number == layout::link::BARE {
            return 0;
        }
        let index = self.known.get(&number).copied();
        let index = index.unwrap_or_else(|| {
            // A number below the interned ones is a VLAN identifier; one that the map does not know
            // cannot be, because the programs insert before they use.
            let id = u32::from(number - layout::link::SINGLE_VLAN) & 0xfff;
            self.add(number, vec![layout::link::VLAN | id])
        });
        index + 1
    }
}

pub fn observation4(slot: &Slot4, clock: WallClock, links: &mut Links) -> FlowObservation {
    let address = |word: u64| Ipv4Addr::from((word as u32).to_ne_bytes()).into();
    let times = (slot.first_ns, slot.last);
    observation(
        (address(slot.addresses), address(slot.addresses >> 32)),
        slot.key,
        (Count(slot.count), slot.octets),
        times,
        slot.flags,
        clock,
        links,
    )
}

pub fn observation6(slot: &Slot6, clock: WallClock, links: &mut Links) -> FlowObservation {
    let address = |words: [u64; 2]| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
        Ipv6Addr::from(bytes).into()
    };
    let times = (slot.first_ns, slot.last);
    observation(
        (address(slot.src), address(slot.dst)),
        slot.key,
        (Count(slot.count), slot.octets),
        times,
        slot.flags,
        clock,
        links,
    )
}

fn observation(
    (src, dst): (std::net::IpAddr, std::net::IpAddr),
    key: u64,
    (count, octets): (Count, u64),
    (first_ns, last): (u64, u64),
    flags: u64,
    clock: WallClock,
    links: &mut Links,
) -> FlowObservation {
    let key = Key::unpack(key);
    let flags = Flags::unpack(flags | count.flags());
    FlowObservation {
        key: FlowKey { src, dst, protocol: key.protocol, src_port: key.src_port, dst_port: key.dst_port },
        point: key.point.into(),
        link: links.resolve(key.link),
        packets: count.packets(),
        octets,
        first_ns: clock.wall(first_ns),
        last_ns: clock.wall(clock.kernel_ns(last).max(first_ns)),
        tcp_flags: flags.tcp,
        first_tcp_flags: flags.first_tcp,
        fragments: flags.fragments,
        icmp_type: flags.icmp_type,
        icmp_code: flags.icmp_code,
        listed: Listed { src: flags.listed.src(), dst: flags.listed.dst(), drops: flags.listed.drops() },
    }
}
