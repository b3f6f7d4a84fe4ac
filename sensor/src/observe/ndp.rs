//! Neighbour discovery (RFC 4861, RFC 8106): which link address has which IPv6 address, and who says to be a
//! router of which prefixes.

use std::net::Ipv6Addr;

use serde::Serialize;

use super::cursor::Cursor;
use super::mac::Mac;

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NdpKind {
    RouterSolicitation,
    RouterAdvertisement,
    NeighbourSolicitation,
    NeighbourAdvertisement,
    Redirect,
}

/// One message; the addresses of the packet that carried it are in its flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Ndp {
    pub kind: NdpKind,
    /// Of solicitations, advertisements and redirects.
    pub target: Option<Ipv6Addr>,
    /// Source or target link-layer address: what the message binds.
    pub link_address: Option<Mac>,
    /// Of a router advertisement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
}

/// What a router advertises.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Router {
    /// Seconds; 0 is no default router.
    pub lifetime_s: u16,
    /// Addresses by DHCPv6 (M), other configuration by DHCPv6 (O).
    pub managed: bool,
    pub other: bool,
    pub prefixes: Vec<Prefix>,
    pub name_servers: Vec<Ipv6Addr>,
}

/// A prefix of a router advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Prefix {
    pub address: Ipv6Addr,
    /// Length in bits.
    pub bits: u8,
    pub valid_s: u32,
}

/// Options that are read of a message; RFC 4861 has five kinds.
const MAX_OPTIONS: usize = 64;
/// Prefixes, and name servers, that are kept.
const MAX_KEPT: usize = 16;

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const PREFIX: u8 = 3;
const NAME_SERVERS: u8 = 25;

pub(super) fn read(bytes: &[u8]) -> Option<Ndp> {
    let mut cursor = Cursor::new(bytes);
    let kind = match cursor.u8()? {
        133 => NdpKind::RouterSolicitation,
        134 => NdpKind::RouterAdvertisement,
        135 => NdpKind::NeighbourSolicitation,
        136 => NdpKind::NeighbourAdvertisement,
        137 => NdpKind::Redirect,
        _ => return None,
    };
    let mut message = Ndp { kind, target: None, link_address: None, router: None };
    // What comes before the end of a message that is cut is kept.
    let _ = body(&mut cursor, &mut message);
    Some(message)
}

fn body(cursor: &mut Cursor<'_>, message: &mut Ndp) -> Option<()> {
    cursor.take(3)?;
    let [_, flags, lifetime @ ..] = cursor.array::<4>()?;
    match message.kind {
        NdpKind::RouterSolicitation => {}
        NdpKind::RouterAdvertisement => {
            message.router = Some(Router {
                lifetime_s: u16::from_be_bytes(lifetime),
                managed: flags & 0x80 != 0,
                other: flags & 0x40 != 0,
                prefixes: Vec::new(),
                name_servers: Vec::new(),
            });
            cursor.take(8)?;
        }
        NdpKind::NeighbourSolicitation | NdpKind::NeighbourAdvertisement => {
            message.target = Some(cursor.array::<16>()?.into());
        }
        NdpKind::Redirect => {
            message.target = Some(cursor.array::<16>()?.into());
            cursor.take(16)?;
        }
    }
    for _ in 0..MAX_OPTIONS {
        option(cursor, message)?;
    }
    Some(())
}

fn option(cursor: &mut Cursor<'_>, message: &mut Ndp) -> Option<()> {
    let (kind, eights) = (cursor.u8()?, cursor.u8()?);
    let octets = usize::from(eights).checked_mul(8)?.checked_sub(2)?;
    let mut value = Cursor::new(cursor.take(octets)?);
    match (kind, &mut message.router) {
        (SOURCE_LINK_ADDRESS | TARGET_LINK_ADDRESS, _) if message.link_address.is_none() => {
            message.link_address = value.array().map(Mac);
        }
        (PREFIX, Some(router)) if router.prefixes.len() < MAX_KEPT => {
            let bits = value.u8()?;
            value.u8()?;
            let valid_s = value.u32()?;
            value.take(8)?;
            let address = value.array::<16>()?.into();
            router.prefixes.push(Prefix { address, bits, valid_s });
        }
        (NAME_SERVERS, Some(router)) => {
            value.take(6)?;
            while let Some(address) = value.array::<16>() {
                if router.name_servers.len() < MAX_KEPT {
                    router.name_servers.push(address.into());
                }
            }
        }
        _ => {}
    }
    Some(())
}
