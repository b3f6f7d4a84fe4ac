//! What the probe printed, as a table of features and kernels.

use serde_json::{Value, json};

use crate::screen;

/// One kernel.
#[derive(Debug)]
pub struct Outcome {
    /// What was asked for.
    pub series: String,
    /// What it is, if it came that far.
    pub kernel: Option<String>,
    pub features: Vec<Feature>,
    /// Why there is no result, or not all of it.
    pub lost: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: String,
    pub good: bool,
    /// Which way was taken, or what went wrong.
    pub seen: String,
}

impl Outcome {
    /// Of a kernel that told nothing.
    pub fn lost(series: &str, why: String) -> Self {
        Self { series: series.to_owned(), kernel: None, features: Vec::new(), lost: Some(why) }
    }

    /// From the probe's lines.
    pub fn read(series: &str, printed: &str) -> Self {
        let mut outcome = Self::lost(series, "the probe did not come to its end".to_owned());
        for line in printed.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line.trim()) else { continue };
            let text = |key: &str| line[key].as_str().map(str::to_owned);
            if let Some(name) = text("feature") {
                let good = line["ok"] == true;
                outcome.features.push(Feature { name, good, seen: text("seen").unwrap_or_default() });
            } else if let Some(kernel) = text("kernel") {
                outcome.kernel = Some(kernel);
            } else if let Some(error) = text("error") {
                outcome.lost = Some(error);
            } else if line["done"] == true {
                outcome.lost = None;
            }
        }
        outcome
    }

    pub fn is_good(&self) -> bool {
        self.lost.is_none() && !self.features.is_empty() && self.features.iter().all(|feature| feature.good)
    }

    fn name(&self) -> &str {
        self.kernel.as_deref().unwrap_or(&self.series)
    }
}

/// A row a feature, a column a kernel; what went wrong, in full, under it.
pub fn table(outcomes: &[Outcome]) {
    let mut names: Vec<&str> = Vec::new();
    for feature in outcomes.iter().flat_map(|outcome| &outcome.features) {
        if !names.contains(&feature.name.as_str()) {
            names.push(&feature.name);
        }
    }
    let headings: Vec<&str> = std::iter::once("feature")
        .chain(outcomes.iter().map(|outcome| outcome.name().split("-cloud").next().unwrap_or_default()))
        .collect();
    let cell = |outcome: &Outcome, name: &str| {
        let feature = outcome.features.iter().find(|feature| feature.name == name);
        match feature {
            Some(feature) if feature.good => feature.seen.clone(),
            Some(_) => "FAILED".to_owned(),
            None => "-".to_owned(),
        }
    };
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let cells = outcomes.iter().map(|outcome| cell(outcome, name));
            std::iter::once((*name).to_owned()).chain(cells).collect()
        })
        .collect();
    screen::table(&headings, &rows);
    println!();
    for outcome in outcomes {
        for feature in outcome.features.iter().filter(|feature| !feature.good) {
            println!("{}: {}: {}", outcome.name(), feature.name, feature.seen);
        }
        if let Some(why) = &outcome.lost {
            println!("{}: {why}", outcome.name());
        }
    }
    if !outcomes.iter().any(|outcome| outcome.series.ends_with("-rt")) {
        println!(
            "PREEMPT_RT: no cloud kernel has it, not tried; `--kernel 6.12-rt` tries Debian's other one"
        );
    }
}

/// The same, an object a line.
pub fn lines(outcomes: &[Outcome]) {
    for outcome in outcomes {
        for Feature { name, good, seen } in &outcome.features {
            println!("{}", json!({ "kernel": outcome.name(), "feature": name, "ok": good, "seen": seen }));
        }
        if let Some(why) = &outcome.lost {
            println!("{}", json!({ "kernel": outcome.name(), "ok": false, "seen": why }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Feature, Outcome};

    const KERNEL: &str = "{\"kernel\":\"6.1.0\"}\r\n";
    const GOOD: &str = "{\"feature\":\"a\",\"ok\":true,\"seen\":\"x\"}\r\n";

    #[test]
    fn a_probe_that_ends_early_is_no_success() {
        let cut = Outcome::read("6.1", &format!("{KERNEL}{GOOD}{{\"feature\":"));
        let good = Feature { name: "a".to_owned(), good: true, seen: "x".to_owned() };
        assert_eq!((cut.features.as_slice(), cut.is_good()), ([good].as_slice(), false));
        assert!(Outcome::read("6.1", &format!("{KERNEL}{GOOD}{{\"done\":true}}\n")).is_good());
        assert!(!Outcome::read("6.1", &format!("{KERNEL}{{\"done\":true}}\n")).is_good());
    }

    #[test]
    fn a_feature_that_fails_is_no_success() {
        let bad = "{\"feature\":\"a\",\"ok\":false,\"seen\":\"x\"}\n{\"done\":true}\n";
        assert!(!Outcome::read("6.1", &format!("{KERNEL}{bad}")).is_good());
    }
}
