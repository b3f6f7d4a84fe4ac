//! Link types: what a captured frame starts with, and how it is handed to the kernel program.
//!
//! The program reads Ethernet frames or bare IP packets. The pseudo-headers of "any" and loopback devices
//! name the protocol that follows: IP is handed on bare; what can stand between Ethernet and IP (tags,
//! PPPoE, MPLS) is put behind an Ethernet header of zeros; anything else is not IP and needs no program.

use super::CaptureError;

/// A link type that can be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    Ethernet,
    RawIp,
    /// Linux cooked, version 1: 16 bytes, the protocol at 14.
    Cooked,
    /// Linux cooked, version 2: 20 bytes, the protocol at 0.
    Cooked2,
    /// BSD loopback: the address family in the byte order of the host that captured.
    Null,
    /// OpenBSD loopback: the address family in network byte order.
    Loop,
}

/// What is to be replayed of a captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried<'a> {
    Ethernet(&'a [u8]),
    Ip(&'a [u8]),
    /// A payload with the `EtherType` that names it.
    Payload(u16, &'a [u8]),
    /// Neither IP nor anything that could hold it.
    NonIp,
}

impl LinkType {
    /// By its number in the registry of link types.
    pub fn new(number: u32) -> Result<Self, CaptureError> {
        Ok(match number {
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            0 => Self::Null,
            108 => Self::Loop,
            _ => return Err(CaptureError::LinkType(number)),
        })
    }

    /// Bytes of the pseudo-header, which are no part of the packet.
    #[must_use]
    pub fn pseudo_header(self) -> u32 {
        match self {
            Self::Ethernet | Self::RawIp => 0,
            Self::Cooked => 16,
            Self::Cooked2 => 20,
            Self::Null | Self::Loop => 4,
        }
    }

    /// Takes the pseudo-header off.
    #[must_use]
    pub fn carried(self, bytes: &[u8]) -> Carried<'_> {
        let Some((header, payload)) = bytes.split_at_checked(self.pseudo_header() as usize) else {
            return Carried::NonIp;
        };
        match self {
            Self::Ethernet => Carried::Ethernet(payload),
            Self::RawIp => Carried::Ip(payload),
            Self::Cooked => by_ether_type([header[14], header[15]], payload),
            Self::Cooked2 => by_ether_type([header[0], header[1]], payload),
            Self::Null => {
                let family = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
                // A small number in one byte order is a huge one in the other.
                by_family(if family > 0xffff { family.swap_bytes() } else { family }, payload)
            }
            Self::Loop => {
                by_family(u32::from_be_bytes([header[0], header[1], header[2], header[3]]), payload)
            }
        }
    }
}

fn by_ether_type(protocol: [u8; 2], payload: &[u8]) -> Carried<'_> {
    match u16::from_be_bytes(protocol) {
        0x0800 | 0x86dd => Carried::Ip(payload),
        // VLAN tags, PPPoE sessions, MPLS.
        protocol @ (0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x8864 | 0x8847 | 0x8848) => {
            Carried::Payload(protocol, payload)
        }
        _ => Carried::NonIp,
    }
}

/// `AF_INET` is 2 everywhere; `AF_INET6` is 10 on Linux, 24, 28 or 30 on the BSDs and macOS.
fn by_family(family: u32, payload: &[u8]) -> Carried<'_> {
    match family {
        2 | 10 | 24 | 28 | 30 => Carried::Ip(payload),
        _ => Carried::NonIp,
    }
}
