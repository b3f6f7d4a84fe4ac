//! Who speaks with whom: a small office, its servers, and the odd frame that every network has.

use super::link::{Stack, Wire, mac};
use super::network::{Flags, Host, Segment, echo, fragments, raw, tcp, udp};

/// The office: `192.0.2.N` and `2001:db8:1::N`.
const fn client(number: u8) -> Host {
    Host {
        number,
        v4: [192, 0, 2, number],
        v6: [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, number],
    }
}

/// Servers: `198.51.100.N` and `2001:db8:2::N`.
const fn server(number: u8) -> Host {
    Host {
        number: 100 + number,
        v4: [198, 51, 100, number],
        v6: [0x20, 0x01, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, number],
    }
}

/// Who never answers: `203.0.113.N`.
const fn stranger(number: u8) -> Host {
    Host { number: 200 + number, v4: [203, 0, 113, number], v6: server(99).v6 }
}

const RESOLVER: Host = server(53);
const MSS: usize = 1400;

pub fn play(wire: &mut Wire) {
    arp(wire);
    for number in 10..22 {
        lookup(wire, client(number), number);
    }
    // (client, server, port, segments up, segments down, v6, stack)
    let visits = [
        (10, 1, 443, 2, 36, false, Stack::Bare),
        (11, 1, 443, 1, 9, false, Stack::Bare),
        (12, 2, 80, 1, 4, false, Stack::Bare),
        (13, 3, 443, 3, 6, true, Stack::Bare),
        (14, 4, 22, 5, 5, false, Stack::Bare),
        (15, 5, 443, 14, 1, false, Stack::Vlan(10)),
        (16, 5, 8443, 2, 4, true, Stack::Vlan(20)),
        (17, 6, 443, 1, 5, false, Stack::QinQ(100, 20)),
        (18, 7, 443, 1, 4, false, Stack::Mpls(16_001, 24_010)),
        (19, 8, 443, 1, 4, false, Stack::Pppoe(0x11)),
        (20, 9, 80, 1, 2, false, Stack::Snap),
    ];
    for (from, to, port, up, down, v6, stack) in visits {
        visit(wire, &Visit { from: client(from), to: server(to), port, up, down, v6, stack });
    }
    scan(wire);
    pings(wire);
    datagrams(wire);
    other_protocols(wire);
    not_flows(wire);
}

fn arp(wire: &mut Wire) {
    let gateway = [192, 0, 2, 1];
    for number in 10..14 {
        let asker = client(number);
        wire.frame([0xff; 6], mac(number), &arp_body(1, (number, asker.v4), (0, gateway)));
        wire.frame(mac(number), mac(1), &arp_body(2, (1, gateway), (number, asker.v4)));
    }
}

/// An ARP message (RFC 826) for Ethernet and IPv4, with the type in front.
fn arp_body(operation: u8, sender: (u8, [u8; 4]), target: (u8, [u8; 4])) -> Vec<u8> {
    let mut body = vec![0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(mac(sender.0));
    body.extend(sender.1);
    body.extend(if target.0 == 0 { [0; 6] } else { mac(target.0) });
    body.extend(target.1);
    body
}

/// A DNS question and its answer.
fn lookup(wire: &mut Wire, host: Host, id: u8) {
    let v6 = id.is_multiple_of(4);
    let ports = (40_000 + u16::from(id), 53);
    let mut question = vec![0x57, id, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x03www\x07example\x03com\x00\x00\x01\x00\x01");
    wire.ip(host.number, RESOLVER.number, Stack::Bare, &udp(v6, host, RESOLVER, ports, &question));
    let mut answer = question.clone();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = 1;
    // A pointer to the name, type A, class IN, 300 s, 198.51.100.N.
    answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0x01, 0x2c, 0, 4, 198, 51, 100, 1 + id % 9]);
    let back = udp(v6, RESOLVER, host, (ports.1, ports.0), &answer);
    wire.ip(RESOLVER.number, host.number, Stack::Bare, &back);
}

/// A whole TCP connection.
struct Visit {
    from: Host,
    to: Host,
    port: u16,
    /// Full segments from the client, and from the server.
    up: u32,
    down: u32,
    v6: bool,
    stack: Stack,
}

fn visit(wire: &mut Wire, visit: &Visit) {
    let local = 50_000 + u16::from(visit.from.number);
    let (mut up, mut down) = (0x1000_0000_u32, 0x2000_0000_u32);
    let mut send = |from_client: bool, flags: Flags, seq: u32, ack: u32, payload: &[u8]| {
        let ports = if from_client { (local, visit.port) } else { (visit.port, local) };
        let (from, to) = if from_client { (visit.from, visit.to) } else { (visit.to, visit.from) };
        let packet = tcp(visit.v6, from, to, Segment { ports, flags, seq, ack }, payload);
        wire.ip(from.number, to.number, visit.stack, &packet);
    };
    send(true, Flags::Syn, up, 0, &[]);
    up += 1;
    send(false, Flags::SynAck, down, up, &[]);
    down += 1;
    send(true, Flags::Ack, up, down, &[]);
    for index in 0..visit.up {
        let length = if visit.up > 8 { MSS } else { 120 + 90 * index as usize };
        send(true, Flags::PshAck, up, down, &text(length));
        up += length as u32;
        send(false, Flags::Ack, down, up, &[]);
    }
    for index in 0..visit.down {
        let length = if index + 1 < visit.down { MSS } else { 333 };
        send(false, Flags::PshAck, down, up, &text(length));
        down += length as u32;
        if index % 2 == 1 {
            send(true, Flags::Ack, up, down, &[]);
        }
    }
    send(true, Flags::FinAck, up, down, &[]);
    send(false, Flags::FinAck, down, up + 1, &[]);
    send(true, Flags::Ack, up + 1, down + 1, &[]);
}

/// One host asks many ports; nearly all refuse.
fn scan(wire: &mut Wire) {
    let (from, to) = (stranger(7), client(10));
    for port in [21, 22, 23, 25, 80, 110, 139, 143, 443, 445, 993, 1433, 3306, 3389, 5432, 6379, 8080, 9200] {
        let ask = Segment { ports: (61_000, port), flags: Flags::Syn, seq: 7, ack: 0 };
        wire.ip(from.number, to.number, Stack::Bare, &tcp(false, from, to, ask, &[]));
        let refuse = Segment { ports: (port, 61_000), flags: Flags::RstAck, seq: 0, ack: 8 };
        wire.ip(to.number, from.number, Stack::Bare, &tcp(false, to, from, refuse, &[]));
    }
}

fn pings(wire: &mut Wire) {
    for sequence in 1..=4 {
        for v6 in [false, true] {
            let (from, to) = (client(21), server(1));
            wire.ip(from.number, to.number, Stack::Bare, &echo(v6, from, to, false, sequence));
            wire.ip(to.number, from.number, Stack::Bare, &echo(v6, to, from, true, sequence));
        }
    }
}

fn datagrams(wire: &mut Wire) {
    let (from, to) = (client(22), server(123));
    for v6 in [false, true] {
        wire.ip(from.number, to.number, Stack::Bare, &udp(v6, from, to, (123, 123), &[0x23; 48]));
        wire.ip(to.number, from.number, Stack::Bare, &udp(v6, to, from, (123, 123), &[0x24; 48]));
        let large = udp(v6, from, to, (5000, 5001), &text(3200));
        for fragment in fragments(&large, from, to, 1400) {
            wire.ip(from.number, to.number, Stack::Bare, &fragment);
        }
    }
    // A video call: small packets at a steady pace, both ways.
    let (from, to) = (client(23), server(44));
    for _ in 0..40 {
        wire.ip(from.number, to.number, Stack::Bare, &udp(false, from, to, (3478, 3478), &text(172)));
        wire.ip(to.number, from.number, Stack::Bare, &udp(false, to, from, (3478, 3478), &text(210)));
    }
}

fn other_protocols(wire: &mut Wire) {
    const HOP_BY_HOP: u8 = 0;
    const GRE: u8 = 47;
    const ESP: u8 = 50;
    const OSPF: u8 = 89;
    const SCTP: u8 = 132;
    let (from, to) = (client(24), server(45));
    for (v6, protocol) in [(false, GRE), (false, ESP), (true, ESP), (false, OSPF)] {
        wire.ip(from.number, to.number, Stack::Bare, &raw(v6, from, to, protocol, &text(64)));
    }
    // Source port 2905, destination port 2905, then tag, checksum and an INIT chunk's beginning.
    let mut sctp = vec![0x0b, 0x59, 0x0b, 0x59];
    sctp.extend([0; 8]);
    sctp.extend([1, 0, 0, 20]);
    sctp.extend([0; 16]);
    wire.ip(from.number, to.number, Stack::Bare, &raw(false, from, to, SCTP, &sctp));
    // A hop-by-hop header of padding (RFC 8200, PadN) before ICMPv6.
    let mut options = vec![58, 0, 1, 4, 0, 0, 0, 0];
    options.extend([128, 0, 0, 0, 0x57, 0x53, 0, 1]);
    wire.ip(from.number, to.number, Stack::Bare, &raw(true, from, to, HOP_BY_HOP, &options));
}

/// What the ledger's other columns are for: frames that are not IP, and packets that lie.
fn not_flows(wire: &mut Wire) {
    // LLDP: chassis id, port id, time to live, end.
    let lldp = [0x88, 0xcc, 2, 2, 7, b'w', 4, 2, 7, b'1', 6, 2, 0, 120, 0, 0];
    for _ in 0..3 {
        wire.frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], mac(2), &lldp);
    }
    // A total length of 1,500 in a frame of 60.
    let (from, to) = (stranger(9), client(10));
    let mut lie = udp(false, from, to, (9, 9), &[]);
    lie[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    wire.ip(from.number, to.number, Stack::Bare, &lie);
}

/// Bytes that a person recognises in a hex dump.
fn text(length: usize) -> Vec<u8> {
    b"a weir measures a river without stopping it. ".iter().copied().cycle().take(length).collect()
}
