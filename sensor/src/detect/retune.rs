//! Other parameters while the sensor runs: a detector whose section did not change keeps what it remembers.

use std::collections::BTreeMap;

use super::{Engine, Kind, Networks};
use crate::config::Detect;

impl Engine {
    /// Takes other parameters. What is open stays open.
    pub fn retune(&mut self, config: &Detect) {
        if *config == self.config {
            return;
        }
        let new = Self::new(config).with_lists(config, self.lists.clone());
        let change = (&self.config, config);
        keep(&mut self.detectors, new.detectors, |it| (it.kind(), it.forgotten()), change, &mut self.past);
        self.networks = Networks::new(&config.internal);
        self.open.bound(config.max_open, config.quiet.0);
        self.config = config.clone();
    }
}

/// Puts the new ones in the place of the old, but for those whose parameters did not change: they keep what they
/// remember. `of` tells of one its kind, and what it forgot; of those that go, `past` keeps that.
pub(super) fn keep<T>(
    those: &mut Vec<T>,
    new: Vec<T>,
    of: impl Fn(&T) -> (Kind, u64),
    (before, after): (&Detect, &Detect),
    past: &mut BTreeMap<Kind, u64>,
) {
    let mut old = std::mem::take(those);
    for it in new {
        let kind = of(&it).0;
        let stays = old.iter().position(|old| of(old).0 == kind && same(kind, before, after));
        those.push(stays.map_or(it, |at| old.swap_remove(at)));
    }
    for gone in old {
        // Counted once, by whoever counted it.
        let (kind, forgotten) = of(&gone);
        *past.entry(kind).or_default() += forgotten;
    }
}

/// Whether a detector's own parameters are the same.
fn same(kind: Kind, old: &Detect, new: &Detect) -> bool {
    match kind {
        Kind::PortScan => old.port_scan == new.port_scan,
        Kind::SynFlood => old.syn_flood == new.syn_flood,
        Kind::UdpFlood => old.udp_flood == new.udp_flood,
        Kind::IcmpFlood => old.icmp_flood == new.icmp_flood,
        Kind::BruteForce => old.brute_force == new.brute_force,
        Kind::Beaconing => old.beaconing == new.beaconing,
        Kind::Exfiltration => old.exfiltration == new.exfiltration,
        Kind::Cleartext => old.cleartext == new.cleartext,
        Kind::ArpSpoof | Kind::AddressConflict => old.bindings == new.bindings,
        Kind::RogueDhcp => old.rogue_dhcp == new.rogue_dhcp,
        Kind::RogueRa => old.rogue_ra == new.rogue_ra,
        Kind::NewDevice => old.new_device == new.new_device,
        Kind::DnsTunnel => old.dns_tunnel == new.dns_tunnel,
        Kind::Dga => old.dga == new.dga,
        Kind::DeprecatedTls => old.deprecated_tls == new.deprecated_tls,
        Kind::NewCountry => old.new_country == new.new_country,
        Kind::NewAsn => old.new_asn == new.new_asn,
        // They have none.
        Kind::ListedAddress | Kind::ListedDomain => true,
    }
}
