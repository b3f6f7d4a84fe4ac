//! Frames that no ordinary program sends: they go out of a station as they are.

use std::net::Ipv4Addr;

use super::{GATEWAY, GATEWAY_MAC, Profile};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const SYN: u8 = 2;

/// Says to the gateway, which did not ask, that the sender has an address.
#[must_use]
pub fn arp_answer(from: &Profile, claimed: Ipv4Addr) -> Vec<u8> {
    let (sender, gateway) = (mac(from.mac), mac(GATEWAY_MAC));
    let body = [
        &[0, 1, 8, 0, 6, 4, 0, 2][..],
        &sender,
        &claimed.octets(),
        &gateway,
        &GATEWAY.octets(),
        // Ethernet's shortest.
        &[0; 18],
    ];
    ethernet(from, [8, 6], &body.concat())
}

/// The beginning of a connection that will not be gone on with.
#[must_use]
pub fn syn(from: &Profile, from_port: u16, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let ports = [from_port.to_be_bytes(), port.to_be_bytes()].concat();
    let mut segment = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]].concat();
    let pseudo = [&from.address.octets()[..], &to.octets(), &[0, TCP, 0, segment.len() as u8]].concat();
    let sum = checksum(&[pseudo, segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum);
    ip(from, to, TCP, &segment)
}

/// A datagram without a checksum, as IPv4 allows.
#[must_use]
pub fn datagram(from: &Profile, from_port: u16, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let ports = [from_port.to_be_bytes(), port.to_be_bytes()].concat();
    ip(from, to, UDP, &[&ports[..], &[0, 26, 0, 0], &[0; 18]].concat())
}

/// Asks for an echo.
#[must_use]
pub fn echo(from: &Profile, to: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 7, 0, 1];
    message.extend([0; 18]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    ip(from, to, ICMP, &message)
}

fn ip(from: &Profile, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    header.extend(from.address.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let mut packet = [&header, payload].concat();
    packet.resize(packet.len().max(46), 0);
    ethernet(from, [8, 0], &packet)
}

/// To the gateway.
fn ethernet(from: &Profile, ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&mac(GATEWAY_MAC)[..], &mac(from.mac), &ethertype, payload].concat()
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Of six pairs of digits; anything else is nought.
fn mac(text: &str) -> [u8; 6] {
    let mut octets = [0; 6];
    for (octet, digits) in octets.iter_mut().zip(text.split(':')) {
        *octet = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    octets
}
