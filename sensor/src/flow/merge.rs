//! The merge itself: observations sorted by five-tuple, one conversation after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use weir_wire::{Direction, EndReason, TcpState};

use super::counted::Sight;
use super::record::{Merged, Part, Record, Stack};
use super::state::{Conversation, First, Side};
use super::tcp;
use super::tuple::{Tuple, Way};
use crate::kernel::{Drained, FlowObservation, Listed, PointTotals, fragment};

/// Observations in one part, more only where one five-tuple has more. Each makes one record at most, so that
/// a part has at most half of the records that the wire allows: a part being packed is the largest thing that
/// a busy sensor holds. A single five-tuple's records are bounded by the link stacks that the kernel
/// programs tell apart, 8,192, and the two ways.
pub const PART_OBSERVATIONS: usize = weir_wire::limits::MAX_RECORDS / 2;

/// How much is remembered between epochs, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections; beyond it the longest silent are forgotten. Their counts are not.
    pub connections: usize,
    /// After this silence the next packet begins a new connection.
    pub idle_timeout: Duration,
    /// The same for connections that have ended.
    pub closed_timeout: Duration,
}

/// Owns the connection table.
pub struct Merger {
    limits: Limits,
    conversations: HashMap<Tuple, Conversation>,
    connections: usize,
    /// [`PART_OBSERVATIONS`], but in tests.
    part_observations: usize,
}

/// Memory of one conversation with one connection.
#[cfg(test)]
pub(super) const REMEMBERED_BYTES: usize = size_of::<(Tuple, Conversation)>();

/// One observation's place in the sort.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    tuple: Tuple,
    way: Way,
    /// Index into the epoch's distinct stacks.
    link: u32,
    observation: u32,
}

/// An observation that does not count, and where it was.
struct Crossing {
    way: Way,
    link: u32,
    first_ns: i64,
    point: u16,
}

/// What is built up for one conversation; reused from one to the next.
#[derive(Default)]
struct Scratch {
    sights: Vec<Sight>,
    sides: Vec<Side>,
    crossings: Vec<Crossing>,
}

impl Merger {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let part_observations = PART_OBSERVATIONS;
        Self { limits, conversations: HashMap::new(), connections: 0, part_observations }
    }

    /// With parts small enough for a test to have several.
    #[cfg(test)]
    pub(super) fn cut_at(self, part_observations: usize) -> Self {
        Self { part_observations, ..self }
    }

    /// Other bounds from the next epoch on; nothing is counted differently.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Connections remembered now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Takes an epoch in and yields its records.
    pub fn merge(&mut self, drained: Drained) -> Merged {
        let Drained {
            epoch,
            window_start_ns,
            window_end_ns,
            sampling_interval,
            points,
            links,
            flows,
            figures,
        } = drained;
        let (stacks, link_of) = distinct_stacks(links);
        let mut places: Vec<Place> = flows
            .iter()
            .enumerate()
            .map(|(index, flow)| {
                let (tuple, way) = Tuple::of(&flow.key);
                let link = link_of.get(flow.link as usize).copied().unwrap_or(0);
                Place { tuple, way, link, observation: index as u32 }
            })
            .collect();
        places.sort_unstable();
        let mut merged = Merged {
            epoch,
            window_start_ns,
            window_end_ns,
            sampling_interval,
            points: Vec::new(),
            // More than enough: what is not written to is not resident.
            records: Vec::with_capacity(places.len()),
            parts: Vec::new(),
            crossing_packets: 0,
            crossing_octets: 0,
            figures,
            evicted: 0,
        };
        let mut scratch = Scratch::default();
        let (mut observations, mut part) = (0, Part::default());
        for places in places.chunk_by(|a, b| a.tuple == b.tuple) {
            if observations > 0 && observations + places.len() > self.part_observations {
                merged.parts.push(std::mem::take(&mut part));
                observations = 0;
            }
            observations += places.len();
            let (records, packets, octets) =
                (merged.records.len(), merged.crossing_packets, merged.crossing_octets);
            self.converse(places, &flows, &points, &stacks, &mut scratch, &mut merged);
            part.records += merged.records.len() - records;
            part.crossing_packets += merged.crossing_packets - packets;
            part.crossing_octets += merged.crossing_octets - octets;
        }
        merged.parts.push(part);
        merged.points = points;
        merged.evicted += self.forget(window_end_ns);
        merged
    }

    /// One five-tuple's observations: choose what counts, join the directions, write the records.
    fn converse(
        &mut self,
        places: &[Place],
        flows: &[FlowObservation],
        points: &[PointTotals],
        stacks: &[Stack],
        scratch: &mut Scratch,
        merged: &mut Merged,
    ) {
        let Some(tuple) = places.first().map(|place| place.tuple) else { return };
        let conversation = self.conversations.entry(tuple).or_default();
        scratch.sides.clear();
        scratch.crossings.clear();
        for places in places.chunk_by(|a, b| a.way == b.way) {
            let choice = &mut conversation.choices[places[0].way as usize];
            let observed = || places.iter().map(|place| (place, &flows[place.observation as usize]));
            scratch.sights.clear();
            for (_, flow) in observed() {
                sight(&mut scratch.sights, flow, points);
                conversation.last_ns = conversation.last_ns.max(flow.last_ns);
            }
            choice.settle(&scratch.sights);
            for (place, flow) in observed() {
                if choice.counts(flow.point) {
                    count(&mut scratch.sides, place, flow);
                } else {
                    merged.crossing_packets += flow.packets;
                    merged.crossing_octets += flow.octets;
                    let crossing = Crossing {
                        way: place.way,
                        link: place.link,
                        first_ns: flow.first_ns,
                        point: flow.point,
                    };
                    scratch.crossings.push(crossing);
                }
            }
        }
        scratch.sides.sort_unstable_by_key(|side| (side.first, side.way, side.link));
        scratch.crossings.sort_unstable_by_key(|crossing| (crossing.first_ns, crossing.point));

        let before = conversation.connections.len();
        let assigned = conversation.assign(&scratch.sides, stacks);
        for (index, connection) in conversation.connections.iter_mut().enumerate() {
            let side = |way: Way| {
                let mut mine =
                    scratch.sides.iter().zip(&assigned).filter(|(_, assigned)| **assigned == index);
                mine.find(|(side, _)| side.way == way).map(|(side, _)| side)
            };
            let sides = Way::BOTH.map(side);
            if sides.iter().all(Option::is_none) {
                continue;
            }
            connection.observe(&tuple, sides);
            let (forward, reverse) = (connection.initiator, connection.initiator.reverse());
            let (initiated, answered) = (sides[forward as usize], sides[reverse as usize]);
            let Some(leading) = initiated.or(answered) else { continue };
            let is_tcp = tuple.protocol == tcp::PROTOCOL;
            let tcp_state = if is_tcp { connection.state() } else { TcpState::Unknown };
            merged.records.push(Record {
                key: tuple.key(forward),
                link: stacks.get(leading.link as usize).cloned().unwrap_or_default(),
                packets: initiated.map_or(0, |side| side.packets),
                octets: initiated.map_or(0, |side| side.octets),
                reverse_packets: answered.map_or(0, |side| side.packets),
                reverse_octets: answered.map_or(0, |side| side.octets),
                start_ns: connection.start_ns,
                first_ns: sides.iter().flatten().map(|side| side.first.time_ns).min().unwrap_or_default(),
                last_ns: sides.iter().flatten().map(|side| side.last_ns).max().unwrap_or_default(),
                tcp_flags: initiated.map_or(0, |side| side.flags),
                reverse_tcp_flags: answered.map_or(0, |side| side.flags),
                handshake_rtt_us: connection.take_rtt(),
                tcp_state,
                end_reason: if is_tcp { tcp::end_reason(tcp_state) } else { EndReason::ActiveTimeout },
                fragment: sides
                    .iter()
                    .flatten()
                    .any(|side| side.fragments & (fragment::FIRST | fragment::LATER) != 0),
                icmp_type: leading.first.icmp_type,
                icmp_code: leading.first.icmp_code,
                listed: initiated
                    .map_or(Listed::default(), |side| side.listed)
                    .or(answered.map_or(Listed::default(), |side| side.listed.reversed())),
                point: leading.first.point,
                path: conversation.choices[leading.way as usize].path(path(
                    leading,
                    &scratch.sides,
                    &scratch.crossings,
                )),
                context: None,
            });
        }
        merged.evicted += conversation.trim() as u64;
        self.connections = self.connections + conversation.connections.len() - before;
    }

    /// Forgets what has been silent too long, and the longest silent beyond the table's bound; how many of
    /// the latter.
    fn forget(&mut self, now_ns: i64) -> u64 {
        let silence = |timeout: Duration| i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
        let (idle, closed) = (silence(self.limits.idle_timeout), silence(self.limits.closed_timeout));
        let connections = &mut self.connections;
        self.conversations.retain(|_, conversation| {
            let silent = now_ns.saturating_sub(conversation.last_ns);
            // Most are younger than either: one comparison.
            let stays =
                silent <= closed.min(idle) || silent <= if conversation.has_ended() { closed } else { idle };
            if !stays {
                *connections -= conversation.connections.len();
            }
            stays
        });
        let mut evicted = 0;
        if self.connections > self.limits.connections {
            let mut ages: Vec<(i64, Tuple)> = self
                .conversations
                .iter()
                .map(|(tuple, conversation)| (conversation.last_ns, *tuple))
                .collect();
            ages.sort_unstable();
            for (_, tuple) in ages {
                if self.connections <= self.limits.connections {
                    break;
                }
                if let Some(conversation) = self.conversations.remove(&tuple) {
                    self.connections -= conversation.connections.len();
                    evicted += conversation.connections.len() as u64;
                }
            }
        }
        if self.conversations.capacity() > 4 * self.conversations.len().max(1024) {
            self.conversations.shrink_to(2 * self.conversations.len());
        }
        evicted
    }
}

/// The epoch's distinct stacks, the bare one first, and for each value of `FlowObservation::link` its index.
fn distinct_stacks(links: Vec<Vec<u32>>) -> (Vec<Stack>, Vec<u32>) {
    let mut stacks: Vec<Stack> = vec![None];
    let mut known: HashMap<Arc<Vec<u32>>, u32> = HashMap::new();
    let mut index_of = vec![0];
    for headers in links {
        if headers.is_empty() {
            index_of.push(0);
            continue;
        }
        let headers = Arc::new(headers);
        let index = *known.entry(Arc::clone(&headers)).or_insert_with(|| {
            stacks.push(Some(headers));
            (stacks.len() - 1) as u32
        });
        index_of.push(index);
    }
    (stacks, index_of)
}

/// Adds an observation to what its point saw.
fn sight(sights: &mut Vec<Sight>, flow: &FlowObservation, points: &[PointTotals]) {
    if let Some(sight) = sights.iter_mut().find(|sight| sight.point == flow.point) {
        sight.packets += flow.packets;
        sight.first_ns = sight.first_ns.min(flow.first_ns);
        sight.last_ns = sight.last_ns.max(flow.last_ns);
        return;
    }
    let point = points.iter().find(|point| point.id == flow.point);
    sights.push(Sight {
        point: flow.point,
        direction: point.map_or(Direction::Ingress, |point| point.direction),
        // A point that is not described shares a stack with none.
        stack: point.map_or(u32::MAX - u32::from(flow.point), |point| point.stack),
        packets: flow.packets,
        first_ns: flow.first_ns,
        last_ns: flow.last_ns,
    });
}

/// Adds a counted observation to its side.
fn count(sides: &mut Vec<Side>, place: &Place, flow: &FlowObservation) {
    let first = First {
        time_ns: flow.first_ns,
        point: flow.point,
        tcp_flags: flow.first_tcp_flags,
        icmp_type: flow.icmp_type,
        icmp_code: flow.icmp_code,
    };
    let syn_ns = tcp::is_syn(flow.first_tcp_flags).then_some(flow.first_ns);
    let syn_ack_ns = tcp::is_syn_ack(flow.first_tcp_flags).then_some(flow.first_ns);
    let earlier = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
    let Some(side) = sides.iter_mut().find(|side| side.way == place.way && side.link == place.link) else {
        sides.push(Side {
            way: place.way,
            link: place.link,
            packets: flow.packets,
            octets: flow.octets,
            first,
            last_ns: flow.last_ns,
            flags: flow.tcp_flags,
            fragments: flow.fragments,
            listed: flow.listed,
            syn_ns,
            syn_ack_ns,
        });
        return;
    };
    side.packets += flow.packets;
    side.octets += flow.octets;
    side.first = side.first.min(first);
    side.last_ns = side.last_ns.max(flow.last_ns);
    side.flags |= flow.tcp_flags;
    side.fragments |= flow.fragments;
    side.listed = side.listed.or(flow.listed);
    side.syn_ns = earlier(side.syn_ns, syn_ns);
    side.syn_ack_ns = earlier(side.syn_ack_ns, syn_ack_ns);
}

/// The points that a side's packets crossed beside the one that counted them. A tag may change on the way:
/// what no side carries goes with the earliest.
fn path(leading: &Side, sides: &[Side], crossings: &[Crossing]) -> SmallVec<[u16; 4]> {
    let mine = |way: Way| sides.iter().filter(move |side| side.way == way);
    let is_earliest = mine(leading.way).next().is_some_and(|side| side.link == leading.link);
    let mut path: SmallVec<[u16; 4]> = SmallVec::new();
    for crossing in crossings.iter().filter(|crossing| crossing.way == leading.way) {
        let belongs = crossing.link == leading.link
            || (is_earliest && mine(leading.way).all(|side| side.link != crossing.link));
        if belongs && path.len() < weir_wire::limits::MAX_PATH && !path.contains(&crossing.point) {
            path.push(crossing.point);
        }
    }
    path
}
