//! `[detect]`: a section for each detector, its parameters beside their defaults.
//!
//! What a parameter does to a detector is told at the head of the detector's module and in
//! `docs/detections.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{Bytes, Cidr, Period};
use super::validate::Check;

/// Declares a section: `enabled`, `allow`, and the detector's own parameters with their defaults.
macro_rules! section {
    ($(#[$about:meta])* $name:ident { $($(#[$help:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            pub enabled: bool,
            /// Networks that this detector does not look at, on either side of a connection.
            pub allow: Vec<Cidr>,
            $($(#[$help])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { enabled: true, allow: Vec::new(), $($field: $default,)* }
            }
        }
    };
}

/// Everything about detections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detect {
    pub enabled: bool,
    /// Networks that count as inside; private and link-local ones unless something is named.
    pub internal: Vec<Cidr>,
    /// Detections that are open at a time; beyond it those that were silent longest are forgotten.
    pub max_open: usize,
    /// After so long a silence the next sighting begins a detection anew.
    pub quiet: Period,
    pub port_scan: PortScan,
    pub syn_flood: SynFlood,
    pub udp_flood: UdpFlood,
    pub icmp_flood: IcmpFlood,
    pub brute_force: BruteForce,
    pub beaconing: Beaconing,
    pub exfiltration: Exfiltration,
    pub cleartext: Cleartext,
    pub bindings: Bindings,
    pub rogue_dhcp: Servers,
    pub rogue_ra: Servers,
    pub new_device: NewDevice,
    pub dns_tunnel: DnsTunnel,
    pub dga: Dga,
    pub deprecated_tls: DeprecatedTls,
    pub new_country: NewPlace,
    /// Off unless asked for: a host that browses meets new systems every day.
    pub new_asn: NewPlace,
}

section! {
    /// Many destinations or ports tried, few of which answer.
    PortScan {
        window: Period = Period(Duration::from_mins(1)),
        /// Hosts tried in vain at one port within `window`.
        hosts: usize = 20,
        /// TCP ports of one host tried in vain within `window`.
        ports: usize = 20,
        /// The same for UDP, where silence is common.
        udp_ports: usize = 50,
        slow_window: Period = Period(Duration::from_hours(1)),
        /// Hosts and ports tried in vain within `slow_window`.
        slow_targets: usize = 60,
        /// Of all that was tried, in percent, so much must have been in vain.
        failed_percent: u32 = 70,
    }
}

section! {
    /// Connections begun and not completed.
    SynFlood {
        window: Period = Period(Duration::from_secs(10)),
        /// To one port of one host.
        per_second: u64 = 100,
    }
}

section! {
    /// UDP packets to one host that hardly answers.
    UdpFlood {
        window: Period = Period(Duration::from_secs(10)),
        per_second: u64 = 10_000,
    }
}

section! {
    /// ICMP or ICMPv6 packets to one address.
    IcmpFlood {
        window: Period = Period(Duration::from_secs(10)),
        per_second: u64 = 200,
    }
}

section! {
    /// Many short connections to a service that asks for a password.
    BruteForce {
        window: Period = Period(Duration::from_mins(5)),
        connections: u64 = 20,
        ports: Vec<u16> = vec![21, 22, 23, 110, 143, 3389, 5900],
        /// Connections that last longer were let in.
        max_duration: Period = Period(Duration::from_secs(30)),
        /// Connections that carry more, either way, were let in.
        max_octets: Bytes = Bytes(16 << 10),
    }
}

section! {
    /// Connections from inside to outside at regular intervals.
    Beaconing {
        /// Intervals that are looked at.
        intervals: usize = 20,
        /// How far, in percent of the median, an interval may be from it.
        jitter_percent: u32 = 10,
        /// How many of the intervals, in percent, must keep to that.
        regular_percent: u32 = 80,
        min_interval: Period = Period(Duration::from_secs(10)),
        max_interval: Period = Period(Duration::from_hours(6)),
        /// Ports whose business is to be regular.
        ignore_ports: Vec<u16> = vec![53, 123, 853],
    }
}

section! {
    /// More octets sent outside than this host ever sends.
    Exfiltration {
        window: Period = Period(Duration::from_hours(1)),
        /// Windows that a host is known before it is judged.
        learn_windows: u32 = 24,
        /// Less than this in a window is never reported.
        min_octets: Bytes = Bytes(256 << 20),
        /// So many standard deviations above the mean.
        deviations: u32 = 6,
        /// And so many times the mean.
        factor: u32 = 5,
    }
}

section! {
    /// Protocols that carry passwords in the clear, by their ports.
    Cleartext {
        ports: Vec<u16> = vec![21, 23, 110, 143, 512, 513, 514],
    }
}

section! {
    /// One address that two devices say to have: ARP spoofing, and conflicts.
    Bindings {
        window: Period = Period(Duration::from_mins(5)),
        /// Changes of who has it within `window`.
        changes: u64 = 3,
    }
}

section! {
    /// DHCP servers, and routers, that were not there before.
    Servers {
        /// Whoever is heard so long after the first belongs here.
        learn: Period = Period(Duration::from_mins(10)),
        /// Those that belong here, and no others: nothing is learned then.
        known: Vec<Cidr> = Vec::new(),
    }
}

section! {
    /// Network cards that were not there before.
    NewDevice {
        learn: Period = Period(Duration::from_hours(1)),
        /// Told in an hour.
        most: usize = 50,
    }
}

section! {
    /// Many different long names under one domain.
    DnsTunnel {
        window: Period = Period(Duration::from_hours(1)),
        /// Different names under one domain within `window`, by one client.
        names: usize = 100,
        /// Octets below the registered domain from which on a name counts.
        octets: usize = 30,
        /// Domains that may be asked so, with all below them; in lower case.
        allow_domains: Vec<String> = Vec::new(),
    }
}

section! {
    /// Many domains that nobody registered and that read like random letters.
    Dga {
        window: Period = Period(Duration::from_hours(1)),
        /// Different domains that do not exist, asked for by one client within `window`.
        domains: usize = 20,
        /// Of them, in percent, so many must read like random letters.
        generated_percent: u32 = 60,
    }
}

section! {
    /// SSL, TLS 1.0 and 1.1, DTLS 1.0.
    DeprecatedTls {}
}

section! {
    /// Countries, or autonomous systems, that a host did not talk to before.
    NewPlace {
        /// What a host meets so long after it was first seen is its own.
        learn: Period = Period(Duration::from_hours(24)),
    }
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            enabled: true,
            internal: Vec::new(),
            max_open: 2_048,
            quiet: Period(Duration::from_mins(30)),
            port_scan: PortScan::default(),
            syn_flood: SynFlood::default(),
            udp_flood: UdpFlood::default(),
            icmp_flood: IcmpFlood::default(),
            brute_force: BruteForce::default(),
            beaconing: Beaconing::default(),
            exfiltration: Exfiltration::default(),
            cleartext: Cleartext::default(),
            bindings: Bindings::default(),
            rogue_dhcp: Servers::default(),
            rogue_ra: Servers::default(),
            new_device: NewDevice::default(),
            dns_tunnel: DnsTunnel::default(),
            dga: Dga::default(),
            deprecated_tls: DeprecatedTls::default(),
            new_country: NewPlace::default(),
            new_asn: NewPlace { enabled: false, ..NewPlace::default() },
        }
    }
}

impl Detect {
    /// Notes everything that is out of bounds. The bounds are those of the detectors' memory.
    pub(super) fn problems(&self, check: &mut Check<'_>) {
        const DAY: Duration = Duration::from_hours(24);
        let secs = Duration::from_secs;
        for (key, window) in [
            ("port_scan.window", self.port_scan.window),
            ("port_scan.slow_window", self.port_scan.slow_window),
            ("syn_flood.window", self.syn_flood.window),
            ("udp_flood.window", self.udp_flood.window),
            ("icmp_flood.window", self.icmp_flood.window),
            ("brute_force.window", self.brute_force.window),
            ("brute_force.max_duration", self.brute_force.max_duration),
            ("beaconing.min_interval", self.beaconing.min_interval),
            ("beaconing.max_interval", self.beaconing.max_interval),
            ("exfiltration.window", self.exfiltration.window),
            ("quiet", self.quiet),
            ("bindings.window", self.bindings.window),
            ("rogue_dhcp.learn", self.rogue_dhcp.learn),
            ("rogue_ra.learn", self.rogue_ra.learn),
            ("new_device.learn", self.new_device.learn),
            ("dns_tunnel.window", self.dns_tunnel.window),
            ("dga.window", self.dga.window),
            ("new_country.learn", self.new_country.learn),
            ("new_asn.learn", self.new_asn.learn),
        ] {
            check.period(&format!("detect.{key}"), window, secs(1), DAY);
        }
        for (key, value, most) in [
            ("max_open", self.max_open as u64, 65_536),
            ("port_scan.hosts", self.port_scan.hosts as u64, 256),
            ("port_scan.ports", self.port_scan.ports as u64, 256),
            ("port_scan.udp_ports", self.port_scan.udp_ports as u64, 256),
            ("port_scan.slow_targets", self.port_scan.slow_targets as u64, 256),
            ("port_scan.failed_percent", u64::from(self.port_scan.failed_percent), 100),
            ("syn_flood.per_second", self.syn_flood.per_second, u64::from(u32::MAX)),
            ("udp_flood.per_second", self.udp_flood.per_second, u64::from(u32::MAX)),
            ("icmp_flood.per_second", self.icmp_flood.per_second, u64::from(u32::MAX)),
            ("brute_force.connections", self.brute_force.connections, u64::from(u32::MAX)),
            ("beaconing.intervals", self.beaconing.intervals as u64, 100),
            ("beaconing.jitter_percent", u64::from(self.beaconing.jitter_percent), 50),
            ("beaconing.regular_percent", u64::from(self.beaconing.regular_percent), 100),
            ("exfiltration.learn_windows", u64::from(self.exfiltration.learn_windows), 1_000),
            ("exfiltration.deviations", u64::from(self.exfiltration.deviations), 1_000),
            ("exfiltration.factor", u64::from(self.exfiltration.factor), 1_000_000),
            ("bindings.changes", self.bindings.changes, 1_000),
            ("new_device.most", self.new_device.most as u64, 1_000),
            ("dns_tunnel.names", self.dns_tunnel.names as u64, 1_000),
            ("dns_tunnel.octets", self.dns_tunnel.octets as u64, 253),
            ("dga.domains", self.dga.domains as u64, 500),
            ("dga.generated_percent", u64::from(self.dga.generated_percent), 100),
        ] {
            check.that((1..=most).contains(&value), format!("detect.{key}"), || {
                format!("is {value}; 1 to {most} are allowed")
            });
        }
        for (key, list) in [
            ("internal", &self.internal),
            ("port_scan.allow", &self.port_scan.allow),
            ("syn_flood.allow", &self.syn_flood.allow),
            ("udp_flood.allow", &self.udp_flood.allow),
            ("icmp_flood.allow", &self.icmp_flood.allow),
            ("brute_force.allow", &self.brute_force.allow),
            ("beaconing.allow", &self.beaconing.allow),
            ("exfiltration.allow", &self.exfiltration.allow),
            ("cleartext.allow", &self.cleartext.allow),
            ("bindings.allow", &self.bindings.allow),
            ("rogue_dhcp.allow", &self.rogue_dhcp.allow),
            ("rogue_dhcp.known", &self.rogue_dhcp.known),
            ("rogue_ra.allow", &self.rogue_ra.allow),
            ("rogue_ra.known", &self.rogue_ra.known),
            ("new_device.allow", &self.new_device.allow),
            ("dns_tunnel.allow", &self.dns_tunnel.allow),
            ("dga.allow", &self.dga.allow),
            ("deprecated_tls.allow", &self.deprecated_tls.allow),
            ("new_country.allow", &self.new_country.allow),
            ("new_asn.allow", &self.new_asn.allow),
        ] {
            // Each is compared with both addresses of every record.
            check.that(list.len() <= 256, format!("detect.{key}"), || {
                format!("has {} networks; 256 are allowed", list.len())
            });
        }
        let domains = &self.dns_tunnel.allow_domains;
        let key = "detect.dns_tunnel.allow_domains";
        check.that(domains.len() <= 256, key, || format!("has {} domains; 256 are allowed", domains.len()));
        for domain in domains {
            check.that(weir_wire::text::is_plain_domain(domain), key, || {
                format!("has `{domain}`; a domain is in lower case, with no dot at its ends: `example.org`")
            });
        }
    }
}
