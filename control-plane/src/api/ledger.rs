//! `GET /api/v1/sensors/{id}/ledger`: whether every packet that was counted has arrived.

use axum::Json;
use axum::extract::{Path, State};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::error::Problem;
use super::params::{FromParams, Params, Query};
use super::sensors::{Spool, named, unknown};
use super::window::WindowParams;
use super::{ApiError, AppState, render};
use crate::store::{ledger, sensors};

const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// From when to when.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LedgerParams {
    /// Epochs that start at or after this time (RFC 3339). Default: 24 hours before `to`
    #[param(value_type = Option<String>, format = "date-time", example = "2026-01-31T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// Epochs that start before this time (RFC 3339). Default: now
    #[param(value_type = Option<String>, format = "date-time", example = "2026-02-01T00:00:00Z")]
    pub to: Option<Timestamp>,
}

impl FromParams for LedgerParams {
    fn read(params: &mut Params) -> Self {
        let WindowParams { from, to } = WindowParams::read(params);
        Self { from, to }
    }
}

/// What the kernel saw, what is stored, and what is missing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "sensor": "edge-1", "sensor_id": 1,
    "from": "2026-01-31T00:00:00.000000000Z", "to": "2026-02-01T00:00:00.000000000Z",
    "points": [{
        "interface": "eth0", "direction": "ingress", "frames": 1_530, "octets_l2": 1_240_300,
        "flow_packets": 1_500, "flow_octets": 1_218_000, "overflow": 0, "overflow_octets": 0, "non_ip": 24,
        "malformed": 1, "filtered": 5, "unsampled": 0, "kernel_balanced": true
    }],
    "total": {
        "frames": 1_530, "octets_l2": 1_240_300, "flow_packets": 1_500, "flow_octets": 1_218_000,
        "overflow": 0, "overflow_octets": 0, "non_ip": 24, "malformed": 1, "filtered": 5, "unsampled": 0
    },
    "crossing_packets": 100, "crossing_octets": 81_000, "committed_packets": 1_400,
    "committed_octets": 1_137_000, "committed_records": 96, "dropped_packets": 0, "dropped_octets": 0,
    "dropped_records": 0, "dropped_batches": 0, "dropped": [], "waiting": null, "batches": 12, "epochs": 12,
    "generations": 1, "gaps": [], "gaps_truncated": false, "kernel_balanced": true,
    "clock_flagged_batches": 0, "clock_moved_batches": 0, "clock_steps": 0, "balanced": true, "why": []
}))]
pub struct Ledger {
    pub sensor: String,
    pub sensor_id: i32,
    pub from: String,
    pub to: String,
    pub points: Vec<PointTotals>,
    /// Of all points
    pub total: Totals,
    /// Packets seen again at a further point of the same host, therefore in no second flow
    pub crossing_packets: i64,
    pub crossing_octets: i64,
    /// Packets of the stored records, both directions
    pub committed_packets: i64,
    pub committed_octets: i64,
    pub committed_records: i64,
    /// Packets in flows that were counted and are not kept, both directions
    pub dropped_packets: i64,
    pub dropped_octets: i64,
    pub dropped_records: i64,
    pub dropped_batches: i64,
    /// The same by reason
    pub dropped: Vec<Dropped>,
    /// What waits at the sensor, as it last told; of now, whatever the window
    pub waiting: Option<Spool>,
    /// Notices of dropped flows included
    pub batches: i64,
    pub epochs: i64,
    pub generations: i64,
    /// Epochs, or parts of an epoch, that did not come (yet)
    pub gaps: Vec<Gap>,
    /// There are more than 1000 gaps
    pub gaps_truncated: bool,
    /// `frames == flow_packets + overflow + non_ip + malformed + filtered`, at every point
    pub kernel_balanced: bool,
    /// Batches whose sensor's clock was over five minutes off
    pub clock_flagged_batches: i64,
    /// Those of them that are stored at another time than the sensor said, since that could not be true
    pub clock_moved_batches: i64,
    /// Epochs within which the sensor's clock was set
    pub clock_steps: i64,
    /// `flow_packets == committed_packets + crossing_packets + dropped_packets`, the same of octets, no gap, and
    /// `kernel_balanced`
    pub balanced: bool,
    /// What keeps it from being balanced, in words; empty if it is
    pub why: Vec<String>,
}

/// Flows that were counted and are not kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dropped {
    /// `spool_bytes`, `spool_age`, `quarantine`, `corrupt` (the sensor's notices) or `expired` (came when its
    /// window was older than is taken)
    #[schema(example = "spool_bytes")]
    pub reason: &'static str,
    #[schema(example = 3)]
    pub batches: i64,
    #[schema(example = 410)]
    pub records: i64,
    #[schema(example = 9_100)]
    pub packets: i64,
    #[schema(example = 6_200_000)]
    pub octets: i64,
}

impl From<&ledger::Loss> for Dropped {
    fn from(loss: &ledger::Loss) -> Self {
        Self {
            reason: loss.reason.name(),
            batches: loss.batches,
            records: loss.records,
            packets: loss.packets,
            octets: loss.octets,
        }
    }
}

/// The kernel's totals of one point.
#[derive(Debug, Serialize, ToSchema)]
pub struct PointTotals {
    #[schema(example = "eth0")]
    pub interface: String,
    /// `ingress` or `egress`
    #[schema(example = "ingress")]
    pub direction: &'static str,
    #[serde(flatten)]
    pub totals: Totals,
    #[schema(example = true)]
    pub kernel_balanced: bool,
}

/// The kernel's totals.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "frames": 1_530, "octets_l2": 1_240_300, "flow_packets": 1_500, "flow_octets": 1_218_000, "overflow": 0,
    "overflow_octets": 0, "non_ip": 24, "malformed": 1, "filtered": 5, "unsampled": 0
}))]
pub struct Totals {
    pub frames: i64,
    /// Layer 2, without the frame check sequence
    pub octets_l2: i64,
    pub flow_packets: i64,
    /// Layer 3
    pub flow_octets: i64,
    /// IP packets for which the table had no room
    pub overflow: i64,
    pub overflow_octets: i64,
    pub non_ip: i64,
    pub malformed: i64,
    /// Left out by a filter or by sampling
    pub filtered: i64,
    /// The part of `filtered` that sampling left out
    pub unsampled: i64,
}

/// Epochs, or parts of one, that are missing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Gap {
    #[schema(example = "7f1f0f6e-2d57-4a7e-8f0c-3a54c1f3b1de")]
    pub generation: String,
    #[schema(example = 17)]
    pub first_epoch: i64,
    #[schema(example = 19)]
    pub last_epoch: i64,
    /// Where the epoch came in part: the parts that did not
    #[schema(example = json!([]))]
    pub missing_parts: Vec<i32>,
}

impl From<&ledger::Totals> for Totals {
    fn from(totals: &ledger::Totals) -> Self {
        Self {
            frames: totals.frames,
            octets_l2: totals.octets_l2,
            flow_packets: totals.flow_packets,
            flow_octets: totals.flow_octets,
            overflow: totals.overflow,
            overflow_octets: totals.overflow_octets,
            non_ip: totals.non_ip,
            malformed: totals.malformed,
            filtered: totals.filtered,
            unsampled: totals.unsampled,
        }
    }
}

/// The ledger of a sensor
///
/// Holds the kernel's own totals against what is stored.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{id}/ledger",
    tag = "sensors",
    params(("id" = String, Path, description = "Sensor's id or name", example = "edge-1"), LedgerParams),
    responses(
        (status = 200, body = Ledger, description = "The ledger; zeros where nothing came"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such sensor"),
    )
)]
pub async fn ledger(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Query { value: params, .. }: Query<LedgerParams>,
) -> Result<Json<Ledger>, ApiError> {
    let window = WindowParams { from: params.from, to: params.to }.resolve(Some(DEFAULT_WINDOW))?;
    let (sensor, _) = sensors::get(&state.pool, &named(&id)?).await?.ok_or_else(unknown)?;
    let keys_since = state.retention.keys_since(Timestamp::now());
    let ledger = ledger::ledger(&state.pool, sensor.sensor_id, window.from, window.to, keys_since).await?;
    let committed = ledger.committed;
    let why = ledger.why();
    let dropped = |value: fn(&ledger::Loss) -> i64| {
        ledger.dropped.iter().fold(0_i64, |sum, loss| sum.saturating_add(value(loss)))
    };
    Ok(Json(Ledger {
        sensor: sensor.name,
        sensor_id: sensor.sensor_id,
        from: render::time(window.from),
        to: render::time(window.to),
        kernel_balanced: ledger.points.iter().all(|(_, totals)| totals.kernel_balanced()),
        balanced: why.is_empty(),
        why,
        dropped_packets: dropped(|loss| loss.packets),
        dropped_octets: dropped(|loss| loss.octets),
        dropped_records: dropped(|loss| loss.records),
        dropped_batches: dropped(|loss| loss.batches),
        dropped: ledger.dropped.iter().map(Dropped::from).collect(),
        waiting: ledger.waiting.as_ref().map(Spool::from),
        clock_flagged_batches: committed.clock_flagged,
        clock_moved_batches: committed.clock_moved,
        clock_steps: committed.clock_steps,
        total: Totals::from(&ledger.total),
        crossing_packets: committed.crossing_packets,
        crossing_octets: committed.crossing_octets,
        committed_packets: committed.packets,
        committed_octets: committed.octets,
        committed_records: committed.records,
        batches: committed.batches,
        epochs: committed.epochs,
        generations: ledger.generations,
        gaps: ledger
            .gaps
            .into_iter()
            .map(|gap| Gap {
                generation: gap.generation.to_string(),
                first_epoch: gap.first_epoch,
                last_epoch: gap.last_epoch,
                missing_parts: gap.missing_parts,
            })
            .collect(),
        gaps_truncated: ledger.gaps_truncated,
        points: ledger
            .points
            .into_iter()
            .map(|(point, totals)| PointTotals {
                interface: point.interface,
                direction: render::direction(point.direction),
                kernel_balanced: totals.kernel_balanced(),
                totals: Totals::from(&totals),
            })
            .collect(),
    }))
}
