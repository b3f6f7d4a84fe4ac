//! What is open: one detection for each kind and subject, and what is still to be told of it.
//!
//! What is told is an addition: how many more, since when, until when. Additions are counted once with the
//! batch that carries them and may be summed in any order; the sensor's memory of an open detection only
//! says since when it runs, and is no ledger. Where there is no room for a newcomer it is not told, and
//! counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::detection::{Detection, Kind, Subject};
use super::memory::nanoseconds;

pub(super) struct Open {
    runs: BTreeMap<(Kind, Subject), Run>,
    most: usize,
    quiet_ns: i64,
    untold: u64,
}

struct Run {
    first_ns: i64,
    last_ns: i64,
    untold: Option<Detection>,
}

impl Open {
    pub(super) fn new(most: usize, quiet: Duration) -> Self {
        Self { runs: BTreeMap::new(), most, quiet_ns: nanoseconds(quiet), untold: 0 }
    }

    /// Other bounds; what is open stays.
    pub(super) fn bound(&mut self, most: usize, quiet: Duration) {
        (self.most, self.quiet_ns) = (most, nanoseconds(quiet));
    }

    /// Takes in what an epoch has found.
    pub(super) fn extend(&mut self, found: Vec<Detection>, now_ns: i64) {
        let quiet_since = now_ns.saturating_sub(self.quiet_ns);
        self.runs.retain(|_, run| run.untold.is_some() || run.last_ns >= quiet_since);
        for mut detection in found {
            let key = (detection.kind, detection.subject.clone());
            if self.runs.len() >= self.most && !self.runs.contains_key(&key) && !self.forget() {
                self.untold += 1;
                continue;
            }
            detection.opens = !self.runs.contains_key(&key);
            let run = self.runs.entry(key).or_insert(Run {
                first_ns: detection.first_ns,
                last_ns: detection.last_ns,
                untold: None,
            });
            run.first_ns = run.first_ns.min(detection.first_ns);
            run.last_ns = run.last_ns.max(detection.last_ns);
            detection.first_ns = run.first_ns;
            match &mut run.untold {
                None => run.untold = Some(detection),
                Some(untold) => untold.join(detection),
            }
        }
    }

    /// Makes room: what was silent longest and has nothing to tell goes.
    fn forget(&mut self) -> bool {
        let told = self.runs.iter().filter(|(_, run)| run.untold.is_none());
        let oldest = told.min_by_key(|(_, run)| run.last_ns).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.runs.remove(&key).is_some())
    }

    /// What is to be told, the worst first.
    pub(super) fn take(&mut self, most: usize) -> Vec<Detection> {
        let mut waiting: Vec<_> = self
            .runs
            .iter()
            .filter_map(|(key, run)| run.untold.as_ref().map(|untold| (untold.severity, key)))
            .collect();
        waiting.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
        let keys: Vec<_> = waiting.into_iter().take(most).map(|(_, key)| key.clone()).collect();
        keys.iter().filter_map(|key| self.runs.get_mut(key)?.untold.take()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn untold(&self) -> u64 {
        self.untold
    }
}
