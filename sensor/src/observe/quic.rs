//! QUIC's Initial packets (RFC 9000, RFC 9001, RFC 9369, and the drafts before them): the hellos in them.
//!
//! A hello is spread over CRYPTO frames, in any order, over several packets and datagrams. What a connection
//! needs for that is remembered, bounded in connections and octets; the least recently used goes first.

use lru::LruCache;
use std::num::NonZeroUsize;

use super::cursor::Cursor;
use super::hello::{self, Carrier};
use super::pieces::Pieces;
use super::quic_keys::{Dialect, Side};
use super::tls::{Hello, MAX_HELLO};
use crate::kernel::FlowKey;

/// Connections that are remembered. One takes some hundred octets once its hello is read.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");
/// Octets of hellos that are not yet whole, of all connections.
pub(super) const MAX_OCTETS: usize = 4 << 20;
/// Packets in one datagram: Initial, 0-RTT, Handshake, each perhaps twice.
const MAX_COALESCED: usize = 8;
/// Frames of one packet. A client that hides its hello from middleboxes cuts it into some dozens.
const MAX_FRAMES: usize = 1024;

/// A connection, by the flow of its client.
#[derive(Debug)]
struct Connection {
    /// The identifier that the keys come from: where the client's first packet went.
    identifier: Box<[u8]>,
    client: Half,
    server: Half,
}

/// The hello of one side.
#[derive(Debug, Default)]
struct Half {
    pieces: Pieces,
    /// Octets that were read: after a hello another may follow, where the server asked for it anew.
    read: usize,
}

/// All connections whose beginning is remembered.
#[derive(Debug)]
pub(super) struct Connections {
    known: LruCache<FlowKey, Connection, std::hash::RandomState>,
    octets: usize,
    /// Connections that were given up for want of room before a hello was whole.
    forgotten: u64,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            known: LruCache::with_hasher(MAX_CONNECTIONS, std::hash::RandomState::new()),
            octets: 0,
            forgotten: 0,
        }
    }
}

/// The header of an Initial packet.
struct Initial<'a> {
    version: u32,
    dialect: Dialect,
    destination: &'a [u8],
    /// The packet alone, and where its number begins.
    packet: &'a [u8],
    number_at: usize,
}

const LONG_HEADER: u8 = 0x80;
/// Connection identifiers have at most 20 octets in every version that is read.
const MAX_IDENTIFIER: usize = 20;

/// Whether a datagram begins like a packet of a version that is read.
pub(super) fn is_quic(datagram: &[u8]) -> bool {
    let mut cursor = Cursor::new(datagram);
    cursor.u8().is_some_and(|first| first & LONG_HEADER != 0)
        && cursor.u32().and_then(Dialect::of).is_some()
        && cursor.prefixed8().is_some_and(|identifier| identifier.rest().len() <= MAX_IDENTIFIER)
}

impl Connections {
    /// Octets that wait.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Hellos that were given up for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Reads a datagram; hellos that are whole with it go to `found`.
    pub(super) fn datagram(&mut self, flow: &FlowKey, datagram: &[u8], found: &mut impl FnMut(Hello)) {
        let mut rest = datagram;
        for _ in 0..MAX_COALESCED {
            let Some((initial, after)) = packet(rest) else { break };
            if let Some(initial) = initial
                && let Some(hello) = self.initial(flow, &initial)
            {
                found(hello);
            }
            rest = after;
        }
    }

    /// Reads one Initial packet: a server's if it answers a client that is known, else a client's.
    fn initial(&mut self, flow: &FlowKey, initial: &Initial<'_>) -> Option<Hello> {
        let reverse = flow.reversed();
        for (key, side) in [(flow, Side::Client), (&reverse, Side::Server)] {
            let Some(connection) = self.known.get_mut(key) else { continue };
            let Some(keys) = initial.dialect.keys(side, &connection.identifier) else { continue };
            if let Some(frames) = keys.open(initial.packet, initial.number_at) {
                return self.frames(key, side, initial.version, &frames);
            }
        }
        // A new connection, or one that a Retry sent to another identifier.
        let keys = initial.dialect.keys(Side::Client, initial.destination)?;
        let frames = keys.open(initial.packet, initial.number_at)?;
        let connection = Connection {
            identifier: initial.destination.into(),
            client: Half::default(),
            server: Half::default(),
        };
        if let Some((whose, gone)) = self.known.push(*flow, connection) {
            self.octets -= gone.octets();
            self.forgotten += u64::from(whose != *flow && gone.octets() > 0);
        }
        self.frames(flow, Side::Client, initial.version, &frames)
    }

    fn frames(&mut self, key: &FlowKey, side: Side, version: u32, frames: &[u8]) -> Option<Hello> {
        let connection = self.known.get_mut(key)?;
        let half = match side {
            Side::Client => &mut connection.client,
            Side::Server => &mut connection.server,
        };
        let before = half.pieces.octets();
        let Half { pieces, read } = half;
        // What was inserted before something malformed counts.
        let _ = crypto(frames, |place, bytes| match place.checked_sub(*read) {
            Some(place) => pieces.insert(place, bytes, MAX_HELLO),
            None => pieces.insert(0, bytes.get(*read - place..).unwrap_or_default(), MAX_HELLO),
        });
        let hello = whole(side, version, pieces.front()).map(|(hello, octets)| {
            pieces.consume(octets);
            *read += octets;
            hello
        });
        self.octets = self.octets + half.pieces.octets() - before;
        while self.octets > MAX_OCTETS
            && let Some((_, gone)) = self.known.pop_lru()
        {
            self.octets -= gone.octets();
            self.forgotten += u64::from(gone.octets() > 0);
        }
        hello
    }
}

impl Connection {
    fn octets(&self) -> usize {
        self.client.pieces.octets() + self.server.pieces.octets()
    }
}

/// The hello at the start of a handshake, if it is all there, and its octets.
fn whole(side: Side, version: u32, handshake: &[u8]) -> Option<(Hello, usize)> {
    let mut cursor = Cursor::new(handshake);
    let kind = cursor.u8()?;
    let octets = cursor.u24()? as usize;
    let body = cursor.take(octets)?;
    let hello = match (side, kind) {
        (Side::Client, 1) => hello::client(Carrier::Quic, Some(version), body).map(Hello::Client),
        (Side::Server, 2) => hello::server(Carrier::Quic, body).map(Hello::Server),
        _ => None,
    };
    Some((hello?, 4 + octets))
}

/// The packet at the front of a datagram, if it is an Initial one, and what follows it.
fn packet(datagram: &[u8]) -> Option<(Option<Initial<'_>>, &[u8])> {
    let mut cursor = Cursor::new(datagram);
    let first = cursor.u8().filter(|first| first & LONG_HEADER != 0)?;
    let version = cursor.u32()?;
    let dialect = Dialect::of(version)?;
    let destination = cursor.prefixed8()?.rest();
    let source = cursor.prefixed8()?.rest();
    if destination.len() > MAX_IDENTIFIER || source.len() > MAX_IDENTIFIER {
        return None;
    }
    let initial_type = dialect.initial_type();
    let kind = first >> 4 & 3;
    // A Retry has no length, and nothing follows it.
    if kind == (initial_type + 3) % 4 {
        return None;
    }
    if kind == initial_type {
        let token = number(&mut cursor)?;
        cursor.take(usize::try_from(token).ok()?)?;
    }
    let octets = usize::try_from(number(&mut cursor)?).ok()?;
    let number_at = datagram.len() - cursor.rest().len();
    cursor.take(octets)?;
    let (packet, after) = datagram.split_at(number_at + octets);
    let initial =
        (kind == initial_type).then_some(Initial { version, dialect, destination, packet, number_at });
    Some((initial, after))
}

/// A number of one, two, four or eight octets (RFC 9000, 16).
fn number(cursor: &mut Cursor<'_>) -> Option<u64> {
    let first = cursor.u8()?;
    let rest = cursor.take((1 << (first >> 6)) - 1)?;
    Some(rest.iter().fold(u64::from(first & 0x3f), |number, byte| number << 8 | u64::from(*byte)))
}

/// The CRYPTO frames of an Initial packet, which has but few other kinds.
fn crypto(frames: &[u8], mut piece: impl FnMut(usize, &[u8]) -> bool) -> Option<()> {
    let mut cursor = Cursor::new(frames);
    for _ in 0..MAX_FRAMES {
        // Padding is the bulk of a packet.
        let padding = cursor.rest().iter().take_while(|byte| **byte == 0).count();
        cursor.take(padding)?;
        match number(&mut cursor)? {
            // PING.
            1 => {}
            // ACK, with counts of congestion or without.
            kind @ (2 | 3) => {
                number(&mut cursor)?;
                number(&mut cursor)?;
                let ranges = number(&mut cursor)?;
                number(&mut cursor)?;
                let numbers = ranges.checked_mul(2)?.checked_add(if kind == 3 { 3 } else { 0 })?;
                for _ in 0..numbers {
                    number(&mut cursor)?;
                }
            }
            6 => {
                let place = usize::try_from(number(&mut cursor)?).ok()?;
                let octets = usize::try_from(number(&mut cursor)?).ok()?;
                if !piece(place, cursor.take(octets)?) {
                    return None;
                }
            }
            // CONNECTION_CLOSE, or what may not be here.
            _ => return None,
        }
    }
    Some(())
}
