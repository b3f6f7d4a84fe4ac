//! The settings that a control plane may push to its sensors: which there are, and what each may be.
//!
//! Deny by default: what is not named here cannot be pushed. Nothing here says where the control plane is or who the
//! sensor is, names a file, drops a packet, leaves packets uncounted without saying so, or could cut the sensor off.
//! Both sides look at the same list; a sensor also holds the whole against its own rules before it takes any of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

/// Settings by key, as they travel: durations are texts such as `5s`, sizes are bytes.
pub type Settings = BTreeMap<String, Value>;

/// Networks in one list: each is compared with both addresses of every record.
const MAX_NETWORKS: usize = 256;
const MAX_PORTS: usize = 256;
const MAX_DOMAINS: usize = 256;

/// What a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Digits and `ms`, `s`, `m` or `h`; bounds in milliseconds.
    Duration {
        least_ms: u64,
        most_ms: u64,
    },
    Number {
        least: u64,
        most: u64,
    },
    Flag,
    /// A list of texts such as `10.0.0.0/8`.
    Networks,
    Ports,
    /// A list of domain names in lower case.
    Domains,
}

/// A setting that may be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As in the sensor's file, the sections joined by dots.
    pub name: &'static str,
    pub kind: Kind,
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub key: String,
    pub message: String,
}

const DAY_MS: u64 = 86_400_000;
/// Windows and waits of detectors.
const WINDOW: Kind = Kind::Duration { least_ms: 1_000, most_ms: DAY_MS };

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

const fn up_to(most: u64) -> Kind {
    Kind::Number { least: 1, most }
}

const U32: u64 = u32::MAX as u64;

/// Everything that may be pushed, in order of name.
pub const KEYS: &[Key] = &[
    key("connections.closed_timeout", Kind::Duration { least_ms: 100, most_ms: DAY_MS }),
    key("connections.idle_timeout", WINDOW),
    key("connections.max", Kind::Number { least: 1_024, most: 16 << 20 }),
    key("detect.beaconing.allow", Kind::Networks),
    key("detect.beaconing.enabled", Kind::Flag),
    key("detect.beaconing.ignore_ports", Kind::Ports),
    key("detect.beaconing.intervals", up_to(100)),
    key("detect.beaconing.jitter_percent", up_to(50)),
    key("detect.beaconing.max_interval", WINDOW),
    key("detect.beaconing.min_interval", WINDOW),
    key("detect.beaconing.regular_percent", up_to(100)),
    key("detect.bindings.allow", Kind::Networks),
    key("detect.bindings.changes", up_to(1_000)),
    key("detect.bindings.enabled", Kind::Flag),
    key("detect.bindings.window", WINDOW),
    key("detect.brute_force.allow", Kind::Networks),
    key("detect.brute_force.connections", up_to(U32)),
    key("detect.brute_force.enabled", Kind::Flag),
    key("detect.brute_force.max_duration", WINDOW),
    key("detect.brute_force.ports", Kind::Ports),
    key("detect.brute_force.window", WINDOW),
    key("detect.cleartext.allow", Kind::Networks),
    key("detect.cleartext.enabled", Kind::Flag),
    key("detect.cleartext.ports", Kind::Ports),
    key("detect.deprecated_tls.allow", Kind::Networks),
    key("detect.deprecated_tls.enabled", Kind::Flag),
    key("detect.dga.allow", Kind::Networks),
    key("detect.dga.domains", up_to(500)),
    key("detect.dga.enabled", Kind::Flag),
    key("detect.dga.generated_percent", up_to(100)),
    key("detect.dga.window", WINDOW),
    key("detect.dns_tunnel.allow", Kind::Networks),
    key("detect.dns_tunnel.allow_domains", Kind::Domains),
    key("detect.dns_tunnel.enabled", Kind::Flag),
    key("detect.dns_tunnel.names", up_to(1_000)),
    key("detect.dns_tunnel.octets", up_to(253)),
    key("detect.dns_tunnel.window", WINDOW),
    key("detect.enabled", Kind::Flag),
    key("detect.exfiltration.allow", Kind::Networks),
    key("detect.exfiltration.deviations", up_to(1_000)),
    key("detect.exfiltration.enabled", Kind::Flag),
    key("detect.exfiltration.factor", up_to(1_000_000)),
    key("detect.exfiltration.learn_windows", up_to(1_000)),
    key("detect.exfiltration.window", WINDOW),
    key("detect.icmp_flood.allow", Kind::Networks),
    key("detect.icmp_flood.enabled", Kind::Flag),
    key("detect.icmp_flood.per_second", up_to(U32)),
    key("detect.icmp_flood.window", WINDOW),
    key("detect.internal", Kind::Networks),
    key("detect.max_open", up_to(65_536)),
    key("detect.new_asn.allow", Kind::Networks),
    key("detect.new_asn.enabled", Kind::Flag),
    key("detect.new_asn.learn", WINDOW),
    key("detect.new_country.allow", Kind::Networks),
    key("detect.new_country.enabled", Kind::Flag),
    key("detect.new_country.learn", WINDOW),
    key("detect.new_device.allow", Kind::Networks),
    key("detect.new_device.enabled", Kind::Flag),
    key("detect.new_device.learn", WINDOW),
    key("detect.new_device.most", up_to(1_000)),
    key("detect.port_scan.allow", Kind::Networks),
    key("detect.port_scan.enabled", Kind::Flag),
    key("detect.port_scan.failed_percent", up_to(100)),
    key("detect.port_scan.hosts", up_to(256)),
    key("detect.port_scan.ports", up_to(256)),
    key("detect.port_scan.slow_targets", up_to(256)),
    key("detect.port_scan.slow_window", WINDOW),
    key("detect.port_scan.udp_ports", up_to(256)),
    key("detect.port_scan.window", WINDOW),
    key("detect.quiet", WINDOW),
    key("detect.rogue_dhcp.allow", Kind::Networks),
    key("detect.rogue_dhcp.enabled", Kind::Flag),
    key("detect.rogue_dhcp.known", Kind::Networks),
    key("detect.rogue_dhcp.learn", WINDOW),
    key("detect.rogue_ra.allow", Kind::Networks),
    key("detect.rogue_ra.enabled", Kind::Flag),
    key("detect.rogue_ra.known", Kind::Networks),
    key("detect.rogue_ra.learn", WINDOW),
    key("detect.syn_flood.allow", Kind::Networks),
    key("detect.syn_flood.enabled", Kind::Flag),
    key("detect.syn_flood.per_second", up_to(U32)),
    key("detect.syn_flood.window", WINDOW),
    key("detect.udp_flood.allow", Kind::Networks),
    key("detect.udp_flood.enabled", Kind::Flag),
    key("detect.udp_flood.per_second", up_to(U32)),
    key("detect.udp_flood.window", WINDOW),
    key("epoch", Kind::Duration { least_ms: 50, most_ms: 60_000 }),
    key("sampling.interval", up_to(U32)),
];

/// The setting of a name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Key> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().and_then(|at| KEYS.get(at))
}

/// Everything that is wrong, each with its key.
#[must_use]
pub fn faults(settings: &Settings) -> Vec<Fault> {
    let fault = |(name, value): (&String, &Value)| {
        let found = match named(name) {
            None => Err("is none of the settings that may be pushed".to_owned()),
            Some(key) => key.kind.check(value),
        };
        found.err().map(|message| Fault { key: name.clone(), message })
    };
    settings.iter().filter_map(fault).collect()
}

/// A sensor's settings over those of its group.
#[must_use]
pub fn merged(group: &Settings, sensor: &Settings) -> Settings {
    group.iter().chain(sensor).map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Kind {
    /// Whether a value may be this; else what is allowed.
    pub fn check(self, value: &Value) -> Result<(), String> {
        match self {
            Self::Duration { least_ms, most_ms } => {
                let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
                let allowed = || format!("is not a text from \"{}\" to \"{}\"", shown(least), shown(most));
                let duration = value.as_str().and_then(duration);
                duration.filter(|it| (least..=most).contains(it)).map(drop).ok_or_else(allowed)
            }
            Self::Number { least, most } => match value.as_u64() {
                Some(number) if (least..=most).contains(&number) => Ok(()),
                _ => Err(format!("is not a whole number from {least} to {most}")),
            },
            Self::Flag if value.is_boolean() => Ok(()),
            Self::Flag => Err("is not true or false".to_owned()),
            Self::Networks => list(value, MAX_NETWORKS, is_network).ok_or_else(|| {
                format!("is not a list of up to {MAX_NETWORKS} networks such as \"10.0.0.0/8\"")
            }),
            Self::Ports => list(value, MAX_PORTS, |item| item.as_u64().is_some_and(|port| port <= 65_535))
                .ok_or_else(|| format!("is not a list of up to {MAX_PORTS} ports")),
            Self::Domains => list(value, MAX_DOMAINS, is_domain).ok_or_else(|| {
                format!("is not a list of up to {MAX_DOMAINS} domains such as \"example.org\", in lower case")
            }),
        }
    }
}

/// Digits and a unit: of all that the sensor's file may say, what nobody reads in two ways.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|char: char| !char.is_ascii_digit())?);
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(ms).map(Duration::from_millis)
}

fn list(value: &Value, most: usize, item: impl Fn(&Value) -> bool) -> Option<()> {
    let items = value.as_array()?;
    (items.len() <= most && items.iter().all(item)).then_some(())
}

fn is_network(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    // As the sensor reads it: digits alone.
    prefix.is_none_or(|prefix| {
        prefix.bytes().all(|byte| byte.is_ascii_digit())
            && prefix.parse::<u8>().is_ok_and(|prefix| prefix <= most)
    })
}

fn is_domain(value: &Value) -> bool {
    value.as_str().is_some_and(crate::text::is_plain_domain)
}

fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Settings {
        serde_json::from_value(value).expect("an object")
    }

    /// S12: what is not named cannot be pushed, whatever it is.
    #[test]
    fn s12_only_named_settings_may_be_pushed() {
        assert!(KEYS.is_sorted_by(|one, next| one.name < next.name));
        for never in [
            "control_plane.url",
            "control_plane.token",
            "spool.folder",
            "threats.enforce",
            "filter.rules",
            "interfaces",
            "metrics.listen",
            "places.databases",
            "pins.folder",
            "log.level",
            "",
            "epoch.x",
        ] {
            assert_eq!(named(never), None, "{never}");
            assert_eq!(faults(&settings(json!({never: 1}))).len(), 1, "{never}");
        }
        for key in KEYS {
            let never = [
                "control_plane",
                "credential",
                "heartbeat",
                "spool",
                "shipping",
                "threats",
                "pins",
                "metrics",
            ];
            assert!(!never.contains(&key.name.split('.').next().expect("a section")), "{}", key.name);
        }
    }

    /// What an operator reads is what there is.
    #[test]
    fn s12_the_documentation_has_every_setting_and_no_other() {
        let text = include_str!("../../docs/configuration.md");
        let (_, list) = text.split_once("Nothing else than this may be pushed").expect("the list");
        let (_, list) = list.split_once(":\n\n").expect("it begins");
        let (list, _) = list.split_once("\n\n").expect("it ends");
        let mut names: Vec<String> = Vec::new();
        for line in list.lines() {
            let (section, leaves) = line.split_once("`: ").unwrap_or(("- `", line));
            let section = section.trim_start_matches("- `");
            for leaf in leaves.split('`').filter(|leaf| leaf.bytes().any(|byte| byte.is_ascii_lowercase())) {
                names.push(if section.is_empty() { leaf.to_owned() } else { format!("{section}.{leaf}") });
            }
        }
        names.sort();
        assert_eq!(names, KEYS.iter().map(|key| key.name.to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn s12_values_are_held_against_their_bounds() {
        let good = json!({"epoch": "1s", "sampling.interval": 10, "detect.enabled": false,
                          "detect.internal": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"],
                          "detect.cleartext.ports": [21, 23], "connections.idle_timeout": "2m"});
        assert_eq!(faults(&settings(good)), []);
        for (key, value) in [
            ("epoch", json!("49ms")),
            ("epoch", json!("61s")),
            ("epoch", json!("-1s")),
            ("epoch", json!("1 s")),
            ("epoch", json!("s")),
            ("epoch", json!("99999999999999999999h")),
            ("epoch", json!(5)),
            ("sampling.interval", json!(0)),
            ("sampling.interval", json!(1.5)),
            ("sampling.interval", json!("10")),
            ("detect.enabled", json!("yes")),
            ("detect.internal", json!(["10.0.0.0/33"])),
            ("detect.internal", json!(["10.0.0.0/+8"])),
            ("detect.internal", json!("10.0.0.0/8")),
            ("detect.cleartext.ports", json!([65_536])),
            ("connections.max", json!(null)),
        ] {
            let found = faults(&settings(json!({ key: value })));
            assert_eq!(found.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), [key], "{value}");
        }
        let found = faults(&settings(json!({"epoch": "61s", "zzz": 1, "detect.enabled": true})));
        assert_eq!(found.len(), 2, "all are told: {found:?}");
    }

    #[test]
    fn s12_the_sensor_wins_over_its_group_key_by_key() {
        let group = settings(json!({"epoch": "1s", "sampling.interval": 10}));
        let sensor = settings(json!({"epoch": "2s", "detect.enabled": false}));
        let expected = settings(json!({"epoch": "2s", "sampling.interval": 10, "detect.enabled": false}));
        assert_eq!(merged(&group, &sensor), expected);
        assert_eq!(merged(&group, &Settings::new()), group);
    }
}
