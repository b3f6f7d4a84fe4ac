//! What a transport's payload is about, from its first sixteen octets: TLS (RFC 8446), DTLS (RFC 6347), QUIC
//! (RFC 9000, RFC 9369) and HTTP/1 (RFC 9112), which are on any port; or from the ports of those that begin with
//! nothing of their own.

use weir_sensor_common::event::class;

use super::window::{Window, header};

header!(Start { words: [u64; 2] });
header!(Ports { ports: [u16; 2], sequence: u32 });

/// The first sixteen octets of a payload, as two numbers: the first octet is the highest of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub u64, pub u64);

impl Prefix {
    pub const OCTETS: u32 = 16;

    /// From words as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_memory(words: [u64; 2]) -> Self {
        Self(u64::from_be(words[0]), u64::from_be(words[1]))
    }

    /// One octet of the first eight.
    #[inline(always)]
    const fn octet(self, place: u32) -> u8 {
        (self.0 >> (56 - 8 * place)) as u8
    }
}

/// The prefix at the front of `window`; `None` where the bytes at hand end before.
#[inline(always)]
#[must_use]
pub fn prefix(window: &Window<'_>) -> Option<Prefix> {
    window.peek::<Start>().map(|start| Prefix::from_memory(start.words))
}

/// The first octets of a TCP header; of a UDP header the ports are those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportStart {
    ports: [u16; 2],
    sequence: u32,
}

impl TransportStart {
    /// Source port below, destination port above, as in [`super::Headers`].
    #[inline(always)]
    #[must_use]
    pub const fn ports(self) -> u32 {
        u16::from_be(self.ports[0]) as u32 | (u16::from_be(self.ports[1]) as u32) << 16
    }

    #[inline(always)]
    #[must_use]
    pub const fn sequence(self) -> u32 {
        u32::from_be(self.sequence)
    }
}

/// The first octets of the TCP or UDP header at the front of `window`.
#[inline(always)]
#[must_use]
pub fn transport_start(window: &Window<'_>) -> Option<TransportStart> {
    window.peek::<Ports>().map(|header| TransportStart { ports: header.ports, sequence: header.sequence })
}

/// The class of a UDP datagram by its ports, the destination first.
#[inline(always)]
#[must_use]
pub const fn of_ports(ports: u32) -> u32 {
    match of_port(ports >> 16) {
        class::NONE => of_port(ports & 0xffff),
        known => known,
    }
}

#[inline(always)]
const fn of_port(port: u32) -> u32 {
    match port {
        DNS => class::DNS,
        67 | 68 => class::DHCPV4,
        137 => class::NBNS,
        546 | 547 => class::DHCPV6,
        1900 => class::SSDP,
        5353 => class::MDNS,
        5355 => class::LLMNR,
        _ => class::NONE,
    }
}

/// Whether one of two ports is DNS's.
#[inline(always)]
#[must_use]
pub const fn is_dns(ports: u32) -> bool {
    ports & 0xffff == DNS || ports >> 16 == DNS
}

const DNS: u32 = 53;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// What a TLS record may hold at the most, with room for its protection (RFC 5246).
const MAX_RECORD: u16 = (1 << 14) + 2048;

/// The class of a TCP segment by its payload.
#[inline(always)]
#[must_use]
pub const fn of_segment(prefix: Prefix) -> u32 {
    if prefix.octet(0) == HANDSHAKE {
        let record = (prefix.0 >> 24) as u16;
        // SSL 3.0 to TLS 1.3, which calls itself 1.0 or 1.2 here.
        if prefix.octet(1) != 3 || prefix.octet(2) > 4 || record > MAX_RECORD {
            return class::NONE;
        }
        return by_hello(prefix.octet(5));
    }
    if is_request((prefix.0 >> 32) as u32) { class::HTTP } else { class::NONE }
}

/// The class of a UDP datagram by its payload.
#[inline(always)]
#[must_use]
pub const fn of_datagram(prefix: Prefix) -> u32 {
    let first = prefix.octet(0);
    if first == HANDSHAKE {
        // DTLS 1.0 and 1.2; hellos are in epoch 0.
        let version_epoch = (prefix.0 >> 24) as u32;
        if version_epoch == 0xfeff_0000 || version_epoch == 0xfefd_0000 {
            return by_hello((prefix.1 >> 16) as u8);
        }
        return class::NONE;
    }
    if first & 0xc0 != 0xc0 {
        return class::NONE;
    }
    let initial = match (prefix.0 >> 24) as u32 {
        // Version 1, and drafts of it that were in wide use.
        1 | 0xff00_0000..=0xff00_00ff => 0,
        // Version 2 has other numbers for the types.
        0x6b33_43cf => 1,
        _ => return class::NONE,
    };
    if first >> 4 & 3 == initial { class::QUIC } else { class::NONE }
}

const fn by_hello(kind: u8) -> u32 {
    match kind {
        CLIENT_HELLO => class::TLS_CLIENT,
        SERVER_HELLO => class::TLS_SERVER,
        _ => class::NONE,
    }
}

/// Whether a payload begins as a request: the first four octets of its method and the space behind it.
const fn is_request(start: u32) -> bool {
    const METHODS: [u32; 8] = [
        u32::from_be_bytes(*b"GET "),
        u32::from_be_bytes(*b"POST"),
        u32::from_be_bytes(*b"HEAD"),
        u32::from_be_bytes(*b"PUT "),
        u32::from_be_bytes(*b"DELE"),
        u32::from_be_bytes(*b"OPTI"),
        u32::from_be_bytes(*b"PATC"),
        u32::from_be_bytes(*b"CONN"),
    ];
    let mut place = 0;
    while place < METHODS.len() {
        if METHODS[place] == start {
            return true;
        }
        place += 1;
    }
    false
}

/// How long a `ClientHello` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// It ends in this segment, or is longer than anybody's.
    Whole,
    /// It goes on for up to so many octets from the start of this segment's payload.
    GoesOn(u32),
}

/// What is left of a `ClientHello` that a segment of `payload` octets begins with.
#[inline(always)]
#[must_use]
pub const fn hello(prefix: Prefix, payload: u32) -> Hello {
    /// A hello with post-quantum keys takes 2 KiB. More than this is not one that anybody reads.
    const MAX_HELLO: u32 = 16_384;
    /// Headers of the record and the handshake message, and of further records where it is split over several.
    const HEADERS: u32 = 9;
    const MORE_RECORDS: u32 = 64;
    let octets = (((prefix.0 & 0xffff) << 8) | (prefix.1 >> 56)) as u32;
    if octets > MAX_HELLO || octets + HEADERS <= payload {
        return Hello::Whole;
    }
    let record = (prefix.0 >> 24) as u16 as u32;
    let more = if record < octets { MORE_RECORDS } else { 0 };
    Hello::GoesOn(octets + HEADERS + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(bytes: &[u8]) -> Prefix {
        let mut padded = [0; 16];
        padded[..bytes.len()].copy_from_slice(bytes);
        prefix(&Window::new(&padded)).expect("sixteen octets")
    }

    #[test]
    fn hellos_are_told_by_their_record_and_message() {
        let tls = |version: u8, kind: u8| start(&[22, 3, version, 2, 0, kind, 0, 1, 252, 3, 3]);
        assert_eq!(of_segment(tls(1, 1)), class::TLS_CLIENT);
        assert_eq!(of_segment(tls(3, 2)), class::TLS_SERVER);
        assert_eq!(of_segment(tls(3, 11)), class::NONE, "a certificate");
        assert_eq!(of_segment(tls(9, 1)), class::NONE, "no such version");
        assert_eq!(of_segment(start(&[22, 3, 1, 0xff, 0, 1])), class::NONE, "no such record");
        assert_eq!(of_segment(start(&[23, 3, 3, 2, 0, 1])), class::NONE, "application data");
        let dtls = |epoch: u8| start(&[22, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0, 0, 99, 1]);
        assert_eq!((of_datagram(dtls(0)), of_datagram(dtls(1))), (class::TLS_CLIENT, class::NONE));
    }

    #[test]
    fn quic_is_told_by_version_and_type() {
        assert_eq!(of_datagram(start(&[0xc3, 0, 0, 0, 1, 8])), class::QUIC);
        assert_eq!(of_datagram(start(&[0xe3, 0, 0, 0, 1, 8])), class::NONE, "a handshake packet");
        assert_eq!(of_datagram(start(&[0xd3, 0x6b, 0x33, 0x43, 0xcf, 8])), class::QUIC);
        assert_eq!(of_datagram(start(&[0xcd, 0xff, 0, 0, 29, 8])), class::QUIC);
        assert_eq!(of_datagram(start(&[0x43, 0, 0, 0, 1, 8])), class::NONE, "a short header");
        assert_eq!(of_datagram(start(&[0xc3, 0x1a, 0x2a, 0x3a, 0x4a])), class::NONE, "a version nobody has");
    }

    #[test]
    fn requests_are_told_by_their_method() {
        for request in ["GET / HTTP/1.1", "POST /x", "CONNECT a:443", "OPTIONS *"] {
            assert_eq!(of_segment(start(request.as_bytes())), class::HTTP, "{request}");
        }
        for other in ["HTTP/1.1 200 OK", "get / HTTP/1.1", "220 smtp", ""] {
            assert_eq!(of_segment(start(other.as_bytes())), class::NONE, "{other}");
        }
    }

    #[test]
    fn a_hello_says_how_long_it_is() {
        let of = |record: u16, octets: u16, payload| {
            let ([a, b], [c, d]) = (record.to_be_bytes(), octets.to_be_bytes());
            hello(start(&[22, 3, 1, a, b, 1, 0, c, d, 3, 3]), payload)
        };
        assert_eq!(of(512, 508, 517), Hello::Whole);
        assert_eq!(of(512, 508, 516), Hello::GoesOn(517));
        assert_eq!(of(512, 1800, 517), Hello::GoesOn(1800 + 9 + 64), "split over records as well");
        assert_eq!(of(512, u16::MAX, 517), Hello::Whole, "longer than any");
    }
}
