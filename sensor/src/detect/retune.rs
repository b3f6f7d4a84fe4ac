//! Other parameters while the sensor runs: a detector whose section did not change keeps what it remembers.

use super::{Engine, Kind, Networks};
use crate::config::Detect;

impl Engine {
    /// Takes other parameters. What is open stays open.
    pub fn retune(&mut self, config: &Detect) {
        if *config == self.config {
            return;
        }
        let new = Self::new(config).with_lists(config, self.lists.clone());
        let mut old = std::mem::take(&mut self.detectors);
        for detector in new.detectors {
            let kind = detector.kind();
            let before = old.iter().position(|old| old.kind() == kind && same(kind, &self.config, config));
            self.detectors.push(before.map_or(detector, |at| old.swap_remove(at)));
        }
        for gone in old {
            // Counted once, by whoever counted it.
            *self.past.entry(gone.kind()).or_default() += gone.forgotten();
        }
        self.networks = Networks::new(&config.internal);
        self.open.bound(config.max_open, config.quiet.0);
        self.config = config.clone();
    }
}

/// Whether a detector's own parameters are the same.
pub(super) fn same(kind: Kind, old: &Detect, new: &Detect) -> bool {
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
