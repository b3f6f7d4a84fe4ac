//! LLDP (IEEE 802.1AB) and CDP: what the devices of a network say of themselves to whoever is beside them.

use serde::Serialize;

use super::cursor::Cursor;
use super::mac::Mac;
use super::text;

/// Which of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourKind {
    Lldp,
    Cdp,
}

/// An announcement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Neighbour {
    pub kind: NeighbourKind,
    /// An address, or a name that the device chose.
    pub chassis: Option<String>,
    pub port: Option<String>,
    pub port_description: Option<String>,
    pub system_name: Option<String>,
    /// LLDP's system description, CDP's platform.
    pub description: Option<String>,
    /// Seconds that it is valid for.
    pub ttl_s: Option<u16>,
}

/// Fields that are read of an announcement.
const MAX_FIELDS: usize = 128;

/// Subtypes of a chassis and of a port that are an Ethernet address.
const CHASSIS_MAC: u8 = 4;
const PORT_MAC: u8 = 3;

fn nothing(kind: NeighbourKind) -> Neighbour {
    Neighbour {
        kind,
        chassis: None,
        port: None,
        port_description: None,
        system_name: None,
        description: None,
        ttl_s: None,
    }
}

pub(super) fn lldp(bytes: &[u8]) -> Option<Neighbour> {
    let mut found = nothing(NeighbourKind::Lldp);
    let mut cursor = Cursor::new(bytes);
    for place in 0..MAX_FIELDS {
        let Some(header) = cursor.u16() else { break };
        // The chassis comes first; anything else is no LLDP.
        if place == 0 && header >> 9 != 1 {
            return None;
        }
        let Some(mut value) = cursor.take(usize::from(header & 0x1ff)).map(Cursor::new) else { break };
        match header >> 9 {
            0 => break,
            1 => found.chassis = identifier(value, CHASSIS_MAC),
            2 => found.port = identifier(value, PORT_MAC),
            3 => found.ttl_s = value.u16(),
            4 => found.port_description = Some(text::clean(value.rest())),
            5 => found.system_name = Some(text::clean(value.rest())),
            6 => found.description = Some(text::clean(value.rest())),
            _ => {}
        }
    }
    Some(found)
}

fn identifier(mut value: Cursor<'_>, mac: u8) -> Option<String> {
    let subtype = value.u8()?;
    match value.array().filter(|_| subtype == mac) {
        Some(address) => Some(Mac(address).to_string()),
        None => Some(text::clean(value.rest())),
    }
}

pub(super) fn cdp(bytes: &[u8]) -> Option<Neighbour> {
    let mut found = nothing(NeighbourKind::Cdp);
    let mut cursor = Cursor::new(bytes);
    let [_version, ttl_s, _, _] = cursor.array()?;
    found.ttl_s = Some(ttl_s.into());
    for _ in 0..MAX_FIELDS {
        let (Some(kind), Some(octets)) = (cursor.u16(), cursor.u16()) else { break };
        let Some(value) = usize::from(octets).checked_sub(4).and_then(|octets| cursor.take(octets)) else {
            break;
        };
        match kind {
            1 => found.system_name = Some(text::clean(value)),
            3 => found.port = Some(text::clean(value)),
            6 => found.description = Some(text::clean(value)),
            _ => {}
        }
    }
    Some(found)
}
