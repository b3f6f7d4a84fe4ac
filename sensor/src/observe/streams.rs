//! The beginnings of TCP streams: hellos, request heads and DNS messages that take several segments.
//!
//! A direction of a connection is remembered from its SYN, or else from a segment that begins like something
//! that is read: a capture or a sensor that starts in the middle finds what begins at a segment's start. What is
//! remembered is bounded in streams and octets, the least recently used goes first. Retransmissions are read
//! once; segments out of order wait, as long as the bounds allow.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::dns::{self, Dns, DnsKind};
use super::http::{self, Http, Progress};
use super::pieces::Pieces;
use super::tls::{self, Hello};
use crate::kernel::FlowKey;

/// Directions that are remembered.
const MAX_STREAMS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Octets that wait, of all streams.
pub(super) const MAX_OCTETS: usize = 4 << 20;
/// Octets that wait of one stream: a DNS message and its length.
const MAX_STREAM: usize = 2 + 65_535;
/// Octets of a request's head; servers accept 8 to 16 KiB.
const MAX_HEAD: usize = 16 << 10;
/// Messages of one stream that are read at once.
const MAX_MESSAGES: usize = 64;

const DNS: u16 = 53;

/// What a stream said.
pub(super) enum Said {
    Hello(Hello),
    Request(Http),
    Dns(Dns),
}

/// A segment with its payload.
pub(super) struct Segment<'a> {
    pub sequence: u32,
    pub opens: bool,
    pub payload: &'a [u8],
}

#[derive(Debug, Default)]
struct Stream {
    /// Of the first octet that is not read yet.
    next: u32,
    pieces: Pieces,
}

/// All streams whose beginning is remembered.
#[derive(Debug)]
pub(super) struct Streams {
    known: LruCache<FlowKey, Stream, std::hash::RandomState>,
    octets: usize,
    /// Streams that were given up for want of room before they were whole.
    forgotten: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            known: LruCache::with_hasher(MAX_STREAMS, std::hash::RandomState::new()),
            octets: 0,
            forgotten: 0,
        }
    }
}

impl Streams {
    /// Octets that wait.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Beginnings that were given up for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes a segment; what is whole with it goes to `found`.
    pub(super) fn segment(&mut self, flow: &FlowKey, segment: &Segment<'_>, found: &mut impl FnMut(Said)) {
        let is_dns = flow.src_port == DNS || flow.dst_port == DNS;
        let sequence = segment.sequence.wrapping_add(u32::from(segment.opens));
        if segment.opens {
            self.put(flow, Stream { next: sequence, pieces: Pieces::default() });
        }
        if segment.payload.is_empty() {
            return;
        }
        let begins = begins(is_dns, segment.payload);
        let Some(stream) = self.known.get_mut(flow) else {
            if begins {
                self.put(flow, Stream { next: sequence, pieces: Pieces::default() });
                self.insert(flow, 0, segment.payload, is_dns, found);
            }
            return;
        };
        let ahead = sequence.wrapping_sub(stream.next) as i32;
        if ahead > 0 && (stream.pieces.is_empty() && begins || ahead as usize > MAX_STREAM) {
            // Segments were lost, or not handed over: begin anew, if this is a beginning.
            if begins {
                self.put(flow, Stream { next: sequence, pieces: Pieces::default() });
                self.insert(flow, 0, segment.payload, is_dns, found);
            }
            return;
        }
        let Ok(place) = usize::try_from(ahead) else {
            // Some of it was read before.
            let old = ahead.unsigned_abs() as usize;
            if let Some(new) = segment.payload.get(old..).filter(|new| !new.is_empty()) {
                self.insert(flow, 0, new, is_dns, found);
            }
            return;
        };
        self.insert(flow, place, segment.payload, is_dns, found);
    }

    fn put(&mut self, flow: &FlowKey, stream: Stream) {
        if let Some((whose, gone)) = self.known.push(*flow, stream) {
            self.octets -= gone.pieces.octets();
            // One that begins anew is not given up.
            self.forgotten += u64::from(whose != *flow && !gone.pieces.is_empty());
        }
    }

    fn insert(
        &mut self,
        flow: &FlowKey,
        place: usize,
        bytes: &[u8],
        is_dns: bool,
        found: &mut impl FnMut(Said),
    ) {
        let Some(stream) = self.known.get_mut(flow) else { return };
        let before = stream.pieces.octets();
        if place == 0 && stream.pieces.is_empty() {
            // The usual case: a message in one segment, of which nothing is kept.
            let read = read(is_dns, bytes, found);
            match read {
                Read::UpTo(octets) => {
                    stream.next = stream.next.wrapping_add(octets as u32);
                    stream.pieces.insert(0, &bytes[octets..], MAX_STREAM);
                }
                Read::Nothing => stream.next = stream.next.wrapping_add(bytes.len() as u32),
            }
        } else {
            if !stream.pieces.insert(place, bytes, MAX_STREAM) {
                stream.pieces = Pieces::default();
            }
            match read(is_dns, stream.pieces.front(), found) {
                Read::UpTo(octets) => {
                    stream.next = stream.next.wrapping_add(octets as u32);
                    stream.pieces.consume(octets);
                }
                Read::Nothing => {
                    stream.next = stream.next.wrapping_add(stream.pieces.front().len() as u32);
                    stream.pieces = Pieces::default();
                }
            }
        }
        self.octets = self.octets + stream.pieces.octets() - before;
        while self.octets > MAX_OCTETS
            && let Some((_, gone)) = self.known.pop_lru()
        {
            self.octets -= gone.pieces.octets();
            self.forgotten += u64::from(!gone.pieces.is_empty());
        }
    }
}

/// Whether a payload begins like something that is read.
fn begins(is_dns: bool, payload: &[u8]) -> bool {
    if is_dns {
        return match payload {
            // RFC 7766: the length may come alone, though it should not.
            [_, _] => true,
            [high, low, message @ ..] => {
                let octets = usize::from(*high) << 8 | usize::from(*low);
                dns::is_plausible(&message[..octets.min(message.len())])
                    || octets > message.len() && octets >= 12
            }
            _ => false,
        };
    }
    tls::is_hello(payload) || http::is_request(payload)
}

/// How far a stream was read.
enum Read {
    /// So many octets; the rest waits for more.
    UpTo(usize),
    /// It goes on with what is not read.
    Nothing,
}

/// Reads all messages at the front of a stream.
fn read(is_dns: bool, bytes: &[u8], found: &mut impl FnMut(Said)) -> Read {
    let mut at = 0;
    for _ in 0..MAX_MESSAGES {
        let rest = &bytes[at..];
        if rest.is_empty() {
            return Read::UpTo(at);
        }
        let progress = if is_dns {
            dns_message(rest)
        } else if tls::is_hello(rest) {
            match tls::read(rest) {
                Progress::Done(hello, octets) => Progress::Done(Said::Hello(hello), octets),
                Progress::More if rest.len() < tls::MAX_HELLO => Progress::More,
                _ => Progress::Other,
            }
        } else if http::is_request(rest) {
            match http::read(rest) {
                Progress::Done(head, octets) => Progress::Done(Said::Request(head), octets),
                Progress::More if rest.len() < MAX_HEAD => Progress::More,
                _ => Progress::Other,
            }
        } else if at > 0 && http::may_become_request(rest) {
            // The next of several requests, cut within its method.
            Progress::More
        } else {
            Progress::Other
        };
        match progress {
            Progress::Done(said, octets) => {
                found(said);
                at += octets;
            }
            Progress::More => return Read::UpTo(at),
            Progress::Other => return Read::Nothing,
        }
    }
    Read::Nothing
}

/// A message behind its length (RFC 1035, 4.2.2).
fn dns_message(bytes: &[u8]) -> Progress<Said> {
    let [high, low, rest @ ..] = bytes else { return Progress::More };
    let octets = usize::from(*high) << 8 | usize::from(*low);
    let Some(message) = rest.get(..octets) else { return Progress::More };
    match dns::read(DnsKind::Dns, message) {
        Some(message) => Progress::Done(Said::Dns(message), 2 + octets),
        None => Progress::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn flow(port: u16) -> FlowKey {
        let address = |last: u8| Ipv4Addr::new(192, 0, 2, last).into();
        FlowKey { src: address(1), dst: address(2), protocol: 6, src_port: port, dst_port: 80 }
    }

    /// Hosts of the requests that segments are read as; a segment is a place in the stream, and whether it has
    /// a SYN. The first octet has the highest sequence number there is, so they wrap.
    fn hosts(stream: &[u8], segments: &[(usize, usize, bool)]) -> Vec<String> {
        let mut streams = Streams::default();
        let mut found = Vec::new();
        for &(start, end, opens) in segments {
            let sequence = u32::MAX.wrapping_add(start as u32).wrapping_sub(u32::from(opens));
            let segment = Segment { sequence, opens, payload: &stream[start..end] };
            streams.segment(&flow(50_000), &segment, &mut |said| {
                if let Said::Request(head) = said {
                    found.push(head.host.map(|host| host.to_string()).unwrap_or_default());
                }
            });
        }
        found
    }

    const TWO: &[u8] = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n";

    #[test]
    fn segments_in_any_order_and_twice_are_read_once() {
        let end = TWO.len();
        assert_eq!(hosts(TWO, &[(0, end, false)]), ["a", "b"]);
        assert_eq!(hosts(TWO, &[(0, 3, false), (3, 30, false), (30, end, false)]), ["a", "b"]);
        // With the SYN, the first segment may come last.
        assert_eq!(hosts(TWO, &[(0, 0, true), (30, end, false), (3, 30, false), (0, 3, false)]), ["a", "b"]);
        // Whole and partial repetitions.
        assert_eq!(
            hosts(TWO, &[(0, 40, false), (0, 40, false), (20, end, false), (0, end, false)]),
            ["a", "b"]
        );
        // What is missing in the middle is not made up; a later beginning is one.
        assert_eq!(hosts(TWO, &[(0, 10, false), (20, 28, false)]), Vec::<String>::new());
        assert_eq!(hosts(TWO, &[(0, 28, false), (28, end, false)]), ["a", "b"]);
    }

    #[test]
    fn a_flood_of_beginnings_is_bounded() {
        let mut streams = Streams::default();
        // A head that goes on, and a hello that claims the most.
        let head = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 9000]].concat();
        let hello = [[22, 3, 1, 0x40, 0, 1, 0, 0x7f, 0xff, 3, 3].as_slice(), &[0; 9000]].concat();
        for port in 0..20_000 {
            let payload = if port % 2 == 0 { &head } else { &hello };
            let segment = Segment { sequence: 7, opens: false, payload };
            streams.segment(&flow(port), &segment, &mut |_| panic!("nothing is whole"));
            assert!(streams.octets <= MAX_OCTETS && streams.known.len() <= MAX_STREAMS.get());
        }
        let held: usize = streams.known.iter().map(|(_, stream)| stream.pieces.octets()).sum();
        assert_eq!(streams.octets, held);
        assert!(held > 0);
        let waiting = streams.known.iter().filter(|(_, stream)| !stream.pieces.is_empty()).count() as u64;
        // From port 53 it would have been DNS.
        assert_eq!(streams.forgotten() + waiting, 20_000 - 1, "each is there or counted");
    }
}
