//! Which name a flow goes to, and how DNS does.
//!
//! A client's answers are remembered under that client: the same address may be two names to two of them. What a
//! client asked for is the name, whatever chain of aliases led to the address. A name that the flow itself
//! carries (SNI, HTTP's host) is nearer to the truth than what was looked up before, and wins.
//!
//! What must stay true: everything is bounded in entries and octets, and a client that asks for a million names
//! pays for it with its own entries before others do.

use std::hash::RandomState;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use smallvec::SmallVec;
use weir_wire::NameSource;

use crate::flow::{self, Record};
use crate::kernel::FlowKey;
use crate::observe::{Carrier, Dns, DnsKind, Name, Observation, Rdata, Seen};

/// A question and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub client: IpAddr,
    pub server: IpAddr,
    pub name: Name,
    pub kind: u16,
    pub outcome: Outcome,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The latency is absent where the question was not seen, or forgotten.
    Answered { rcode: u8, latency_ns: Option<u64> },
    /// No answer within the time.
    TimedOut,
}

/// Bounds of what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub clients: NonZeroUsize,
    /// Addresses of one client.
    pub addresses: NonZeroUsize,
    /// Octets of all clients' names.
    pub octets: usize,
    /// Flows that carried a name.
    pub flows: NonZeroUsize,
    /// Octets of their names.
    pub flow_octets: usize,
    /// Questions that wait for an answer.
    pub questions: NonZeroUsize,
    /// How long they wait. Resolvers of the C library give up after 5 seconds.
    pub timeout_ns: i64,
}

impl Default for Limits {
    fn default() -> Self {
        const fn at_least_one(number: usize) -> NonZeroUsize {
            NonZeroUsize::new(number).expect("not zero")
        }
        Self {
            clients: at_least_one(8192),
            addresses: at_least_one(4096),
            octets: 16 << 20,
            // An epoch of what the kernel's budget lets through on two CPUs.
            flows: at_least_one(65_536),
            flow_octets: 12 << 20,
            questions: at_least_one(16_384),
            timeout_ns: 5_000_000_000,
        }
    }
}

/// A name is good for at least this long after its answer: software holds on to addresses for longer than it
/// was told, and its answers' times to live are often a few seconds.
const SHORTEST_NS: i64 = 60_000_000_000;
/// Longer times to live are not believed.
const LONGEST_NS: i64 = 86_400_000_000_000;
/// A flow's first packet and the answer before it are timed by different clocks.
const SLACK_NS: i64 = 1_000_000_000;
/// Names of one address for one client, the latest: content networks serve many from one.
const NAMES_EACH: usize = 4;
/// Octets of an entry beside its name.
const ENTRY_OCTETS: usize = 128;
/// A hello so long after another one of the same flow is that of a new connection with the old ports.
const NEW_HELLO_NS: i64 = 1_000_000_000;
/// The same for requests, of which a connection carries many: its ports rest for so long (TIME-WAIT).
const NEW_REQUEST_NS: i64 = 60_000_000_000;
/// Links of a chain of aliases; resolvers give up earlier.
const MAX_CHAIN: usize = 32;

/// A name that an address had for a client.
#[derive(Clone, Debug)]
struct Learned {
    name: Arc<str>,
    at_ns: i64,
    until_ns: i64,
}

/// A name that a flow carried.
#[derive(Debug)]
struct Carried {
    name: flow::Name,
    at_ns: i64,
}

/// What was given up for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Names that clients had looked up.
    pub looked_up: u64,
    /// Names that flows had carried.
    pub carried: u64,
    /// Questions: their answers have no latency, and they do not time out.
    pub questions: u64,
}

#[derive(Debug)]
struct Client {
    /// The latest name last.
    addresses: LruCache<IpAddr, SmallVec<[Learned; 1]>, RandomState>,
    octets: usize,
}

/// What identifies a question until its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    client: IpAddr,
    server: IpAddr,
    id: u16,
    name: Name,
    kind: u16,
}

/// The names of flows.
#[derive(Debug)]
pub struct Names {
    limits: Limits,
    clients: LruCache<IpAddr, Client, RandomState>,
    octets: usize,
    /// By the flow from the client to the server.
    flows: LruCache<FlowKey, Carried, RandomState>,
    flow_octets: usize,
    /// In the order of their first time: a repetition does not renew it.
    asked: LruCache<Asked, i64, RandomState>,
    forgotten: Forgotten,
}

impl Names {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            clients: LruCache::with_hasher(limits.clients, RandomState::new()),
            octets: 0,
            flows: LruCache::with_hasher(limits.flows, RandomState::new()),
            flow_octets: 0,
            asked: LruCache::with_hasher(limits.questions, RandomState::new()),
            forgotten: Forgotten::default(),
        }
    }

    /// What was given up for want of room.
    #[must_use]
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// Octets that names take now, by the bounds' own measure.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.octets + self.flow_octets
    }

    /// Learns from an observation. The end of a DNS exchange is handed back.
    pub fn observe(&mut self, observation: &Observation) -> Option<Exchange> {
        let flow = observation.origin.flow?;
        match &observation.seen {
            Seen::ClientHello(hello) => {
                let name = hello.sni.clone()?;
                let quic = hello.carrier == Carrier::Quic;
                let source = if quic { NameSource::Quic } else { NameSource::Tls };
                self.carried(flow, &name, source, observation.time_ns);
                None
            }
            Seen::Http(head) => {
                let host = without_port(head.host.as_ref()?)?;
                self.carried(flow, &host, NameSource::Http, observation.time_ns);
                None
            }
            Seen::Dns(message) if message.kind == DnsKind::Dns && message.opcode == 0 => {
                self.message(&flow, message, observation.time_ns)
            }
            _ => None,
        }
    }

    /// The name of a flow that began at `start_ns`; its key may stand in either direction.
    pub fn name(&mut self, key: &FlowKey, start_ns: i64) -> Option<flow::Name> {
        let back = key.reversed();
        for key in [key, &back] {
            // A flow that began after it has the ports of the one that carried it.
            if let Some(carried) = self.flows.get(key)
                && start_ns <= carried.at_ns.saturating_add(SLACK_NS)
            {
                return Some(carried.name.clone());
            }
        }
        self.looked_up(key.src, key.dst, start_ns).or_else(|| self.looked_up(key.dst, key.src, start_ns))
    }

    /// Tells a record what its responder was called.
    pub fn describe(&mut self, record: &mut Record) {
        if let Some(name) = self.name(&record.key, record.start_ns) {
            record.context.get_or_insert_default().name = Some(name);
        }
    }

    /// The questions whose time is up.
    pub fn timed_out(&mut self, now_ns: i64) -> Vec<Exchange> {
        let mut given_up = Vec::new();
        while let Some((_, asked_ns)) = self.asked.peek_lru()
            && asked_ns.saturating_add(self.limits.timeout_ns) < now_ns
            && let Some((Asked { client, server, name, kind, .. }, _)) = self.asked.pop_lru()
        {
            given_up.push(Exchange { client, server, name, kind, outcome: Outcome::TimedOut });
        }
        given_up
    }

    fn looked_up(&mut self, client: IpAddr, address: IpAddr, start_ns: i64) -> Option<flow::Name> {
        let names = self.clients.get_mut(&client)?.addresses.get(&address)?;
        let good = |learned: &&Learned| {
            learned.at_ns.saturating_sub(SLACK_NS) <= start_ns && start_ns <= learned.until_ns
        };
        let learned = names.iter().rev().find(good)?;
        Some(flow::Name { text: Arc::clone(&learned.name), source: NameSource::Dns })
    }

    /// A name that a flow carries: the nearest to it stays, and of equals the first.
    fn carried(&mut self, flow: FlowKey, name: &Name, source: NameSource, at_ns: i64) {
        let new_after_ns = if source == NameSource::Http { NEW_REQUEST_NS } else { NEW_HELLO_NS };
        let stays = |known: &Carried| {
            nearness(known.name.source) >= nearness(source)
                && at_ns.saturating_sub(known.at_ns) < new_after_ns
        };
        if name.is_empty() || self.flows.peek(&flow).is_some_and(stays) {
            return;
        }
        let named = flow::Name { text: name.as_str().into(), source };
        self.flow_octets += octets(&named.text);
        if let Some((whose, gone)) = self.flows.push(flow, Carried { name: named, at_ns }) {
            self.flow_octets -= octets(&gone.name.text);
            self.forgotten.carried += u64::from(whose != flow);
        }
        while self.flow_octets > self.limits.flow_octets
            && let Some((_, gone)) = self.flows.pop_lru()
        {
            self.flow_octets -= octets(&gone.name.text);
            self.forgotten.carried += 1;
        }
    }

    fn message(&mut self, flow: &FlowKey, message: &Dns, time_ns: i64) -> Option<Exchange> {
        let [question] = message.questions.as_slice() else { return None };
        let (client, server) = if message.response { (flow.dst, flow.src) } else { (flow.src, flow.dst) };
        let asked =
            Asked { client, server, id: message.id, name: question.name.clone(), kind: question.kind };
        if !message.response {
            if !self.asked.contains(&asked) && self.asked.push(asked, time_ns).is_some() {
                self.forgotten.questions += 1;
            }
            return None;
        }
        let latency_ns = self.asked.pop(&asked).and_then(|asked_ns| u64::try_from(time_ns - asked_ns).ok());
        self.answers(client, message, time_ns);
        let Asked { name, kind, .. } = asked;
        let outcome = Outcome::Answered { rcode: message.rcode, latency_ns };
        Some(Exchange { client, server, name, kind, outcome })
    }

    /// Remembers the addresses that the question leads to, by aliases too. Records beside that chain say nothing
    /// of what was asked and are not believed.
    fn answers(&mut self, client: IpAddr, message: &Dns, time_ns: i64) {
        let Some(question) = message.questions.first() else { return };
        let name: Arc<str> = question.name.as_str().into();
        let mut chain: SmallVec<[&Name; 4]> = SmallVec::from_slice(&[&question.name]);
        // Servers give the chain in its order; another order takes as many rounds as it has links.
        for _ in 0..MAX_CHAIN {
            let before = chain.len();
            for answer in &message.answers {
                if let Rdata::Cname(target) = &answer.data
                    && chain.len() < MAX_CHAIN
                    && chain.contains(&&answer.name)
                    && !chain.contains(&target)
                {
                    chain.push(target);
                }
            }
            if chain.len() == before {
                break;
            }
        }
        for answer in message.answers.iter().filter(|answer| chain.contains(&&answer.name)) {
            let address = match answer.data {
                Rdata::A(address) => IpAddr::V4(address),
                Rdata::Aaaa(address) => IpAddr::V6(address),
                _ => continue,
            };
            let good_for_ns = (i64::from(answer.ttl_s) * 1_000_000_000).clamp(SHORTEST_NS, LONGEST_NS);
            let until_ns = time_ns.saturating_add(good_for_ns);
            self.learn(client, address, Learned { name: Arc::clone(&name), at_ns: time_ns, until_ns });
        }
    }

    fn learn(&mut self, client: IpAddr, address: IpAddr, learned: Learned) {
        if !self.clients.contains(&client) {
            // Bounded below: a cache that knows its bound makes room for all of it at once.
            let addresses = LruCache::unbounded_with_hasher(RandomState::new());
            if let Some((_, gone)) = self.clients.push(client, Client { addresses, octets: 0 }) {
                self.octets -= gone.octets;
                self.forgotten.looked_up += gone.names();
            }
        }
        let fair_share = self.limits.octets / self.clients.len().max(1);
        let Some(known) = self.clients.get_mut(&client) else { return };
        let before = known.octets;
        known.learn(address, learned);
        if known.addresses.len() > self.limits.addresses.get() {
            self.forgotten.looked_up += known.forget_one();
        }
        self.octets = self.octets + known.octets - before;
        // Who has more than its share gives first.
        while self.octets > self.limits.octets && known.octets > fair_share {
            let before = known.octets;
            let names = known.forget_one();
            if names == 0 {
                break;
            }
            self.octets = self.octets + known.octets - before;
            self.forgotten.looked_up += names;
        }
        while self.octets > self.limits.octets
            && let Some((_, gone)) = self.clients.pop_lru()
        {
            self.octets -= gone.octets;
            self.forgotten.looked_up += gone.names();
        }
    }
}

impl Client {
    fn names(&self) -> u64 {
        self.addresses.iter().map(|(_, names)| names.len() as u64).sum()
    }

    /// Forgets the address that was asked for longest ago; how many names it had.
    fn forget_one(&mut self) -> u64 {
        let Some((_, gone)) = self.addresses.pop_lru() else { return 0 };
        self.octets -= gone.iter().map(|learned| octets(&learned.name)).sum::<usize>();
        gone.len() as u64
    }

    fn learn(&mut self, address: IpAddr, learned: Learned) {
        if let Some(names) = self.addresses.get_mut(&address) {
            if let Some(place) = names.iter().position(|known| known.name.eq_ignore_ascii_case(&learned.name))
            {
                let mut known = names.remove(place);
                // Of one answer after another the earliest start and the latest end.
                if known.until_ns < learned.at_ns {
                    known.at_ns = learned.at_ns;
                }
                known.until_ns = known.until_ns.max(learned.until_ns);
                names.push(known);
                return;
            }
            self.octets += octets(&learned.name);
            names.push(learned);
            if names.len() > NAMES_EACH {
                self.octets -= octets(&names.remove(0).name);
            }
            return;
        }
        self.octets += octets(&learned.name);
        self.addresses.push(address, SmallVec::from_elem(learned, 1));
    }
}

fn octets(name: &str) -> usize {
    ENTRY_OCTETS + name.len()
}

/// How near to the flow a name was read; the nearest wins.
fn nearness(source: NameSource) -> u8 {
    match source {
        NameSource::Unknown => 0,
        NameSource::Dns => 1,
        NameSource::Http => 2,
        NameSource::Tls => 3,
        NameSource::Quic => 4,
    }
}

/// The host of a request without its port; `None` of an address, which is no name.
fn without_port(host: &Name) -> Option<Name> {
    let text = host.as_str();
    if text.starts_with('[') {
        return None;
    }
    let name = text.rsplit_once(':').map_or(text, |(name, _)| name);
    (!name.is_empty() && name.parse::<IpAddr>().is_err()).then(|| Name::from_dotted(name.as_bytes()))
}

#[cfg(test)]
mod tests;
