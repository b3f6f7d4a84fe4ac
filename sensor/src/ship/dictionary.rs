//! Values that many flows of a batch share, each written once.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Numbers values from 1 in the order of their first use; 0 says "none".
pub(super) struct Dictionary<'a, K: ?Sized> {
    numbers: HashMap<&'a K, u32>,
    values: Vec<&'a K>,
    /// How many values it may hold.
    bound: usize,
    /// Uses for which there was no room.
    pub turned_away: u64,
}

impl<'a, K: Eq + Hash + ?Sized> Dictionary<'a, K> {
    pub fn new(bound: usize) -> Self {
        Self { numbers: HashMap::new(), values: Vec::new(), bound, turned_away: 0 }
    }

    /// The value's number; 0 for none, and for a new value where the dictionary is full.
    pub fn number<T: Borrow<K> + ?Sized>(&mut self, value: Option<&'a T>) -> u32 {
        let Some(value) = value.map(Borrow::borrow) else { return 0 };
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        if self.values.len() == self.bound {
            self.turned_away += 1;
            return 0;
        }
        self.values.push(value);
        let number = self.values.len() as u32;
        self.numbers.insert(value, number);
        number
    }

    /// The values in the order of their numbers.
    pub fn into_values<V>(self, owned: impl Fn(&K) -> V) -> Vec<V> {
        self.values.into_iter().map(owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_number_and_none_is_zero() {
        let mut names: Dictionary<'_, str> = Dictionary::new(2);
        let used = [Some("a"), None, Some("b"), Some("a"), Some("c"), Some("c")];
        assert_eq!(used.map(|name| names.number(name)), [1, 0, 2, 1, 0, 0]);
        assert_eq!(names.turned_away, 2);
        assert_eq!(names.into_values(str::to_owned), ["a", "b"]);
    }
}
