//! How many different names a day may bring: whoever talks to a million made-up names fills no table elsewhere.
//!
//! A name that was told today is told again; of new ones so many are, and flows with others go without.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Names of a day, by a keyed hash: two that share one are counted as one.
#[derive(Debug)]
pub struct Daily {
    most: usize,
    /// Days since the Unix epoch, UTC.
    day: u64,
    told: HashSet<u64>,
    key: RandomState,
}

impl Daily {
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, day: 0, told: HashSet::new(), key: RandomState::new() }
    }

    /// Whether a name may be told on this day.
    pub fn admits(&mut self, name: &str, day: u64) -> bool {
        if day != self.day {
            self.day = day;
            self.told.clear();
        }
        let hash = self.key.hash_one(name);
        if self.told.len() < self.most {
            self.told.insert(hash);
            return true;
        }
        self.told.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_a_day_has_so_many_names_and_the_next_one_as_many_again() {
        let mut daily = Daily::new(2);
        let admitted =
            |daily: &mut Daily, day| ["a", "b", "a", "c", "b", "d", "a"].map(|name| daily.admits(name, day));
        assert_eq!(admitted(&mut daily, 7), [true, true, true, false, true, false, true]);
        assert_eq!((daily.admits("c", 8), daily.admits("d", 8), daily.admits("a", 8)), (true, true, false));
        // A clock that is set back begins anew, too.
        assert!(daily.admits("a", 7));
    }
}
