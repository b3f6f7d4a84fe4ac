//! Corrupt captures at every border, and every variant of the formats that is read.

use proptest::prelude::*;

use super::*;

const FRAME: [u8; 60] = [0xab; 60];

/// Words and halfwords in a byte order.
#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

const ORDERS: [Order; 2] = [Order { big: false }, Order { big: true }];

fn classic_header(order: Order, magic: u32, snaplen: u32, link: u32) -> Vec<u8> {
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend([order.u32(0), order.u32(0), order.u32(snaplen), order.u32(link)].concat());
    file
}

fn classic_record(order: Order, (seconds, fraction): (u32, u32), original: u32, bytes: &[u8]) -> Vec<u8> {
    let lengths =
        [order.u32(seconds), order.u32(fraction), order.u32(bytes.len() as u32), order.u32(original)];
    [&lengths.concat(), bytes].concat()
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = order.u32(padded as u32 + 12);
    let mut block = [order.u32(kind), length].concat();
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

fn section(order: Order) -> Vec<u8> {
    let versions = [order.u16(1), order.u16(0)].concat();
    block(order, 0x0a0d_0d0a, &[&order.u32(0x1a2b_3c4d)[..], &versions, &[0xff; 8]].concat())
}

fn interface(order: Order, link: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [order.u16(link), order.u16(0)].concat();
    body.extend(order.u32(40));
    for (code, value) in options {
        body.extend([order.u16(*code), order.u16(value.len() as u16)].concat());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(order, 1, &body)
}

fn enhanced(order: Order, interface: u32, time: u64, original: u32, bytes: &[u8]) -> Vec<u8> {
    let words = [interface, (time >> 32) as u32, time as u32, bytes.len() as u32, original];
    block(order, 6, &[&words.map(|word| order.u32(word)).concat(), bytes].concat())
}

/// Time, original length, captured length.
type Shape = (i64, u32, usize);

/// The frames, and how the reading ended.
fn read(file: &[u8]) -> (Vec<Shape>, Result<(), String>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (frames, Err(error.to_string())),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push((frame.time_ns, frame.original_len, frame.bytes.len())),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error.to_string())),
        }
    }
}

#[test]
fn classic_captures_read_in_both_orders_and_both_units() {
    for order in ORDERS {
        for (magic, unit) in [(0xa1b2_c3d4, 1_000), (0xa1b2_3c4d, 1)] {
            let mut file = classic_header(order, magic, 65_535, 1);
            file.extend(classic_record(order, (7, 5), 60, &FRAME));
            file.extend(classic_record(order, (8, 6), 1_500, &FRAME));
            let second = 1_000_000_000;
            let expected = vec![(7 * second + 5 * unit, 60, 60), (8 * second + 6 * unit, 1_500, 60)];
            assert_eq!(read(&file), (expected, Ok(())));
        }
    }
}

#[test]
fn a_lying_snap_length_cuts_nothing() {
    let order = ORDERS[0];
    let mut file = classic_header(order, 0xa1b2_c3d4, 20, 1);
    file.extend(classic_record(order, (7, 0), 60, &FRAME));
    assert_eq!(read(&file).0, [(7_000_000_000, 60, 60)]);
    let ng = [section(order), interface(order, 1, &[]), enhanced(order, 0, 7, 60, &FRAME)].concat();
    assert_eq!(read(&ng).0, [(7_000, 60, 60)]);
}

#[test]
fn an_original_length_below_the_captured_one_is_raised() {
    let order = ORDERS[0];
    let mut file = classic_header(order, 0xa1b2_c3d4, 20, 1);
    file.extend(classic_record(order, (7, 0), 10, &FRAME));
    assert_eq!(read(&file).0, [(7_000_000_000, 60, 60)]);
}

#[test]
fn a_capture_cut_anywhere_yields_what_is_whole() {
    let order = ORDERS[0];
    let record = classic_record(order, (7, 5), 60, &FRAME);
    let classic = [classic_header(order, 0xa1b2_c3d4, 65_535, 1), record.clone(), record].concat();
    let packet = enhanced(order, 0, 7, 60, &FRAME);
    let ng = [section(order), interface(order, 1, &[]), packet.clone(), packet].concat();
    // Where a file may end: before a record, and in pcapng before any block.
    for (file, record, borders) in [(&classic, 76, &[24][..]), (&ng, 92, &[28, 48])] {
        for cut in 1..file.len() {
            let (frames, end) = read(&file[..cut]);
            let whole = cut.saturating_sub(file.len() - 2 * record) / record;
            assert_eq!(frames.len(), whole, "cut at {cut}");
            if borders.contains(&cut) || cut == file.len() - record {
                assert_eq!(end, Ok(()), "cut at {cut}");
            } else {
                let message = end.expect_err("a cut is an error");
                assert!(
                    message.contains("cut short") || message.contains("neither"),
                    "cut at {cut}: {message}"
                );
            }
        }
    }
}

#[test]
fn a_hostile_length_is_an_error_and_no_allocation() {
    let order = ORDERS[0];
    let mut file = classic_header(order, 0xa1b2_c3d4, 65_535, 1);
    file.extend(classic_record(order, (7, 5), 60, &FRAME));
    let good = file.len();
    file.extend([7_u32, 5, 0xffff_fff0, 60].map(|word| order.u32(word)).concat());
    let (frames, end) = read(&file);
    assert_eq!(frames.len(), 1);
    let message = end.expect_err("4 GiB in one record");
    assert!(message.contains(&format!("byte {good}")) && message.contains("claims"), "{message}");

    let mut ng = [section(order), interface(order, 1, &[])].concat();
    ng.extend([order.u32(6), order.u32(0xffff_fff0)].concat());
    assert!(read(&ng).1.expect_err("4 GiB in one block").contains("claims"));
    // A packet larger than its block.
    let mut lying = enhanced(order, 0, 7, 60, &FRAME);
    lying[20..24].copy_from_slice(&order.u32(4_000));
    let ng = [section(order), interface(order, 1, &[]), enhanced(order, 0, 7, 60, &FRAME), lying].concat();
    let (frames, end) = read(&ng);
    assert_eq!(frames.len(), 1);
    assert!(end.expect_err("the packet does not fit").contains("malformed"));
}

#[test]
fn what_is_no_capture_is_called_that() {
    assert_eq!(read(b"").1, Err("the file is empty".to_owned()));
    for file in [&b"x"[..], b"#!/bin/sh\nexit 0\n", &[0; 100], &[0xff; 24]] {
        assert_eq!(read(file).1, Err("this is neither a pcap nor a pcapng file".to_owned()));
    }
    let mut ng = section(ORDERS[0]);
    ng[8] = 0;
    assert!(read(&ng).1.expect_err("no byte order").contains("malformed"));
}

#[test]
fn a_link_type_that_cannot_be_replayed_is_named() {
    let order = ORDERS[0];
    let file = classic_header(order, 0xa1b2_c3d4, 65_535, 105);
    assert!(read(&file).1.expect_err("802.11").contains("link type 105"));
    // In pcapng only a packet of it is an error.
    let ng = [section(order), interface(order, 105, &[]), interface(order, 1, &[])].concat();
    assert_eq!(read(&[&ng[..], &enhanced(order, 1, 7, 60, &FRAME)].concat()).0.len(), 1);
    assert!(read(&[&ng[..], &enhanced(order, 0, 7, 60, &FRAME)].concat()).1.is_err());
    // Bits above the link type tell of other things.
    let file = classic_header(order, 0xa1b2_c3d4, 65_535, 0x5400_0001);
    assert_eq!(read(&file), (Vec::new(), Ok(())));
}

#[test]
fn pcapng_times_follow_their_interface() {
    for order in ORDERS {
        let offset = if order.big { 100_i64.to_be_bytes() } else { 100_i64.to_le_bytes() };
        let nanoseconds = interface(order, 1, &[(9, &[9])]);
        let binary = interface(order, 1, &[(9, &[0x8a]), (14, &offset)]);
        let file = [
            section(order),
            interface(order, 1, &[]),
            nanoseconds,
            binary,
            enhanced(order, 0, 3_000_001, 60, &FRAME),
            enhanced(order, 1, 3_000_000_001, 60, &FRAME),
            enhanced(order, 2, 3 * 1_024 + 512, 60, &FRAME),
        ]
        .concat();
        let times: Vec<_> = read(&file).0.into_iter().map(|(time, ..)| time).collect();
        assert_eq!(times, [3_000_001_000, 3_000_000_001, 103_500_000_000]);
    }
}

#[test]
fn clocks_never_overflow() {
    for resolution in 0..=255 {
        for offset_s in [i64::MIN, -1, 0, i64::MAX] {
            for units in [0, 1, u64::MAX] {
                let _ = ng::Clock { resolution, offset_s }.nanoseconds(units);
            }
        }
    }
}

#[test]
fn pcapng_takes_every_kind_of_block() {
    for order in ORDERS {
        let simple = block(order, 3, &[&order.u32(1_500)[..], &FRAME].concat());
        let words = [0_u32, 7, 60, 60].map(|word| order.u32(word)).concat();
        let obsolete =
            block(order, 2, &[&[order.u16(0), order.u16(9)].concat()[..], &words, &FRAME].concat());
        let mut file = [section(order), interface(order, 1, &[])].concat();
        for kind in [4, 5, 9, 10, 0xbad, 0x4000_0bad, 0x8000_0001, 0x1234_5678] {
            file.extend(block(order, kind, &[0x5a; 24]));
            file.extend(block(order, kind, &[]));
        }
        file.extend(obsolete);
        file.extend(simple);
        // A second section in the other byte order, with other interfaces.
        let other = Order { big: !order.big };
        file.extend([section(other), interface(other, 101, &[]), enhanced(other, 0, 9, 60, &FRAME)].concat());
        assert_eq!(read(&file), (vec![(7_000, 60, 60), (7_000, 1_500, 60), (9_000, 60, 60)], Ok(())));
    }
}

#[test]
fn a_packet_of_an_undescribed_interface_is_an_error() {
    let order = ORDERS[0];
    let file = [section(order), interface(order, 1, &[]), enhanced(order, 1, 7, 60, &FRAME)].concat();
    assert!(read(&file).1.expect_err("interface 1 of 1").contains("interface 1"));
}

#[test]
fn pseudo_headers_name_what_follows() {
    let cooked = |protocol: [u8; 2]| [&[0; 14][..], &protocol, &FRAME].concat();
    assert_eq!(LinkType::Cooked.carried(&cooked([8, 0])), Carried::Ip(&FRAME));
    assert_eq!(LinkType::Cooked.carried(&cooked([0x81, 0])), Carried::Payload(0x8100, &FRAME));
    assert_eq!(LinkType::Cooked.carried(&cooked([8, 6])), Carried::NonIp);
    let cooked2 = [&[0x86, 0xdd][..], &[0; 18], &FRAME].concat();
    assert_eq!(LinkType::Cooked2.carried(&cooked2), Carried::Ip(&FRAME));
    let family = |bytes: [u8; 4]| [&bytes[..], &FRAME].concat();
    assert_eq!(LinkType::Null.carried(&family([2, 0, 0, 0])), Carried::Ip(&FRAME));
    assert_eq!(LinkType::Null.carried(&family([0, 0, 0, 30])), Carried::Ip(&FRAME));
    assert_eq!(LinkType::Loop.carried(&family([0, 0, 0, 24])), Carried::Ip(&FRAME));
    assert_eq!(LinkType::Loop.carried(&family([7, 0, 0, 0])), Carried::NonIp);
    assert_eq!(LinkType::Null.carried(&[2, 0]), Carried::NonIp);
}

proptest! {
    /// K4: whatever the bytes, reading ends, in frames or an error.
    #[test]
    fn any_bytes_are_read_without_panic(
        start in prop::sample::select(vec![
            classic_header(ORDERS[0], 0xa1b2_c3d4, 65_535, 1),
            classic_header(ORDERS[1], 0xa1b2_cd34, 65_535, 113),
            [section(ORDERS[0]), interface(ORDERS[0], 1, &[(9, &[6])])].concat(),
            [section(ORDERS[1]), interface(ORDERS[1], 101, &[(14, &[1; 8])])].concat(),
            Vec::new(),
        ]),
        bytes in prop::collection::vec(prop_oneof![4 => 0_u8..16, 1 => any::<u8>()], 0..400),
    ) {
        let _ = read(&[start, bytes].concat());
    }

    /// One flipped byte never costs the frames before it.
    #[test]
    fn a_flipped_byte_costs_no_frame_before_it(at in 0_usize..10_000, value in any::<u8>(), ng in any::<bool>()) {
        let order = ORDERS[0];
        let (start, record) = if ng {
            ([section(order), interface(order, 1, &[])].concat(), enhanced(order, 0, 7, 60, &FRAME))
        } else {
            (classic_header(order, 0xa1b2_c3d4, 65_535, 1), classic_record(order, (7, 5), 60, &FRAME))
        };
        let mut file = [&start[..], &record.repeat(5)].concat();
        let at = start.len() + at % (file.len() - start.len());
        file[at] ^= value;
        prop_assert!(read(&file).0.len() >= (at - start.len()) / record.len());
    }
}
