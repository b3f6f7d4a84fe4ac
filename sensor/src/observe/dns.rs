//! DNS (RFC 1035), multicast DNS (RFC 6762) and LLMNR (RFC 4795).
//!
//! Read lazily by `domain`: what stands before a malformed record is kept, and the message says that it was not
//! whole. Compression pointers only lead backwards there, and a name ends at 255 octets; the number of records
//! and of cleaned octets is bounded here, so that a message that names one long name a thousand times stays
//! small.

use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::name::{Label, ParsedName};
use domain::base::question::Question as WireQuestion;
use domain::base::record::RecordHeader;
use domain::dep::octseq::Parser;
use serde::Serialize;

use super::cursor::Cursor;
use super::text::{self, Name};

/// Which of the three protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsKind {
    Dns,
    Mdns,
    Llmnr,
}

/// A query or a response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Dns {
    pub kind: DnsKind,
    pub id: u16,
    pub response: bool,
    pub opcode: u8,
    pub rcode: u8,
    pub truncated: bool,
    pub questions: Vec<Question>,
    pub answers: Vec<Answer>,
    /// Whether questions and answers were read to their end.
    pub complete: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Question {
    pub name: Name,
    pub kind: u16,
    pub class: u16,
}

/// A record of the answer section.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Answer {
    pub name: Name,
    pub kind: u16,
    /// In multicast DNS the highest bit says that it replaces what is cached.
    pub class: u16,
    pub ttl_s: u32,
    #[serde(flatten)]
    pub data: Rdata,
}

/// The record data that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rdata {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(Name),
    Dname(Name),
    Ns(Name),
    Ptr(Name),
    Mx(Name),
    /// Of the first name server.
    Soa(Name),
    Srv {
        target: Name,
        port: u16,
    },
    /// Priority and target of SVCB and HTTPS records (RFC 9460); 0 is an alias.
    Svcb {
        priority: u16,
        target: Name,
    },
    /// The strings of a text record, one after the other: DNS-SD puts its keys here.
    Txt(Vec<String>),
    /// A type whose data is not kept, or data that is malformed.
    #[serde(untagged)]
    Other {},
}

/// Questions that are read of a message; all software asks one, multicast DNS some dozens.
const MAX_QUESTIONS: usize = 64;
/// Answers that are read of a message.
const MAX_ANSWERS: usize = 512;
/// Octets of cleaned names and texts of one message.
const MAX_OCTETS: usize = 64 << 10;
/// Strings of a text record.
const MAX_STRINGS: usize = 32;

const HEADER_OCTETS: usize = 12;

/// Reads a message. `None` where not even its identifier and flags are there.
pub(super) fn read(kind: DnsKind, bytes: &[u8]) -> Option<Dns> {
    let mut header = Cursor::new(bytes);
    let (id, flags) = (header.u16()?, header.u16()?);
    let mut message = Dns {
        kind,
        id,
        response: flags & 0x8000 != 0,
        opcode: (flags >> 11 & 0xf) as u8,
        rcode: (flags & 0xf) as u8,
        truncated: flags & 0x0200 != 0,
        questions: Vec::new(),
        answers: Vec::new(),
        complete: false,
    };
    let counts = header.u16().zip(header.u16());
    let mut parser = Parser::from_ref(bytes);
    if let (Some((questions, answers)), Ok(())) = (counts, parser.advance(HEADER_OCTETS)) {
        message.complete = sections(&mut parser, &mut message, questions, answers).is_some();
    }
    Some(message)
}

/// Whether `bytes` look like a message and not like a part of one: of a stream whose start was not seen.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_OCTETS
        && read(DnsKind::Dns, bytes).is_some_and(|message| {
            message.opcode <= 6 && message.questions.len() <= 1 && (message.complete || message.truncated)
        })
}

/// Reads a message on a port that is not DNS's own, where tunnels and odd resolvers speak it: only what cannot
/// well be anything else: one question of the Internet's class about an ordinary name, and nothing behind it that
/// does not fit.
pub(super) fn on_any_port(bytes: &[u8]) -> Option<Dns> {
    /// The bit that RFC 1035 keeps at zero.
    const RESERVED_BIT: u8 = 0x40;
    const MAX_RECORDS: u8 = 63;
    // Most datagrams of strangers end here: the counts are small, and there is one question.
    let [_, _, flags, more_flags, 0, 1, 0, answers, 0, authority, 0, additional, rest @ ..] = bytes else {
        return None;
    };
    let query = flags & 0x80 == 0;
    let sane = flags & 0x78 == 0
        && more_flags & RESERVED_BIT == 0
        && [answers, authority, additional].iter().all(|count| **count <= MAX_RECORDS)
        && (!query || *answers == 0 && more_flags & 0x8f == 0)
        && rest.len() >= 5;
    let message = sane.then(|| read(DnsKind::Dns, bytes)).flatten()?;
    let ordinary = |name: &Name| {
        !name.is_root()
            && name
                .as_str()
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let question = message.questions.first()?;
    let to_the_point =
        message.response && message.answers.first().is_some_and(|first| first.name == question.name);
    ((message.complete || to_the_point) && question.class == 1 && ordinary(&question.name)).then_some(message)
}

fn sections(parser: &mut Parser<'_, [u8]>, message: &mut Dns, questions: u16, answers: u16) -> Option<()> {
    let mut left = MAX_OCTETS;
    for _ in 0..questions {
        let question = WireQuestion::<ParsedName<&[u8]>>::parse(parser).ok()?;
        let name = bounded(&mut left, name(question.qname()))?;
        if message.questions.len() == MAX_QUESTIONS {
            return None;
        }
        message.questions.push(Question {
            name,
            kind: question.qtype().to_int(),
            class: question.qclass().to_int(),
        });
    }
    for _ in 0..answers {
        let header = RecordHeader::parse_ref(parser).ok()?;
        let owner = bounded(&mut left, name(header.owner()))?;
        // What is there of data that is cut short may still be whole of itself.
        let octets = usize::from(header.rdlen());
        let there = octets.min(parser.remaining());
        let mut rdata = parser.parse_parser(there).ok()?;
        let kind = header.rtype().to_int();
        let data = rdata_of(kind, &mut rdata, &mut left).unwrap_or(Rdata::Other {});
        if message.answers.len() == MAX_ANSWERS {
            return None;
        }
        message.answers.push(Answer {
            name: owner,
            kind,
            class: header.class().to_int(),
            ttl_s: header.ttl().as_secs(),
            data,
        });
        if there < octets {
            return None;
        }
    }
    Some(())
}

/// The data of a record, whose end is the parser's.
fn rdata_of(kind: u16, rdata: &mut Parser<'_, [u8]>, left: &mut usize) -> Option<Rdata> {
    let mut target = |rdata: &mut Parser<'_, [u8]>| {
        let parsed = ParsedName::parse_ref(rdata).ok()?;
        bounded(left, name(&parsed))
    };
    Some(match kind {
        1 => {
            let mut octets = [0; 4];
            rdata.parse_buf(&mut octets).ok()?;
            Rdata::A(octets.into())
        }
        28 => {
            let mut octets = [0; 16];
            rdata.parse_buf(&mut octets).ok()?;
            Rdata::Aaaa(octets.into())
        }
        2 => Rdata::Ns(target(rdata)?),
        5 => Rdata::Cname(target(rdata)?),
        6 => Rdata::Soa(target(rdata)?),
        12 => Rdata::Ptr(target(rdata)?),
        15 => {
            rdata.parse_u16_be().ok()?;
            Rdata::Mx(target(rdata)?)
        }
        16 => {
            let mut strings = Vec::new();
            while let Ok(octets) = rdata.parse_u8() {
                let octets = usize::from(octets).min(rdata.remaining());
                let string = text::clean(rdata.peek(octets).ok()?);
                rdata.advance(octets).ok()?;
                *left = left.checked_sub(string.len())?;
                if strings.len() < MAX_STRINGS {
                    strings.push(string);
                }
            }
            Rdata::Txt(strings)
        }
        33 => {
            rdata.parse_u32_be().ok()?;
            let port = rdata.parse_u16_be().ok()?;
            Rdata::Srv { port, target: target(rdata)? }
        }
        39 => Rdata::Dname(target(rdata)?),
        64 | 65 => {
            let priority = rdata.parse_u16_be().ok()?;
            Rdata::Svcb { priority, target: target(rdata)? }
        }
        _ => Rdata::Other {},
    })
}

fn name<Octets: AsRef<[u8]>>(parsed: &ParsedName<Octets>) -> Name {
    Name::from_labels(parsed.iter().filter(|label| !label.is_root()).map(Label::as_slice))
}

fn bounded(left: &mut usize, name: Name) -> Option<Name> {
    *left = left.checked_sub(name.as_str().len())?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(questions: u16, answers: u16) -> Vec<u8> {
        let [q, a] = [questions.to_be_bytes(), answers.to_be_bytes()];
        vec![0, 7, 0x81, 0x80, q[0], q[1], a[0], a[1], 0, 0, 0, 0]
    }

    #[test]
    fn what_stands_before_a_malformed_record_is_kept() {
        let mut bytes = header(1, 2);
        bytes.extend_from_slice(b"\x03www\x07example\0\0\x01\0\x01");
        bytes.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
        bytes.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\xff");
        let message = read(DnsKind::Dns, &bytes).expect("a header");
        assert!(!message.complete);
        assert_eq!(message.questions[0].name.as_str(), "www.example");
        assert_eq!(message.answers.len(), 2);
        assert_eq!(message.answers[1].data, Rdata::Other {});
        assert_eq!(message.answers[0].data, Rdata::A(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn pointers_that_loop_end_the_message() {
        for pointer in [b"\xc0\x0c".as_slice(), b"\xc0\x0d", b"\xc0\xff", b"\x01a\xc0\x0c", b"\x40a", b"\x80"]
        {
            let mut bytes = header(1, 0);
            bytes.extend_from_slice(pointer);
            bytes.extend_from_slice(b"\0\x01\0\x01");
            let message = read(DnsKind::Mdns, &bytes).expect("a header");
            assert!(!message.complete && message.questions.is_empty(), "{pointer:x?}");
        }
    }

    #[test]
    fn a_compression_bomb_stays_small() {
        // I6: one name of 250 octets, and answers that are that name by a pointer.
        let mut bytes = header(1, 5000);
        for _ in 0..4 {
            bytes.push(61);
            bytes.extend_from_slice(&[0x1b; 61]);
        }
        bytes.extend_from_slice(b"\0\0\x01\0\x01");
        for _ in 0..5000 {
            bytes.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c");
        }
        let message = read(DnsKind::Dns, &bytes).expect("a header");
        assert!(!message.complete);
        let octets: usize = message.answers.iter().map(|answer| answer.name.as_str().len()).sum();
        assert!(octets <= MAX_OCTETS, "{octets}");
        assert!(message.answers.iter().all(|answer| !answer.name.as_str().contains('\u{1b}')));
    }

    #[test]
    fn a_message_on_a_strange_port_has_to_be_beyond_doubt() {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x03www\x07example\0\0\x01\0\x01");
        assert!(on_any_port(&query).is_some());
        for (at, byte) in [(2, 0x29), (3, 0x40), (5, 2), (7, 1), (15, 0x1b), (query.len() - 1, 7)] {
            let mut other = query.clone();
            other[at] = byte;
            assert_eq!(on_any_port(&other), None, "octet {at}");
        }
        assert_eq!(on_any_port(&query[..query.len() - 1]), None);
    }
}
