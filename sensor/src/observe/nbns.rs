//! NetBIOS name service (RFC 1002): the names that Windows and Samba ask for, register and defend.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::cursor::Cursor;
use super::text;

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Nbns {
    pub id: u16,
    pub response: bool,
    /// 0 query, 5 registration, 6 release, 7 wait, 8 refresh.
    pub opcode: u8,
    pub names: Vec<NetbiosName>,
    pub addresses: Vec<Ipv4Addr>,
    /// What a node answers that it is called, to a status request.
    pub own_names: Vec<NetbiosName>,
}

/// Fifteen characters, and an octet that says what the name is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct NetbiosName {
    pub name: String,
    pub suffix: u8,
}

/// Questions and records that are read of a message.
const MAX_ENTRIES: u16 = 16;
/// Names of a status response.
const MAX_NAMES: usize = 64;

const TYPE_NB: u16 = 0x20;
const TYPE_STATUS: u16 = 0x21;

pub(super) fn read(bytes: &[u8]) -> Option<Nbns> {
    let mut cursor = Cursor::new(bytes);
    let id = cursor.u16()?;
    let flags = cursor.u16()?;
    let counts = [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?];
    let mut message = Nbns {
        id,
        response: flags & 0x8000 != 0,
        opcode: (flags >> 11 & 0xf) as u8,
        names: Vec::new(),
        addresses: Vec::new(),
        own_names: Vec::new(),
    };
    // What comes before something malformed is kept.
    let _ = entries(bytes, &mut cursor, counts, &mut message);
    Some(message)
}

fn entries(message: &[u8], cursor: &mut Cursor<'_>, counts: [u16; 4], found: &mut Nbns) -> Option<()> {
    for _ in 0..counts[0].min(MAX_ENTRIES) {
        found.names.extend(name(message, cursor)?);
        cursor.take(4)?;
    }
    let records = counts[1].saturating_add(counts[2]).saturating_add(counts[3]);
    for _ in 0..records.min(MAX_ENTRIES) {
        found.names.extend(name(message, cursor)?);
        let kind = cursor.u16()?;
        cursor.take(6)?;
        let mut data = cursor.prefixed16()?;
        match kind {
            TYPE_NB => {
                while data.u16().is_some() && found.addresses.len() < MAX_NAMES {
                    found.addresses.push(Ipv4Addr::from(data.array::<4>()?));
                }
            }
            TYPE_STATUS => {
                for _ in 0..data.u8()? {
                    let name = plain(&data.array::<16>()?);
                    data.u16()?;
                    if found.own_names.len() < MAX_NAMES {
                        found.own_names.push(name);
                    }
                }
            }
            _ => {}
        }
    }
    Some(())
}

/// The name at the cursor, or where a pointer leads: none, where it is not in the encoding of RFC 1001; and
/// `None` where the message ends in it.
fn name(message: &[u8], cursor: &mut Cursor<'_>) -> Option<std::option::IntoIter<NetbiosName>> {
    let octets = cursor.u8()?;
    if octets & 0xc0 == 0xc0 {
        let place = usize::from(octets & 0x3f) << 8 | usize::from(cursor.u8()?);
        // One step: names are not chained.
        let mut there = Cursor::new(message.get(place..)?);
        let octets = there.u8()?;
        return Some(there.take(octets.into()).and_then(decode).into_iter());
    }
    let label = cursor.take(octets.into())?;
    // The scope, if any, up to the root.
    loop {
        match cursor.u8()? {
            0 => break,
            pointer if pointer & 0xc0 == 0xc0 => {
                cursor.u8()?;
                break;
            }
            octets => cursor.take(octets.into()).map(|_| ())?,
        }
    }
    Some(decode(label).into_iter())
}

/// Two letters of A to P for each octet (RFC 1001, 14.1). Later letters, which no encoder writes, are read by the
/// same arithmetic, as other readers do.
fn decode(label: &[u8]) -> Option<NetbiosName> {
    let mut octets = [0; 16];
    let pairs = label.as_chunks::<2>().0;
    if label.len() != 32 {
        return None;
    }
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        let half = |letter: u8| letter.is_ascii_uppercase().then(|| letter - b'A');
        *octet = half(*high)? << 4 | half(*low)?;
    }
    Some(plain(&octets))
}

fn plain(octets: &[u8; 16]) -> NetbiosName {
    let [name @ .., suffix] = octets;
    let end = name.iter().rposition(|octet| !matches!(octet, 0 | b' ')).map_or(0, |last| last + 1);
    NetbiosName { name: text::clean(&name[..end]), suffix: *suffix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_whom_it_looks_for() {
        let mut bytes = vec![0, 9, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 32];
        bytes.extend_from_slice(b"FHEPFCELEHFCEPFFFACACACACACACABL\0\0\x20\0\x01");
        let message = read(&bytes).expect("a message");
        let name = NetbiosName { name: "WORKGROUP".to_owned(), suffix: 0x1b };
        assert_eq!((message.response, message.names.as_slice()), (false, [name].as_slice()));
        bytes[20] = b'z';
        assert!(read(&bytes).expect("a message").names.is_empty());
    }
}
