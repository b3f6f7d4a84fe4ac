//! The parser on the host: arbitrary bytes never panic, and a packet that another library built parses back
//! to what it was built from (K2, K4).

use etherparse::{IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder, VlanId};
use proptest::prelude::*;
use weir_sensor_common::{Flags, LinkStack, fragment, link};
use weir_sensor_ebpf::{
    Headers, Ipv4, Ipv6, Link, Network, Reject, Window, ipv4, ipv6, layer3, link as parse_link, stacked,
};

/// A parsed frame, whichever IP it holds.
#[derive(Debug, PartialEq)]
enum Packet {
    V4(Ipv4),
    V6(Ipv6),
}

impl Packet {
    fn headers(&self) -> Headers {
        match self {
            Self::V4(packet) => packet.headers,
            Self::V6(packet) => packet.headers,
        }
    }
}

/// Link headers, outermost first, and the packet.
fn parse(frame: &[u8], offloaded: Option<u16>) -> Result<(Vec<u32>, Packet), Reject> {
    let mut window = Window::new(frame);
    let named = |number| match number {
        link::BARE => Vec::new(),
        tag => vec![link::VLAN | u32::from(tag - link::SINGLE_VLAN)],
    };
    let (network, headers) = match parse_link(&mut window, offloaded)? {
        Link::V4(number) => (Network::V4, named(number)),
        Link::V6(number) => (Network::V6, named(number)),
        Link::Stacked => {
            let mut stack = LinkStack::default();
            window = Window::new(frame);
            let network = stacked(&mut window, offloaded, &mut stack)?;
            (network, stack.headers[..stack.depth as usize].to_vec())
        }
    };
    let left = frame.len() as u32 - window.taken();
    Ok((headers, network_layer(network, &mut window, left)?))
}

fn flags(headers: &Headers) -> Flags {
    Flags::unpack(headers.flags)
}

fn network_layer(network: Network, window: &mut Window<'_>, left: u32) -> Result<Packet, Reject> {
    match network {
        Network::V4 => ipv4(window, left).map(Packet::V4),
        Network::V6 => ipv6(window, left).map(Packet::V6),
    }
}

fn parsed(frame: &[u8]) -> (Vec<u32>, Packet) {
    parse(frame, None).expect("a well-formed frame parses")
}

fn build(step: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(step.size(payload.len()));
    step.write(&mut frame, payload).expect("memory takes any frame");
    frame
}

const SRC4: [u8; 4] = [192, 0, 2, 1];
const DST4: [u8; 4] = [198, 51, 100, 2];
const ETHERNET: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

fn udp4() -> Vec<u8> {
    build(PacketBuilder::ethernet2(ETHERNET.0, ETHERNET.1).ipv4(SRC4, DST4, 64).udp(5353, 53), b"payload")
}

/// The same IP packet behind other link headers.
fn behind(headers: &[u8]) -> Vec<u8> {
    let plain = udp4();
    [&plain[..12], headers, &plain[14..]].concat()
}

#[test]
fn k2_ipv4_udp_gives_its_key() {
    let (link, packet) = parsed(&udp4());
    assert_eq!(link, Vec::<u32>::new());
    let Packet::V4(packet) = packet else { panic!("{packet:?} is not IPv4") };
    assert_eq!((packet.src.to_ne_bytes(), packet.dst.to_ne_bytes()), (SRC4, DST4));
    let found = packet.headers;
    assert_eq!((found.protocol, found.src_port(), found.dst_port()), (17, 5353, 53));
    assert_eq!((found.octets, found.header_octets, found.flags), (35, 28, 0));
}

#[test]
fn k2_link_stacks_are_named_outermost_first() {
    let vlan = |id: u16| link::VLAN | u32::from(id);
    let cases: [(&[u8], Vec<u32>); 8] = [
        (&[0x81, 0, 0xe0, 10, 8, 0], vec![vlan(10)]),
        (&[0x88, 0xa8, 0, 100, 0x81, 0, 0, 20, 8, 0], vec![vlan(100), vlan(20)]),
        (&[0x91, 0, 0, 1, 0x92, 0, 0, 2, 0x81, 0, 0, 3, 8, 0], vec![vlan(1), vlan(2), vlan(3)]),
        (&[0x88, 0x64, 0x11, 0, 0, 1, 0, 37, 0, 0x21], vec![link::PPPOE]),
        // A PPP protocol field compressed to one octet.
        (&[0x88, 0x64, 0x11, 0, 0, 1, 0, 36, 0x21], vec![link::PPPOE]),
        (&[0x88, 0x47, 0, 1, 0, 64, 0, 0, 0x21, 64], vec![link::MPLS | 16, link::MPLS | 2]),
        (&[0x81, 0, 0, 7, 0x88, 0x48, 0xff, 0xff, 0xf1, 64], vec![vlan(7), link::MPLS | 0xf_ffff]),
        (&[0, 43, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], vec![link::SNAP]),
    ];
    for (headers, expected) in cases {
        let (link, packet) = parsed(&behind(headers));
        assert_eq!(link, expected, "{headers:02x?}");
        assert_eq!(packet, parsed(&udp4()).1, "{headers:02x?}");
    }
}

#[test]
fn k2_an_offloaded_tag_is_the_outermost() {
    assert_eq!(parse(&udp4(), Some(0x2005)).expect("parses").0, vec![link::VLAN | 5]);
    let tagged = behind(&[0x81, 0, 0, 9, 8, 0]);
    let (stack, _) = parse(&tagged, Some(5)).expect("parses");
    assert_eq!(stack, vec![link::VLAN | 5, link::VLAN | 9]);
}

#[test]
fn k4_what_is_not_ip_is_said_so() {
    let not_ip: [&[u8]; 7] = [
        &[0x08, 0x06],
        &[0x88, 0xcc],
        &[0x88, 0x63, 0x11, 9, 0, 0, 0, 4],
        &[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0xc0, 0x21],
        // Ethernet in MPLS, behind a control word.
        &[0x88, 0x47, 0, 1, 1, 64, 0, 0, 0, 0],
        &[0, 39, 0x42, 0x42, 3, 0, 0, 0, 8, 0],
        // A thirteenth label.
        &[
            0x88, 0x47, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1,
            0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1,
        ],
    ];
    for headers in not_ip {
        assert_eq!(parse(&behind(headers), None), Err(Reject::NonIp), "{headers:02x?}");
    }
}

#[test]
fn k4_a_lying_length_is_malformed() {
    let mut frame = udp4();
    frame[17] += 1;
    assert_eq!(parse(&frame, None), Err(Reject::Malformed));
    let mut frame = udp4();
    frame[14] = 0x44;
    assert_eq!(parse(&frame, None), Err(Reject::Malformed), "a header of 16 octets");
    frame[14] = 0x65;
    assert_eq!(parse(&frame, None), Err(Reject::Malformed), "version 6 behind ethertype IPv4");
}

#[test]
fn k4_every_prefix_of_a_frame_is_no_flow() {
    let frame = udp4();
    for end in 0..frame.len() {
        assert!(parse(&frame[..end], None).is_err(), "{end} of {} octets", frame.len());
    }
}

#[test]
fn k2_a_length_of_zero_counts_as_it_claims() {
    // Segmentation offload on the host that captured: the length is filled in by the device.
    let mut frame = udp4();
    frame[16..18].copy_from_slice(&[0, 0]);
    let headers = parsed(&frame).1.headers();
    assert_eq!((headers.octets, headers.src_port()), (0, 5353));
}

#[test]
fn k2_fragments_are_told_apart() {
    for (offset, more, expected, port) in
        [(0, true, fragment::FIRST, 5353), (8, true, fragment::LATER, 0), (8, false, fragment::LATER, 0)]
    {
        let mut frame = udp4();
        let word = if more { 0x2000 } else { 0_u16 } | offset;
        frame[20..22].copy_from_slice(&word.to_be_bytes());
        let headers = parsed(&frame).1.headers();
        assert_eq!((flags(&headers).fragments, headers.src_port()), (expected, port));
    }
}

/// The fragment header is written by hand from RFC 8200, 4.5: etherparse 0.19 sets the M flag in the wrong bit.
fn ipv6_fragment(offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let word = offset << 3 | u16::from(more);
    let mut rest = vec![17, 0, (word >> 8) as u8, word as u8, 0, 0, 0, 7];
    rest.extend(payload);
    let header = Ipv6Header {
        payload_length: rest.len() as u16,
        next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
        hop_limit: 64,
        source: [1; 16],
        destination: [2; 16],
        ..Ipv6Header::default()
    };
    let mut packet = header.to_bytes().to_vec();
    packet.extend(rest);
    packet
}

#[test]
fn k2_ipv6_fragments_are_told_apart() {
    let udp = [0x14, 0xe9, 0, 53, 0, 8, 0, 0];
    for (offset, more, expected, port) in
        [(0, false, fragment::ATOMIC, 5353), (0, true, fragment::FIRST, 5353), (1, false, fragment::LATER, 0)]
    {
        let packet = ipv6_fragment(offset, more, &udp);
        let mut window = Window::new(&packet);
        assert_eq!(layer3(&window), Ok(Link::V6(link::BARE)));
        let headers = ipv6(&mut window, packet.len() as u32).expect("parses").headers;
        assert_eq!((headers.protocol, flags(&headers).fragments, headers.src_port()), (17, expected, port));
    }
}

/// Hop-by-hop, routing, destination options and AH in front of TCP.
fn chained(lengths: &[(u8, u8)]) -> Vec<u8> {
    let mut chain = Vec::new();
    for (place, (kind, units)) in lengths.iter().enumerate() {
        let next = lengths.get(place + 1).map_or(6, |(next, _)| *next);
        let octets = if *kind == 51 { (usize::from(*units) + 2) * 4 } else { (usize::from(*units) + 1) * 8 };
        chain.extend([next, *units]);
        chain.resize(chain.len() + octets - 2, 0);
    }
    chain.extend([0x30, 0x39, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
    let header = Ipv6Header {
        payload_length: chain.len() as u16,
        next_header: IpNumber(lengths.first().map_or(6, |(kind, _)| *kind)),
        ..Ipv6Header::default()
    };
    [header.to_bytes().to_vec(), chain].concat()
}

#[test]
fn k4_a_chain_that_is_too_long_is_malformed() {
    let parse = |count| {
        let packet = chained(&vec![(60, 0); count]);
        ipv6(&mut Window::new(&packet), packet.len() as u32).map(|packet| packet.headers.dst_port())
    };
    assert_eq!(parse(16), Ok(443));
    assert_eq!(parse(17), Err(Reject::Malformed));
}

#[test]
fn k2_a_chain_cut_short_is_its_own_protocol() {
    let mut packet = chained(&[(0, 0), (43, 3)]);
    packet.truncate(40 + 8 + 8);
    packet[4..6].copy_from_slice(&16_u16.to_be_bytes());
    let headers = ipv6(&mut Window::new(&packet), packet.len() as u32).expect("a flow").headers;
    assert_eq!((headers.protocol, headers.src_port(), headers.octets), (43, 0, 56));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn k4_arbitrary_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..256),
                                      tag in proptest::option::of(any::<u16>())) {
        let _ = parse(&frame, tag);
    }

    /// Bytes that look like frames reach deeper than random ones do.
    #[test]
    fn k4_mutated_frames_never_panic(
        place in 0_usize..60, value: u8, place2 in 0_usize..60, value2: u8, end in 0_usize..64,
        headers in prop::sample::select(vec![
            vec![0x08, 0x00], vec![0x86, 0xdd], vec![0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x88, 0x47, 0, 0, 0x11, 0],
            vec![0x88, 0x64, 0x11, 0, 0, 1, 0, 37, 0, 0x57],
        ]),
    ) {
        let mut frame = behind(&headers);
        for (place, value) in [(place, value), (place2, value2)] {
            if let Some(byte) = frame.get_mut(place) {
                *byte = value;
            }
        }
        frame.truncate(end.max(1));
        if let Ok((stack, packet)) = parse(&frame, None) {
            // What is counted never exceeds what the frame can hold.
            prop_assert!(packet.headers().octets as usize <= frame.len());
            prop_assert!(stack.len() <= link::MAX_DEPTH);
        }
    }

    #[test]
    fn k2_a_built_ipv4_tcp_packet_parses_back(
        src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16, seq: u32, flags in 0_u8..64,
        options in proptest::collection::vec(any::<u8>(), 0..10), vlan in proptest::option::of(0_u16..4096),
        payload in proptest::collection::vec(any::<u8>(), 0..128), ttl: u8,
    ) {
        let mut options = options;
        options.resize(options.len().div_ceil(4) * 4, 0);
        let mut header = Ipv4Header::new(0, ttl, IpNumber::TCP, src, dst).expect("an empty payload fits");
        header.options = options.as_slice().try_into().expect("at most 40 octets");
        let ip_header_octets = header.header_len();
        let step = PacketBuilder::ethernet2(ETHERNET.0, ETHERNET.1);
        let ip = etherparse::IpHeaders::Ipv4(header, Ipv4Extensions::default());
        let mut tcp = match vlan {
            Some(id) => step.single_vlan(VlanId::try_new(id).expect("12 bits")).ip(ip).tcp(sport, dport, seq, 1000),
            None => step.ip(ip).tcp(sport, dport, seq, 1000),
        };
        if flags & 1 != 0 { tcp = tcp.fin(); }
        if flags & 2 != 0 { tcp = tcp.syn(); }
        if flags & 4 != 0 { tcp = tcp.rst(); }
        if flags & 8 != 0 { tcp = tcp.psh(); }
        if flags & 16 != 0 { tcp = tcp.ack(1); }
        if flags & 32 != 0 { tcp = tcp.urg(0); }
        let mut frame = Vec::new();
        tcp.write(&mut frame, &payload).expect("memory takes any frame");
        let (stack, packet) = parsed(&frame);
        prop_assert_eq!(stack, vlan.map(|id| link::VLAN | u32::from(id)).into_iter().collect::<Vec<_>>());
        let Packet::V4(packet) = packet else { panic!("not IPv4") };
        prop_assert_eq!((packet.src.to_ne_bytes(), packet.dst.to_ne_bytes()), (src, dst));
        let found = packet.headers;
        prop_assert_eq!((found.protocol, found.src_port(), found.dst_port()), (6, sport, dport));
        prop_assert_eq!(Flags::unpack(found.flags).tcp, flags);
        prop_assert_eq!(found.octets as usize, ip_header_octets + 20 + payload.len());
        prop_assert_eq!(found.header_octets as usize, ip_header_octets + 20);
    }

    #[test]
    fn k2_a_built_ipv6_packet_parses_back(
        src: [u8; 16], dst: [u8; 16], sport: u16, dport: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..128),
    ) {
        let header = Ipv6Header { source: src, destination: dst, hop_limit: 64, ..Ipv6Header::default() };
        let ip = etherparse::IpHeaders::Ipv6(header, Ipv6Extensions::default());
        let frame = build(PacketBuilder::ethernet2(ETHERNET.0, ETHERNET.1).ip(ip).udp(sport, dport), &payload);
        let (_, packet) = parsed(&frame);
        let Packet::V6(packet) = packet else { panic!("not IPv6") };
        let bytes = |words: [u64; 2]| [words[0].to_ne_bytes(), words[1].to_ne_bytes()].concat();
        prop_assert_eq!((bytes(packet.src), bytes(packet.dst)), (src.to_vec(), dst.to_vec()));
        let found = packet.headers;
        prop_assert_eq!((found.protocol, found.src_port(), found.dst_port()), (17, sport, dport));
        prop_assert_eq!(found.octets as usize, 48 + payload.len());
    }

    #[test]
    fn k2_chains_of_extension_headers_are_passed(
        lengths in proptest::collection::vec((prop::sample::select(vec![0_u8, 43, 51, 60, 135, 139, 140]), 1_u8..9), 0..8),
    ) {
        let packet = chained(&lengths);
        let found = ipv6(&mut Window::new(&packet), packet.len() as u32).expect("parses").headers;
        prop_assert_eq!((found.protocol, found.src_port(), found.dst_port()), (6, 12345, 443));
        prop_assert_eq!(flags(&found).tcp, 2);
        prop_assert_eq!(found.header_octets as usize, packet.len());
    }
}

#[test]
fn k4_a_chain_of_the_longest_headers_is_malformed() {
    let parse = |count| {
        let packet = chained(&vec![(60, 255); count]);
        ipv6(&mut Window::new(&packet), packet.len() as u32).map(|packet| packet.headers.dst_port())
    };
    assert_eq!(parse(15), Ok(443));
    assert_eq!(parse(16), Err(Reject::Malformed));
}
