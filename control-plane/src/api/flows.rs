//! `GET /api/v1/flows`: flows, newest first, in pages.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::params::{FromParams, Params, Query};
use super::render::{self, Point};
use super::window::FilterParams;
use super::{ApiError, AppState, cursor};
use crate::store::flows;

/// Continuation tokens have 103 characters; longer text is none.
const MAX_TOKEN: usize = 256;
const DEFAULT_LIMIT: u64 = 100;

/// Which page.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Flows in a page
    #[param(minimum = 1, maximum = 1000, default = 100, example = 50)]
    pub limit: Option<u16>,
    /// `continuation` of the page before; all other parameters but `limit` must be the same
    pub continuation: Option<String>,
}

/// All parameters of the route.
pub struct ListParams {
    filter: FilterParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        let filter = FilterParams::read(params);
        let limit = params.number("limit", 1..=1_000).map(|limit| limit as u16);
        let continuation = params.parsed("continuation", "a continuation token", |text| {
            (!text.is_empty() && text.len() <= MAX_TOKEN).then(|| text.to_owned())
        });
        Self { filter, page: PageParams { limit, continuation } }
    }
}

/// A page of flows.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page {
    pub items: Vec<Flow>,
    /// Whether there are older ones
    pub has_more: bool,
    /// Token of the next page; null on the last one
    pub continuation: Option<String>,
}

/// One connection's traffic in one epoch (a biflow, RFC 5103), the initiator's side first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "sensor": "edge-1", "sensor_id": 1,
    "window_start": "2026-01-31T12:00:05.000000000Z", "start": "2026-01-31T12:00:06.120000000Z",
    "first": "2026-01-31T12:00:06.120000000Z", "last": "2026-01-31T12:00:09.870000000Z",
    "src": "10.0.0.7", "dst": "192.0.2.80", "protocol": 6, "src_port": 50123, "dst_port": 443,
    "packets": 12, "octets": 1840, "reverse_packets": 18, "reverse_octets": 21_930,
    "tcp_flags": 27, "reverse_tcp_flags": 27, "tcp_state": "closed", "end_reason": "end_of_flow",
    "handshake_rtt_us": 812, "fragment": false, "icmp_type": 0, "icmp_code": 0,
    "interface": "eth0", "direction": "egress", "link": ["vlan:10"],
    "path": [{"interface": "wg0", "direction": "ingress"}], "sampling_interval": 1, "retransmits": 0,
    "name": "www.example.org", "name_source": "tls", "src_country": null, "dst_country": "NL", "src_asn": null,
    "dst_asn": 64_496, "src_organisation": null, "dst_organisation": "Example Hosting",
    "src_process": "curl", "src_executable": "/usr/bin/curl", "src_container": null,
    "src_unit": "session-3.scope", "dst_process": null, "dst_executable": null, "dst_container": null,
    "dst_unit": null, "src_device": "ann's laptop", "src_device_id": 7, "dst_device": null, "dst_device_id": null,
    "src_network": "office", "dst_network": null, "scope": "outbound",
    "service": "https"
}))]
pub struct Flow {
    pub sensor: String,
    pub sensor_id: i32,
    /// Start of the epoch that counted it, to the microsecond
    pub window_start: String,
    /// When the connection was first seen, in this epoch or an earlier one
    pub start: String,
    /// First packet in this epoch
    pub first: String,
    /// Last packet in this epoch
    pub last: String,
    pub src: String,
    pub dst: String,
    /// IPFIX protocolIdentifier
    pub protocol: i16,
    pub src_port: i32,
    pub dst_port: i32,
    pub packets: i64,
    /// Layer 3
    pub octets: i64,
    pub reverse_packets: i64,
    pub reverse_octets: i64,
    /// OR of the initiator's TCP flags
    pub tcp_flags: i16,
    pub reverse_tcp_flags: i16,
    /// `unknown`, `syn_sent`, `syn_received`, `established`, `closing`, `closed` or `reset`
    pub tcp_state: &'static str,
    /// IPFIX flowEndReason; `active_timeout` is a delta of a connection that goes on
    pub end_reason: &'static str,
    /// From SYN to SYN-ACK
    pub handshake_rtt_us: Option<i32>,
    pub fragment: bool,
    pub icmp_type: i16,
    pub icmp_code: i16,
    /// Where the packets were counted
    pub interface: String,
    /// `ingress` or `egress`
    pub direction: &'static str,
    /// Headers between Ethernet and IP, outermost first
    pub link: Vec<String>,
    /// Further points that the same packets crossed, in order of time
    pub path: Vec<Point>,
    /// One packet in this many was counted
    pub sampling_interval: i32,
    pub retransmits: i32,
    /// What the responder was called
    pub name: Option<String>,
    /// Where the name was read: `dns`, `tls`, `quic` or `http`
    pub name_source: Option<&'static str>,
    /// ISO 3166-1 alpha-2, by the sensor's databases
    pub src_country: Option<String>,
    pub dst_country: Option<String>,
    /// Autonomous system
    pub src_asn: Option<i64>,
    pub dst_asn: Option<i64>,
    pub src_organisation: Option<String>,
    pub dst_organisation: Option<String>,
    /// The process that made the initiator's socket, where that is on the sensor's host: the kernel's name of the task
    pub src_process: Option<String>,
    /// Path of the file that it runs
    pub src_executable: Option<String>,
    /// Id of the container that it runs in
    pub src_container: Option<String>,
    /// Unit of the service manager that it belongs to
    pub src_unit: Option<String>,
    /// The same of the responder's
    pub dst_process: Option<String>,
    pub dst_executable: Option<String>,
    pub dst_container: Option<String>,
    pub dst_unit: Option<String>,
    /// Name of the device that had the initiator's address at the time, where it has one
    pub src_device: Option<String>,
    /// Its id
    pub src_device_id: Option<i64>,
    /// The same of the responder's
    pub dst_device: Option<String>,
    pub dst_device_id: Option<i64>,
    /// What operators call the network of the initiator's address: the one with the longest prefix
    pub src_network: Option<String>,
    pub dst_network: Option<String>,
    /// Whose the addresses are: `internal`, `outbound`, `inbound`, `external` (nobody's of ours), `multicast` or `broadcast`
    pub scope: &'static str,
    /// What the responder's port is called with this protocol: by IANA, or as `[services]` has it
    pub service: Option<String>,
}

impl From<flows::Flow> for Flow {
    fn from(flow: flows::Flow) -> Self {
        Self {
            sensor: flow.sensor,
            sensor_id: flow.position.sensor_id,
            window_start: render::time_us(flow.position.window_start_us),
            start: render::time_ns(flow.start_ns),
            first: render::time_ns(flow.first_ns),
            last: render::time_ns(flow.last_ns),
            src: flow.src.to_string(),
            dst: flow.dst.to_string(),
            protocol: flow.protocol,
            src_port: flow.src_port,
            dst_port: flow.dst_port,
            packets: flow.packets,
            octets: flow.octets,
            reverse_packets: flow.reverse_packets,
            reverse_octets: flow.reverse_octets,
            tcp_flags: flow.tcp_flags,
            reverse_tcp_flags: flow.reverse_tcp_flags,
            tcp_state: render::tcp_state(flow.tcp_state),
            end_reason: render::end_reason(flow.end_reason),
            handshake_rtt_us: flow.handshake_rtt_us,
            fragment: flow.fragment,
            icmp_type: flow.icmp_type,
            icmp_code: flow.icmp_code,
            interface: flow.point.interface,
            direction: render::direction(flow.point.direction),
            link: render::links(&flow.link),
            path: flow.path.into_iter().map(Point::from).collect(),
            sampling_interval: flow.sampling_interval,
            retransmits: flow.retransmits,
            name_source: flow.name.as_ref().and(flow.name_source).map(render::name_source),
            name: flow.name,
            src_country: flow.src_place.country,
            dst_country: flow.dst_place.country,
            src_asn: flow.src_place.asn,
            dst_asn: flow.dst_place.asn,
            src_organisation: flow.src_place.organisation,
            dst_organisation: flow.dst_place.organisation,
            src_process: flow.src_process.known(|process| &process.name),
            src_executable: flow.src_process.known(|process| &process.executable),
            src_container: flow.src_process.known(|process| &process.container),
            src_unit: flow.src_process.known(|process| &process.unit),
            dst_process: flow.dst_process.known(|process| &process.name),
            dst_executable: flow.dst_process.known(|process| &process.executable),
            dst_container: flow.dst_process.known(|process| &process.container),
            dst_unit: flow.dst_process.known(|process| &process.unit),
            src_device_id: flow.src_device.as_ref().map(|device| device.device_id),
            src_device: flow.src_device.and_then(|device| device.name),
            dst_device_id: flow.dst_device.as_ref().map(|device| device.device_id),
            dst_device: flow.dst_device.and_then(|device| device.name),
            src_network: flow.src_network,
            dst_network: flow.dst_network,
            scope: flow.scope.word(),
            service: flow.service,
        }
    }
}

/// List flows
///
/// Newest window first. Pages are stable while flows are stored: no flow comes twice and none that was
/// there at the first page is left out.
#[utoipa::path(
    get,
    path = "/api/v1/flows",
    tag = "flows",
    params(FilterParams, PageParams),
    responses(
        (status = 200, body = Page, description = "A page, maybe empty"),
    )
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: params, given }: Query<ListParams>,
) -> Result<Json<Page>, ApiError> {
    let (key, question) = (state.auth.continuation_key(), cursor::question(&given));
    let (window, after) = match &params.page.continuation {
        None => (params.filter.window()?, None),
        Some(token) => {
            let (window, position) = cursor::open(key, question, token).ok_or_else(|| {
                let message = "is not a token of this question: keep all parameters but `limit` as they were";
                ApiError::parameter("continuation", message)
            })?;
            (window, Some(position))
        }
    };
    let filter = params.filter.filter(&state, window, true).await?;
    let limit = params.page.limit.map_or(DEFAULT_LIMIT, u64::from) as usize;
    // One more than asked for tells whether there is a next page.
    let mut found = flows::list(&state.pool, &filter, after, limit as i64 + 1).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let continuation = last.map(|flow| cursor::seal(key, question, window, flow.position));
    Ok(Json(Page { items: found.into_iter().map(Flow::from).collect(), has_more, continuation }))
}
