//! A stretch of bytes that comes in pieces, in any order, once or several times: TCP segments, QUIC CRYPTO
//! frames, DTLS fragments. Called by what reassembles hellos; bounded in octets and in gaps.

use std::collections::BTreeMap;

/// Pieces that may wait for what comes before them.
const MAX_WAITING: usize = 64;

/// What is there from the start, and pieces behind gaps.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    front: Vec<u8>,
    /// By place; they may overlap. What came first counts.
    waiting: BTreeMap<usize, Vec<u8>>,
    octets_waiting: usize,
}

impl Pieces {
    /// The bytes without a gap, from the start.
    pub(super) fn front(&self) -> &[u8] {
        &self.front
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_empty() && self.waiting.is_empty()
    }

    /// Octets held.
    pub(super) fn octets(&self) -> usize {
        self.front.len() + self.octets_waiting
    }

    /// Adds a piece at a place. `false` where that would exceed `limit` octets or too many gaps; it is then
    /// not added.
    pub(super) fn insert(&mut self, place: usize, bytes: &[u8], limit: usize) -> bool {
        let Some(end) = place.checked_add(bytes.len()).filter(|end| *end <= limit) else { return false };
        if end <= self.front.len() {
            return true;
        }
        if place <= self.front.len() {
            self.front.extend_from_slice(&bytes[self.front.len() - place..]);
            self.close_gaps();
            return true;
        }
        if self.waiting.get(&place).is_some_and(|there| there.len() >= bytes.len()) {
            return true;
        }
        if self.waiting.len() >= MAX_WAITING || self.octets() + bytes.len() > 2 * limit {
            return false;
        }
        let replaced = self.waiting.insert(place, bytes.to_vec()).map_or(0, |there| there.len());
        self.octets_waiting = self.octets_waiting + bytes.len() - replaced;
        true
    }

    fn close_gaps(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            let place = *entry.key();
            if place > self.front.len() {
                break;
            }
            let piece = entry.remove();
            self.octets_waiting -= piece.len();
            if place + piece.len() > self.front.len() {
                self.front.extend_from_slice(&piece[self.front.len() - place..]);
            }
        }
    }

    /// Forgets `octets` of the front: what follows moves to the start.
    pub(super) fn consume(&mut self, octets: usize) {
        let octets = octets.min(self.front.len());
        self.front.drain(..octets);
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = waiting.into_iter().map(|(place, piece)| (place - octets, piece)).collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_order_with_repeats_gives_the_whole(
            whole in proptest::collection::vec(any::<u8>(), 1..300),
            size in 5_usize..40,
            seed in any::<u64>(),
        ) {
            let mut places: Vec<usize> = (0..whole.len()).step_by(size).collect();
            places.extend_from_within(..places.len() / 2);
            places.sort_by_key(|place| (*place as u64 + 1).wrapping_mul(seed | 1));
            let mut pieces = Pieces::default();
            for place in places {
                // Each piece overlaps the next.
                let end = (place + size + 2).min(whole.len());
                prop_assert!(pieces.insert(place, &whole[place..end], whole.len()));
            }
            prop_assert_eq!(pieces.front(), whole.as_slice());
            prop_assert_eq!(pieces.octets(), whole.len());
        }

        #[test]
        fn it_never_holds_more_than_its_bound(
            inserts in proptest::collection::vec((0_usize..5000, 0_usize..900), 0..200),
        ) {
            let mut pieces = Pieces::default();
            for (place, octets) in inserts {
                pieces.insert(place, &vec![1; octets], 2048);
                prop_assert!(pieces.octets() <= 3 * 2048 && pieces.waiting.len() <= MAX_WAITING);
                prop_assert_eq!(pieces.octets_waiting, pieces.waiting.values().map(Vec::len).sum::<usize>());
            }
        }
    }
}
