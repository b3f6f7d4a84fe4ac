//! The ledger of one sensor: what its kernel saw, what we hold, and what never came.

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::filter::sum;
use super::flows::Point;
use super::{Class, Isolation, Lease, Pool, StoreError};

/// Gaps that are listed; a sensor with more of them has another problem.
const MAX_GAPS: i64 = 1_000;

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

/// What we hold of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub batches: i64,
    pub epochs: i64,
    pub records: i64,
    pub packets: i64,
    pub octets: i64,
    pub crossing_packets: i64,
    pub crossing_octets: i64,
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
}

impl Ledger {
    /// Every packet that the kernel counted into a flow is in a committed record, or was seen a second
    /// time on its way through the host; and no epoch is missing.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let committed = &self.committed;
        let sum = |a: i64, b: i64| i128::from(a) + i128::from(b);
        self.gaps.is_empty()
            && i128::from(self.total.flow_packets) == sum(committed.packets, committed.crossing_packets)
            && i128::from(self.total.flow_octets) == sum(committed.octets, committed.crossing_octets)
    }
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
            let mut gaps = epoch_gaps(&lease, sensor_id, from, to, keys_since).await?;
            gaps.extend(part_gaps(&lease, sensor_id, from, to).await?);
            gaps.sort_by_key(|gap| (gap.generation, gap.first_epoch));
            let gaps_truncated = gaps.len() as i64 > MAX_GAPS;
            gaps.truncate(MAX_GAPS as usize);
            let total = points.iter().fold(Totals::default(), |sum, (_, totals)| sum.plus(totals));
            Ok(Ledger { points, total, committed, generations, gaps, gaps_truncated })
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
        "SELECT interface, direction, {sums}
         FROM point_total JOIN observation_point USING (sensor_id, point_id)
         WHERE sensor_id = $1 AND window_start >= $2 AND window_start < $3
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
        "SELECT count(*), count(DISTINCT (generation, epoch)), count(DISTINCT generation), {sums}
         FROM batch WHERE sensor_id = $1 AND window_start >= $2 AND window_start < $3"
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
    };
    Ok((committed, row.get(2)))
}

/// Runs of epochs that are missing between two that came, or before the first of a generation.
async fn epoch_gaps(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
    keys_since: SystemTime,
) -> Result<Vec<Gap>, StoreError> {
    let rows = lease
        .client()
        .query(
            "WITH epochs AS (
                 SELECT generation, epoch, min(window_start) AS window_start FROM batch
                 WHERE sensor_id = $1 AND window_start >= $2 AND window_start < $3
                 GROUP BY generation, epoch
             ), neighbours AS (
                 SELECT generation, epoch, window_start,
                        lag(epoch) OVER (PARTITION BY generation ORDER BY epoch) AS previous
                 FROM epochs
             )
             SELECT generation, coalesce(previous, before.epoch, -1) + 1, neighbours.epoch - 1
             FROM neighbours
             -- Before the first epoch of the window: the last one that came before it, if any.
             LEFT JOIN LATERAL (
                 SELECT max(batch.epoch) AS epoch FROM batch
                 WHERE previous IS NULL AND sensor_id = $1 AND batch.generation = neighbours.generation
                   AND batch.epoch < neighbours.epoch
             ) AS before ON TRUE
             WHERE neighbours.epoch > coalesce(previous, before.epoch, -1) + 1
               -- Keys from before that time were dropped: nothing is known of what came earlier.
               AND (coalesce(previous, before.epoch) IS NOT NULL OR window_start >= $4)
             ORDER BY generation, neighbours.epoch LIMIT $5",
            &[&sensor_id, &from, &to, &keys_since, &(MAX_GAPS + 1)],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Gap {
            generation: row.get(0),
            first_epoch: row.get(1),
            last_epoch: row.get(2),
            missing_parts: Vec::new(),
        })
        .collect())
}

/// Epochs of which some parts came and others did not.
async fn part_gaps(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
) -> Result<Vec<Gap>, StoreError> {
    let rows = lease
        .client()
        .query(
            "WITH incomplete AS (
                 SELECT generation, epoch, max(parts) AS parts, array_agg(part) AS came FROM batch
                 WHERE sensor_id = $1 AND window_start >= $2 AND window_start < $3
                 GROUP BY generation, epoch HAVING count(*) < max(parts)
                 ORDER BY generation, epoch LIMIT $4
             )
             SELECT generation, epoch,
                    ARRAY(SELECT part FROM generate_series(0, parts - 1) AS part
                          WHERE part <> ALL (came) ORDER BY part LIMIT $4)
             FROM incomplete",
            &[&sensor_id, &from, &to, &(MAX_GAPS + 1)],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Gap {
            generation: row.get(0),
            first_epoch: row.get(1),
            last_epoch: row.get(1),
            missing_parts: row.get(2),
        })
        .collect())
}
