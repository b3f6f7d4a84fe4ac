//! IPv4 (RFC 791), with options and fragments.

use weir_sensor_common::fragment;

use super::{
    Headers, Reject,
    transport::{nothing, transport},
    window::{Window, bounded, header},
};

header!(Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    identification: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    src: u32,
    dst: u32,
});

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// An IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Network byte order.
    pub src: u32,
    pub dst: u32,
    pub headers: Headers,
}

/// Reads the packet that begins at the front of `window`; `left` octets of the frame are there on the wire.
#[inline(always)]
pub fn ipv4(window: &mut Window<'_>, left: u32) -> Result<Ipv4, Reject> {
    let header: Ipv4Header = window.take().ok_or(Reject::Truncated)?;
    let header_octets = (header.version_ihl & 0xf) as u32 * 4;
    if header.version_ihl >> 4 != 4 || header_octets < 20 {
        return Err(Reject::Malformed);
    }
    let octets = u16::from_be(header.total_length) as u32;
    if octets > left {
        return Err(Reject::Malformed);
    }
    let word = u16::from_be(header.fragment);
    let fragments = match (word & FRAGMENT_OFFSET, word & MORE_FRAGMENTS) {
        (0, 0) => 0,
        (0, _) => fragment::FIRST,
        _ => fragment::LATER,
    };
    let end = if octets < header_octets { left } else { octets };
    let transport = if fragments == fragment::LATER || end < header_octets {
        nothing()
    } else {
        window.skip(bounded::<0x3f>((header_octets - 20) as u64));
        transport(window, header.protocol, end - header_octets)?
    };
    Ok(Ipv4 {
        src: header.src,
        dst: header.dst,
        headers: transport.headers(header.protocol, octets, header_octets, fragments),
    })
}
