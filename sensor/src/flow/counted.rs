//! Which of the observations of the same packets count (K7).
//!
//! A packet that crosses a host is seen where it enters and where it leaves, and by every interface of a
//! stack (a bridge and its port, a VLAN device and its parent). For each direction of a five-tuple one side
//! counts, ingress where there is any, and on that side one point of every stack. The choice is made at
//! first sight and kept, because the two sights of one packet may fall into two epochs: only a fixed choice
//! counts such a packet once.
//!
//! A choice that can no longer be right is made anew: where the chosen point has been silent for longer
//! than any packet takes to cross a host, what others see now cannot be packets that it has counted.

use smallvec::SmallVec;
use weir_wire::Direction;

/// Longer than a packet stands between two observation points of one host. Both programs run before the
/// egress queue, so this is scheduling delay: a second is far beyond it.
const CROSSING_NS: i64 = 1_000_000_000;

/// The choice for one direction of a five-tuple.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// Empty before the first sight.
    points: SmallVec<[Chosen; 1]>,
    egress: bool,
    path: Path,
}

/// The points that packets were last seen to cross beside the counted one: what is known of the path where
/// a flip falls between a packet's sights. As many as a packet crosses between two bonded, tagged bridges;
/// inline, since every conversation has two.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    points: [u8; 7],
    len: u8,
}

/// The point that counts in one stack.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    stack: u32,
    point: u16,
    last_ns: i64,
}

/// What one observation point saw of one direction of a five-tuple in the epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) point: u16,
    pub(super) direction: Direction,
    pub(super) stack: u32,
    pub(super) packets: u64,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
}

impl Choice {
    /// Takes in the sights of an epoch, one per point, and settles which points count.
    pub(super) fn settle(&mut self, sights: &[Sight]) {
        self.restack(sights);
        self.settle_side(sights);
        let egress = self.egress;
        let mut counting: SmallVec<[&Sight; 4]> =
            sights.iter().filter(|sight| (sight.direction == Direction::Egress) == egress).collect();
        // In each stack: the point that saw most, since a member of a bond sees a part; then the earliest.
        counting.sort_unstable_by_key(|sight| {
            (sight.stack, u64::MAX - sight.packets, sight.first_ns, sight.point)
        });
        for stack in counting.chunk_by(|a, b| a.stack == b.stack) {
            self.settle_stack(stack);
        }
    }

    /// Interfaces join and leave stacks while they are observed: a stack keeps the choice it had first.
    fn restack(&mut self, sights: &[Sight]) {
        for chosen in &mut self.points {
            if let Some(sight) = sights.iter().find(|sight| sight.point == chosen.point) {
                chosen.stack = sight.stack;
            }
        }
        let mut kept = SmallVec::<[Chosen; 1]>::new();
        for chosen in self.points.drain(..) {
            if kept.iter().all(|other| other.stack != chosen.stack) {
                kept.push(chosen);
            }
        }
        self.points = kept;
    }

    fn settle_side(&mut self, sights: &[Sight]) {
        let counts =
            |egress: bool| sights.iter().any(|sight| (sight.direction == Direction::Egress) == egress);
        let silent_since = self.points.iter().map(|chosen| chosen.last_ns).max();
        let Some(silent_since) = silent_since else {
            self.egress = !counts(false);
            return;
        };
        let earliest = sights.iter().map(|sight| sight.first_ns).min();
        if !counts(self.egress)
            && earliest.is_some_and(|first| first.saturating_sub(CROSSING_NS) > silent_since)
        {
            self.points.clear();
            self.egress = !self.egress;
        }
    }

    /// `sights` are those of one stack on the counted side, best choice first.
    fn settle_stack(&mut self, sights: &[&Sight]) {
        let Some(best) = sights.first() else { return };
        let Some(chosen) = self.points.iter_mut().find(|chosen| chosen.stack == best.stack) else {
            self.points.push(Chosen { stack: best.stack, point: best.point, last_ns: best.last_ns });
            return;
        };
        if let Some(sight) = sights.iter().find(|sight| sight.point == chosen.point) {
            chosen.last_ns = chosen.last_ns.max(sight.last_ns);
        } else {
            let earliest = sights.iter().map(|sight| sight.first_ns).min().unwrap_or(best.first_ns);
            if earliest.saturating_sub(CROSSING_NS) > chosen.last_ns {
                *chosen = Chosen { stack: best.stack, point: best.point, last_ns: best.last_ns };
            }
        }
    }

    /// The path that packets took last, if this epoch shows none; else this epoch's is remembered.
    pub(super) fn path(&mut self, seen: SmallVec<[u16; 4]>) -> Box<[u16]> {
        if seen.is_empty() {
            return self.path.points[..usize::from(self.path.len)]
                .iter()
                .map(|&point| u16::from(point))
                .collect();
        }
        self.path = Path::default();
        for (kept, point) in self.path.points.iter_mut().zip(&seen) {
            // The kernel numbers points in a byte.
            let Ok(point) = u8::try_from(*point) else { break };
            *kept = point;
            self.path.len += 1;
        }
        seen.into_boxed_slice()
    }

    /// Whether what this point saw counts; the rest has crossed.
    pub(super) fn counts(&self, point: u16) -> bool {
        self.points.iter().any(|chosen| chosen.point == point)
    }
}
