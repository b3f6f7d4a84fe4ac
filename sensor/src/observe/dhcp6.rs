//! DHCP for IPv6 (RFC 8415): who a client says to be, by an identifier that outlives its addresses.

use std::net::Ipv6Addr;

use serde::Serialize;

use super::cursor::Cursor;
use super::dhcp4::dotted;
use super::text;

/// A message, with what its relays wrapped around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Dhcp6 {
    /// 1 solicit, 2 advertise, 3 request … 11 information-request; 12 and 13 are a relay's, which carry another.
    pub messages: Vec<u8>,
    /// Of the innermost message.
    pub transaction: Option<u32>,
    /// DUIDs in hexadecimal.
    pub client_id: Option<String>,
    pub server_id: Option<String>,
    pub client_fqdn: Option<String>,
    pub vendor_enterprise: Option<u32>,
    pub vendor_class: Vec<String>,
    /// Option request: a fingerprint of the client's software.
    pub options: Vec<u16>,
    pub assigned: Vec<Ipv6Addr>,
}

/// Relays in a row (`HOP_COUNT_LIMIT` is 8), and option containers in each other.
const MAX_DEPTH: usize = 8;
/// Options of one message.
const MAX_OPTIONS: usize = 256;
/// A DUID has at most 130 octets.
const MAX_DUID: usize = 130;
/// Addresses, vendor classes and requested options that are kept.
const MAX_KEPT: usize = 64;

const RELAY_FORWARD: u8 = 12;
const RELAY_REPLY: u8 = 13;

pub(super) fn read(bytes: &[u8]) -> Option<Dhcp6> {
    let mut found = Dhcp6 {
        messages: Vec::new(),
        transaction: None,
        client_id: None,
        server_id: None,
        client_fqdn: None,
        vendor_enterprise: None,
        vendor_class: Vec::new(),
        options: Vec::new(),
        assigned: Vec::new(),
    };
    message(Cursor::new(bytes), &mut found, 0)?;
    Some(found)
}

fn message(mut cursor: Cursor<'_>, found: &mut Dhcp6, depth: usize) -> Option<()> {
    let kind = cursor.u8()?;
    found.messages.push(kind);
    if matches!(kind, RELAY_FORWARD | RELAY_REPLY) {
        cursor.take(33)?;
    } else {
        found.transaction = Some(cursor.u24()?);
    }
    options(cursor, found, depth);
    Some(())
}

fn options(mut cursor: Cursor<'_>, found: &mut Dhcp6, depth: usize) {
    for _ in 0..MAX_OPTIONS {
        let Some(code) = cursor.u16() else { break };
        let Some(value) = cursor.prefixed16() else { break };
        let _ = option(code, value, found, depth);
    }
}

fn option(code: u16, mut value: Cursor<'_>, found: &mut Dhcp6, depth: usize) -> Option<()> {
    match code {
        1 => found.client_id = Some(duid(value)),
        2 => found.server_id = Some(duid(value)),
        // Addresses of an association, permanent or temporary.
        3 if depth < MAX_DEPTH => {
            value.take(12)?;
            options(value, found, depth + 1);
        }
        4 if depth < MAX_DEPTH => {
            value.take(4)?;
            options(value, found, depth + 1);
        }
        5 if found.assigned.len() < MAX_KEPT => found.assigned.push(value.array::<16>()?.into()),
        6 => {
            found.options.extend(value.numbers());
            found.options.truncate(MAX_KEPT);
        }
        9 if depth < MAX_DEPTH => message(value, found, depth + 1)?,
        16 => {
            found.vendor_enterprise = Some(value.u32()?);
            while let Some(class) = value.prefixed16() {
                if found.vendor_class.len() < MAX_KEPT {
                    found.vendor_class.push(text::clean(class.rest()));
                }
            }
        }
        39 => {
            value.u8()?;
            found.client_fqdn = Some(text::clean(&dotted(value)));
        }
        _ => {}
    }
    Some(())
}

fn duid(value: Cursor<'_>) -> String {
    let bytes = value.rest();
    text::hexadecimal(&bytes[..bytes.len().min(MAX_DUID)])
}
