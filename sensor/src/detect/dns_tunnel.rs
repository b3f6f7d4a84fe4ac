//! DNS tunnel: data that leaves inside the names that are asked for. MITRE ATT&CK T1071.004 (application layer
//! protocol: DNS).
//!
//! **Method.** What a client tells by names under one domain is bounded by how many different ones it asks for and how
//! long they are: Paxson et al., "Practical Comprehensive Bounds on Surreptitious Communication Over DNS" (USENIX
//! Security 2013). A name counts if it has `octets` or more below the registered domain; `names` different ones under
//! one domain within `window`, by one client, are told. Reverse lookups and names of the link do not count.
//!
//! Also finds: antivirus that asks for hashes of files, IPv6 block lists of mail servers (`allow_domains`), a
//! resolver that asks for all its clients (`allow` it: they are seen too). Does not find: what trickles, and what is
//! asked in encrypted DNS.
//!
//! **Counts** queries. **Memory**: 4,096 clients and domains, with `names` numbers each.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use super::domain::registered;
use super::memory::{Burst, Distinct, Memory};
use super::networks::contains;
use super::watch::Looker;
use super::{Detection, Evidence, Kind, Severity, Subject};
use crate::config::detect::DnsTunnel as Settings;
use crate::observe::{DnsKind, Observation, Seen};

const DOMAINS: usize = 4_096;

type Asked = (IpAddr, Box<str>);

pub(super) struct DnsTunnel {
    settings: Settings,
    asked: Memory<Asked, Names>,
    alight: Vec<Asked>,
    /// Secret, so that nobody can choose names that fall together.
    state: RandomState,
}

#[derive(Default)]
struct Names {
    window: Burst,
    different: Distinct<u64>,
    octets: u64,
    kinds: Distinct<u16>,
    resolver: Option<IpAddr>,
    example: Box<str>,
}

impl DnsTunnel {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, asked: Memory::new(DOMAINS), alight: Vec::new(), state: RandomState::new() }
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.settings.allow_domains.iter().any(|allowed| {
            name.strip_suffix(allowed.as_str()).is_some_and(|below| below.is_empty() || below.ends_with('.'))
        })
    }
}

impl Looker for DnsTunnel {
    fn observe(&mut self, observation: &Observation) {
        let (Seen::Dns(message), Some(flow)) = (&observation.seen, &observation.origin.flow) else { return };
        if message.kind != DnsKind::Dns || message.response {
            return;
        }
        let Some(question) = message.questions.first() else { return };
        let name = question.name.as_str().to_ascii_lowercase();
        let Some(domain) = registered(&name) else { return };
        let below = name.len().saturating_sub(domain.len() + 1);
        if below < self.settings.octets
            || contains(&self.settings.allow, flow.src)
            || contains(&self.settings.allow, flow.dst)
            || self.is_allowed(&name)
        {
            return;
        }
        let key: Asked = (flow.src, domain.into());
        let names = self.asked.entry(key.clone());
        if names.window.turn(observation.time_ns, self.settings.window.0) {
            names.different.clear();
            names.kinds.clear();
            names.octets = 0;
        }
        let before = names.different.values().len();
        let now = names.different.add(self.state.hash_one(&name), self.settings.names);
        if now > before || names.window.alight() {
            names.window.add(observation.time_ns, 1);
            names.octets += below as u64;
            names.kinds.add(question.kind, 8);
            names.resolver = Some(flow.dst);
            if now > before {
                names.example = question.name.as_str().into();
            }
        }
        if now >= self.settings.names {
            names.window.kindle();
        }
        if names.window.announces() {
            self.alight.push(key);
        }
    }

    fn take(&mut self) -> Vec<Detection> {
        let mut found = Vec::new();
        for key in std::mem::take(&mut self.alight) {
            let Some(names) = self.asked.get(&key) else { continue };
            let Some(told) = names.window.take() else { continue };
            let evidence = Evidence::default()
                .with("octets", names.octets)
                .with_all("query_type", names.kinds.values().iter().copied())
                .with_all("resolver", names.resolver)
                .with("example", &*names.example);
            let (client, domain) = key;
            let subject = Subject::Lookup { client, domain };
            found.push(Detection::new(Kind::DnsTunnel, Severity::High, subject, told, evidence));
        }
        found
    }

    fn kind(&self) -> Kind {
        Kind::DnsTunnel
    }

    fn forgotten(&self) -> u64 {
        self.asked.forgotten()
    }
}
