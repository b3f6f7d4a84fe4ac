//! What `weir-sensor check` says of the lists.

use crate::config::Threats;
use crate::kernel::{Finding, Verdict};

use super::fetch::now_ns;
use super::standing::stored;

/// A line for each list, and one for what happens to packets. Nothing is fetched.
#[must_use]
pub fn check(threats: &Threats) -> Vec<Finding> {
    if threats.lists.is_empty() {
        return Vec::new();
    }
    let standing = stored(threats);
    let drops = standing.lists.iter().filter(|list| list.drops).count();
    let detail = match (threats.enforce, drops) {
        (_, 0) => "no list drops anything".to_owned(),
        (true, _) => format!("packets of {drops} lists are dropped while the sensor runs (threats.enforce)"),
        (false, _) => format!("{drops} lists say what they would drop; threats.enforce is off"),
    };
    let line = |subject: String, verdict, detail, remedy: Option<&str>| Finding {
        subject,
        verdict,
        detail,
        remedy: remedy.map(str::to_owned),
    };
    let mut findings = vec![line("threat lists".to_owned(), Verdict::Ok, detail, None)];
    for list in standing.lists {
        let subject = format!("threat list {}", list.name);
        if let Some(error) = list.error {
            let remedy = Some("a running sensor fetches it; `weir-sensor lists` says why it cannot");
            findings.push(line(subject, Verdict::Warning, error, remedy));
            continue;
        }
        let age_s = now_ns().saturating_sub(list.fetched_ns).max(0) / 1_000_000_000;
        let detail = format!(
            "{} prefixes, {} domains, {} lines not read, changed {age_s} s ago",
            list.prefixes, list.domains, list.errors.count
        );
        findings.push(line(subject, Verdict::Ok, detail, None));
    }
    findings
}
