//! What was looked up a moment ago, so that a busy caller costs a few look-ups a second and not one a
//! request. Bounded in time and in number.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Entries at most; what is beyond is looked up each time.
const SIZE: usize = 10_000;

/// Answers by key, each believed for a while.
pub struct Memory<K, V> {
    believed_for: Duration,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    #[must_use]
    pub fn new(believed_for: Duration) -> Self {
        Self { believed_for, entries: Mutex::default() }
    }

    pub fn recall(&self, key: &K) -> Option<V> {
        let entries = self.entries();
        let (at, value) = entries.get(key)?;
        (at.elapsed() < self.believed_for).then(|| value.clone())
    }

    /// `asked` is when the question was put: an answer is as old as its question.
    pub fn remember(&self, asked: Instant, key: K, value: V) {
        let mut entries = self.entries();
        if entries.len() >= SIZE {
            entries.retain(|_, (at, _)| at.elapsed() < self.believed_for);
        }
        if entries.len() < SIZE {
            entries.insert(key, (asked, value));
        }
    }

    /// Forgets every answer of which `which` is true.
    pub fn forget(&self, which: impl Fn(&V) -> bool) {
        self.entries().retain(|_, (_, value)| !which(value));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        // A panic elsewhere leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_until_its_time_is_over_or_it_is_forgotten() {
        let memory = Memory::new(Duration::from_mins(1));
        memory.remember(Instant::now(), 1, "one");
        memory.remember(Instant::now(), 2, "two");
        assert_eq!(memory.recall(&1), Some("one"));
        memory.forget(|value| *value == "one");
        assert_eq!((memory.recall(&1), memory.recall(&2)), (None, Some("two")));
        let short = Memory::new(Duration::ZERO);
        short.remember(Instant::now(), 1, "one");
        assert_eq!(short.recall(&1), None);
    }

    #[test]
    fn it_does_not_grow_beyond_its_size() {
        let memory = Memory::new(Duration::from_mins(1));
        for key in 0..SIZE + 10 {
            memory.remember(Instant::now(), key, ());
        }
        assert_eq!(memory.entries().len(), SIZE);
    }
}
