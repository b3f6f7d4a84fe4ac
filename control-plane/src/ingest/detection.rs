//! Detections of a batch: bounded, and with names that can be shown (I6).
//!
//! Words are refused where they are not words; free text may come from a packet of a stranger, so it is
//! cleaned instead: a sensor must not lose a batch for what somebody called their host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};
use weir_wire::{FactValue, Severity, limits};

use super::context::clean;
use super::validate::{
    COARSE_CLOCK_NS, Invalid, MAX_CONNECTION_NS, PACKET_TIME_TOLERANCE_NS, count, invalid,
};

/// What an epoch adds to a detection. Times are nanoseconds after the window's start.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    pub kind: String,
    pub severity: Severity,
    pub subject: String,
    pub address: Option<IpAddr>,
    pub first_ns: i64,
    pub last_ns: i64,
    pub count: i64,
    pub technique: String,
    pub source: String,
    /// Names with their values.
    pub evidence: Map<String, Value>,
}

/// Checks all detections of a batch whose window is so long; they come out in the order of their keys.
pub(super) fn check(
    detections: Vec<weir_wire::Detection>,
    part: u32,
    length_ns: i64,
) -> Result<Vec<Detection>, Invalid> {
    if detections.len() > limits::MAX_DETECTIONS {
        let (found, most) = (detections.len(), limits::MAX_DETECTIONS);
        return invalid("detections", format!("{found} detections, more than {most}"));
    }
    if part != 0 && !detections.is_empty() {
        return invalid("detections", "belong to part 0");
    }
    let mut checked = Vec::with_capacity(detections.len());
    let mut keys = BTreeSet::new();
    for (index, detection) in detections.into_iter().enumerate() {
        let detection = one(detection, length_ns)
            .map_err(|(field, message)| Invalid { field: format!("detections[{index}].{field}"), message })?;
        if !keys.insert((detection.kind.clone(), detection.subject.clone())) {
            let message = "the same kind and subject as an earlier detection";
            return invalid(format!("detections[{index}].subject"), message);
        }
        checked.push(detection);
    }
    checked.sort_by(|a, b| (&a.kind, &a.subject).cmp(&(&b.kind, &b.subject)));
    Ok(checked)
}

type Fault = (String, String);

fn one(detection: weir_wire::Detection, length_ns: i64) -> Result<Detection, Fault> {
    let fault = |field: &str, message: String| Err((field.to_owned(), message));
    for (field, word) in [("kind", &detection.kind), ("source", &detection.source)] {
        if !is_word(word) {
            let most = limits::MAX_WORD;
            return fault(field, format!("is not 1 to {most} of a-z, 0-9 and _ that begin with a letter"));
        }
    }
    let technique = &detection.technique;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    if technique.len() > limits::MAX_WORD || !technique.bytes().all(plain) {
        return fault("technique", "is not the number of a technique".to_owned());
    }
    let Ok(severity) = Severity::try_from(detection.severity) else {
        return fault("severity", format!("{} is not a severity", detection.severity));
    };
    let subject = clean(&detection.subject, limits::MAX_TEXT);
    if subject.trim().is_empty() {
        return fault("subject", "is empty".to_owned());
    }
    let address = match address(&detection.address) {
        Some(address) => Some(address),
        None if detection.address.is_empty() => None,
        None => return fault("address", format!("{} bytes instead of 4 or 16", detection.address.len())),
    };
    let (first, last) = (detection.first_ns, detection.last_ns);
    if last < -MAX_CONNECTION_NS || last > length_ns.saturating_add(PACKET_TIME_TOLERANCE_NS) {
        return fault(
            "last_ns",
            format!("{last} ns is over an hour after the window, or 50 years before it"),
        );
    }
    if first < -MAX_CONNECTION_NS || first > last.saturating_add(COARSE_CLOCK_NS) {
        return fault("first_ns", format!("{first} is not between 50 years ago and last_ns"));
    }
    let count = count("count", detection.count).map_err(|invalid| (invalid.field, invalid.message))?;
    let evidence = facts(detection.evidence)?;
    let weir_wire::Detection { kind, technique, source, .. } = detection;
    let first_ns = first.min(last);
    Ok(Detection {
        kind,
        severity,
        subject,
        address,
        first_ns,
        last_ns: last,
        count,
        technique,
        source,
        evidence,
    })
}

fn facts(facts: Vec<weir_wire::Fact>) -> Result<Map<String, Value>, Fault> {
    if facts.len() > limits::MAX_FACTS {
        let message = format!("{} facts, more than {}", facts.len(), limits::MAX_FACTS);
        return Err(("evidence".to_owned(), message));
    }
    let mut evidence = Map::new();
    for (index, fact) in facts.into_iter().enumerate() {
        let fault =
            |field: &str, message: &str| Err((format!("evidence[{index}].{field}"), message.to_owned()));
        if !is_word(&fact.name) {
            return fault("name", "is not a word");
        }
        let value = match fact.value {
            Some(FactValue::Number(number)) => Value::from(number),
            Some(FactValue::Text(text)) => Value::from(clean(&text, limits::MAX_TEXT)),
            Some(FactValue::Address(bytes)) => match address(&bytes) {
                Some(address) => Value::from(address.to_string()),
                None => return fault("address", "has not 4 or 16 bytes"),
            },
            // A kind of value that a newer sensor knows.
            None => continue,
        };
        let values = evidence.entry(fact.name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(value);
        }
    }
    Ok(evidence)
}

/// Whether a text is a word such as `port_scan`.
#[must_use]
pub fn is_word(word: &str) -> bool {
    (1..=limits::MAX_WORD).contains(&word.len())
        && word.as_bytes()[0].is_ascii_lowercase()
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// 4 or 16 bytes as an address.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = || Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)));
    let sixteen = || Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)));
    four().or_else(sixteen)
}
