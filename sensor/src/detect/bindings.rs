//! ARP spoofing and address conflicts: one address claimed by two devices. MITRE ATT&CK T1557.002 (ARP cache
//! poisoning; of neighbour discovery the same); RFC 5227 (conflicts), RFC 3756 4.1.1 (neighbour discovery).
//!
//! **Method.** The link address that says to have an address is remembered, as arpwatch (Leres, 1992) does. A change is
//! nothing: leases move, and a standby takes over. What no lease and no standby does is to *change back*: while the
//! one before still says that it has the address, `changes` within `window` are two devices at once. It is
//! spoofing where the newcomer's claims were unsolicited (an answer that nobody asked for, an override that nobody
//! solicited), as poisoning has to be, since the owner would answer too; else a conflict.
//!
//! Also finds: two cards of one host on one network (Linux answers for each other's addresses unless told not to),
//! a failover that flaps. `allow` their addresses.
//!
//! **Counts** changes. **Memory**: 8,192 addresses, 4,096 questions.

use std::net::IpAddr;
use std::time::Duration;

use super::findings::Findings;
use super::memory::{Memory, Told, nanoseconds};
use super::networks::{contains, unicast};
use super::watch::Looker;
use super::{Detection, Evidence, Kind, Severity, Subject};
use crate::config::detect::Bindings as Settings;
use crate::observe::{Mac, NdpKind, Observation, Seen};

const ADDRESSES: usize = 8_192;
const QUESTIONS: usize = 4_096;
/// An answer belongs to a question of so long before.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Bindings {
    settings: Settings,
    claims: Memory<IpAddr, Claims>,
    /// When somebody asked for an address.
    asked: Memory<IpAddr, i64>,
    findings: Findings,
}

/// Who says to have an address.
#[derive(Default)]
struct Claims {
    holder: Option<Mac>,
    /// Whom it had it of.
    before: Option<Mac>,
    began_ns: i64,
    changes: u64,
    /// Of the changes, those to an unsolicited claim, and whose it was.
    unsolicited: u64,
    intruder: Option<Mac>,
    /// Told in this window.
    told: bool,
}

/// A word of somebody that an address is theirs.
struct Claim {
    address: IpAddr,
    mac: Mac,
    /// Said without being asked, as an answer.
    unsolicited: bool,
}

impl Bindings {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            claims: Memory::new(ADDRESSES),
            asked: Memory::new(QUESTIONS),
            findings: Findings::new(ADDRESSES),
        }
    }

    fn was_asked(&mut self, address: IpAddr, at_ns: i64) -> bool {
        let patience = nanoseconds(PATIENCE);
        self.asked.get(&address).is_some_and(|asked| at_ns.saturating_sub(*asked) <= patience)
    }

    fn claim(&mut self, claim: &Claim, at_ns: i64) {
        let window = nanoseconds(self.settings.window.0);
        let claims = self.claims.entry(claim.address);
        let Some(holder) = claims.holder.replace(claim.mac) else { return };
        if holder == claim.mac {
            return;
        }
        if at_ns.saturating_sub(claims.began_ns) > window || claims.changes == 0 {
            *claims = Claims { holder: claims.holder, before: None, began_ns: at_ns, ..Claims::default() };
        }
        claims.changes += 1;
        if claim.unsolicited {
            claims.unsolicited += 1;
            claims.intruder = Some(claim.mac);
        }
        claims.before = Some(holder);
        if claims.changes < self.settings.changes {
            return;
        }
        let spoofed = claims.unsolicited * 3 >= claims.changes;
        let (kind, severity) = if spoofed {
            (Kind::ArpSpoof, Severity::High)
        } else {
            (Kind::AddressConflict, Severity::Medium)
        };
        let count = if std::mem::replace(&mut claims.told, true) { 1 } else { claims.changes };
        let told = Told { first_ns: claims.began_ns, last_ns: at_ns, count };
        let mut evidence =
            Evidence::default().with_all("mac", [holder, claim.mac].map(|mac| mac.to_string()));
        if let (true, Some(intruder)) = (spoofed, claims.intruder) {
            evidence = evidence.with("unsolicited", intruder.to_string());
        }
        let subject = Subject::Address(claim.address);
        self.findings.add(Detection::new(kind, severity, subject, told, evidence));
    }
}

impl Looker for Bindings {
    fn observe(&mut self, observation: &Observation) {
        let at_ns = observation.time_ns;
        let claim = match &observation.seen {
            Seen::Arp(arp) => {
                let sender = IpAddr::from(arp.sender_ip);
                let target = IpAddr::from(arp.target_ip);
                let announces = arp.sender_ip == arp.target_ip;
                if arp.operation == 1 && !announces {
                    *self.asked.entry(target) = at_ns;
                }
                // An announcement (RFC 5227, 3) is how an honest newcomer says so.
                let unsolicited = arp.operation == 2 && !announces && !self.was_asked(sender, at_ns);
                matches!(arp.operation, 1 | 2).then_some(Claim {
                    address: sender,
                    mac: arp.sender,
                    unsolicited,
                })
            }
            Seen::Ndp(ndp) => {
                let from = observation.origin.flow.map(|flow| flow.src);
                let mac = ndp.link_address.or(observation.origin.src_mac);
                match (ndp.kind, ndp.target.map(IpAddr::V6), from, mac) {
                    (NdpKind::NeighbourSolicitation, Some(target), Some(from), Some(mac)) => {
                        *self.asked.entry(target) = at_ns;
                        Some(Claim { address: from, mac, unsolicited: false })
                    }
                    (NdpKind::NeighbourAdvertisement, Some(target), _, Some(mac)) => {
                        let unsolicited = !self.was_asked(target, at_ns);
                        Some(Claim { address: target, mac, unsolicited })
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(claim) = claim else { return };
        let usable = unicast(claim.address) && !claim.mac.is_zero() && !claim.mac.is_group();
        if usable && !contains(&self.settings.allow, claim.address) {
            self.claim(&claim, at_ns);
        }
    }

    fn take(&mut self) -> Vec<Detection> {
        self.findings.take().collect()
    }

    /// And of conflicts.
    fn kind(&self) -> Kind {
        Kind::ArpSpoof
    }

    fn forgotten(&self) -> u64 {
        self.claims.forgotten() + self.asked.forgotten() + self.findings.untold()
    }
}
