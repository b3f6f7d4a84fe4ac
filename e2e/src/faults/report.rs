//! The table of a run: a line for each fault, one for those that were mixed, and the sum.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Fault, Outcome};

/// Sums by fault.
#[derive(Debug, Default)]
pub struct Report {
    lines: BTreeMap<Vec<Fault>, Sum>,
    mixed: Sum,
    total: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    rounds: u64,
    sent: u64,
    stored: u64,
    named: u64,
    lost: u64,
    doubled: u64,
    took: Duration,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.rounds += 1;
        self.sent += outcome.sent;
        self.stored += outcome.stored;
        self.named += outcome.named;
        self.lost += outcome.lost;
        self.doubled += outcome.doubled;
        self.took += outcome.took;
    }
}

impl Report {
    pub fn add(&mut self, outcome: &Outcome) {
        let line = match outcome.faults[..] {
            [_] => self.lines.entry(outcome.faults.clone()).or_default(),
            _ => &mut self.mixed,
        };
        line.add(outcome);
        self.total.add(outcome);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            to,
            "| fault | rounds | packets sent | in stored rows | named losses | lost | doubled | seconds |"
        )?;
        writeln!(to, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        let lines = self.lines.iter().map(|(faults, sum)| (faults[0].name(), sum));
        for (name, sum) in lines.chain([("two or three of them together", &self.mixed), ("all", &self.total)])
        {
            let Sum { rounds, sent, stored, named, lost, doubled, took } = sum;
            let took_s = took.as_secs();
            writeln!(
                to,
                "| {name} | {rounds} | {sent} | {stored} | {named} | {lost} | {doubled} | {took_s} |"
            )?;
        }
        Ok(())
    }
}
