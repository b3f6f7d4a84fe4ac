//! What a device is: rules with weights, in data (`types.toml`), and what became of them for one device.
//!
//! A rule that held once holds for the device: it is kept with what was seen, so that the type can be explained. The
//! type is the one with the greatest sum of weights; a sum under [`ENOUGH`] is none. The operator's word is final,
//! and is the control plane's to know.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, de};

/// Sum of weights from which a type is told.
pub const ENOUGH: u32 = 30;
/// Octets of what is kept of a text for which a rule held.
const MAX_DETAIL: usize = 64;

/// What a device may be. Closed: the control plane checks what operators say against the same words.
pub use weir_wire::DeviceType as Type;

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    DhcpVendorClass,
    DhcpParameters,
    MdnsService,
    SsdpTarget,
    SsdpServer,
    SsdpAgent,
    HttpAgent,
    Ja4,
    Vendor,
    Neighbour,
    /// TCP port at which the device answered.
    Port,
    /// `router`, `gateway`, `dhcp_server`
    Role,
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub word: String,
    #[serde(deserialize_with = "by_word")]
    pub r#type: Type,
    pub weight: u32,
    signal: Signal,
    is: Option<String>,
    begins: Option<String>,
    holds: Option<String>,
    /// Where the rule comes from.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rule: Vec<Rule>,
}

/// The table is part of the program: a test reads it.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    toml::from_str::<Rules>(include_str!("types.toml"))
        .expect("the table of types is part of the program")
        .rule
});

fn by_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Type, D::Error> {
    let word = String::deserialize(deserializer)?;
    Type::parse(&word).ok_or_else(|| de::Error::custom(format!("`{word}` is no type of a device")))
}

impl Rule {
    /// `text` is in small letters.
    fn holds(&self, text: &str) -> bool {
        self.is.as_ref().is_none_or(|is| text == is)
            && self.begins.as_ref().is_none_or(|begins| text.starts_with(begins))
            && self.holds.as_ref().is_none_or(|holds| text.contains(holds))
    }
}

/// A rule that held, with what it held for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    rule: usize,
    pub detail: String,
    pub first_ns: i64,
    pub last_ns: i64,
}

impl Evidence {
    #[must_use]
    pub fn rule(&self) -> &'static Rule {
        &RULES[self.rule]
    }
}

/// All rules that held for a device: each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(Vec<Evidence>);

impl Reasons {
    /// Looks at what a device said or did; whether a rule held that did not before.
    pub fn look(&mut self, signal: Signal, text: &str, at_ns: i64) -> bool {
        let small = text.to_lowercase();
        let mut new = false;
        for (number, rule) in RULES.iter().enumerate().filter(|(_, rule)| rule.signal == signal) {
            if !rule.holds(&small) {
                continue;
            }
            if let Some(known) = self.0.iter_mut().find(|known| known.rule == number) {
                known.last_ns = known.last_ns.max(at_ns);
                continue;
            }
            let detail = text[..text.floor_char_boundary(MAX_DETAIL)].to_owned();
            self.0.push(Evidence { rule: number, detail, first_ns: at_ns, last_ns: at_ns });
            new = true;
        }
        new
    }

    /// Takes in another device's, which was this one all along.
    pub fn join(&mut self, other: Self) {
        for evidence in other.0 {
            match self.0.iter_mut().find(|known| known.rule == evidence.rule) {
                None => self.0.push(evidence),
                Some(known) => {
                    known.first_ns = known.first_ns.min(evidence.first_ns);
                    known.last_ns = known.last_ns.max(evidence.last_ns);
                }
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Evidence> {
        self.0.iter()
    }

    /// The type with the greatest sum of weights, and that sum; of equal ones the first in the order of types.
    #[must_use]
    pub fn verdict(&self) -> Option<(Type, u32)> {
        let sum = |of: Type| -> u32 {
            self.0.iter().map(Evidence::rule).filter(|rule| rule.r#type == of).map(|rule| rule.weight).sum()
        };
        let sums = Type::ALL.into_iter().map(|of| (of, sum(of)));
        sums.rev().max_by_key(|(_, sum)| *sum).filter(|(_, sum)| *sum >= ENOUGH)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_can_hold_and_says_where_it_comes_from() {
        let words: BTreeSet<&str> = RULES.iter().map(|rule| rule.word.as_str()).collect();
        assert_eq!(words.len(), RULES.len(), "a word stands twice");
        for rule in &*RULES {
            let texts = [&rule.is, &rule.begins, &rule.holds];
            assert_eq!(texts.iter().filter(|text| text.is_some()).count(), 1, "{}", rule.word);
            assert!(texts.iter().all(|text| text.as_ref().is_none_or(|text| text.to_lowercase() == *text)));
            assert!((1..=100).contains(&rule.weight) && !rule.source.is_empty(), "{}", rule.word);
            assert!(rule.word.len() <= weir_wire::limits::MAX_WORD, "{}", rule.word);
        }
    }

    #[test]
    fn weak_hints_decide_nothing_and_strong_evidence_outweighs_them() {
        let mut reasons = Reasons::default();
        assert!(reasons.look(Signal::HttpAgent, "Mozilla/5.0 (Linux; Android 14)", 5));
        assert!(!reasons.look(Signal::HttpAgent, "Mozilla/5.0 (Linux; Android 15)", 9), "it held before");
        assert_eq!(reasons.verdict(), Some((Type::Phone, 30)));
        assert!(reasons.look(Signal::MdnsService, "_androidtvremote2._TCP", 6));
        assert_eq!(reasons.verdict(), Some((Type::Tv, 70)));
        let mut hint = Reasons::default();
        hint.look(Signal::DhcpVendorClass, "udhcp 1.22.1", 1);
        assert_eq!(hint.verdict(), None, "a hint alone");
        reasons.join(hint);
        assert_eq!(
            reasons.iter().map(|reason| reason.rule().word.as_str()).collect::<Vec<_>>(),
            ["agent_android", "mdns_androidtv", "dhcp_busybox"]
        );
        assert_eq!(reasons.iter().next().map(|reason| (reason.first_ns, reason.last_ns)), Some((5, 9)));
    }
}
