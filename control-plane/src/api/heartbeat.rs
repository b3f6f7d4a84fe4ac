//! `POST /api/v1/sensor/heartbeat`: a sensor says that it is there, and how it stands.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::AuthenticatedSensor;
use super::body::Body;
use super::configuration::{HeartbeatConfiguration, Offer};
use super::params::{NoParams, Query};
use super::{ApiError, AppState, render};
use crate::authority::Shown;
use crate::store::{configuration, presence};

/// Characters of a version; `1.2.3-rc.1+0123456789ab` has fewer.
const MAX_VERSION: usize = 64;
/// The last whole number that every reader of JSON has exactly (RFC 8259).
const LARGEST: u64 = (1 << 53) - 1;

/// What a sensor says of itself. Fields that are not known here are left out: sensors may be newer than we are.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(example = json!({
    "version": "0.1.0", "uptime_s": 86_400, "clock_ms": 1_769_860_805_000_u64,
    "spool": {"batches": 0, "bytes": 0, "capacity_bytes": 1_073_741_824, "oldest_age_ms": 0,
              "quarantined_batches": 0, "quarantined_packets": 0, "degraded": false},
    "ledger": {"gaps": 0, "dropped_packets": 0, "unaccounted_frames": 0},
    "configuration": {"in_force": null, "trial": null, "refused": null, "reason": null}
}))]
pub struct Heartbeat {
    /// Of the program
    #[schema(max_length = 64, pattern = "^[ -~]*$")]
    pub version: String,
    /// Seconds since it began
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub uptime_s: u64,
    /// Its clock, milliseconds since the Unix epoch
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub clock_ms: u64,
    pub spool: HeartbeatSpool,
    pub ledger: HeartbeatLedger,
    /// Left out by sensors that take no pushed settings
    #[serde(default)]
    pub configuration: Option<HeartbeatConfiguration>,
}

/// What waits at the sensor.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(example = json!({
    "batches": 2, "bytes": 48_320, "capacity_bytes": 1_073_741_824, "oldest_age_ms": 7_400, "quarantined_batches": 0,
    "quarantined_packets": 0, "degraded": false
}))]
pub struct HeartbeatSpool {
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub batches: u64,
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub bytes: u64,
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub capacity_bytes: u64,
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub oldest_age_ms: u64,
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub quarantined_batches: u64,
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub quarantined_packets: u64,
    pub degraded: bool,
}

/// What is missing, as the sensor knows it, since it began.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"gaps": 0, "dropped_packets": 0, "unaccounted_frames": 0}))]
pub struct HeartbeatLedger {
    /// Batches that went without a notice
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub gaps: u64,
    /// Packets in flows that were given up, with a notice
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub dropped_packets: u64,
    /// Frames for which the kernel counted no verdict
    #[schema(maximum = 9_007_199_254_740_991u64)]
    pub unaccounted_frames: u64,
}

/// What the sensor should know.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "credential": {"id": 7, "age_s": 86_400.0, "ends_in_s": 7_689_600.0},
    "configuration": {"id": "0c7a7f3a4b3f2c11", "settings": {"epoch": "2s"}}, "client_certificates": true,
    "certificate": {"age_s": 86_400.0, "ends_in_s": 7_689_600.0}
}))]
pub struct HeartbeatAnswer {
    pub credential: Term,
    /// Settings to put in force; null while there is nothing new
    pub configuration: Option<Offer>,
    /// Certificates are signed for sensors (`POST /api/v1/sensor/certificate`)
    pub client_certificates: bool,
    /// Of the one that the connection showed
    pub certificate: Option<CertificateTerm>,
}

/// How long a certificate is there, and will be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"age_s": 86_400.0, "ends_in_s": 7_689_600.0}))]
pub struct CertificateTerm {
    pub age_s: f64,
    pub ends_in_s: f64,
}

/// How long the credential that was shown is there, and will be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": 7, "age_s": 86_400.0, "ends_in_s": 7_689_600.0}))]
pub struct Term {
    pub id: i32,
    pub age_s: f64,
    /// Null: it does not end by itself
    pub ends_in_s: Option<f64>,
}

/// How a sensor is there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "state": "online", "since": "2026-01-31T11:00:06.100000000Z", "last_alive_at": "2026-01-31T12:00:06.100000000Z",
    "heartbeat_at": "2026-01-31T12:00:05.000000000Z",
    "heartbeat": {"version": "0.1.0", "uptime_s": 86_400, "clock_ms": 1_769_860_805_000_u64,
        "spool": {"batches": 0, "bytes": 0, "capacity_bytes": 1_073_741_824, "oldest_age_ms": 0,
                  "quarantined_batches": 0, "quarantined_packets": 0, "degraded": false},
        "ledger": {"gaps": 0, "dropped_packets": 0, "unaccounted_frames": 0}, "configuration": null}
}))]
pub struct Liveness {
    /// `online`, `offline` (silent for `sensors.offline_after_s`) or `never`
    pub state: &'static str,
    /// Since when it is so
    pub since: Option<String>,
    /// Heard of last: a heartbeat, a batch, any request of its own
    pub last_alive_at: Option<String>,
    pub heartbeat_at: Option<String>,
    /// What the last one said
    pub heartbeat: Option<Heartbeat>,
}

impl From<Option<&presence::Presence>> for Liveness {
    fn from(presence: Option<&presence::Presence>) -> Self {
        let Some(presence) = presence else {
            return Self {
                state: "never",
                since: None,
                last_alive_at: None,
                heartbeat_at: None,
                heartbeat: None,
            };
        };
        let beat = presence.beat.as_ref();
        Self {
            state: if presence.online { "online" } else { "offline" },
            since: Some(render::system_time(presence.changed_at)),
            last_alive_at: Some(render::system_time(presence.alive_at)),
            heartbeat_at: beat.map(|(at, _)| render::system_time(*at)),
            heartbeat: beat.and_then(|(_, text)| serde_json::from_str(text).ok()),
        }
    }
}

/// Say that one is there
///
/// For sensors, every few seconds. Any request of a sensor's counts as a sign of life, batches first of all;
/// who is silent for `sensors.offline_after_s` is offline. The answer says how long the credential lasts,
/// and has the settings that were pushed and are not in force yet.
#[utoipa::path(
    post,
    path = "/api/v1/sensor/heartbeat",
    tag = "ingest",
    request_body = Heartbeat,
    responses((status = 200, body = HeartbeatAnswer, description = "Heard")),
)]
pub async fn beat(
    State(state): State<AppState>,
    sender: AuthenticatedSensor,
    shown: Option<Extension<Arc<Shown>>>,
    _: Query<NoParams>,
    Body(beat): Body<Heartbeat>,
) -> Result<Json<HeartbeatAnswer>, ApiError> {
    check(&beat)?;
    let text = serde_json::to_string(&beat).map_err(|_| ApiError::parameter("body", "cannot be kept"))?;
    state.auth.activity.sensor(sender.sensor_id, Some(Arc::from(text)));
    let (age_s, ends_in_s) = presence::term(&state.pool, sender.credential_id).await?;
    let configuration = match &beat.configuration {
        None => None,
        Some(said) => {
            let said = said.report();
            Offer::new(configuration::report(&state.pool, sender.sensor_id, &said).await?, &said)
        }
    };
    let credential = Term { id: sender.credential_id, age_s, ends_in_s };
    let client_certificates = state.authority.is_on();
    let certificate = shown.filter(|_| client_certificates).map(|Extension(shown)| {
        let seconds =
            |later: SystemTime, sooner| later.duration_since(sooner).unwrap_or_default().as_secs_f64();
        let now = SystemTime::now();
        CertificateTerm { age_s: seconds(now, shown.begins), ends_in_s: seconds(shown.ends, now) }
    });
    Ok(Json(HeartbeatAnswer { credential, configuration, client_certificates, certificate }))
}

fn check(beat: &Heartbeat) -> Result<(), ApiError> {
    let plain = beat.version.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if beat.version.len() > MAX_VERSION || !plain {
        return Err(ApiError::parameter("version", "is not up to 64 printable characters of ASCII"));
    }
    let HeartbeatSpool {
        batches,
        bytes,
        capacity_bytes,
        oldest_age_ms,
        quarantined_batches,
        quarantined_packets,
        ..
    } = beat.spool;
    let HeartbeatLedger { gaps, dropped_packets, unaccounted_frames } = beat.ledger;
    let numbers = [
        ("uptime_s", beat.uptime_s),
        ("clock_ms", beat.clock_ms),
        ("spool.batches", batches),
        ("spool.bytes", bytes),
        ("spool.capacity_bytes", capacity_bytes),
        ("spool.oldest_age_ms", oldest_age_ms),
        ("spool.quarantined_batches", quarantined_batches),
        ("spool.quarantined_packets", quarantined_packets),
        ("ledger.gaps", gaps),
        ("ledger.dropped_packets", dropped_packets),
        ("ledger.unaccounted_frames", unaccounted_frames),
    ];
    beat.configuration.as_ref().map_or(Ok(()), HeartbeatConfiguration::check)?;
    match numbers.into_iter().find(|(_, number)| *number > LARGEST) {
        Some((field, number)) => Err(ApiError::parameter(field, format!("{number} is more than {LARGEST}"))),
        None => Ok(()),
    }
}
