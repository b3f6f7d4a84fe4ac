//! ARP (RFC 826) and RARP (RFC 903) on Ethernet: which address is said to have which IPv4 address.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::cursor::Cursor;
use super::mac::Mac;

/// One message: `sender` says that it has `sender_ip`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Arp {
    /// 1 asks, 2 answers; 3 and 4 of RARP.
    pub operation: u16,
    pub sender: Mac,
    pub sender_ip: Ipv4Addr,
    pub target: Mac,
    pub target_ip: Ipv4Addr,
}

/// Hardware types: Ethernet, and IEEE 802 networks, which some stacks say for the same.
const HARDWARE: [u16; 2] = [1, 6];
const IPV4: u16 = 0x0800;

pub(super) fn read(bytes: &[u8]) -> Option<Arp> {
    let mut cursor = Cursor::new(bytes);
    let hardware = cursor.u16()?;
    let kind = (cursor.u16()?, cursor.u8()?, cursor.u8()?);
    if !HARDWARE.contains(&hardware) || kind != (IPV4, 6, 4) {
        return None;
    }
    Some(Arp {
        operation: cursor.u16()?,
        sender: Mac(cursor.array()?),
        sender_ip: Ipv4Addr::from(cursor.array::<4>()?),
        target: Mac(cursor.array()?),
        target_ip: Ipv4Addr::from(cursor.array::<4>()?),
    })
}
