//! The keys of QUIC's Initial packets, which anyone who sees the first packet can derive (RFC 9001, 5.2;
//! RFC 9369, 3.3): they keep middleboxes honest, not secrets.

use ring::aead::{self, quic};
use ring::hkdf;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// How a version of QUIC writes and protects its Initial packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    salt: [u8; 20],
    second: bool,
}

impl Dialect {
    /// Of a version that carries TLS; `None` of others, Google's first QUIC among them.
    pub(super) fn of(version: u32) -> Option<Self> {
        let salt = match version {
            0x6b33_43cf => return Some(Self { salt: SALT_V2, second: true }),
            1 | 0xff00_0021 | 0xff00_0022 => SALT_V1,
            0xff00_001d..=0xff00_0020 => SALT_DRAFT_29,
            // Facebook's mvfst went with the drafts of its time.
            0xff00_0017..=0xff00_001c | 0xface_b002 | 0xface_b00e => SALT_DRAFT_23,
            0xff00_0015 | 0xff00_0016 | 0xface_b001 => SALT_DRAFT_21,
            T050 => SALT_T050,
            T051 => SALT_T051,
            // Versions that exercise negotiation (RFC 9000, 15) are never spoken.
            _ => return None,
        };
        Some(Self { salt, second: false })
    }

    /// The two bits of a long header that say Initial.
    pub(super) fn initial_type(self) -> u8 {
        u8::from(self.second)
    }

    /// The keys of a side, by the connection identifier that the client's first packet goes to.
    pub(super) fn keys(self, side: Side, connection: &[u8]) -> Option<Keys> {
        let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &self.salt).extract(connection);
        let mut secret = [0; 32];
        let label = if side == Side::Client { "client in" } else { "server in" };
        expand(&initial, label, &mut secret)?;
        let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret);
        let [key_label, iv_label, header_label] = if self.second {
            ["quicv2 key", "quicv2 iv", "quicv2 hp"]
        } else {
            ["quic key", "quic iv", "quic hp"]
        };
        let (mut key, mut iv, mut header) = ([0; 16], [0; 12], [0; 16]);
        expand(&secret, key_label, &mut key)?;
        expand(&secret, iv_label, &mut iv)?;
        expand(&secret, header_label, &mut header)?;
        Some(Keys {
            packet: aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key).ok()?),
            iv,
            header: quic::HeaderProtectionKey::new(&quic::AES_128, &header).ok()?,
        })
    }
}

/// Draft 33 on.
const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
    0xbb, 0x7f, 0x0a,
];
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
    0xbd, 0x2e, 0xd9,
];
/// Drafts 29 to 32.
const SALT_DRAFT_29: [u8; 20] = [
    0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43,
    0x90, 0xa8, 0x99,
];
/// Drafts 23 to 28.
const SALT_DRAFT_23: [u8; 20] = [
    0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe,
    0xf9, 0xf5, 0x02,
];
/// Drafts 21 and 22.
const SALT_DRAFT_21: [u8; 20] = [
    0x7f, 0xbc, 0xdb, 0x0e, 0x7c, 0x66, 0xbb, 0xe9, 0x19, 0x3a, 0x96, 0xcd, 0x21, 0x51, 0x9e, 0xbd, 0x7a,
    0x02, 0x64, 0x4a,
];
/// Google's versions with TLS.
const T050: u32 = 0x5430_3530;
const T051: u32 = 0x5430_3531;
const SALT_T050: [u8; 20] = [
    0x7f, 0xf5, 0x79, 0xe5, 0xac, 0xd0, 0x72, 0x91, 0x55, 0x80, 0x30, 0x4c, 0x43, 0xa2, 0x36, 0x7c, 0x60,
    0x48, 0x83, 0x10,
];
const SALT_T051: [u8; 20] = [
    0x7a, 0x4e, 0xde, 0xf4, 0xe7, 0xcc, 0xee, 0x5f, 0xa4, 0x50, 0x6c, 0x19, 0x12, 0x4f, 0xc8, 0xcc, 0xda,
    0x6e, 0x03, 0x3d,
];

/// HKDF-Expand-Label of TLS 1.3 (RFC 8446, 7.1), with no context.
fn expand(secret: &hkdf::Prk, label: &str, out: &mut [u8]) -> Option<()> {
    struct Octets(usize);
    impl hkdf::KeyType for Octets {
        fn len(&self) -> usize {
            self.0
        }
    }
    let octets = [0, out.len() as u8];
    let label_octets = [6 + label.len() as u8];
    let info = [octets.as_slice(), &label_octets, b"tls13 ", label.as_bytes(), &[0]];
    secret.expand(&info, Octets(out.len())).ok()?.fill(out).ok()
}

/// What opens the Initial packets of one side.
pub(super) struct Keys {
    packet: aead::LessSafeKey,
    iv: [u8; 12],
    header: quic::HeaderProtectionKey,
}

impl Keys {
    /// Opens a packet whose packet number begins at `number_at`: the frames in it. `None` where the key is not
    /// the packet's.
    pub(super) fn open(&self, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        const LONGEST_NUMBER: usize = 4;
        let sample = packet.get(number_at + LONGEST_NUMBER..)?.get(..self.header.algorithm().sample_len())?;
        let mask = self.header.new_mask(sample).ok()?;
        let first = packet[0] ^ (mask[0] & 0x0f);
        let number_octets = usize::from(first & 3) + 1;
        let mut header = packet.get(..number_at + number_octets)?.to_vec();
        header[0] = first;
        let mut number = 0_u64;
        for (byte, mask) in header[number_at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            // The first packets of a connection: their numbers are not yet truncated.
            number = number << 8 | u64::from(*byte);
        }
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let mut sealed = packet[header.len()..].to_vec();
        let octets = self.packet.open_in_place(nonce, aead::Aad::from(&header), &mut sealed).ok()?.len();
        sealed.truncate(octets);
        Some(sealed)
    }
}
