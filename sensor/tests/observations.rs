//! What is observed of real captures, against truth that is independent of Weir (S3, S4): every DNS message,
//! hello, lease, binding, discovery, request and announcement of the truth is found, and none is invented.
//! Needs the captures beside the workspace or where `WEIR_PCAPS` says.
//!
//! What the captures' README lets a product off is counted and printed by file and frame: what is inside a
//! tunnel or an ICMP error (`where`), what needs reassembled IP (`ip_fragments`), and frames whose IP header
//! claims more than the frame had, which are malformed to us and in no flow. Nothing is let off for
//! `tcp_segments` and `syn_seen: false`: split hellos are put together, also where the SYN is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use serde_json::Value;
use weir_sensor::capture::{Capture, LinkType};
use weir_sensor::observe::{
    Carrier, Dhcp4, Dhcp6, Dns, DnsKind, Frame, Framing, Name, NdpKind, Observation, Observer, Origin, Rdata,
    Seen,
};

/// A statement in a form that both sides can be brought into, and the frames that it was made in.
type Facts = BTreeMap<String, Vec<u64>>;

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A JSON value as it stands in a statement: strings bare, null as `-`.
fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn option(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// DNS names compare without case; what is no UTF-8 is not compared (the captures' README).
fn dns_name(text: &str) -> String {
    if text.contains('\u{fffd}') {
        return "\u{fffd}".to_owned();
    }
    if text == "<Root>" { ".".to_owned() } else { text.to_ascii_lowercase() }
}

/// The truth's form of what moves a cursor is C's; ours is Rust's, and has a backslash before dots in labels.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let octal = after.get(..3).and_then(|digits| u32::from_str_radix(digits, 8).ok());
        let (code, length) = match (after.chars().next(), octal) {
            (_, Some(code)) => (code, 3),
            (Some('u'), _) if after.starts_with("u{") => {
                let end = after.find('}').expect("an escape ends");
                (u32::from_str_radix(&after[2..end], 16).expect("a code point"), end + 1)
            }
            (Some(letter @ ('r' | 'n' | 't' | 'a' | 'b' | 'f' | 'v')), _) => {
                ("abtnvfr".find(letter).map_or(0, |place| place as u32 + 7), 1)
            }
            (Some('.' | '\\'), _) => (after.chars().next().map_or(0, u32::from), 1),
            _ => (u32::from('\\'), 0),
        };
        plain.extend(char::from_u32(code));
        rest = &after[length..];
    }
    plain + rest
}

fn bare_name(value: &Value) -> String {
    unescaped(&dns_name(&bare(value)))
}

/// What stands where a name cannot be read: there we stop, and the truth's reader goes on.
const UNREADABLE: &str = "<Unknown extended label>";

/// Source, destination, protocol, ports.
fn flow_of_truth(entry: &Value) -> String {
    list(&entry["flow"]).iter().map(bare).collect::<Vec<_>>().join(" ")
}

fn flow_of(origin: &Origin) -> String {
    origin.flow.map_or_else(String::new, |flow| {
        format!("{} {} {} {} {}", flow.src, flow.dst, flow.protocol, flow.src_port, flow.dst_port)
    })
}

fn joined(values: &[Value]) -> String {
    values.iter().map(bare).collect::<Vec<_>>().join(",")
}

/// The truth of one capture, and what may not be asked of it.
#[derive(Default)]
struct Truth {
    facts: Facts,
    /// Frames that are longer than they were, by flow: an entry that stands for several messages does not say
    /// which of them were such.
    too_long: BTreeMap<String, usize>,
    excused: BTreeMap<&'static str, Vec<String>>,
    /// Statements of frames that are in no flow: they may be made or not.
    allowed: Facts,
}

impl Truth {
    fn add(&mut self, entry: &Value, too_long: &BTreeSet<u64>, fact: &str) {
        let frame = entry["frame"].as_u64().or(entry["first_frame"].as_u64()).unwrap_or(0);
        let count = entry["count"].as_u64().unwrap_or(1);
        let excuse = if entry.get("where").is_some() {
            Some("inside a tunnel or an ICMP error")
        } else if entry.get("ip_fragments").is_some() {
            Some("reassembled of IP fragments")
        } else if too_long.contains(&frame) {
            Some("longer than its frame")
        } else {
            None
        };
        let frames = if excuse.is_some() { &mut self.allowed } else { &mut self.facts };
        frames.entry(fact.to_owned()).or_default().extend((0..count).map(|_| frame));
        if let Some(excuse) = excuse {
            self.excused.entry(excuse).or_default().push(format!("frame {frame}: {fact}"));
        }
    }
}

#[allow(clippy::too_many_lines, reason = "a table: a row for each protocol")]
fn truth_of(json: &Value) -> Truth {
    let app = &json["app"];
    let too_long: BTreeSet<u64> =
        list(&json["longer_than_frame"]).iter().filter_map(|frame| frame["frame"].as_u64()).collect();
    let mut truth = Truth::default();
    for frame in list(&json["longer_than_frame"]) {
        let flow = ["src", "dst", "proto", "sport", "dport"].map(|field| bare(&frame[field])).join(" ");
        *truth.too_long.entry(format!("[{flow}]")).or_default() += 1;
    }
    let mut add = |kind: &str, fact: &dyn Fn(&Value) -> Option<String>| {
        for entry in list(&app[kind]) {
            if let Some(fact) = fact(entry) {
                truth.add(entry, &too_long, &format!("{kind} {fact}"));
            }
        }
    };
    add("dns", &|entry| Some(dns_of_truth(entry)));
    add("tls", &|entry| {
        let version = entry.get("quic_version").map_or_else(|| "-".to_owned(), bare);
        Some(format!(
            "{} {version} [{}] sni {} alpn {} {}",
            bare(&entry["transport"]),
            flow_of_truth(entry),
            list(&entry["sni"]).first().map_or_else(|| "-".to_owned(), bare_name),
            joined(list(&entry["alpn"])),
            joined(list(&entry["ja4"])),
        ))
    });
    add("http", &|entry| {
        let [method, host, agent] = ["method", "host", "user_agent"].map(|field| bare(&entry[field]));
        Some(format!("[{}] {method} {} {agent}", flow_of_truth(entry), host.to_ascii_lowercase()))
    });
    add("dhcp4", &|entry| {
        let fields =
            ["msg", "op", "xid", "chaddr", "hostname", "vendor_class", "client_fqdn", "yiaddr", "ciaddr"];
        let fields = fields.map(|field| bare(&entry[field])).join(" | ");
        let requested = bare(&entry["requested_ip"]);
        Some(format!(
            "[{}] {fields} | {requested} | {}",
            flow_of_truth(entry),
            joined(list(&entry["param_list"]))
        ))
    });
    add("dhcp6", &|entry| {
        let mut duids: Vec<String> = list(&entry["duid"]).iter().map(bare).collect();
        duids.sort();
        Some(format!(
            "[{}] {} {} fqdn {} vendor {} {} duid {}",
            flow_of_truth(entry),
            joined(list(&entry["msg"])),
            bare(&entry["xid"]),
            bare(&entry["client_fqdn"]),
            list(&entry["vendor_enterprise"]).first().map_or_else(|| "-".to_owned(), bare),
            joined(list(&entry["vendor_class"])),
            duids.join(","),
        ))
    });
    // Without an address on both sides there is no binding, as ARP over other hardware has none of ours.
    add("arp", &|entry| {
        let fields = ["op", "sha", "spa", "tha", "tpa"].map(|field| bare(&entry[field]));
        (!fields.iter().any(|field| field == "-")).then(|| fields.join(" "))
    });
    add("ndp", &|entry| {
        Some(["type", "src", "dst", "target", "lladdr", "eth_src"].map(|field| bare(&entry[field])).join(" "))
    });
    add("ssdp", &|entry| {
        let fields = ["method", "server", "user_agent"].map(|field| bare(&entry[field])).join(" | ");
        Some(format!("[{}] {fields}", flow_of_truth(entry)))
    });
    add("nbns", &|entry| {
        let names = list(&entry["names"])
            .iter()
            .map(bare)
            .filter(|name| !name.starts_with("Illegal NetBIOS"))
            .map(|name| netbios_name(&name));
        Some(format!(
            "[{}] {} {} names {} addresses {}",
            flow_of_truth(entry),
            bare(&entry["response"]),
            bare(&entry["opcode"]),
            names.collect::<Vec<_>>().join(","),
            joined(list(&entry["addrs"])),
        ))
    });
    add("lldp_cdp", &|entry| {
        let [name, about] = ["system_name", "desc"]
            .map(|field| list(&entry[field]).first().map_or_else(|| "-".to_owned(), bare));
        Some(format!("{} {name} {about}", bare(&entry["eth_src"])))
    });
    truth
}

/// Octets that are no UTF-8 stand as `<9f>` in the truth; so does the suffix, at the end.
fn netbios_name(shown: &str) -> String {
    let (name, suffix) = shown.rsplit_once('<').unwrap_or((shown, ""));
    let mut plain = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('<')
        && let Some((code, after)) = after.split_once('>')
    {
        plain = plain + before + if code >= "80" { "\u{fffd}" } else { "?" };
        rest = after;
    }
    format!("{plain}{rest}<{suffix}")
}

fn dns_of_truth(entry: &Value) -> String {
    let readable = |entry: &&Value| bare(&entry["name"]) != UNREADABLE;
    let asked = list(&entry["questions"]);
    let answered =
        if asked.iter().all(|question| readable(&question)) { list(&entry["answers"]) } else { &[] };
    let questions = asked.iter().take_while(readable).map(|question| {
        format!("{} {} {}", bare_name(&question["name"]), bare(&question["type"]), bare(&question["class"]))
    });
    let answers = answered.iter().take_while(readable).map(|answer| {
        let data = match answer["type"].as_u64() {
            _ if answer
                .as_object()
                .is_some_and(|fields| fields.values().any(|field| field == UNREADABLE)) =>
            {
                "-".to_owned()
            }
            Some(1) => bare(&answer["a"]),
            Some(28) => bare(&answer["aaaa"]),
            Some(5) => bare_name(&answer["cname"]),
            Some(12) => bare_name(&answer["ptr.domain_name"]),
            Some(33) => format!("{} {}", bare_name(&answer["srv.target"]), bare(&answer["srv.port"])),
            Some(15) => bare_name(&answer["mx.mail_exchange"]),
            Some(2) => bare_name(&answer["ns"]),
            Some(6) => bare_name(&answer["soa.mname"]),
            Some(16) => bare(&answer["txt"]),
            Some(65) => {
                format!("{} {}", bare(&answer["svcb.svcpriority"]), bare_name(&answer["svcb.targetname"]))
            }
            _ => "-".to_owned(),
        };
        // The truth's reader shows the parts of a service's name, and not the name.
        let name = if answer["type"] == 33 { "-".to_owned() } else { bare_name(&answer["name"]) };
        format!("{name} {} {} {data}", bare(&answer["type"]), bare(&answer["ttl"]))
    });
    // Queries have no code of an answer.
    let rcode = if entry["response"] == 1 { bare(&entry["rcode"]) } else { "-".to_owned() };
    format!(
        "{} [{}] response {} opcode {} rcode {rcode} tc {} asks {:?} says {:?}",
        bare(&entry["proto"]),
        flow_of_truth(entry),
        bare(&entry["response"]),
        bare(&entry["opcode"]),
        bare(&entry["tc"]),
        questions.collect::<Vec<_>>(),
        answers.collect::<Vec<_>>(),
    )
}

fn dns_fact(message: &Dns, flow: &str) -> String {
    let class = |class: u16| if message.kind == DnsKind::Mdns { class & 0x7fff } else { class };
    let name = |name: &Name| unescaped(&dns_name(name.as_str()));
    let questions: Vec<_> = message
        .questions
        .iter()
        .map(|question| format!("{} {} {}", name(&question.name), question.kind, class(question.class)))
        .collect();
    let answers: Vec<_> = message
        .answers
        .iter()
        .map(|answer| {
            let data = match &answer.data {
                Rdata::A(address) => address.to_string(),
                Rdata::Aaaa(address) => address.to_string(),
                Rdata::Cname(target)
                | Rdata::Ptr(target)
                | Rdata::Mx(target)
                | Rdata::Ns(target)
                | Rdata::Soa(target) => name(target),
                Rdata::Srv { target, port } => format!("{} {port}", name(target)),
                Rdata::Svcb { priority, target } => format!("{priority} {}", name(target)),
                Rdata::Txt(strings) => strings.first().cloned().unwrap_or_default(),
                Rdata::Dname(_) | Rdata::Other {} => "-".to_owned(),
            };
            let owner = if answer.kind == 33 { "-".to_owned() } else { name(&answer.name) };
            format!("{owner} {} {} {data}", answer.kind, answer.ttl_s)
        })
        .collect();
    let rcode = if message.response { message.rcode.to_string() } else { "-".to_owned() };
    format!(
        "dns {} [{flow}] response {} opcode {} rcode {rcode} tc {} asks {questions:?} says {answers:?}",
        match message.kind {
            DnsKind::Dns => "dns",
            DnsKind::Mdns => "mdns",
            DnsKind::Llmnr => "llmnr",
        },
        u8::from(message.response),
        message.opcode,
        u8::from(message.truncated),
    )
}

fn dhcp4_fact(lease: &Dhcp4, flow: &str) -> String {
    format!(
        "dhcp4 [{flow}] {} | {} | {:#010x} | {} | {} | {} | {} | {} | {} | {} | {}",
        option(lease.message.as_ref()),
        if lease.reply { 2 } else { 1 },
        lease.transaction,
        option(lease.client.as_ref()),
        option(lease.hostname.as_ref()),
        option(lease.vendor_class.as_ref()),
        option(lease.client_fqdn.as_ref()),
        lease.assigned,
        lease.client_ip,
        option(lease.requested.as_ref()),
        lease.parameters.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
    )
}

fn dhcp6_fact(lease: &Dhcp6, flow: &str) -> String {
    let mut duids: Vec<&str> =
        [&lease.client_id, &lease.server_id].into_iter().filter_map(|duid| duid.as_deref()).collect();
    duids.sort_unstable();
    format!(
        "dhcp6 [{flow}] {} {} fqdn {} vendor {} {} duid {}",
        lease.messages.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
        lease.transaction.map_or_else(|| "-".to_owned(), |number| format!("{number:#08x}")),
        option(lease.client_fqdn.as_ref()),
        option(lease.vendor_enterprise.as_ref()),
        lease.vendor_class.join(","),
        duids.join(","),
    )
}

/// What we say of the same.
fn fact_of(observation: &Observation) -> Option<String> {
    let flow = flow_of(&observation.origin);
    let addresses = observation.origin.flow.map(|flow| (flow.src, flow.dst));
    let mac = option(observation.origin.src_mac.as_ref());
    Some(match &observation.seen {
        Seen::ServerHello(_) => return None,
        Seen::Dns(message) => dns_fact(message, &flow),
        Seen::ClientHello(hello) => format!(
            "tls {} {} [{flow}] sni {} alpn {} {}",
            match hello.carrier {
                Carrier::Tcp => "tcp",
                Carrier::Quic => "quic",
                Carrier::Dtls => "dtls",
            },
            hello.quic_version.map_or_else(|| "-".to_owned(), |version| format!("{version:#010x}")),
            option(hello.sni.as_ref().map(|name| dns_name(name.as_str())).as_ref()),
            hello.alpn.join(","),
            hello.ja4,
        ),
        Seen::Http(head) => format!(
            "http [{flow}] {} {} {}",
            head.method,
            option(head.host.as_ref()).to_ascii_lowercase(),
            option(head.user_agent.as_ref())
        ),
        Seen::Dhcp4(lease) => dhcp4_fact(lease, &flow),
        Seen::Dhcp6(lease) => dhcp6_fact(lease, &flow),
        Seen::Arp(arp) => {
            format!("arp {} {} {} {} {}", arp.operation, arp.sender, arp.sender_ip, arp.target, arp.target_ip)
        }
        Seen::Ndp(ndp) => {
            let kind = match ndp.kind {
                NdpKind::RouterSolicitation => 133,
                NdpKind::RouterAdvertisement => 134,
                NdpKind::NeighbourSolicitation => 135,
                NdpKind::NeighbourAdvertisement => 136,
                NdpKind::Redirect => 137,
            };
            // The truth names a target of solicitations and advertisements only.
            let target = ndp.target.filter(|_| matches!(kind, 135 | 136));
            let (src, dst) = addresses?;
            format!(
                "ndp {kind} {src} {dst} {} {} {mac}",
                option(target.as_ref()),
                option(ndp.link_address.as_ref())
            )
        }
        Seen::Ssdp(found) => format!(
            "ssdp [{flow}] {} | {} | {}",
            option(found.method.as_ref()),
            option(found.server.as_ref()),
            option(found.user_agent.as_ref())
        ),
        Seen::Nbns(message) => format!(
            "nbns [{flow}] {} {} names {} addresses {}",
            u8::from(message.response),
            message.opcode,
            message
                .names
                .iter()
                .map(|name| format!("{}<{:02x}>", name.name, name.suffix))
                .collect::<Vec<_>>()
                .join(","),
            message.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        ),
        Seen::Neighbour(heard) => format!(
            "lldp_cdp {mac} {} {}",
            option(heard.system_name.as_ref()),
            option(heard.description.as_ref())
        ),
    })
}

/// All observations of a capture, with the number of their frame.
fn observe(capture: &Path) -> Vec<(u64, Observation)> {
    let file = File::open(capture).unwrap_or_else(|error| panic!("{}: {error}", capture.display()));
    let mut capture = Capture::open(file).expect("a capture");
    let mut observer = Observer::default();
    let mut found = Vec::new();
    let mut number = 0;
    while let Some(frame) = capture.next_frame().expect("a whole capture") {
        number += 1;
        let framing = if frame.link == LinkType::Ethernet { Framing::Ethernet } else { Framing::Ip };
        let bytes =
            Frame { framing, bytes: frame.bytes, wire_octets: frame.original_len, offloaded_vlan: None };
        observer.frame(&bytes, frame.time_ns, |observation| found.push((number, observation)));
    }
    found
}

/// What the lines of a discovery message say of what it is about.
fn line<'a>(entry: &'a Value, names: &[&str]) -> Option<&'a str> {
    list(&entry["lines"]).iter().filter_map(Value::as_str).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)).then_some(value.trim())
    })
}

/// Differences of one capture from its truth, and what was let off, a line each.
fn compare(truth_file: &Path) -> (usize, Vec<String>, Vec<String>) {
    let name = truth_file.to_string_lossy().replace(".truth.json", ".pcap");
    let json: Value = serde_json::from_slice(&std::fs::read(truth_file).expect("the truth is readable"))
        .expect("the truth is JSON");
    let mut truth = truth_of(&json);
    let observations = observe(Path::new(&name));
    let mut found: Facts = BTreeMap::new();
    for (frame, observation) in &observations {
        if let Some(fact) = fact_of(observation) {
            found.entry(fact).or_default().push(*frame);
        }
    }
    let short = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut differences = Vec::new();
    let mut compared = 0;
    for (fact, frames) in &truth.facts {
        compared += frames.len();
        let mut missing = frames.len().saturating_sub(found.get(fact).map_or(0, Vec::len));
        if let Some(left) =
            truth.too_long.iter_mut().find(|(flow, _)| fact.contains(*flow)).map(|(_, left)| left)
        {
            let let_off = missing.min(*left).min(frames.len() - 1);
            (missing, *left) = (missing - let_off, *left - let_off);
            if let_off > 0 {
                let of = format!("{let_off} of the messages from frame {}: {fact}", frames[0]);
                truth.excused.entry("longer than its frame").or_default().push(of);
            }
        }
        if missing > 0 {
            differences.push(format!(
                "{short} frame {}: {missing} of {} missing: {fact}",
                frames[0],
                frames.len()
            ));
        }
    }
    for (fact, frames) in &found {
        let told = |facts: &Facts| facts.get(fact).map_or(0, Vec::len);
        let times = told(&truth.facts) + told(&truth.allowed);
        if times < frames.len() {
            differences.push(format!("{short} frames {frames:?}: {times} in the truth: {fact}"));
        }
    }
    for entry in list(&json["app"]["ssdp"]) {
        let Some(target) = line(entry, &["st", "nt"]) else { continue };
        let ours = observations.iter().find_map(|(frame, observation)| match &observation.seen {
            Seen::Ssdp(found) if Some(*frame) == entry["frame"].as_u64() => found.target.as_deref(),
            _ => None,
        });
        if ours != Some(target) {
            differences.push(format!("{short} frame {}: the target {target} is {ours:?}", entry["frame"]));
        }
    }
    let excused = truth
        .excused
        .iter()
        .flat_map(|(why, facts)| facts.iter().map(move |fact| (why, fact)))
        .map(|(why, fact)| format!("{short}: {why}: {fact}"))
        .collect();
    (compared, differences, excused)
}

#[test]
fn every_capture_says_what_its_truth_says_and_no_more() {
    let truths = weir_testbed::capture::truths().expect("the captures are there");
    let (mut compared, mut differences, mut excused) = (0, Vec::new(), Vec::new());
    for truth in &truths {
        let (facts, different, let_off) = compare(truth);
        compared += facts;
        differences.extend(different);
        excused.extend(let_off);
    }
    println!(
        "{} captures, {compared} facts; {} let off:\n{}",
        truths.len(),
        excused.len(),
        excused.join("\n")
    );
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
