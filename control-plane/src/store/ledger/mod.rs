//! The ledger of one sensor: what its kernel saw, what we hold, what was dropped and why, what waits at the
//! sensor, and what never came.
//!
//! A window takes whole epochs: an epoch belongs where its earliest part lies, and all of its parts and its
//! kernel totals go with it, wherever a window cuts.

mod balance;
mod gaps;

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::filter::sum;
use super::flows::Point;
use super::{Class, Isolation, Lease, Pool, StoreError};
use crate::ingest::{Reason, Spool};

/// Gaps that are listed; a sensor with more of them has another problem.
pub const MAX_GAPS: i64 = 1_000;

/// The epochs of the window. Only parts that were placed apart can lie on two sides of an edge.
const EPOCHS: &str = "WITH epochs AS (
    SELECT generation, epoch, min(window_start) AS window_start FROM batch AS inside
    WHERE sensor_id = $1 AND window_start >= $2 AND window_start < $3
      AND NOT (parts > 1 AND EXISTS (
          SELECT FROM batch AS earlier
          WHERE earlier.sensor_id = $1 AND earlier.generation = inside.generation
            AND earlier.epoch = inside.epoch AND earlier.window_start < $2))
    GROUP BY generation, epoch
)";

/// Sums of the kernel's totals over the window; see [`weir_wire::Totals`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub frames: i64,
    pub octets_l2: i64,
    pub flow_packets: i64,
    pub flow_octets: i64,
    pub overflow: i64,
    pub overflow_octets: i64,
    pub non_ip: i64,
    pub malformed: i64,
    pub filtered: i64,
    pub unsampled: i64,
}

impl Totals {
    /// K3: every frame has one verdict.
    #[must_use]
    pub fn kernel_balanced(&self) -> bool {
        let parts = [self.flow_packets, self.overflow, self.non_ip, self.malformed, self.filtered];
        i128::from(self.frames) == parts.into_iter().map(i128::from).sum()
    }
}

/// Flows that were counted and that nobody holds, by why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub reason: Reason,
    pub batches: i64,
    pub records: i64,
    pub packets: i64,
    pub octets: i64,
}

/// What we hold of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Notices of losses included.
    pub batches: i64,
    pub epochs: i64,
    pub records: i64,
    pub packets: i64,
    pub octets: i64,
    pub crossing_packets: i64,
    pub crossing_octets: i64,
    /// Batches whose times are in doubt, those that were moved for it, and epochs with a step of the clock.
    pub clock_flagged: i64,
    pub clock_moved: i64,
    pub clock_steps: i64,
}

/// Epochs, or parts of one, that did not come (yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub generation: Uuid,
    pub first_epoch: i64,
    pub last_epoch: i64,
    /// Of a single epoch that came in part; empty where whole epochs are missing.
    pub missing_parts: Vec<i32>,
}

/// The whole ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub points: Vec<(Point, Totals)>,
    pub total: Totals,
    pub committed: Committed,
    pub generations: i64,
    pub gaps: Vec<Gap>,
    pub gaps_truncated: bool,
    /// In order of reason.
    pub dropped: Vec<Loss>,
    /// The spool as the sensor last told, and when that was. Not of the window: of now.
    pub waiting: Option<(SystemTime, Spool)>,
}

/// The ledger of the windows that start in `from..to`. Keys older than `keys_since` may be forgotten, so
/// a generation that begins there is not held to begin at epoch 0.
pub async fn ledger(
    pool: &Pool,
    sensor_id: i32,
    from: Timestamp,
    to: Timestamp,
    keys_since: Timestamp,
) -> Result<Ledger, StoreError> {
    let (from, to, keys_since) = (SystemTime::from(from), SystemTime::from(to), SystemTime::from(keys_since));
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "ledger").await?;
        let result = async {
            let points = points(&lease, sensor_id, from, to).await?;
            let (committed, generations) = committed(&lease, sensor_id, from, to).await?;
            let dropped = dropped(&lease, sensor_id, from, to).await?;
            let (gaps, gaps_truncated) = gaps::gaps(&lease, sensor_id, from, to, keys_since).await?;
            let waiting = super::sensors::spool_of(&lease, sensor_id).await?;
            let total = points.iter().fold(Totals::default(), |sum, (_, totals)| sum.plus(totals));
            Ok(Ledger { points, total, committed, generations, gaps, gaps_truncated, dropped, waiting })
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}

impl Totals {
    fn plus(self, other: &Self) -> Self {
        Self {
            frames: self.frames.saturating_add(other.frames),
            octets_l2: self.octets_l2.saturating_add(other.octets_l2),
            flow_packets: self.flow_packets.saturating_add(other.flow_packets),
            flow_octets: self.flow_octets.saturating_add(other.flow_octets),
            overflow: self.overflow.saturating_add(other.overflow),
            overflow_octets: self.overflow_octets.saturating_add(other.overflow_octets),
            non_ip: self.non_ip.saturating_add(other.non_ip),
            malformed: self.malformed.saturating_add(other.malformed),
            filtered: self.filtered.saturating_add(other.filtered),
            unsampled: self.unsampled.saturating_add(other.unsampled),
        }
    }

    fn from_row(row: &Row, first: usize) -> Self {
        let at = |offset: usize| row.get(first + offset);
        Self {
            frames: at(0),
            octets_l2: at(1),
            flow_packets: at(2),
            flow_octets: at(3),
            overflow: at(4),
            overflow_octets: at(5),
            non_ip: at(6),
            malformed: at(7),
            filtered: at(8),
            unsampled: at(9),
        }
    }
}

async fn points(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
) -> Result<Vec<(Point, Totals)>, StoreError> {
    let sums = [
        "frames",
        "octets_l2",
        "flow_packets",
        "flow_octets",
        "overflow",
        "overflow_octets",
        "non_ip",
        "malformed",
        "filtered",
        "unsampled",
    ]
    .map(sum)
    .join(", ");
    let sql = format!(
        "{EPOCHS} SELECT interface, direction, {sums}
         FROM epochs JOIN point_total USING (generation, epoch)
         JOIN observation_point USING (sensor_id, point_id)
         WHERE sensor_id = $1
         GROUP BY interface, direction ORDER BY interface, direction"
    );
    let rows = lease.client().query(&sql, &[&sensor_id, &from, &to]).await?;
    Ok(rows
        .iter()
        .map(|row| (Point { interface: row.get(0), direction: row.get(1) }, Totals::from_row(row, 2)))
        .collect())
}

async fn committed(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
) -> Result<(Committed, i64), StoreError> {
    let sums = ["records", "packets", "octets", "crossing_packets", "crossing_octets"].map(sum).join(", ");
    let sql = format!(
        "{EPOCHS} SELECT count(*), count(DISTINCT (generation, epoch)), count(DISTINCT generation), {sums},
                count(*) FILTER (WHERE clock_flagged), count(*) FILTER (WHERE clock_shift_ns <> 0),
                count(*) FILTER (WHERE clock_step_ns <> 0)
         FROM epochs JOIN batch USING (generation, epoch) WHERE sensor_id = $1"
    );
    let row = lease.client().query_one(&sql, &[&sensor_id, &from, &to]).await?;
    let committed = Committed {
        batches: row.get(0),
        epochs: row.get(1),
        records: row.get(3),
        packets: row.get(4),
        octets: row.get(5),
        crossing_packets: row.get(6),
        crossing_octets: row.get(7),
        clock_flagged: row.get(8),
        clock_moved: row.get(9),
        clock_steps: row.get(10),
    };
    Ok((committed, row.get(2)))
}

async fn dropped(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
) -> Result<Vec<Loss>, StoreError> {
    let sums = ["dropped_records", "dropped_packets", "dropped_octets"].map(sum).join(", ");
    let sql = format!(
        "{EPOCHS} SELECT dropped_reason, count(*), {sums}
         FROM epochs JOIN batch USING (generation, epoch)
         WHERE sensor_id = $1 AND dropped_reason IS NOT NULL
         GROUP BY dropped_reason ORDER BY dropped_reason"
    );
    let rows = lease.client().query(&sql, &[&sensor_id, &from, &to]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            Some(Loss {
                reason: Reason::from_code(row.get(0))?,
                batches: row.get(1),
                records: row.get(2),
                packets: row.get(3),
                octets: row.get(4),
            })
        })
        .collect())
}
