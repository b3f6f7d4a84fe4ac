//! DHCP for IPv4 (RFC 2131, RFC 2132) and its ancestor BOOTP (RFC 951): who a client says to be, which address
//! it got of whom.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::cursor::Cursor;
use super::mac::Mac;
use super::text;

/// A message of a client or of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Dhcp4 {
    /// Of option 53: 1 discover, 2 offer, 3 request, 4 decline, 5 ack, 6 nak, 7 release, 8 inform. BOOTP has none.
    pub message: Option<u8>,
    /// From a server to a client.
    pub reply: bool,
    pub transaction: u32,
    /// Of the client; absent where it is no Ethernet.
    pub client: Option<Mac>,
    /// Of option 61, in hexadecimal: what the server knows the client by, where it sends one.
    pub client_id: Option<String>,
    pub hostname: Option<String>,
    /// The fully qualified name (option 81).
    pub client_fqdn: Option<String>,
    pub vendor_class: Option<String>,
    /// Option 55, in the order of the client: a fingerprint of its software.
    pub parameters: Vec<u8>,
    pub requested: Option<Ipv4Addr>,
    /// What the client says to have, and what the server gives.
    pub client_ip: Ipv4Addr,
    pub assigned: Ipv4Addr,
    pub relay: Ipv4Addr,
    pub server: Option<Ipv4Addr>,
    pub lease_s: Option<u32>,
    pub routers: Vec<Ipv4Addr>,
    pub name_servers: Vec<Ipv4Addr>,
}

const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Options that are read of one field; an option takes at least two octets of a packet.
const MAX_OPTIONS: usize = 256;
/// Octets of a client identifier: as of a DUID with its association (RFC 4361).
const MAX_CLIENT_ID: usize = 135;
/// Addresses of one option that are kept.
const MAX_ADDRESSES: usize = 8;
/// Where the sender's boot file and server name begin, and how long they are: options may overflow into them.
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const BOOT_FILE: std::ops::Range<usize> = 108..236;

pub(super) fn read(bytes: &[u8]) -> Option<Dhcp4> {
    let mut cursor = Cursor::new(bytes);
    let [operation, hardware, hardware_octets, _] = cursor.array()?;
    if !matches!(operation, 1 | 2) {
        return None;
    }
    let transaction = cursor.u32()?;
    cursor.u32()?;
    let client_ip = cursor.array::<4>()?.into();
    let assigned = cursor.array::<4>()?.into();
    cursor.u32()?;
    let relay = cursor.array::<4>()?.into();
    let address: [u8; 6] = cursor.array()?;
    let mut message = Dhcp4 {
        message: None,
        reply: operation == 2,
        transaction,
        client: (matches!(hardware, 1 | 6) && hardware_octets == 6).then_some(Mac(address)),
        client_id: None,
        hostname: None,
        client_fqdn: None,
        vendor_class: None,
        parameters: Vec::new(),
        requested: None,
        client_ip,
        assigned,
        relay,
        server: None,
        lease_s: None,
        routers: Vec::new(),
        name_servers: Vec::new(),
    };
    cursor = Cursor::new(bytes.get(BOOT_FILE.end..)?);
    if cursor.array() == Some(MAGIC) {
        let overflow = options(cursor, &mut message);
        for (bit, field) in [(1, BOOT_FILE), (2, SERVER_NAME)] {
            if overflow & bit != 0 {
                options(Cursor::new(&bytes[field]), &mut message);
            }
        }
    }
    Some(message)
}

/// Reads options up to their end; the fields that they overflow into are returned (option 52).
fn options(mut cursor: Cursor<'_>, message: &mut Dhcp4) -> u8 {
    let mut overflow = 0;
    for _ in 0..MAX_OPTIONS {
        match cursor.u8() {
            Some(0) => {}
            None | Some(255) => break,
            Some(code) => {
                let Some(value) = cursor.prefixed8() else { break };
                if code == 52 {
                    overflow |= value.rest().first().copied().unwrap_or(0);
                } else {
                    let _ = option(code, value, message);
                }
            }
        }
    }
    overflow
}

/// Of an option that is there twice the first counts.
fn option(code: u8, mut value: Cursor<'_>, message: &mut Dhcp4) -> Option<()> {
    match code {
        3 => addresses(value, &mut message.routers),
        6 => addresses(value, &mut message.name_servers),
        12 if message.hostname.is_none() => message.hostname = Some(string(value)),
        50 if message.requested.is_none() => message.requested = Some(value.array::<4>()?.into()),
        51 if message.lease_s.is_none() => message.lease_s = Some(value.u32()?),
        53 if message.message.is_none() => message.message = Some(value.u8()?),
        54 if message.server.is_none() => message.server = Some(value.array::<4>()?.into()),
        // An option longer than 255 octets comes in parts (RFC 3396).
        55 => message.parameters.extend_from_slice(value.rest()),
        60 if message.vendor_class.is_none() => message.vendor_class = Some(string(value)),
        61 if message.client_id.is_none() => {
            let bytes = value.rest();
            message.client_id = Some(text::hexadecimal(&bytes[..bytes.len().min(MAX_CLIENT_ID)]));
        }
        81 if message.client_fqdn.is_none() => {
            let flags = value.u8()?;
            value.take(2)?;
            // Flag E: labels, as DNS writes them; else plain characters (RFC 4702).
            let name = if flags & 4 == 0 { value.rest().to_vec() } else { dotted(value) };
            message.client_fqdn = Some(string(Cursor::new(&name)));
        }
        _ => {}
    }
    Some(())
}

/// Labels without compression as text. The final root may be missing: the name is then not fully qualified.
pub(super) fn dotted(mut labels: Cursor<'_>) -> Vec<u8> {
    let mut name = Vec::new();
    while let Some(label) = labels.prefixed8().filter(|label| !label.is_empty()) {
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend_from_slice(label.rest());
    }
    name
}

/// Text, of which some clients send the terminating zero too.
fn string(value: Cursor<'_>) -> String {
    let bytes = value.rest();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    text::clean(&bytes[..end])
}

fn addresses(value: Cursor<'_>, kept: &mut Vec<Ipv4Addr>) {
    let all = value.rest().as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets));
    kept.extend(all.take(MAX_ADDRESSES.saturating_sub(kept.len())));
}
