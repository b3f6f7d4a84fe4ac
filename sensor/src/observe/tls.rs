//! Hellos in TLS records over TCP, and in DTLS records over UDP.

use super::cursor::Cursor;
use super::hello::{self, Carrier, ClientHello, ServerHello};
use super::http::Progress;

/// A hello of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    Client(ClientHello),
    Server(ServerHello),
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Plain records hold at most 2^14 octets.
const MAX_RECORD: usize = 1 << 14;
/// A hello with all that is known today has two to three kilobytes.
pub(super) const MAX_HELLO: usize = 32 << 10;

/// Whether a hello begins here, as far as the bytes say: a handshake record, perhaps behind the change of
/// ciphers that TLS 1.3 clients send for old middleboxes.
pub(super) fn is_hello(bytes: &[u8]) -> bool {
    let bytes = match bytes {
        [CHANGE_CIPHER_SPEC, 3, _, 0, 1, 1, rest @ ..] if !rest.is_empty() => rest,
        _ => bytes,
    };
    match bytes {
        [HANDSHAKE, 3, 0..=4, high, low, kind @ (CLIENT_HELLO | SERVER_HELLO), rest @ ..] => {
            let octets = usize::from(*high) << 8 | usize::from(*low);
            // The message's length, and the version that its body begins with.
            let sane = match rest {
                [0, high, low, 3, 0..=4, ..] => {
                    (usize::from(*high) << 8 | usize::from(*low))
                        >= if *kind == CLIENT_HELLO { 38 } else { 37 }
                }
                [0, _, _, 3] | [0, _, _] | [0, _] | [0] | [] => true,
                _ => false,
            };
            octets > 0 && octets <= MAX_RECORD && sane
        }
        // Too little to tell.
        [HANDSHAKE, 3, 0..=4, _, _] | [HANDSHAKE, 3, 0..=4, _] | [HANDSHAKE, 3, 0..=4] => true,
        _ => false,
    }
}

/// Reads the hello that begins here, over as many records as it takes.
pub(super) fn read(bytes: &[u8]) -> Progress<Hello> {
    let mut cursor = Cursor::new(bytes);
    let mut message = Vec::new();
    loop {
        let Some(record) = record(&mut cursor) else { return Progress::More };
        let (kind, fragment, whole) = record;
        match kind {
            CHANGE_CIPHER_SPEC if message.is_empty() => continue,
            HANDSHAKE => message.extend_from_slice(fragment),
            _ => return Progress::Other,
        }
        let mut handshake = Cursor::new(&message);
        if let (Some(kind), Some(octets)) = (handshake.u8(), handshake.u24()) {
            if octets as usize > MAX_HELLO {
                return Progress::Other;
            }
            if let Some(body) = handshake.take(octets as usize) {
                let consumed = bytes.len() - cursor.rest().len();
                return match of(Carrier::Tcp, kind, body) {
                    Some(hello) => Progress::Done(hello, consumed),
                    None => Progress::Other,
                };
            }
        }
        if !whole {
            return Progress::More;
        }
    }
}

fn of(carrier: Carrier, kind: u8, body: &[u8]) -> Option<Hello> {
    match kind {
        CLIENT_HELLO => hello::client(carrier, None, body).map(Hello::Client),
        SERVER_HELLO => hello::server(carrier, body).map(Hello::Server),
        _ => None,
    }
}

/// The next record's type, what is there of its content, and whether that is all.
fn record<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, &'a [u8], bool)> {
    let [kind, major, _, high, low] = cursor.array()?;
    let octets = usize::from(high) << 8 | usize::from(low);
    if major != 3 || octets > MAX_RECORD {
        return Some((0, &[], true));
    }
    let there = octets.min(cursor.rest().len());
    Some((kind, cursor.take(there)?, there == octets))
}

/// A piece of a hello in a DTLS record (RFC 6347, 4.2.2).
#[derive(Debug)]
pub(super) struct DtlsFragment<'a> {
    kind: u8,
    /// Tells a hello from its repetition with a cookie.
    pub message: u16,
    pub octets: usize,
    pub place: usize,
    pub bytes: &'a [u8],
}

/// Content type, version, epoch, sequence number, length.
const DTLS_RECORD: usize = 13;

/// The pieces of hellos in a datagram.
pub(super) fn dtls(datagram: &[u8]) -> impl Iterator<Item = DtlsFragment<'_>> {
    let mut cursor = Cursor::new(datagram);
    std::iter::from_fn(move || {
        let header: [u8; DTLS_RECORD] = cursor.array()?;
        let octets = usize::from(header[11]) << 8 | usize::from(header[12]);
        // Epoch 0 is not encrypted yet.
        let plain = matches!(header[..5], [HANDSHAKE, 0xfe, 0xfd | 0xff, 0, 0]);
        if !plain || octets > MAX_RECORD {
            return None;
        }
        let mut handshake = Cursor::new(cursor.take(octets)?);
        let kind = handshake.u8()?;
        let whole = handshake.u24()? as usize;
        let message = handshake.u16()?;
        let place = handshake.u24()? as usize;
        let octets = handshake.u24()? as usize;
        let bytes = handshake.take(octets)?;
        Some(DtlsFragment { kind, message, octets: whole, place, bytes })
    })
    .filter(|fragment| matches!(fragment.kind, CLIENT_HELLO | SERVER_HELLO))
}

impl DtlsFragment<'_> {
    /// The hello, once all its bytes are there.
    pub(super) fn whole(&self, body: &[u8]) -> Option<Hello> {
        let body = body.get(..self.octets)?;
        match of(Carrier::Dtls, self.kind, body)? {
            // DTLS before 1.0 had another version.
            Hello::Client(hello) if hello.version >> 8 != 0xfe => None,
            hello => Some(hello),
        }
    }
}
