//! What a detector has found and not told yet: one detection for each kind and subject.

use std::collections::BTreeMap;

use super::{Detection, Kind, Subject};

/// Bounded; what finds no room is counted.
pub(super) struct Findings {
    found: BTreeMap<(Kind, Subject), Detection>,
    most: usize,
    untold: u64,
}

impl Findings {
    pub(super) fn new(most: usize) -> Self {
        Self { found: BTreeMap::new(), most, untold: 0 }
    }

    /// Takes in a sighting: it is joined to what was found of the same kind and subject.
    pub(super) fn add(&mut self, sighting: Detection) {
        let key = (sighting.kind, sighting.subject.clone());
        if let Some(known) = self.found.get_mut(&key) {
            known.join(sighting);
        } else if self.found.len() < self.most {
            self.found.insert(key, sighting);
        } else {
            self.untold += 1;
        }
    }

    /// All of it, once.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Detection> + use<> {
        std::mem::take(&mut self.found).into_values()
    }

    /// Sightings that found no room, ever.
    pub(super) fn untold(&self) -> u64 {
        self.untold
    }
}
