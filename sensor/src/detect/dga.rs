//! Generated names: a client that asks for many domains that read like random letters, and that nobody registered.
//! MITRE ATT&CK T1568.002 (domain generation algorithms).
//!
//! **Method.** Malware that looks for its master asks for names that both compute, of which only one or two exist: it is
//! known by its failures (Antonakakis et al., "From Throw-Away Traffic to Bots", USENIX Security 2012). Within
//! `window`, `domains` different registered domains that do not exist (NXDOMAIN) were asked for by one client, and
//! `generated_percent` of them read like random letters ([`super::domain::looks_generated`]).
//!
//! Also finds: a browser on a network with a search domain of its own seldom; a broken list of hosts. Does not find:
//! algorithms that put words together.
//!
//! **Counts** domains. **Memory**: 4,096 clients, with `domains` numbers each.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use super::domain::{looks_generated, registered};
use super::memory::{Burst, Distinct, Memory};
use super::networks::contains;
use super::watch::Looker;
use super::{Detection, Evidence, Kind, Severity, Subject};
use crate::config::detect::Dga as Settings;
use crate::observe::{DnsKind, Observation, Seen};

const CLIENTS: usize = 4_096;
const EXAMPLES: usize = 4;
const NXDOMAIN: u8 = 3;

pub(super) struct Dga {
    settings: Settings,
    clients: Memory<IpAddr, Client>,
    alight: Vec<IpAddr>,
    state: RandomState,
}

#[derive(Default)]
struct Client {
    window: Burst,
    domains: Distinct<u64>,
    /// Of them.
    generated: usize,
    examples: Vec<Box<str>>,
    resolver: Option<IpAddr>,
}

impl Dga {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, clients: Memory::new(CLIENTS), alight: Vec::new(), state: RandomState::new() }
    }
}

impl Looker for Dga {
    fn observe(&mut self, observation: &Observation) {
        let (Seen::Dns(message), Some(flow)) = (&observation.seen, &observation.origin.flow) else { return };
        if message.kind != DnsKind::Dns || !message.response || message.rcode != NXDOMAIN {
            return;
        }
        let (client, resolver) = (flow.dst, flow.src);
        if contains(&self.settings.allow, client) || contains(&self.settings.allow, resolver) {
            return;
        }
        let Some(question) = message.questions.first() else { return };
        let name = question.name.as_str().to_ascii_lowercase();
        let Some(domain) = registered(&name) else { return };
        let generated = domain.split('.').next().is_some_and(looks_generated);
        let state = self.clients.entry(client);
        if state.window.turn(observation.time_ns, self.settings.window.0) {
            state.domains.clear();
            state.examples.clear();
            state.generated = 0;
        }
        // What reads like words pushes no sooner to the bound than what does not.
        let bound = self.settings.domains * 2;
        let before = state.domains.values().len();
        let now = state.domains.add(self.state.hash_one(domain), bound);
        let is_new = now > before;
        if is_new || (state.window.alight() && generated) {
            state.window.add(observation.time_ns, 1);
            state.resolver = Some(resolver);
        }
        if is_new && generated {
            state.generated += 1;
            if state.examples.len() < EXAMPLES {
                state.examples.push(domain.into());
            }
        }
        if now >= self.settings.domains
            && state.generated * 100 >= self.settings.generated_percent as usize * now
        {
            state.window.kindle();
        }
        if state.window.announces() {
            self.alight.push(client);
        }
    }

    fn take(&mut self) -> Vec<Detection> {
        let mut found = Vec::new();
        for client in std::mem::take(&mut self.alight) {
            let Some(state) = self.clients.get(&client) else { continue };
            let Some(told) = state.window.take() else { continue };
            let evidence = Evidence::default()
                .with("generated", state.generated)
                .with_all("resolver", state.resolver)
                .with_all("example", state.examples.iter().map(|example| &**example));
            let subject = Subject::Address(client);
            found.push(Detection::new(Kind::Dga, Severity::High, subject, told, evidence));
        }
        found
    }

    fn kind(&self) -> Kind {
        Kind::Dga
    }

    fn forgotten(&self) -> u64 {
        self.clients.forgotten()
    }
}
