//! ClientHello and ServerHello of TLS (RFC 5246, RFC 8446), DTLS (RFC 6347, RFC 9147) and QUIC (RFC 9001).
//!
//! Read by hand: JA4 needs the numbers of all extensions in their order, reserved ones too, and of a hello that
//! is odd in one place everything else. What is not named here is passed over.

use serde::Serialize;

use super::cursor::Cursor;
use super::ja4;
use super::text::{self, Name};

/// What carried a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    Tcp,
    Quic,
    Dtls,
}

/// What a client offers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ClientHello {
    pub carrier: Carrier,
    /// The server that the client names.
    pub sni: Option<Name>,
    pub alpn: Vec<String>,
    /// The highest version offered, as on the wire (0x0304 is TLS 1.3).
    pub version: u16,
    pub ja4: String,
    /// Whether the client hides its real hello in this one (Encrypted Client Hello): the name is then a front's.
    pub encrypted_hello: bool,
    /// Of a hello that QUIC carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic_version: Option<u32>,
}

/// What a server chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ServerHello {
    pub carrier: Carrier,
    pub version: u16,
    pub cipher: u16,
    /// Before TLS 1.3 only: later it is encrypted.
    pub alpn: Option<String>,
    /// A TLS 1.3 server that asks for another key share: not an answer yet.
    pub retry: bool,
}

/// The fields of a ClientHello that JA4 is made of.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub legacy_version: u16,
    pub ciphers: Vec<u16>,
    pub extensions: Vec<u16>,
    pub versions: Vec<u16>,
    pub signature_algorithms: Vec<u16>,
    pub alpn: Vec<Vec<u8>>,
    pub sni: Option<Name>,
    pub encrypted_hello: bool,
}

/// Protocols that are kept of an ALPN list.
const MAX_ALPN: usize = 32;

const SNI: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// RFC 8701: numbers that clients throw in to keep servers tolerant.
pub(super) fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

/// Reads the body of a ClientHello. `None` where it has no list of ciphers.
pub(super) fn offer(carrier: Carrier, body: &[u8]) -> Option<Offer> {
    let mut cursor = Cursor::new(body);
    let mut offer = Offer { legacy_version: cursor.u16()?, ..Offer::default() };
    cursor.take(32)?;
    cursor.prefixed8()?;
    if carrier == Carrier::Dtls {
        cursor.prefixed8()?;
    }
    offer.ciphers = cursor.prefixed16()?.numbers().collect();
    // What was read before something malformed counts.
    let _ = cursor.prefixed8().and_then(|_| extensions(cursor, &mut offer));
    Some(offer)
}

fn extensions(mut cursor: Cursor<'_>, offer: &mut Offer) -> Option<()> {
    let mut extensions = cursor.prefixed16()?;
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let mut value = extensions.prefixed16()?;
        offer.extensions.push(kind);
        match kind {
            SNI => {
                let mut names = value.prefixed16()?;
                // The first of type host_name; there is no other type.
                if names.u8()? == 0 {
                    offer.sni = Some(Name::from_dotted(names.prefixed16()?.rest()));
                }
            }
            SIGNATURE_ALGORITHMS => offer.signature_algorithms = value.prefixed16()?.numbers().collect(),
            ALPN => {
                let mut protocols = value.prefixed16()?;
                while let Some(protocol) = protocols.prefixed8().filter(|_| offer.alpn.len() < MAX_ALPN) {
                    offer.alpn.push(protocol.rest().to_vec());
                }
            }
            SUPPORTED_VERSIONS => offer.versions = value.prefixed8()?.numbers().collect(),
            ENCRYPTED_CLIENT_HELLO => offer.encrypted_hello = true,
            _ => {}
        }
    }
    Some(())
}

impl Offer {
    /// The highest version that is offered. DTLS counts downwards.
    pub(super) fn version(&self) -> u16 {
        let real = self.versions.iter().copied().filter(|version| !is_grease(*version));
        let highest = if self.legacy_version >> 8 == 0xfe { real.min() } else { real.max() };
        highest.unwrap_or(self.legacy_version)
    }
}

/// Reads the body of a ClientHello.
pub(super) fn client(carrier: Carrier, quic_version: Option<u32>, body: &[u8]) -> Option<ClientHello> {
    let offer = offer(carrier, body)?;
    Some(ClientHello {
        carrier,
        alpn: offer.alpn.iter().map(|protocol| text::clean(protocol)).collect(),
        version: offer.version(),
        ja4: ja4::fingerprint(carrier, &offer),
        encrypted_hello: offer.encrypted_hello,
        sni: offer.sni.filter(|name| !name.is_empty()),
        quic_version,
    })
}

/// The random of a ServerHello that is a HelloRetryRequest: the SHA-256 of that word (RFC 8446, 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Reads the body of a ServerHello.
pub(super) fn server(carrier: Carrier, body: &[u8]) -> Option<ServerHello> {
    let mut cursor = Cursor::new(body);
    let version = cursor.u16()?;
    let retry = cursor.array()? == RETRY;
    cursor.prefixed8()?;
    let cipher = cursor.u16()?;
    cursor.u8()?;
    let mut found = ServerHello { carrier, version, cipher, alpn: None, retry };
    let mut extensions = cursor.prefixed16().unwrap_or(Cursor::new(&[]));
    while let (Some(kind), Some(mut value)) = (extensions.u16(), extensions.prefixed16()) {
        match kind {
            SUPPORTED_VERSIONS => found.version = value.u16().unwrap_or(version),
            ALPN => {
                let protocol = value.prefixed16().and_then(|mut list| list.prefixed8());
                found.alpn = protocol.map(|protocol| text::clean(protocol.rest()));
            }
            _ => {}
        }
    }
    Some(found)
}
