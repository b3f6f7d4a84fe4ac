//! What detectors remember, within bounds that strangers cannot move.
//!
//! [`Memory`] is a table that forgets when it is full, and first what was touched once: a flood of invented
//! addresses pushes out itself, not a scanner that comes back. [`Burst`] counts in windows, [`Distinct`] and
//! [`Sketch`] count what is different.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

/// A bounded table.
pub struct Memory<K, V> {
    entries: HashMap<K, Slot<V>>,
    capacity: usize,
    clock: u64,
    forgotten: u64,
}

struct Slot<V> {
    value: V,
    touched: u64,
    again: bool,
}

impl<K: Hash + Eq + Clone, V: Default> Memory<K, V> {
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(4), clock: 0, forgotten: 0 }
    }

    /// The entry, made if it is not there.
    pub fn entry(&mut self, key: K) -> &mut V {
        self.clock += 1;
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.forget();
        }
        let clock = self.clock;
        let slot =
            self.entries.entry(key).or_insert_with(|| Slot { value: V::default(), touched: 0, again: false });
        slot.again = slot.touched != 0;
        slot.touched = clock;
        &mut slot.value
    }

    /// The entry, if it is there.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|slot| &mut slot.value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|slot| slot.value)
    }

    /// A quarter goes at once, so that a full table costs little for each newcomer.
    fn forget(&mut self) {
        let mut ages: Vec<(bool, u64)> =
            self.entries.values().map(|slot| (slot.again, slot.touched)).collect();
        let quarter = ages.len() / 4;
        let (_, bound, _) = ages.select_nth_unstable(quarter);
        let bound = *bound;
        let before = self.entries.len();
        self.entries.retain(|_, slot| (slot.again, slot.touched) > bound);
        self.forgotten += (before - self.entries.len()) as u64;
    }

    /// Entries forgotten for want of room, ever.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// What was seen a moment ago: a frame that a gateway forwards is seen on its way in and on its way out.
pub struct Moment<K>(Memory<K, Option<i64>>);

impl<K: Hash + Eq + Clone> Moment<K> {
    const LENGTH_NS: i64 = 1_000_000_000;

    pub fn new(capacity: usize) -> Self {
        Self(Memory::new(capacity))
    }

    /// Whether it was; it is from now on.
    pub fn has(&mut self, key: K, at_ns: i64) -> bool {
        let before = self.0.entry(key).replace(at_ns);
        before.is_some_and(|before| at_ns.saturating_sub(before).abs() < Self::LENGTH_NS)
    }

    /// Entries forgotten for want of room, ever.
    pub fn forgotten(&self) -> u64 {
        self.0.forgotten()
    }
}

/// Events in windows of a fixed length: of a window that reaches its threshold all are told, of others none.
#[derive(Debug)]
pub struct Burst {
    began_ns: i64,
    /// Of this window's events: an epoch's records are in no order of time, so the first may be before the
    /// one that began the window.
    first_ns: i64,
    last_ns: i64,
    /// In this window.
    count: u64,
    /// This window has reached its threshold.
    alight: bool,
    untold: Option<Told>,
    /// That there is something to tell has been said.
    announced: bool,
}

/// What there is to tell of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub first_ns: i64,
    pub last_ns: i64,
    pub count: u64,
}

impl Default for Burst {
    fn default() -> Self {
        // Before every event: the first one begins a window.
        Self {
            began_ns: i64::MIN,
            first_ns: i64::MIN,
            last_ns: i64::MIN,
            count: 0,
            alight: false,
            untold: None,
            announced: false,
        }
    }
}

impl Burst {
    /// Whether an event at this time begins a new window, which it then does.
    pub fn turn(&mut self, at_ns: i64, window: Duration) -> bool {
        let over = at_ns.saturating_sub(self.began_ns) >= nanoseconds(window);
        if over {
            (self.began_ns, self.first_ns, self.last_ns) = (at_ns, at_ns, at_ns);
            (self.count, self.alight) = (0, false);
        }
        over
    }

    /// Adds events. They are not to be told before the window is alight.
    pub fn add(&mut self, at_ns: i64, events: u64) {
        self.count = self.count.saturating_add(events);
        self.first_ns = self.first_ns.min(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
        if self.alight {
            self.tell(at_ns, events);
        }
    }

    /// The threshold is reached: what the window has counted is to be told, and all that follows in it.
    pub fn kindle(&mut self) {
        if !self.alight {
            self.alight = true;
            self.tell(self.first_ns, self.count);
        }
    }

    fn tell(&mut self, at_ns: i64, events: u64) {
        let last_ns = self.last_ns;
        let told = self.untold.get_or_insert(Told { first_ns: at_ns, last_ns, count: 0 });
        told.first_ns = told.first_ns.min(at_ns);
        told.last_ns = told.last_ns.max(last_ns);
        told.count = told.count.saturating_add(events);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn alight(&self) -> bool {
        self.alight
    }

    /// True once while there is something to tell: who asks may list the burst for [`Self::take`].
    pub fn announces(&mut self) -> bool {
        let first = self.untold.is_some() && !self.announced;
        self.announced |= first;
        first
    }

    /// What is to be told, once.
    pub fn take(&mut self) -> Option<Told> {
        self.announced = false;
        self.untold.take()
    }
}

/// Different values, exactly, up to a bound.
#[derive(Debug)]
pub struct Distinct<T>(Vec<T>);

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord + Copy> Distinct<T> {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a value in, unless the bound is reached; how many there are.
    pub fn add(&mut self, value: T, bound: usize) -> usize {
        if self.0.len() < bound
            && let Err(place) = self.0.binary_search(&value)
        {
            self.0.insert(place, value);
        }
        self.0.len()
    }

    pub fn values(&self) -> &[T] {
        &self.0
    }
}

/// Different values, by linear counting (Whang et al., 1990): 128 bytes, within some percent up to thousands.
#[derive(Debug, Default)]
pub struct Sketch([u64; 16]);

impl Sketch {
    const BITS: u32 = 1024;

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// `state` is secret, so that nobody can choose values that fall together.
    pub fn add(&mut self, value: impl Hash, state: &RandomState) {
        let bit = state.hash_one(value) % u64::from(Self::BITS);
        self.0[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    /// About how many; at most some seven thousand.
    pub fn estimate(&self) -> u64 {
        let set: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        let empty = f64::from((Self::BITS - set).max(1));
        let bits = f64::from(Self::BITS);
        (bits * (bits / empty).ln()).round() as u64
    }
}

/// As nanoseconds, at most what an `i64` holds.
pub fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_newcomers_pushes_out_itself() {
        let mut memory = Memory::<u32, u32>::new(1_000);
        for _ in 0..2 {
            for regular in 0..100 {
                *memory.entry(regular) += 1;
            }
        }
        for stranger in 1_000..200_000 {
            *memory.entry(stranger) += 1;
        }
        let kept = (0..100).filter(|regular| memory.get(regular).is_some()).count();
        assert_eq!(kept, 100);
        assert!(memory.entries.len() <= 1_000);
        assert_eq!(memory.forgotten() + memory.entries.len() as u64, 199_100);
    }

    #[test]
    fn only_windows_that_reach_the_threshold_are_told_and_all_of_them() {
        let window = Duration::from_nanos(100);
        let mut burst = Burst::default();
        let mut feed = |at_ns: i64| {
            burst.turn(at_ns, window);
            burst.add(at_ns, 1);
            if burst.count() >= 3 {
                burst.kindle();
            }
            burst.take()
        };
        assert_eq!([0, 10].map(&mut feed), [None, None]);
        assert_eq!(feed(20), Some(Told { first_ns: 0, last_ns: 20, count: 3 }));
        assert_eq!(feed(30), Some(Told { first_ns: 30, last_ns: 30, count: 1 }));
        assert_eq!([110, 120].map(&mut feed), [None, None], "a window of its own");
        assert_eq!(feed(130), Some(Told { first_ns: 110, last_ns: 130, count: 3 }));
    }

    #[test]
    fn a_sketch_knows_about_how_many() {
        let state = RandomState::new();
        let mut sketch = Sketch::default();
        assert_eq!(sketch.estimate(), 0);
        for _ in 0..2 {
            for value in 0..500_u32 {
                sketch.add(value, &state);
            }
        }
        assert!((400..600).contains(&sketch.estimate()), "{}", sketch.estimate());
    }
}
