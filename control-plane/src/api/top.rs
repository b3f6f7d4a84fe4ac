//! `GET /api/v1/flows/top`: the largest talkers.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::answers::{self, Question};
use super::params::{FromParams, Params, Query};
use super::render::{self, Sums};
use super::window::{Compare, CompareParams, FilterParams};
use super::{ApiError, AppState};
use crate::ingest::rollup::{self, Dimension};
use crate::store::filter::Filter;
use crate::store::top::{self, By, Choice, End, Metric, Part};

const DEFAULT_LIMIT: u64 = 10;

const RANKED: &[(&str, By)] = &[
    ("source", By::Key(Dimension::Source)),
    ("destination", By::Key(Dimension::Destination)),
    ("pair", By::Key(Dimension::Pair)),
    ("port", By::Key(Dimension::Service)),
    ("protocol", By::Key(Dimension::Protocol)),
    ("name", By::Key(Dimension::Domain)),
    ("country", By::Key(Dimension::Country)),
    ("asn", By::Key(Dimension::System)),
    ("process", By::Process(Part::Name)),
    ("executable", By::Process(Part::Executable)),
    ("container", By::Process(Part::Container)),
    ("unit", By::Process(Part::Unit)),
    ("src_device", By::Device(End::Initiator)),
    ("dst_device", By::Device(End::Responder)),
    ("src_network", By::Network(End::Initiator)),
    ("dst_network", By::Network(End::Responder)),
];
const METRICS: &[(&str, Metric)] =
    &[("octets", Metric::Octets), ("packets", Metric::Packets), ("flows", Metric::Flows)];

/// What to rank, and by what.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RankParams {
    /// `source`, `destination`, `pair`, `port` (the responder's, with its protocol), `protocol`, or whom flows were
    /// with: `name`, `country`, `asn` of the responder, where they are known; or whose they were, where an end is on the
    /// sensor's host: `process`, and `executable`, `container`, `unit` of processes. A flow between two of them is the
    /// initiator's; or `src_device`, `dst_device`: whose device the initiator's, the responder's address was; or
    /// `src_network`, `dst_network`: what operators call the networks of those
    #[param(value_type = Option<String>, default = "source", example = "pair", pattern = "^(source|destination|pair|port|protocol|name|country|asn|process|executable|container|unit|src_device|dst_device|src_network|dst_network)$")]
    pub by: Option<By>,
    /// `octets`, `packets` (both directions together) or `flows`
    #[param(value_type = Option<String>, default = "octets", example = "octets", pattern = "^(octets|packets|flows)$")]
    pub metric: Option<Metric>,
    /// Entries
    #[param(minimum = 1, maximum = 1000, default = 10, example = 10)]
    pub limit: Option<u16>,
}

/// All parameters of the route.
pub struct TopParams {
    filter: FilterParams,
    rank: RankParams,
    compare: CompareParams,
}

impl FromParams for TopParams {
    fn read(params: &mut Params) -> Self {
        let filter = FilterParams::read(params);
        let by = params.choice("by", RANKED);
        let metric = params.choice("metric", METRICS);
        let limit = params.number("limit", 1..=1_000).map(|limit| limit as u16);
        let compare = CompareParams::read(params);
        Self { filter, rank: RankParams { by, metric, limit }, compare }
    }
}

/// The ranking.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "by": "pair", "metric": "octets", "exact": true,
    "from": "2026-01-31T12:00:00.000000000Z", "to": "2026-01-31T13:00:00.000000000Z",
    "items": [{
        "src": "10.0.0.7", "dst": "192.0.2.80", "flows": 12, "packets": 3_200, "octets": 256_000,
        "reverse_packets": 6_100, "reverse_octets": 8_400_000,
        "previous": {"flows": 9, "packets": 2_100, "octets": 170_000, "reverse_packets": 4_000, "reverse_octets": 5_500_000}
    }],
    "other": {"flows": 30, "packets": 900, "octets": 81_000, "reverse_packets": 700, "reverse_octets": 420_000},
    "total": {"flows": 42, "packets": 4_100, "octets": 337_000, "reverse_packets": 6_800, "reverse_octets": 8_820_000},
    "previous": {
        "from": "2026-01-31T11:00:00.000000000Z", "to": "2026-01-31T12:00:00.000000000Z", "exact": true,
        "total": {"flows": 35, "packets": 3_000, "octets": 250_000, "reverse_packets": 4_600, "reverse_octets": 6_000_000}
    }
}))]
pub struct Top {
    #[schema(example = "pair")]
    pub by: &'static str,
    #[schema(example = "octets")]
    pub metric: &'static str,
    /// What was added up; rollups know whole minutes
    pub from: String,
    pub to: String,
    /// Counted from every row. If not, from rollups, where a key that was small in some batch lacks that
    /// batch's share, and a device that of a minute or an hour in which an address changed hands: it is in `other`
    pub exact: bool,
    pub items: Vec<Item>,
    /// All flows of the window, less those of `items`
    pub other: Sums,
    /// All flows of the window, always exact
    pub total: Sums,
    /// With `compare=previous`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// The window of equal length that ends where this one begins.
#[derive(Debug, Serialize, ToSchema)]
pub struct Previous {
    #[schema(example = "2026-01-31T11:00:00.000000000Z")]
    pub from: String,
    #[schema(example = "2026-01-31T12:00:00.000000000Z")]
    pub to: String,
    /// As in the ranking: if not, what an entry had before may be less than it was
    #[schema(example = true)]
    pub exact: bool,
    pub total: Sums,
}

/// An entry; it has the fields that `by` is made of.
#[derive(Debug, Serialize, ToSchema)]
pub struct Item {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "10.0.0.7")]
    pub src: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "192.0.2.80")]
    pub dst: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 6)]
    pub protocol: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 443)]
    pub port: Option<i32>,
    /// What the port is called, by `port`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "https")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "www.example.org")]
    pub name: Option<String>,
    /// ISO 3166-1 alpha-2
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "NL")]
    pub country: Option<String>,
    /// Autonomous system
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 64496)]
    pub asn: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Example Hosting")]
    pub organisation: Option<String>,
    /// Name of the device, if it has one
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "office printer")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 7)]
    pub device_id: Option<i64>,
    /// What operators call it
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "office")]
    pub network: Option<String>,
    /// The kernel's name of the process
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "curl")]
    pub process: Option<String>,
    /// Path of the file that it runs
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/usr/bin/curl")]
    pub executable: Option<String>,
    /// Id of the container that it runs in
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "4f1d2c3b5a69")]
    pub container: Option<String>,
    /// Unit of the service manager that it belongs to
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "nginx.service")]
    pub unit: Option<String>,
    #[serde(flatten)]
    pub sums: Sums,
    /// With `compare=previous`: the same entry in the window before, 0 where it was not there
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Sums>,
}

/// Top talkers
///
/// The largest sources, destinations, pairs, ports, protocols, names, countries, systems, processes or devices of the window. Where `from` and `to` are given,
/// the answer has an `ETag` that changes with the flows of the window; not so a ranking of devices.
#[utoipa::path(
    get,
    path = "/api/v1/flows/top",
    tag = "flows",
    params(FilterParams, RankParams, CompareParams, answers::IfNoneMatch),
    responses(
        (status = 200, body = Top, description = "The ranking, maybe empty"),
        (status = 304, description = "As it was when it had this `ETag`"),
    )
)]
pub async fn top(
    State(state): State<AppState>,
    headers: HeaderMap,
    Query { value: params, given }: Query<TopParams>,
) -> Result<Response, ApiError> {
    let window = params.filter.window()?;
    let shows_networks = matches!(params.rank.by, Some(By::Network(_)));
    let filter = params.filter.filter(&state, window, shows_networks).await?;
    let mut all = filter.clone();
    if params.compare.compare.is_some() {
        all.from = before(&filter).from;
    }
    // In a box: two questions, each with all that it binds.
    let ranking = Box::pin(ranking(&state, &params, &filter));
    // Whose an address was may change without the flows: such an answer is not kept.
    if matches!(params.rank.by, Some(By::Device(_))) {
        return Ok(axum::Json(ranking.await?).into_response());
    }
    let question = Question { route: "top", given: &given, filter: &all, headers: &headers };
    answers::answer(&state, question, ranking).await
}

/// The window that ends where this one begins.
fn before(filter: &Filter) -> Filter {
    filter.moved_back(filter.to.duration_since(filter.from))
}

async fn ranking(state: &AppState, params: &TopParams, filter: &Filter) -> Result<Top, ApiError> {
    let by = params.rank.by.unwrap_or(By::Key(Dimension::Source));
    let metric = params.rank.metric.unwrap_or(Metric::Octets);
    let limit = params.rank.limit.map_or(DEFAULT_LIMIT, u64::from) as i64;
    let minutes_since = state.retention.minutes_since(Timestamp::now());
    let choice = Choice::Largest(limit);
    let top = top::top(&state.pool, filter, by, metric, choice, minutes_since).await?;
    let previous = match params.compare.compare {
        None => None,
        Some(Compare::Previous) => {
            let choice = Choice::Like(&top.items);
            Some(top::top(&state.pool, &before(filter), by, metric, choice, minutes_since).await?)
        }
    };
    let total = Sums::from(top.total);
    let items: Vec<Item> = top
        .items
        .into_iter()
        .map(|item| {
            let same = |other: &&top::Item| other.has_key_of(&item);
            let previous = previous.as_ref().map(|previous| {
                previous.items.iter().find(same).map_or_else(Sums::default, |other| Sums::from(other.sums))
            });
            let number = |of: Dimension| item.number.filter(|_| by == By::Key(of));
            let label = |of: Part| item.label.clone().filter(|_| by == By::Process(of));
            let port = number(Dimension::Service);
            let service =
                item.protocol.zip(port).and_then(|(protocol, port)| state.services.of_row(protocol, port));
            Item {
                src: item.src.map(|src| src.to_string()),
                dst: item.dst.map(|dst| dst.to_string()),
                protocol: item.protocol,
                port,
                service: service.map(str::to_owned),
                country: number(Dimension::Country).map(rollup::number::country),
                asn: number(Dimension::System).map(rollup::number::system),
                organisation: item.name.clone().filter(|_| by == By::Key(Dimension::System)),
                device: item.name.clone().filter(|_| matches!(by, By::Device(_))),
                device_id: item.device,
                network: item.label.clone().filter(|_| matches!(by, By::Network(_))),
                process: label(Part::Name),
                executable: label(Part::Executable),
                container: label(Part::Container),
                unit: label(Part::Unit),
                name: item.name.clone().filter(|_| by == By::Key(Dimension::Domain)),
                sums: Sums::from(item.sums),
                previous,
            }
        })
        .collect();
    Ok(Top {
        by: word(RANKED, &by),
        metric: word(METRICS, &metric),
        from: render::time(top.from),
        to: render::time(top.to),
        exact: top.exact,
        other: items.iter().fold(total, |left, item| left.less(&item.sums)),
        items,
        total,
        previous: previous.map(|previous| Previous {
            from: render::time(previous.from),
            to: render::time(previous.to),
            exact: previous.exact,
            total: Sums::from(previous.total),
        }),
    })
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, other)| other == value).map_or("", |(word, _)| word)
}
