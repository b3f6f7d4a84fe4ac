//! O2: whoever is woken by an alert finds what to do, and nothing is explained that cannot fire.

use std::collections::BTreeSet;

const RULES: &str = include_str!("../../../deploy/prometheus/weir.rules.yml");
const RUNBOOKS: &str = include_str!("../../../docs/alerts.md");

#[test]
fn o2_every_alert_names_a_runbook_that_there_is_and_every_runbook_has_its_alert() {
    let mut alerts = BTreeSet::new();
    for rule in RULES.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("a name").trim();
        let runbook = rule.lines().find_map(|line| line.trim().strip_prefix("runbook: "));
        assert_eq!(runbook, Some(format!("docs/alerts.md#{}", name.to_lowercase()).as_str()), "{name}");
        assert!(alerts.insert(name), "{name} is there twice");
    }
    let mut explained = BTreeSet::new();
    for section in RUNBOOKS.split("\n## Weir").skip(1) {
        let (name, text) = section.split_once('\n').expect("a section has text");
        explained.insert(format!("Weir{}", name.trim()));
        let text = text.split("\n## ").next().unwrap_or_default();
        assert!(text.trim().len() > 60, "Weir{name} says what to do");
    }
    let alerts: BTreeSet<String> = alerts.into_iter().map(str::to_owned).collect();
    assert!(alerts.len() > 20, "{}", alerts.len());
    assert_eq!(explained, alerts);
}
