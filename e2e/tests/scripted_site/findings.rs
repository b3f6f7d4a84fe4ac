//! What the API says of the office, and what it should.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use weir_e2e::Site;
use weir_e2e::office::{GATEWAY, SINK};

use super::cast::{
    CALLER, CREEPER, FLOODER, GUESSER, Known, LEAKER, MALWARE, NAS, NEWCOMER, OLD, PROBER, REVELLER, ROGUE,
    SEEKER, SWEEPER, TRAVELLER, TUNNELLER, TWINS, VETERAN,
};
use super::script::{
    GUESSED, ICMP_FLOODED, LISTED_ADDRESS, LISTED_DOMAIN, MASTER, SYN_FLOODED, TERMINAL, UDP_FLOODED,
};

/// The API, asked about everything.
pub struct Findings<'a> {
    site: &'a Site,
}

/// A detection.
#[derive(Debug)]
pub struct Detected {
    pub kind: String,
    pub subject: String,
    pub count: u64,
    pub evidence: Value,
}

/// A device.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// All of them, sorted.
    keys: String,
    name: Option<String>,
    vendor: Option<String>,
    kind: Option<String>,
    addresses: BTreeSet<String>,
}

/// Protocol, server's port, process.
pub type Process = (u64, u64, String);

impl From<&Known> for Device {
    fn from((keys, name, vendor, kind, addresses): &Known) -> Self {
        Self {
            keys: (*keys).to_owned(),
            name: name.map(str::to_owned),
            vendor: vendor.map(str::to_owned),
            kind: kind.map(str::to_owned),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl<'a> Findings<'a> {
    pub fn new(site: &'a Site) -> Self {
        Self { site }
    }

    /// All items of a list.
    fn all(&self, path: &str) -> Vec<Value> {
        let api = self.site.control_plane.api();
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let mut page = api.json(&format!("{path}{next}")).expect("the API answers");
            items.append(page["items"].as_array_mut().expect("items"));
            let Some(token) = page["continuation"].as_str() else { return items };
            next = format!("&continuation={token}");
        }
    }

    pub fn detections(&self) -> Vec<Detected> {
        let found = self.all("/api/v1/detections?state=all&limit=1000").into_iter();
        found
            .map(|it| Detected {
                kind: text(&it["kind"]),
                subject: text(&it["subject"]),
                count: it["count"].as_u64().unwrap_or_default(),
                evidence: it["evidence"].clone(),
            })
            .collect()
    }

    pub fn devices(&self) -> BTreeSet<Device> {
        let found = self.all("/api/v1/devices?limit=1000").into_iter();
        let maybe = |value: &Value| value.as_str().map(str::to_owned);
        let list = |value: &Value| value.as_array().expect("a list").clone();
        found
            .map(|it| Device {
                keys: {
                    let keys: BTreeSet<String> =
                        list(&it["keys"]).iter().map(|key| text(&key["value"])).collect();
                    keys.into_iter().collect::<Vec<_>>().join(" ")
                },
                name: maybe(&it["name"]),
                vendor: maybe(&it["vendor"]),
                kind: maybe(&it["type"]),
                addresses: list(&it["addresses"]).iter().map(text).collect(),
            })
            .collect()
    }

    fn flows(&self) -> Vec<Value> {
        self.all("/api/v1/flows?sensor=gateway&limit=1000")
    }

    /// Of each client's flows to each service the name, with the nearest source that told it: what began before its
    /// hello was read has what the client looked up.
    pub fn names(&self) -> BTreeSet<(String, String, u64, String)> {
        let mut named: BTreeMap<(String, String, u64), String> = BTreeMap::new();
        for flow in self.flows().iter().filter(|flow| !flow["name"].is_null()) {
            let key =
                (text(&flow["src"]), text(&flow["name"]), flow["dst_port"].as_u64().unwrap_or_default());
            let source = named.entry(key).or_default();
            // Of the words, the one of a lookup comes first.
            *source = text(&flow["name_source"]).max(std::mem::take(source));
        }
        named.into_iter().map(|((client, name, port), source)| (client, name, port, source)).collect()
    }

    /// Of the gateway's own flows, but for the sink, which is this test.
    pub fn processes(&self) -> BTreeSet<Process> {
        let gateway = GATEWAY.to_string();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let mut found = BTreeSet::new();
        for flow in self.flows().iter().filter(|flow| number(&flow["dst_port"]) != u64::from(SINK)) {
            for side in ["src", "dst"] {
                let process = &flow[format!("{side}_process")];
                if flow[side] == gateway && !process.is_null() {
                    found.insert((number(&flow["protocol"]), number(&flow["dst_port"]), text(process)));
                }
            }
        }
        found
    }

    /// One question finds devices, names and detections.
    pub fn search(&self) {
        let api = self.site.control_plane.api();
        let hits = |q: &str| -> BTreeSet<(String, String)> {
            let found = api.json(&format!("/api/v1/search?q={q}")).expect("the API answers");
            let items = found["items"].as_array().expect("items").iter();
            items.map(|it| (text(&it["kind"]), text(&it["title"]))).collect()
        };
        assert!(hits("thermostat").contains(&("device".to_owned(), "thermostat".to_owned())));
        let malware = hits("malware");
        assert!(malware.contains(&("domain".to_owned(), "cdn.malware.example".to_owned())), "{malware:?}");
        assert!(malware.iter().any(|(kind, _)| kind == "detection"), "{malware:?}");
        let newcomer = hits(&NEWCOMER.address.to_string());
        assert!(newcomer.contains(&("address".to_owned(), NEWCOMER.address.to_string())), "{newcomer:?}");
        // And flows of a device, by its name.
        let called = self.all("/api/v1/flows?filter=src_device%20%3D%20caller&limit=1000");
        let called: BTreeSet<_> = called.iter().map(|flow| text(&flow["dst"])).collect();
        assert_eq!(called, [MASTER.to_string()].into());
    }
}

/// Everything that the culprits did, and nothing else.
pub fn expected() -> Vec<(&'static str, String)> {
    let about = |subject: &dyn std::fmt::Display| subject.to_string();
    let (reveller, veteran) = (REVELLER.address, VETERAN.address);
    vec![
        ("port_scan", about(&SWEEPER.address)),
        ("port_scan", about(&PROBER.address)),
        ("port_scan", about(&CREEPER.address)),
        ("syn_flood", about(&SYN_FLOODED)),
        ("udp_flood", about(&UDP_FLOODED)),
        ("icmp_flood", about(&ICMP_FLOODED)),
        ("brute_force", about(&GUESSER.address)),
        ("beaconing", format!("{} > {MASTER}:4444", CALLER.address)),
        ("exfiltration", about(&LEAKER.address)),
        ("cleartext", format!("{veteran} > {TERMINAL}:23")),
        ("deprecated_tls", format!("{veteran} > {OLD}:8443")),
        ("listed_address", format!("{reveller} > {LISTED_ADDRESS}:80")),
        ("listed_domain", format!("{reveller} > {LISTED_DOMAIN}")),
        ("listed_domain", format!("{reveller} > {MALWARE}:443")),
        ("new_country", about(&TRAVELLER.address)),
        ("new_asn", about(&TRAVELLER.address)),
        ("arp_spoof", about(&NAS.address)),
        ("address_conflict", about(&TWINS[0].address)),
        ("rogue_dhcp", about(&ROGUE.address)),
        ("rogue_ra", "fe80::ba27:ebff:fe00:12b".to_owned()),
        ("new_device", NEWCOMER.mac.to_owned()),
        ("dns_tunnel", format!("{} > tunnel.example", TUNNELLER.address)),
        ("dga", about(&SEEKER.address)),
    ]
}

/// Each has evidence, and it names what was done.
pub fn evidence(found: &[Detected]) {
    for detected in found {
        let told = detected.evidence.as_object().expect("evidence has names");
        assert!(!told.is_empty(), "{detected:?}");
    }
    let has = |kind: &str, subject: &str, name: &str, value: &str| {
        let one = found.iter().find(|it| it.kind == kind && it.subject == subject).expect("it was found");
        let values = one.evidence[name].as_array().cloned().unwrap_or_default();
        let texts = values.iter().map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
        assert!(texts.collect::<Vec<_>>().iter().any(|text| text == value), "{name} = {value}: {one:?}");
    };
    has("port_scan", &SWEEPER.address.to_string(), "mode", "horizontal");
    has("port_scan", &PROBER.address.to_string(), "mode", "vertical");
    has("port_scan", &CREEPER.address.to_string(), "mode", "slow");
    has("brute_force", &GUESSER.address.to_string(), "host", &GUESSED.to_string());
    for flooded in [("syn_flood", SYN_FLOODED), ("udp_flood", UDP_FLOODED), ("icmp_flood", ICMP_FLOODED)] {
        has(flooded.0, &flooded.1.to_string(), "source", &FLOODER.address.to_string());
    }
    has("new_country", &TRAVELLER.address.to_string(), "country", "SE");
    has("new_asn", &TRAVELLER.address.to_string(), "asn", "29518");
    has("exfiltration", &LEAKER.address.to_string(), "port", "9000");
    has("rogue_dhcp", &ROGUE.address.to_string(), "mac", ROGUE.mac);
    has("arp_spoof", &NAS.address.to_string(), "mac", super::cast::SPOOFER.mac);
    has("address_conflict", &TWINS[0].address.to_string(), "mac", TWINS[1].mac);
    has("deprecated_tls", &format!("{} > {OLD}:8443", VETERAN.address), "version", "TLS 1.0");
}

/// What was done so often is counted so often, though the gateway sees it on its way in and on its way out.
pub fn counts(found: &[Detected]) {
    for (kind, subject, count) in [
        ("port_scan", SWEEPER.address.to_string(), 40),
        ("port_scan", PROBER.address.to_string(), 40),
        ("port_scan", CREEPER.address.to_string(), 64),
        ("brute_force", GUESSER.address.to_string(), 25),
        ("dns_tunnel", format!("{} > tunnel.example", TUNNELLER.address), 120),
        ("dga", SEEKER.address.to_string(), 25),
        ("cleartext", format!("{} > {TERMINAL}:23", VETERAN.address), 1),
        ("listed_address", format!("{} > {LISTED_ADDRESS}:80", REVELLER.address), 1),
        ("listed_domain", format!("{} > {LISTED_DOMAIN}", REVELLER.address), 1),
        ("new_device", NEWCOMER.mac.to_owned(), 1),
        ("new_country", TRAVELLER.address.to_string(), 1),
        ("new_asn", TRAVELLER.address.to_string(), 1),
    ] {
        let one = found.iter().find(|it| it.kind == kind && it.subject == subject).expect("it was found");
        assert_eq!(one.count, count, "{one:?}");
    }
}

pub fn names() -> BTreeSet<(String, String, u64, String)> {
    use super::cast::{LAPTOP, PHONE_AGAIN, THERMOSTAT};
    [
        (LAPTOP, "www.example.net", 443, "tls"),
        // Requests without a host.
        (LAPTOP, "www.example.net", 80, "dns"),
        (NAS, "www.example.net", 443, "tls"),
        (PHONE_AGAIN, "www.example.net", 443, "tls"),
        (THERMOSTAT, "time.example.net", 123, "dns"),
        (THERMOSTAT, "www.example.net", 80, "http"),
        (REVELLER, "cdn.malware.example", 443, "tls"),
        (VETERAN, "old.example.net", 8443, "tls"),
    ]
    .map(|(client, name, port, source)| {
        (client.address.to_string(), name.to_owned(), port, source.to_owned())
    })
    .into()
}

pub fn processes() -> BTreeSet<Process> {
    [(17, 53, "dnsmasq"), (17, 68, "dnsmasq"), (6, 631, "curl")]
        .map(|(protocol, port, name)| (protocol, port, name.to_owned()))
        .into()
}
