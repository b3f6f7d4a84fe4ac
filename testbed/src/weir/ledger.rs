//! What the API says of a sensor: its ledger and its flows, as far as tests and the demo compare them.

use serde::Deserialize;
use serde_json::Value;

use crate::http::Client;
use crate::{Error, Result};

/// `GET /api/v1/sensors/{id}/ledger`.
#[derive(Clone, Debug, Deserialize)]
pub struct Ledger {
    pub points: Vec<Point>,
    pub total: Totals,
    pub crossing_packets: u64,
    pub crossing_octets: u64,
    pub committed_packets: u64,
    pub committed_octets: u64,
    pub committed_records: u64,
    /// Counted into flows that nobody holds, by a reason that is named in `dropped`.
    pub dropped_packets: u64,
    pub dropped_octets: u64,
    pub dropped_batches: u64,
    pub dropped: Vec<Dropped>,
    /// What waits at the sensor, as it last told.
    pub waiting: Option<Waiting>,
    pub batches: u64,
    pub epochs: u64,
    /// Identities of kernel tables that counted: one more for each restart of the sensor.
    pub generations: u64,
    pub gaps: Vec<Value>,
    pub kernel_balanced: bool,
    pub balanced: bool,
    /// What keeps it from being balanced.
    pub why: Vec<String>,
    pub clock_flagged_batches: u64,
    pub clock_moved_batches: u64,
    pub clock_steps: u64,
}

/// A loss that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Dropped {
    pub reason: String,
    pub batches: u64,
    pub records: u64,
    pub packets: u64,
    pub octets: u64,
}

/// The state of a sensor's spool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Waiting {
    pub as_of: String,
    pub batches: u64,
    pub bytes: u64,
    pub quarantined_batches: u64,
    pub quarantined_packets: u64,
    pub degraded: bool,
}

/// One direction of one interface.
#[derive(Clone, Debug, Deserialize)]
pub struct Point {
    pub interface: String,
    pub direction: String,
    #[serde(flatten)]
    pub totals: Totals,
}

/// The kernel's own totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Totals {
    pub frames: u64,
    pub octets_l2: u64,
    pub flow_packets: u64,
    pub flow_octets: u64,
    pub overflow: u64,
    pub overflow_octets: u64,
    pub non_ip: u64,
    pub malformed: u64,
    pub filtered: u64,
}

/// An item of `GET /api/v1/flows`: one connection in one epoch.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    pub src: String,
    pub dst: String,
    pub protocol: u8,
    pub src_port: u16,
    pub dst_port: u16,
    pub packets: u64,
    pub octets: u64,
    pub reverse_packets: u64,
    pub reverse_octets: u64,
    pub interface: String,
    pub direction: String,
    pub link: Vec<String>,
    /// Further observation points that the same packets crossed.
    pub path: Vec<PathPoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PathPoint {
    pub interface: String,
    pub direction: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Flow>,
    continuation: Option<String>,
}

impl Ledger {
    pub(super) fn read(api: &Client, sensor: &str) -> Result<Self> {
        read(api, &format!("/api/v1/sensors/{sensor}/ledger"))
    }

    /// The totals of one direction of one interface; zeros if it saw nothing.
    #[must_use]
    pub fn point(&self, interface: &str, direction: &str) -> Totals {
        let mut points = self.points.iter();
        points
            .find(|point| point.interface == interface && point.direction == direction)
            .map(|point| point.totals)
            .unwrap_or_default()
    }
}

impl Flow {
    /// Every flow of a sensor, page by page.
    pub(super) fn all(api: &Client, sensor: &str) -> Result<Vec<Self>> {
        let mut flows = Vec::new();
        let mut path = format!("/api/v1/flows?sensor={sensor}&limit=1000");
        loop {
            let page: Page = read(api, &path)?;
            flows.extend(page.items);
            let Some(token) = page.continuation else { return Ok(flows) };
            path = format!("/api/v1/flows?sensor={sensor}&limit=1000&continuation={token}");
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(api: &Client, path: &str) -> Result<T> {
    serde_json::from_value(api.json(path)?)
        .map_err(|error| Error::malformed(format!("the answer to GET {path}"), error.to_string()))
}
