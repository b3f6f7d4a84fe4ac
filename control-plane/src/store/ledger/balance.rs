//! Whether the ledger adds up, and if not, why, in plain words.

use super::{Gap, Ledger, Loss};

/// Gaps that are told one by one.
const MAX_TOLD: usize = 5;

impl Ledger {
    /// Whether every packet that the kernel counted has one verdict, and every one that it counted into a
    /// flow is in a committed record, or was seen a second time on its way through the host, or is in a loss
    /// that has a name; and no epoch is missing.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.why().is_empty()
    }

    /// What keeps the ledger from being balanced; nothing if it is.
    #[must_use]
    pub fn why(&self) -> Vec<String> {
        let mut why = Vec::new();
        for (point, totals) in self.points.iter().filter(|(_, totals)| !totals.kernel_balanced()) {
            let direction = if point.direction == 0 { "ingress" } else { "egress" };
            why.push(format!(
                "on {} {direction} the kernel's verdicts do not add up to its {} frames",
                point.interface, totals.frames
            ));
        }
        let committed = &self.committed;
        let dropped = |value: fn(&Loss) -> i64| self.dropped.iter().map(|loss| i128::from(value(loss))).sum();
        why.extend(difference(
            "packets",
            self.total.flow_packets,
            [committed.packets, committed.crossing_packets],
            dropped(|loss| loss.packets),
        ));
        why.extend(difference(
            "octets",
            self.total.flow_octets,
            [committed.octets, committed.crossing_octets],
            dropped(|loss| loss.octets),
        ));
        why.extend(self.gaps.iter().take(MAX_TOLD).map(Gap::told));
        if self.gaps_truncated {
            why.push(format!("and over {} more gaps", self.gaps.len() - MAX_TOLD));
        } else if self.gaps.len() > MAX_TOLD {
            why.push(format!("and {} more gaps", self.gaps.len() - MAX_TOLD));
        }
        if let Some((_, spool)) = self.waiting.as_ref().filter(|_| !self.gaps.is_empty()) {
            let quarantined = match spool.quarantined_batches {
                0 => String::new(),
                batches => format!(", and keeps {batches} aside that were refused"),
            };
            why.push(format!("the sensor last told that {} batches wait there{quarantined}", spool.batches));
        }
        why
    }
}

/// Counted into flows against where they are now.
fn difference(what: &str, counted: i64, [committed, crossing]: [i64; 2], dropped: i128) -> Option<String> {
    let found = i128::from(committed) + i128::from(crossing) + dropped;
    let counted = i128::from(counted);
    let sums = format!("{committed} committed + {crossing} crossing + {dropped} dropped");
    match counted - found {
        0 => None,
        missing @ 1.. => Some(format!(
            "{missing} of {counted} {what} that the kernel counted into flows are missing: {sums}"
        )),
        more => Some(format!(
            "{} {what} more are stored than the kernel counted into flows ({counted}): {sums}",
            -more
        )),
    }
}

impl Gap {
    fn told(&self) -> String {
        let Self { generation, first_epoch, last_epoch, missing_parts } = self;
        if missing_parts.is_empty() {
            let count = last_epoch - first_epoch + 1;
            return format!(
                "{count} epochs ({first_epoch} to {last_epoch}) of generation {generation} did not come yet"
            );
        }
        let count = missing_parts.len();
        format!("{count} parts of epoch {first_epoch} of generation {generation} did not come yet")
    }
}
