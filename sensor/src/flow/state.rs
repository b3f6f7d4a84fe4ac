//! What is remembered of a connection from epoch to epoch, and how two directions become one.

use smallvec::SmallVec;
use weir_wire::TcpState;

use super::counted::Choice;
use super::record::Stack;
use super::tcp;
use super::tuple::{Tuple, Way};
use crate::kernel::Listed;

/// Connections of one five-tuple that are told apart by their link stacks. More than a few means invented
/// tags; the oldest lose their memory, not their counts.
const MAX_STACKS: usize = 64;

/// All that is remembered of one five-tuple.
#[derive(Debug)]
pub(super) struct Conversation {
    /// By [`Way`].
    pub(super) choices: [Choice; 2],
    pub(super) connections: SmallVec<[Connection; 1]>,
    /// Last packet seen at all, counted or crossing.
    pub(super) last_ns: i64,
}

impl Default for Conversation {
    fn default() -> Self {
        Self { choices: <[Choice; 2]>::default(), connections: SmallVec::new(), last_ns: i64::MIN }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// By [`Way`]: the link stack under which packets are counted. A routed connection may enter tagged and
    /// answer bare.
    links: [Stack; 2],
    /// By [`Way`]: whether there were any.
    counted: [bool; 2],
    pub(super) initiator: Way,
    pub(super) start_ns: i64,
    pub(super) last_ns: i64,
    /// By [`Way`]: all TCP flags so far.
    flags: [u8; 2],
    /// [`NEVER`] before there was one.
    syn_ns: i64,
    syn_ack_ns: i64,
    rtt_told: bool,
    begun: bool,
}

/// No packet's time: a table of connections is worth the bytes that an `Option` would take.
const NEVER: i64 = i64::MIN;

/// The counted packets of one way and one link stack in one epoch.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) way: Way,
    pub(super) link: u32,
    pub(super) packets: u64,
    pub(super) octets: u64,
    pub(super) first: First,
    pub(super) last_ns: i64,
    pub(super) flags: u8,
    pub(super) fragments: u8,
    pub(super) listed: Listed,
    /// Earliest SYN and SYN-ACK that stood first in a slot.
    pub(super) syn_ns: Option<i64>,
    pub(super) syn_ack_ns: Option<i64>,
}

/// The first packet of a side; ordered, so that ties fall the same way in any order of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct First {
    pub(super) time_ns: i64,
    pub(super) point: u16,
    pub(super) tcp_flags: u8,
    pub(super) icmp_type: u8,
    pub(super) icmp_code: u8,
}

impl Conversation {
    /// The connection to which each side belongs, as an index into `connections`; new ones are made.
    ///
    /// `sides` has at most one entry for a way and a link stack, earliest first.
    pub(super) fn assign(&mut self, sides: &[Side], stacks: &[Stack]) -> SmallVec<[usize; 2]> {
        let stack = |side: &Side| stacks.get(side.link as usize).cloned().unwrap_or_default();
        sides
            .iter()
            .map(|side| {
                let (way, back) = (side.way as usize, side.way.reverse() as usize);
                let link = stack(side);
                let goes = |connection: &Connection, way: usize| {
                    connection.counted[way] && connection.links[way] == link
                };
                // The same link stack both ways, else what no other side of this epoch would fit better.
                let lonely = !sides.iter().any(|other| other.way != side.way && other.link == side.link);
                let found = self
                    .connections
                    .iter()
                    .position(|connection| goes(connection, way))
                    .or_else(|| {
                        self.connections
                            .iter()
                            .position(|connection| !connection.counted[way] && goes(connection, back))
                    })
                    .or_else(|| {
                        let half = self.connections.iter().position(|connection| !connection.counted[way]);
                        half.filter(|_| lonely)
                    });
                let index = found.unwrap_or_else(|| {
                    self.connections.push(Connection::new());
                    self.connections.len() - 1
                });
                self.connections[index].links[way] = link;
                self.connections[index].counted[way] = true;
                index
            })
            .collect()
    }

    /// Forgets the oldest connections beyond what one five-tuple may hold; how many.
    pub(super) fn trim(&mut self) -> usize {
        let excess = self.connections.len().saturating_sub(MAX_STACKS);
        if excess > 0 {
            self.connections.sort_by_key(|connection| connection.last_ns);
            self.connections.drain(..excess);
        }
        excess
    }

    /// Whether all its connections have ended.
    pub(super) fn has_ended(&self) -> bool {
        !self.connections.is_empty()
            && self.connections.iter().all(|connection| tcp::has_ended(connection.state()))
    }
}

impl Connection {
    fn new() -> Self {
        Self {
            links: [None, None],
            counted: [false, false],
            initiator: Way::Up,
            start_ns: 0,
            last_ns: i64::MIN,
            flags: [0, 0],
            syn_ns: NEVER,
            syn_ack_ns: NEVER,
            rtt_told: false,
            begun: false,
        }
    }

    /// Takes in an epoch's sides, by [`Way`]; at least one is there.
    pub(super) fn observe(&mut self, tuple: &Tuple, sides: [Option<&Side>; 2]) {
        let Some(first) = sides.iter().flatten().map(|side| side.first).min() else { return };
        if self.begun && tuple.protocol == tcp::PROTOCOL && self.is_reopened_by(first.tcp_flags) {
            *self = Self { links: std::mem::take(&mut self.links), counted: self.counted, ..Self::new() };
        }
        if !self.begun {
            self.begun = true;
            self.start_ns = first.time_ns;
            self.initiator = initiator(tuple, sides);
        }
        // The clock may have been set back since: no connection begins after one of its packets.
        self.start_ns = self.start_ns.min(first.time_ns);
        for side in sides.into_iter().flatten() {
            self.flags[side.way as usize] |= side.flags;
            self.last_ns = self.last_ns.max(side.last_ns);
        }
        let syn = sides[self.initiator as usize].and_then(|side| side.syn_ns);
        let syn_ack = sides[self.initiator.reverse() as usize].and_then(|side| side.syn_ack_ns);
        if let (NEVER, Some(syn_ns)) = (self.syn_ns, syn) {
            self.syn_ns = syn_ns;
        }
        if let (NEVER, Some(syn_ack_ns)) = (self.syn_ack_ns, syn_ack) {
            self.syn_ack_ns = syn_ack_ns;
        }
    }

    /// A SYN that is not a repetition of the first one: the ports are used again.
    fn is_reopened_by(&self, first_flags: u8) -> bool {
        tcp::is_syn(first_flags)
            && !matches!(self.state(), TcpState::Unknown | TcpState::SynSent | TcpState::SynReceived)
    }

    pub(super) fn state(&self) -> TcpState {
        tcp::state(self.flags[self.initiator as usize], self.flags[self.initiator.reverse() as usize])
    }

    /// Microseconds from SYN to SYN-ACK, the first time that both are known.
    pub(super) fn take_rtt(&mut self) -> Option<u32> {
        if self.rtt_told || self.syn_ns == NEVER || self.syn_ack_ns < self.syn_ns {
            return None;
        }
        self.rtt_told = true;
        u32::try_from(self.syn_ack_ns.abs_diff(self.syn_ns) / 1_000).ok()
    }
}

/// Who began: by SYN, else by time, else the end with the higher port, since servers listen on low ones.
fn initiator(tuple: &Tuple, sides: [Option<&Side>; 2]) -> Way {
    let began = |way: Way| sides[way as usize].and_then(|side| side.syn_ns);
    let answered = |way: Way| sides[way as usize].is_some_and(|side| side.syn_ack_ns.is_some());
    match (began(Way::Up), began(Way::Down)) {
        (Some(_), None) => return Way::Up,
        (None, Some(_)) => return Way::Down,
        (Some(up), Some(down)) if up != down => return if up < down { Way::Up } else { Way::Down },
        _ => {}
    }
    match (answered(Way::Up), answered(Way::Down)) {
        (true, false) => return Way::Down,
        (false, true) => return Way::Up,
        _ => {}
    }
    let first = |way: Way| sides[way as usize].map_or(i64::MAX, |side| side.first.time_ns);
    match first(Way::Up).cmp(&first(Way::Down)) {
        std::cmp::Ordering::Greater => Way::Down,
        std::cmp::Ordering::Equal if tuple.low.port < tuple.high.port => Way::Down,
        std::cmp::Ordering::Less | std::cmp::Ordering::Equal => Way::Up,
    }
}
