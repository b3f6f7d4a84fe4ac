//! Layers 3 and 4: packets with right lengths and checksums.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};

/// TTL and hop limit of everything.
const TTL: u8 = 64;

/// A host with an address of each version and a number that its frames carry.
#[derive(Clone, Copy)]
pub struct Host {
    pub number: u8,
    pub v4: [u8; 4],
    pub v6: [u8; 16],
}

/// TCP flags that the scenario needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flags {
    Syn,
    SynAck,
    Ack,
    PshAck,
    FinAck,
    RstAck,
}

/// One side's place in a TCP connection.
#[derive(Clone, Copy)]
pub struct Segment {
    pub ports: (u16, u16),
    pub flags: Flags,
    pub seq: u32,
    pub ack: u32,
}

pub fn tcp(v6: bool, from: Host, to: Host, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = segment.ports;
    let mut builder = if v6 {
        PacketBuilder::ipv6(from.v6, to.v6, TTL).tcp(source, destination, segment.seq, 64_240)
    } else {
        PacketBuilder::ipv4(from.v4, to.v4, TTL).tcp(source, destination, segment.seq, 64_240)
    };
    if segment.flags != Flags::Syn {
        builder = builder.ack(segment.ack);
    }
    builder = match segment.flags {
        Flags::Syn | Flags::SynAck => builder.syn(),
        Flags::Ack => builder,
        Flags::PshAck => builder.psh(),
        Flags::FinAck => builder.fin(),
        Flags::RstAck => builder.rst(),
    };
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).expect("a payload of one segment fits");
    packet
}

pub fn udp(v6: bool, from: Host, to: Host, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let builder = if v6 {
        PacketBuilder::ipv6(from.v6, to.v6, TTL).udp(ports.0, ports.1)
    } else {
        PacketBuilder::ipv4(from.v4, to.v4, TTL).udp(ports.0, ports.1)
    };
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).expect("a payload of one datagram fits");
    packet
}

pub fn echo(v6: bool, from: Host, to: Host, reply: bool, sequence: u16) -> Vec<u8> {
    const ID: u16 = 0x5753;
    let mut packet = Vec::new();
    let written = match (v6, reply) {
        (false, false) => PacketBuilder::ipv4(from.v4, to.v4, TTL)
            .icmpv4_echo_request(ID, sequence)
            .write(&mut packet, &[0x61; 56]),
        (false, true) => PacketBuilder::ipv4(from.v4, to.v4, TTL)
            .icmpv4_echo_reply(ID, sequence)
            .write(&mut packet, &[0x61; 56]),
        (true, false) => PacketBuilder::ipv6(from.v6, to.v6, TTL)
            .icmpv6_echo_request(ID, sequence)
            .write(&mut packet, &[0x61; 56]),
        (true, true) => PacketBuilder::ipv6(from.v6, to.v6, TTL)
            .icmpv6_echo_reply(ID, sequence)
            .write(&mut packet, &[0x61; 56]),
    };
    written.expect("56 bytes fit");
    packet
}

/// A packet of any protocol, by its number.
pub fn raw(v6: bool, from: Host, to: Host, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    if v6 {
        let header = Ipv6Header {
            payload_length: payload.len() as u16,
            next_header: IpNumber(protocol),
            hop_limit: TTL,
            source: from.v6,
            destination: to.v6,
            ..Ipv6Header::default()
        };
        header.write(&mut packet).expect("a vector takes every byte");
    } else {
        let header = Ipv4Header::new(payload.len() as u16, TTL, IpNumber(protocol), from.v4, to.v4)
            .expect("a payload of one packet fits");
        header.write(&mut packet).expect("a vector takes every byte");
    }
    packet.extend(payload);
    packet
}

/// Splits a packet of [`udp`] into fragments of at most `size` bytes of payload (a multiple of 8).
pub fn fragments(packet: &[u8], from: Host, to: Host, size: usize) -> Vec<Vec<u8>> {
    const UDP: u8 = 17;
    const FRAGMENT: u8 = 44;
    let v6 = packet[0] >> 4 == 6;
    let payload = &packet[if v6 { 40 } else { 20 }..];
    let count = payload.len().div_ceil(size);
    payload
        .chunks(size)
        .enumerate()
        .map(|(index, chunk)| {
            let (offset, more) = ((index * size / 8) as u16, index + 1 < count);
            if v6 {
                // RFC 8200, 4.5: the offset in the upper 13 bits. By hand: etherparse 0.19 writes the
                // offset's low byte without the shift.
                let mut header = vec![UDP, 0];
                header.extend((offset << 3 | u16::from(more)).to_be_bytes());
                header.extend(0x5745_4952_u32.to_be_bytes());
                raw(true, from, to, FRAGMENT, &[&header, chunk].concat())
            } else {
                let mut header = Ipv4Header::new(chunk.len() as u16, TTL, IpNumber(UDP), from.v4, to.v4)
                    .expect("a fragment fits");
                header.identification = 0x5745;
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new(offset).expect("under 64 KiB");
                let mut fragment = Vec::new();
                header.write(&mut fragment).expect("a vector takes every byte");
                fragment.extend(chunk);
                fragment
            }
        })
        .collect()
}
