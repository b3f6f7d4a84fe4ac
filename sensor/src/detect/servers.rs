//! Rogue DHCP servers and routers: somebody else begins to tell clients where the way out is. MITRE ATT&CK T1557.003
//! (DHCP spoofing); RFC 6104 (rogue router advertisements), RFC 7513 and RFC 3118 on why clients cannot tell.
//!
//! **Method.** Who answers as a DHCP server (offers and acknowledgements that no relay passed on), and who advertises
//! itself as a router (lifetime not 0), is remembered by address and link address. Those of the first `learn` are the
//! network's own, as are those that the operator named (`known`, which ends the learning); anybody after is told.
//!
//! Also finds: the new router or server that somebody put there on purpose (name it, or dismiss it), a phone that shares
//! its connection. Misses: who was there before the sensor; hence `known`.
//!
//! **Counts** messages. **Memory**: 1,024 senders of each kind.

use std::net::IpAddr;

use super::findings::Findings;
use super::memory::{Memory, Told, nanoseconds};
use super::networks::contains;
use super::watch::Looker;
use super::{Detection, Evidence, Kind, Severity, Subject, Value};
use crate::config::detect::Servers as Settings;
use crate::observe::{Mac, NdpKind, Observation, Seen};

const SENDERS: usize = 1_024;

/// What gives something to a client: of `DHCPv4` offer and acknowledgement, of `DHCPv6` advertise and reply.
const GIVES4: [u8; 2] = [2, 5];
const GIVES6: [u8; 2] = [2, 7];

pub(super) struct Servers {
    kind: Kind,
    settings: Settings,
    /// When the first was heard: for IPv4, and for IPv6.
    began_ns: [Option<i64>; 2],
    /// Whether a sender belongs here.
    senders: Memory<(IpAddr, Mac), Option<bool>>,
    findings: Findings,
}

impl Servers {
    pub(super) fn new(kind: Kind, settings: Settings) -> Self {
        Self {
            kind,
            settings,
            began_ns: [None; 2],
            senders: Memory::new(SENDERS),
            findings: Findings::new(SENDERS),
        }
    }

    /// What is said of the network, where the message is of this kind.
    fn said(&self, seen: &Seen) -> Option<Evidence> {
        let none = Evidence::default();
        match (self.kind, seen) {
            (Kind::RogueDhcp, Seen::Dhcp4(message)) => {
                let gives = message.reply && message.message.is_some_and(|it| GIVES4.contains(&it));
                let addresses =
                    |list: &[std::net::Ipv4Addr]| list.iter().copied().map(IpAddr::V4).collect::<Vec<_>>();
                (gives && message.relay.is_unspecified()).then(|| {
                    none.with_all("router", addresses(&message.routers))
                        .with_all("name_server", addresses(&message.name_servers))
                })
            }
            (Kind::RogueDhcp, Seen::Dhcp6(message)) => {
                let [only] = message.messages[..] else { return None };
                GIVES6.contains(&only).then_some(none)
            }
            (Kind::RogueRa, Seen::Ndp(message)) if message.kind == NdpKind::RouterAdvertisement => {
                let router = message.router.as_ref().filter(|router| router.lifetime_s > 0)?;
                let prefixes =
                    router.prefixes.iter().map(|it| Value::Text(format!("{}/{}", it.address, it.bits)));
                let servers = router.name_servers.iter().copied().map(IpAddr::V6);
                Some(none.with_all("prefix", prefixes).with_all("name_server", servers))
            }
            _ => None,
        }
    }
}

impl Looker for Servers {
    fn observe(&mut self, observation: &Observation) {
        let Some(said) = self.said(&observation.seen) else { return };
        let (Some(flow), Some(mac)) = (observation.origin.flow, observation.origin.src_mac) else { return };
        let at_ns = observation.time_ns;
        let began_ns = *self.began_ns[usize::from(flow.src.is_ipv6())].get_or_insert(at_ns);
        let learning = self.settings.known.is_empty()
            && at_ns.saturating_sub(began_ns) < nanoseconds(self.settings.learn.0);
        let named = contains(&self.settings.known, flow.src) || contains(&self.settings.allow, flow.src);
        let belongs = *self.senders.entry((flow.src, mac)).get_or_insert(learning);
        if belongs || named {
            return;
        }
        let mut evidence = Evidence::default().with("mac", mac.to_string());
        evidence.join(said);
        let told = Told { first_ns: at_ns, last_ns: at_ns, count: 1 };
        let subject = Subject::Address(flow.src);
        self.findings.add(Detection::new(self.kind, Severity::High, subject, told, evidence));
    }

    fn take(&mut self) -> Vec<Detection> {
        self.findings.take().collect()
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn forgotten(&self) -> u64 {
        self.senders.forgotten() + self.findings.untold()
    }
}
