//! A batch that passed every check: what the store may write without looking again.

use uuid::Uuid;
use weir_wire::{Flow, Totals};

/// One checked part of one epoch. Times are nanoseconds since the Unix epoch; counts fit an `i64`.
#[derive(Debug)]
pub struct Batch {
    pub generation: Uuid,
    pub epoch: i64,
    pub part: i32,
    pub parts: i32,
    pub window_start_ns: i64,
    pub window_end_ns: i64,
    pub sampling_interval: i32,
    pub points: Vec<Point>,
    /// Link stacks as they are stored, by the index that flows hold (less one).
    pub links: Vec<Vec<i32>>,
    /// Their `point` and `path` are indexes into `points` here, not the sensor's numbers.
    pub flows: Vec<Flow>,
    pub crossing_packets: i64,
    pub crossing_octets: i64,
    /// Both directions of all `flows`.
    pub packets: i64,
    pub octets: i64,
}

/// An observation point and, in part 0, its kernel totals.
#[derive(Debug)]
pub struct Point {
    pub interface: String,
    pub direction: i16,
    pub totals: Option<Totals>,
}

impl Batch {
    /// Start of the window in microseconds since the Unix epoch, rounded down, as `timestamptz` holds it.
    #[must_use]
    pub fn window_start_us(&self) -> i64 {
        self.window_start_ns.div_euclid(1_000)
    }
}
