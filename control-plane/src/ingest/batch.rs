//! A batch that passed every check: what the store may write without looking again.

use uuid::Uuid;
use weir_wire::{Flow, Totals};

use super::context::Context;
use super::detection::Detection;
use super::device::Device;
use super::erased::Clipped;
use super::loss::{Dropped, Reason};
use super::placement::Placement;

/// One checked part of one epoch. Times are nanoseconds since the Unix epoch, as the sensor's clock had
/// them; counts fit an `i64`.
#[derive(Clone, Debug)]
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
    pub context: Context,
    pub crossing_packets: i64,
    pub crossing_octets: i64,
    /// Both directions of all `flows`.
    pub packets: i64,
    pub octets: i64,
    /// Instead of `flows`, which are then none.
    pub dropped: Option<Dropped>,
    pub spool: Option<Spool>,
    /// In the order of their kinds and subjects; none but in part 0.
    pub detections: Vec<Detection>,
    /// None but in part 0.
    pub devices: Vec<Device>,
    /// By how much the sensor's clock was set; 0 but in part 0.
    pub clock_step_ns: i64,
    /// Where the batch is stored.
    pub placement: Placement,
    /// What was taken out for devices that were erased.
    pub clipped: Clipped,
}

/// The state of a sensor's spool; see [`weir_wire::Spool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    pub batches: i64,
    pub bytes: i64,
    pub capacity_bytes: i64,
    pub oldest_age_ms: i64,
    pub quarantined_batches: i64,
    pub quarantined_packets: i64,
    pub degraded: bool,
}

/// An observation point and, in part 0, its kernel totals.
#[derive(Clone, Debug)]
pub struct Point {
    pub interface: String,
    pub direction: i16,
    pub totals: Option<Totals>,
}

impl Batch {
    /// Start of the window as it is stored, in microseconds since the Unix epoch, rounded down, as
    /// `timestamptz` holds it.
    #[must_use]
    pub fn window_start_us(&self) -> i64 {
        self.placement.start_ns.div_euclid(1_000)
    }

    /// What flows' times are relative to, by our clock.
    #[must_use]
    pub fn base_ns(&self) -> i64 {
        self.window_start_ns.saturating_add(self.placement.shift_ns)
    }

    /// End of the window by our clock.
    #[must_use]
    pub fn ended_ns(&self) -> i64 {
        self.window_end_ns.saturating_add(self.placement.shift_ns)
    }

    /// Gives up the flows: what they counted is a loss with a name. A notice stays what it is. What was a
    /// problem so long ago is none that anybody could act on.
    pub fn expire(&mut self) {
        self.detections.clear();
        self.devices.clear();
        if self.dropped.is_some() {
            return;
        }
        let records = std::mem::take(&mut self.flows).len() as i64;
        self.context = Context::default();
        let (packets, octets) = (std::mem::take(&mut self.packets), std::mem::take(&mut self.octets));
        self.dropped = Some(Dropped { reason: Reason::Expired, records, packets, octets });
    }
}
