//! S12: bad input at the border of configuration: told at once, by key, with what is allowed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use super::*;

fn load(text: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("the file is written");
    Config::load(Some(file.path()), overrides)
}

fn problems(text: &str) -> Vec<(String, String)> {
    match load(text, &Overrides::default()) {
        Err(ConfigError::Problems(problems)) => {
            problems.into_iter().map(|problem| (problem.key, problem.message)).collect()
        }
        other => panic!("problems of {text:?}: {other:?}"),
    }
}

fn keys(text: &str) -> Vec<String> {
    problems(text).into_iter().map(|(key, _)| key).collect()
}

/// S12: whatever both sides say may be pushed is a setting of the sensor's, with the same bounds.
#[test]
fn s12_the_settings_that_may_be_pushed_are_ours_with_our_bounds() {
    use serde_json::{Value, json};
    use weir_wire::settings::{KEYS, Kind, Settings};
    let load = |key: &str, value: &Value| {
        let pushed = Settings::from([(key.to_owned(), value.clone())]);
        Config::load(None, &Overrides { pushed, ..Overrides::default() })
    };
    let defaults = toml::Table::try_from(Config::default()).expect("the defaults print");
    let networks = |count: usize| json!(vec!["10.0.0.0/8"; count]);
    for key in KEYS {
        let mut path = key.name.split('.');
        let top = defaults.get(path.next().expect("a name"));
        assert!(path.try_fold(top, |at, part| Some(at?.get(part))).flatten().is_some(), "{}", key.name);
        let (good, bad) = match key.kind {
            Kind::Duration { least_ms, most_ms } => {
                let text = |ms: u64| json!(format!("{ms}ms"));
                (vec![text(least_ms), text(most_ms)], vec![text(least_ms - 1), text(most_ms + 1)])
            }
            Kind::Number { least, most } => {
                (vec![json!(least), json!(most)], vec![json!(least - 1), json!(most + 1)])
            }
            Kind::Flag => (vec![json!(true), json!(false)], vec![json!("true")]),
            Kind::Networks => (vec![networks(0), networks(256)], vec![networks(257)]),
            Kind::Domains => {
                (vec![json!([]), json!(["example.org"])], vec![json!([".org"]), json!(["Example.org"])])
            }
            Kind::Ports => (vec![json!([]), json!([0, 65_535])], vec![json!([65_536])]),
        };
        for value in good {
            assert_eq!(key.kind.check(&value), Ok(()), "{} = {value}", key.name);
            load(key.name, &value).unwrap_or_else(|error| panic!("{} = {value}: {error}", key.name));
        }
        for value in bad {
            assert!(key.kind.check(&value).is_err(), "{} = {value}", key.name);
            let error = load(key.name, &value).expect_err(key.name).to_string();
            assert!(error.contains(key.name), "{} = {value}: {error}", key.name);
        }
    }
}

/// S12: the file, then what was pushed, then this host's environment and flags; each setting says where it is from.
#[test]
fn s12_what_is_pushed_stands_above_the_file_and_below_the_hosts_own_word() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(
        &mut file,
        b"epoch = \"5s\"\n[sampling]\ninterval = 2\n[connections]\nmax = 2048\n",
    )
    .expect("it is written");
    let pushed =
        serde_json::json!({"epoch": "1s", "connections.max": 4096, "detect.internal": ["10.0.0.0/8"]});
    let mut overrides = variables(&[("WEIR_SENSOR__CONNECTIONS__MAX", "8192")]);
    overrides.pushed = serde_json::from_value(pushed).expect("settings");
    let config = Config::load(Some(file.path()), &overrides).expect("it fits");
    assert_eq!(
        (config.epoch.to_string().as_str(), config.sampling.interval, config.connections.max),
        ("1s", 2, 8192)
    );
    assert_eq!(config.detect.internal.len(), 1);
    let origins = Config::origins(Some(file.path()), &overrides).expect("it fits");
    let origin = |key: &str| origins.iter().find(|(known, ..)| known == key).map(|(_, _, origin)| *origin);
    for (key, expected) in [
        ("epoch", "pushed"),
        ("sampling.interval", "file"),
        ("connections.max", "environment"),
        ("detect.internal", "pushed"),
        ("detect.enabled", "default"),
    ] {
        assert_eq!(origin(key), Some(expected), "{key}");
    }
}

fn variables(variables: &[(&str, &str)]) -> Overrides {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Overrides { environment: environment.collect::<BTreeMap<_, _>>(), ..Overrides::default() }
}

#[test]
fn nothing_set_is_a_sensor_that_works_alone() {
    let config = Config::load(None, &Overrides::default()).expect("the defaults are valid");
    assert_eq!(config, Config::default());
    assert_eq!((config.epoch.0, config.control_plane), (Duration::from_secs(5), None));
    assert_eq!((config.tables.ipv4_slots, config.tables.ipv6_slots), (131_072, 32_768));
    assert_eq!(config.metrics.listen.to_string(), "127.0.0.1:9465");
}

const FULL: &str = r#"
epoch = "50ms"
[[interfaces]]
name = "eth0"
ingress = "generic"
egress = "clsact"
[[interfaces]]
name = "wg0"
[tables]
ipv4_slots = 1024
ipv6_slots = 16
[sampling]
interval = 10
[filter]
default = "deny"
rules = [
  { action = "allow", cidr = "10.0.0.0/8", ports = "8000-8999", protocol = "tcp" },
  { action = "deny", ports = 53 },
  { action = "allow", cidr = "2001:db8::1", protocol = 132 },
]
[connections]
max = 4096
idle_timeout = "1m"
closed_timeout = "500ms"
[pins]
enabled = true
folder = "/run/weir/bpf"
name = "edge-1"
[control_plane]
url = "https://weir.example.org/base"
token = "a-secret-token"
timeout = "3s"
[shipping]
catch_up_batches_per_second = 7
backoff = "100ms"
backoff_max = "30s"
shutdown_deadline = "1s"
[metrics]
listen = "[::1]:9000"
[log]
level = "debug"
format = "json"
kernel = "off"
"#;

#[test]
fn a_full_file_is_read_and_printed_without_its_secret() {
    let config = load(FULL, &Overrides::default()).expect("the file is valid");
    assert_eq!(config.interfaces[0].ingress, Ingress::Generic);
    assert_eq!(config.shipping.catch_up_batches_per_second, 7);
    assert_eq!(config.control_plane.as_ref().map(|plane| plane.timeout.0), Some(Duration::from_secs(3)));
    assert_eq!(config.pins.pinning(), Some(crate::kernel::Pinning::new("/run/weir/bpf", "edge-1")));
    let rules = config.filter.kernel_rules();
    assert_eq!((rules[0].protocol, rules[0].ports.clone()), (Some(6), Some(8_000..=8_999)));
    assert_eq!(rules[2].cidr.map(|(_, prefix)| prefix), Some(128));

    let printed = config.to_toml().expect("it prints");
    assert!(printed.contains("token = \"[hidden]\"") && !printed.contains("a-secret-token"), "{printed}");
    assert!(!format!("{config:?}").contains("a-secret-token"));
    let again = load(&printed, &Overrides::default()).expect("what is printed is valid");
    assert_eq!((again.epoch, again.filter, again.shipping), (config.epoch, config.filter, config.shipping));
}

#[test]
fn events_are_chosen_by_name_and_bounded() {
    let text = "[events]\nclasses = [\"dns\", \"quic\"]\nper_second = 50\nqueue = \"1MiB\"\n[events.names]\nflows = 7\n";
    let config = load(text, &Overrides::default()).expect("the file is valid");
    let settings = config.kernel_settings().events;
    assert_eq!(settings.classes, [crate::kernel::EventClass::Dns, crate::kernel::EventClass::Quic]);
    assert_eq!((settings.per_second, settings.burst, config.events.queue.0), (50, 1000, 1 << 20));
    assert_eq!(config.events.names.limits().flows.get(), 7);
    let again = load(&config.to_toml().expect("it prints"), &Overrides::default()).expect("it is valid");
    assert_eq!(again.events, config.events);
    let off = load("[events]\nenabled = false\n", &Overrides::default()).expect("the file is valid");
    assert_eq!(off.kernel_settings().events.classes, []);
    assert_eq!(Config::default().events.names.limits(), crate::enrich::names::Limits::default());

    let wrong = "[events]\nclasses = [\"arp\", \"arp\"]\nsnap_octets = 5000\nqueue = 1\n[events.names]\nclients = 0\n";
    assert_eq!(keys(wrong), ["events.classes", "events.snap_octets", "events.names.clients", "events.queue"]);
    assert_eq!(keys("[events]\nclasses = [\"dns\", \"gopher\"]\n"), ["events.classes[1]"]);
    assert_eq!(keys("[events]\nclasses = []\n"), ["events.classes"]);
}

#[test]
fn every_wrong_key_is_told_at_once() {
    let text = r#"
        epoch = "5"
        colour = "blue"
        [tables]
        ipv4_slots = 1000
        ipv6_slots = "many"
        slots = 7
        [sampling]
        interval = 0
        [filter]
        default = "maybe"
        [log]
        level = 7
    "#;
    let mut keys = keys(text);
    keys.sort();
    let expected = [
        "colour",
        "epoch",
        "filter.default",
        "log.level",
        "sampling.interval",
        "tables.ipv4_slots",
        "tables.ipv6_slots",
        "tables.slots",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn an_error_says_what_is_allowed() {
    for (text, key, allowed) in [
        ("epoch = \"49ms\"", "epoch", "50ms to 1m"),
        ("epoch = \"61s\"", "epoch", "50ms to 1m"),
        ("epoch = \"-1s\"", "epoch", "\"5s\""),
        ("epoch = 5", "epoch", "\"5s\""),
        ("[[interfaces]]\nname = \"\"", "interfaces[0].name", "1 to 15"),
        ("[pins]\nfolder = \"weir\"", "pins.folder", "absolute"),
        ("[pins]\nname = \"../x\"", "pins.name", "1 to 64"),
        ("[pins]\nname = \"a.b\"", "pins.name", "1 to 64"),
        ("[[interfaces]]\nname = \"a/b\"", "interfaces[0].name", "1 to 15"),
        ("[[interfaces]]\nname = \"sixteen-letters!\"", "interfaces[0].name", "1 to 15"),
        ("[[interfaces]]\nname = \"a\"\ningress = \"fast\"", "interfaces[0].ingress", "native"),
        ("[[interfaces]]\ningress = \"tc\"", "interfaces[0].name", "missing"),
        ("[[interfaces]]\nname = \"a\"\n[[interfaces]]\nname = \"a\"", "interfaces[1].name", "second time"),
        ("[[interfaces]]\nname = \"a\"\ningress = \"off\"\negress = \"off\"", "interfaces[0]", "observe one"),
        ("[tables]\nipv4_slots = 33554432", "tables.ipv4_slots", "16 to 16777216"),
        ("[tables]\nipv4_slots = -1", "tables.ipv4_slots", "u32"),
        ("[sampling]\ninterval = 0", "sampling.interval", "1 (every packet)"),
        ("[[filter.rules]]\naction = \"deny\"", "filter.rules[0]", "filter.default"),
        ("[[filter.rules]]\naction = \"deny\"\ncidr = \"10.0.0.0/33\"", "filter.rules[0].cidr", "10.0.0.0/8"),
        ("[[filter.rules]]\naction = \"deny\"\nports = \"9-8\"", "filter.rules[0].ports", "8000-8999"),
        ("[[filter.rules]]\naction = \"deny\"\nports = 65536", "filter.rules[0].ports", "8000-8999"),
        ("[[filter.rules]]\naction = \"deny\"\nprotocol = \"tpc\"", "filter.rules[0].protocol", "tcp, udp"),
        ("[connections]\nmax = 1", "connections.max", "1024"),
        ("[spool]\nmax_bytes = \"1KiB\"", "spool.max_bytes", "1MiB"),
        ("[spool]\nmax_bytes = \"lots\"", "spool.max_bytes", "64MiB"),
        ("[spool]\nfolder = \"here\"", "spool.folder", "absolute"),
        ("[spool]\nledger_epochs = 0", "spool.ledger_epochs", "1000"),
        ("[shipping]\nbreaker_failures = 0", "shipping.breaker_failures", "1 to 1000"),
        ("[shipping]\nbackoff = \"2s\"\nbackoff_max = \"1s\"", "shipping.backoff_max", "2s to 1h"),
        ("[metrics]\nlisten = \"9465\"", "metrics.listen", "socket address"),
        ("[control_plane]\ntoken = \"t\"", "control_plane.url", "missing"),
        ("[control_plane]\nurl = \"ftp://x\"\ntoken = \"t\"", "control_plane.url", "https://"),
        ("[control_plane]\nurl = \"http://u:p@x\"\ntoken = \"t\"", "control_plane.url", "token_file"),
        ("[control_plane]\nurl = \"http://x\"", "control_plane.token", "WEIR_SENSOR__CONTROL_PLANE__TOKEN"),
        ("[control_plane]\nurl = \"http://x\"\ntoken = \"a b\"", "control_plane.token", "header"),
        (
            "[control_plane]\nurl = \"http://x\"\ntoken_file = \"/does/not/exist\"",
            "control_plane.token_file",
            "read",
        ),
    ] {
        let problems = problems(text);
        let [(found, message)] = &problems[..] else { panic!("one problem of {text:?}: {problems:?}") };
        assert_eq!(found, key, "{text:?}: {message}");
        assert!(message.contains(allowed), "{text:?}: {message}");
    }
}

#[test]
fn too_many_filter_rules_are_refused() {
    let rules = "[[filter.rules]]\naction = \"deny\"\nports = 1\n".repeat(65);
    assert_eq!(keys(&rules), ["filter.rules"]);
}

#[test]
fn a_file_that_is_not_toml_is_named_with_its_line() {
    let error = load("epoch = \"5s\"\n[tables\n", &Overrides::default()).expect_err("not TOML").to_string();
    assert!(error.contains("not TOML") && error.contains("line 2"), "{error}");
    let missing = Config::load(Some(Path::new("/does/not/exist.toml")), &Overrides::default());
    assert!(missing.expect_err("no file").to_string().contains("/does/not/exist.toml"));
}

#[test]
fn flags_stand_above_the_environment_and_the_environment_above_the_file() {
    let mut overrides = variables(&[
        ("WEIR_SENSOR__EPOCH", "2s"),
        ("WEIR_SENSOR__SAMPLING__INTERVAL", "7"),
        ("WEIR_SENSOR__CONTROL_PLANE__URL", "http://127.0.0.1:1"),
        ("WEIR_SENSOR__CONTROL_PLANE__TOKEN", "12345"),
        ("WEIR_SENSOR__FILTER__RULES", "[{ action = \"deny\", ports = 22 }]"),
    ]);
    overrides.settings = vec!["epoch=3s".to_owned(), "tables.ipv4_slots = 2048".to_owned()];
    overrides.interfaces = vec!["lo".to_owned(), "eth0".to_owned()];
    let config = load("epoch = \"1s\"\n[[interfaces]]\nname = \"eth0\"\ningress = \"tc\"", &overrides)
        .expect("all layers are valid");
    assert_eq!(config.epoch.0, Duration::from_secs(3));
    assert_eq!((config.sampling.interval, config.tables.ipv4_slots), (7, 2048));
    let plane = config.control_plane.expect("the environment set it");
    assert_eq!(plane.token.as_ref().map(Secret::expose), Some("12345"), "a token of digits is text");
    assert_eq!(config.filter.rules.len(), 1);
    let names: Vec<_> = config.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!((names, config.interfaces[0].ingress), (vec!["eth0", "lo"], Ingress::Tc));
}

#[test]
fn a_wrong_override_names_where_it_came_from() {
    let overrides =
        variables(&[("WEIR_SENSOR__SAMPLING__INTERVAL", "often"), ("WEIR_SENSOR__NO__SUCH", "1")]);
    let text = load("", &overrides).expect_err("both are wrong").to_string();
    assert!(text.contains("WEIR_SENSOR__SAMPLING__INTERVAL") && text.contains("no: unknown field"), "{text}");
    let overrides =
        Overrides { settings: vec!["epoch".to_owned(), "epoch.x=1".to_owned()], ..Overrides::default() };
    let text = load("epoch = \"5s\"", &overrides).expect_err("neither is a setting").to_string();
    assert!(text.contains("KEY=VALUE") && text.contains("not a section"), "{text}");
}
