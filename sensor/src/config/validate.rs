//! Bounds of single values, and what must fit together.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::Problem;
use super::sections::{Config, ControlPlane, Egress, Ingress, Pins, Spool};
use super::units::Period;
use crate::kernel;

/// Observation points that the kernel tables are loaded for: two for each interface.
pub(super) const MAX_POINTS: u16 = 254;
const MAX_INTERFACES: usize = (MAX_POINTS / 2) as usize;

/// Each is asked for both addresses of every flow.
const MAX_DATABASES: usize = 8;

/// Notes everything that is out of bounds.
pub(super) fn problems(config: &Config, problems: &mut Vec<Problem>) {
    let mut check = Check { problems };
    let ms = Duration::from_millis;
    let secs = Duration::from_secs;
    check.period("epoch", config.epoch, ms(50), secs(60));
    interfaces(config, &mut check);
    for (key, slots) in [("ipv4_slots", config.tables.ipv4_slots), ("ipv6_slots", config.tables.ipv6_slots)] {
        let fits = slots.is_power_of_two() && (16..=1 << 24).contains(&slots);
        check.that(fits, format!("tables.{key}"), || {
            format!("is {slots}; a power of two from 16 to 16777216 is allowed")
        });
    }
    check.that(config.sampling.interval > 0, "sampling.interval", || {
        "is 0; 1 (every packet) to 4294967295 are allowed".to_owned()
    });
    let rules = config.filter.rules.len();
    check.that(rules <= kernel::MAX_FILTER_RULES, "filter.rules", || {
        format!("has {rules} rules; {} are allowed", kernel::MAX_FILTER_RULES)
    });
    for (number, rule) in config.filter.rules.iter().enumerate() {
        let names_something = rule.cidr.is_some() || rule.ports.is_some() || rule.protocol.is_some();
        check.that(names_something, format!("filter.rules[{number}]"), || {
            "matches everything; name cidr, ports or protocol, or set filter.default".to_owned()
        });
    }
    let connections = &config.connections;
    check.that((1_024..=16 << 20).contains(&connections.max), "connections.max", || {
        format!("is {}; 1024 to 16777216 are allowed", connections.max)
    });
    check.period("connections.idle_timeout", connections.idle_timeout, secs(1), secs(86_400));
    check.period("connections.closed_timeout", connections.closed_timeout, ms(100), secs(86_400));
    config.events.problems(&mut check);
    config.detect.problems(&mut check);
    config.devices.problems(&mut check);
    pins(&config.pins, &mut check);
    super::threats::check(&config.threats, &mut check);
    let databases = config.places.databases.len();
    check.that(databases <= MAX_DATABASES, "places.databases", || {
        format!("has {databases} files; {MAX_DATABASES} are allowed")
    });
    let processes = &config.processes;
    check.that((1_024..=1 << 20).contains(&processes.remembered.get()), "processes.remembered", || {
        format!("is {}; 1024 to 1048576 are allowed", processes.remembered)
    });
    check.period("processes.look_interval", processes.look_interval, secs(1), secs(3_600));
    if let Some(control_plane) = &config.control_plane {
        destination(control_plane, &mut check);
    }
    super::heartbeat::check(config.heartbeat, config.credential, &mut check);
    if let Err(error) = config.traces.check() {
        let text = error.to_string();
        let (key, problem) = text.split_once(": ").unwrap_or(("traces", &text));
        check.that(false, key, || problem.to_owned());
    }
    let shipping = &config.shipping;
    check.period("shipping.backoff", shipping.backoff, ms(10), secs(60));
    check.period("shipping.backoff_max", shipping.backoff_max, shipping.backoff.0.max(ms(10)), secs(3_600));
    check.that((1..=1_000).contains(&shipping.breaker_failures), "shipping.breaker_failures", || {
        format!("is {}; 1 to 1000 are allowed", shipping.breaker_failures)
    });
    let rate = shipping.catch_up_batches_per_second;
    check.that((1..=10_000).contains(&rate), "shipping.catch_up_batches_per_second", || {
        format!("is {rate}; 1 to 10000 are allowed")
    });
    spool(&config.spool, &mut check);
    check.period("shipping.shutdown_deadline", shipping.shutdown_deadline, ms(100), secs(300));
}

fn spool(spool: &Spool, check: &mut Check<'_>) {
    check.that(spool.folder.is_absolute(), "spool.folder", || {
        format!("is {}; an absolute path is expected", spool.folder.display())
    });
    check.that((1 << 20..=1 << 40).contains(&spool.max_bytes.0), "spool.max_bytes", || {
        format!("is {} bytes; 1MiB to 1024GiB are allowed", spool.max_bytes.0)
    });
    check.period("spool.max_age", spool.max_age, Duration::from_secs(1), Duration::from_hours(365 * 24));
    check.that(spool.quarantine_bytes.0 <= 1 << 40, "spool.quarantine_bytes", || {
        format!("is {} bytes; up to 1024GiB are allowed", spool.quarantine_bytes.0)
    });
    check.that((1_000..=10_000_000).contains(&spool.ledger_epochs), "spool.ledger_epochs", || {
        format!("is {}; 1000 to 10000000 are allowed", spool.ledger_epochs)
    });
}

fn interfaces(config: &Config, check: &mut Check<'_>) {
    let count = config.interfaces.len();
    check.that(count <= MAX_INTERFACES, "interfaces", || {
        format!("names {count} interfaces; {MAX_INTERFACES} are allowed")
    });
    let mut names = BTreeSet::new();
    for (number, interface) in config.interfaces.iter().enumerate() {
        let name = &interface.name;
        let key = || format!("interfaces[{number}].name");
        let usable = (1..=weir_wire::limits::MAX_INTERFACE_NAME).contains(&name.len())
            && !matches!(name.as_str(), "." | "..")
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        check.that(usable, key(), || {
            format!("is {name:?}; 1 to 15 characters without space, '/' and ':' are allowed")
        });
        check.that(names.insert(name), key(), || format!("names {name} a second time"));
        let observed = interface.ingress != Ingress::Off || interface.egress != Egress::Off;
        check.that(observed, format!("interfaces[{number}]"), || {
            "has ingress and egress off; leave the interface out, or observe one of them".to_owned()
        });
    }
}

fn pins(pins: &Pins, check: &mut Check<'_>) {
    check.that(pins.folder.is_absolute(), "pins.folder", || {
        format!("is {}; an absolute path on a bpffs is allowed", pins.folder.display())
    });
    // A bpffs takes no dots in names.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let usable = (1..=64).contains(&pins.name.len()) && pins.name.bytes().all(plain);
    check.that(usable, "pins.name", || {
        format!("is {:?}; 1 to 64 letters, digits, '-' and '_' are allowed", pins.name)
    });
}

fn destination(control_plane: &ControlPlane, check: &mut Check<'_>) {
    let url = reqwest::Url::parse(&control_plane.url);
    let usable = url.as_ref().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    check.that(usable, "control_plane.url", || {
        // The URL may hold a password: it is not repeated.
        "is not an http:// or https:// address".to_owned()
    });
    if let Ok(url) = &url {
        let plain = url.username().is_empty() && url.password().is_none();
        check.that(plain, "control_plane.url", || {
            "holds a user name or password; the credential is token or token_file".to_owned()
        });
        let bare = url.query().is_none() && url.fragment().is_none();
        check.that(bare, "control_plane.url", || "has a query or fragment; leave it out".to_owned());
    }
    check.that(
        control_plane.token.is_some() != control_plane.token_file.is_some(),
        "control_plane.token",
        || {
            if control_plane.token.is_some() {
                "is set, and so is token_file; set one of them".to_owned()
            } else {
                "is missing; set token_file, or WEIR_SENSOR__CONTROL_PLANE__TOKEN".to_owned()
            }
        },
    );
    if let Some(token) = &control_plane.token {
        let sendable =
            !token.expose().is_empty() && token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        check.that(sendable, "control_plane.token", || {
            "is empty or holds characters that a header cannot carry".to_owned()
        });
    }
    for (key, path) in [("token_file", &control_plane.token_file), ("ca_file", &control_plane.ca_file)] {
        if let Some(path) = path
            && let Err(error) = std::fs::File::open(path)
        {
            check.that(false, format!("control_plane.{key}"), || format!("cannot be read: {error}"));
        }
    }
    check.period(
        "control_plane.timeout",
        control_plane.timeout,
        Duration::from_millis(100),
        Duration::from_mins(5),
    );
}

pub(super) struct Check<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn that(&mut self, holds: bool, key: impl Into<String>, message: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(Problem { key: key.into(), message: message() });
        }
    }

    pub(super) fn period(&mut self, key: &str, period: Period, least: Duration, most: Duration) {
        self.that((least..=most).contains(&period.0), key, || {
            format!("is {period}; {} to {} are allowed", Period(least), Period(most))
        });
    }
}
