//! Flows, newest first, page by page.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::devices::{Holder, Holders};
use super::filter::{Filter, Sql};
use super::processes::Process;
use super::{Class, Isolation, Lease, Pool, StoreError};
use crate::naming::{Naming, Scope};

/// Where a page ends: the key of its last flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub window_start_us: i64,
    pub sensor_id: i32,
    pub flow_id: i64,
}

/// One stored flow.
#[derive(Clone, Debug)]
pub struct Flow {
    pub position: Position,
    pub sensor: String,
    pub start_ns: i64,
    pub first_ns: i64,
    pub last_ns: i64,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: i16,
    pub src_port: i32,
    pub dst_port: i32,
    pub packets: i64,
    pub octets: i64,
    pub reverse_packets: i64,
    pub reverse_octets: i64,
    pub tcp_flags: i16,
    pub reverse_tcp_flags: i16,
    pub tcp_state: i16,
    pub end_reason: i16,
    pub handshake_rtt_us: Option<i32>,
    pub fragment: bool,
    pub icmp_type: i16,
    pub icmp_code: i16,
    pub sampling_interval: i32,
    pub retransmits: i32,
    pub point: Point,
    pub link: Vec<i32>,
    pub path: Vec<Point>,
    pub name: Option<String>,
    pub name_source: Option<i16>,
    pub src_place: Place,
    pub dst_place: Place,
    pub src_process: Process,
    pub dst_process: Process,
    pub src_device: Option<Holder>,
    pub dst_device: Option<Holder>,
    /// What operators call the networks of its addresses.
    pub src_network: Option<String>,
    pub dst_network: Option<String>,
    pub scope: Scope,
    /// What the responder's port is called.
    pub service: Option<String>,
}

/// Where an address is, as far as the sensor's databases told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub country: Option<String>,
    pub asn: Option<i64>,
    pub organisation: Option<String>,
}

/// One direction of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    pub interface: String,
    pub direction: i16,
}

pub(super) const COLUMNS: &str = "window_start, flow_id, sensor_id, start_ns, first_ns, last_ns, src, dst, protocol, \
    src_port, dst_port, packets, octets, reverse_packets, reverse_octets, tcp_flags, reverse_tcp_flags, \
    tcp_state, end_reason, handshake_rtt_us, fragment, icmp_type, icmp_code, sampling_interval, \
    retransmits, point_id, link, path, name_source, src_country, dst_country, src_asn, dst_asn, \
    (SELECT name FROM domain WHERE domain.domain_id = flow.domain_id) AS name, \
    (SELECT organisation FROM autonomous_system WHERE asn = src_asn) AS src_organisation, \
    (SELECT organisation FROM autonomous_system WHERE asn = dst_asn) AS dst_organisation, \
    (SELECT ARRAY[name, executable, container, unit] FROM process WHERE process_id = src_process_id) AS src_process, \
    (SELECT ARRAY[name, executable, container, unit] FROM process WHERE process_id = dst_process_id) AS dst_process";

/// At most `limit` flows of the filter that come after `after`. Keys only grow older along the pages, so
/// what is stored meanwhile moves none of them.
pub async fn list(
    pool: &Pool,
    filter: &Filter,
    after: Option<Position>,
    limit: i64,
) -> Result<Vec<Flow>, StoreError> {
    let mut sql = Sql::new(&format!("SELECT {COLUMNS} FROM flow"));
    sql.push_filter(filter);
    if let Some(after) = after {
        let time = sql.bind(system_time(after.window_start_us), Type::TIMESTAMPTZ);
        let sensor = sql.bind(after.sensor_id, Type::INT4);
        let flow = sql.bind(after.flow_id, Type::INT8);
        sql.push(&format!(" AND (window_start, sensor_id, flow_id) < ({time}, {sensor}, {flow})"));
    }
    let limit = sql.bind(limit, Type::INT8);
    sql.push(&format!(" ORDER BY window_start DESC, sensor_id DESC, flow_id DESC LIMIT {limit}"));

    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "flows_list").await?;
        let result = async {
            let rows = lease.client().query_typed(&sql.text, &sql.parameters()).await?;
            let names = Names::of(&lease, &rows, &filter.naming).await?;
            let mut flows = rows.iter().map(|row| names.flow(row)).collect::<Vec<_>>();
            find_devices(&lease, &mut flows).await?;
            Ok(flows)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}

/// The names behind the numbers of a page.
pub(super) struct Names {
    sensors: HashMap<i32, String>,
    points: HashMap<(i32, i32), Point>,
    naming: Arc<Naming>,
}

impl Names {
    async fn of(lease: &Lease<'_>, rows: &[Row], naming: &Arc<Naming>) -> Result<Self, StoreError> {
        let mut sensor_ids: Vec<i32> = rows.iter().map(|row| row.get("sensor_id")).collect();
        sensor_ids.sort_unstable();
        sensor_ids.dedup();
        if sensor_ids.is_empty() {
            return Ok(Self { sensors: HashMap::new(), points: HashMap::new(), naming: Arc::clone(naming) });
        }
        Self::some(lease, Some(sensor_ids), naming).await
    }

    /// Of every sensor there is.
    pub(super) async fn all(lease: &Lease<'_>, naming: &Arc<Naming>) -> Result<Self, StoreError> {
        Self::some(lease, None, naming).await
    }

    /// Of these sensors; none means all.
    async fn some(
        lease: &Lease<'_>,
        sensor_ids: Option<Vec<i32>>,
        naming: &Arc<Naming>,
    ) -> Result<Self, StoreError> {
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] =
            [(&sensor_ids, Type::INT4_ARRAY)];
        let sensors = lease
            .client()
            .query_typed(
                "SELECT sensor_id, name FROM sensor WHERE $1 IS NULL OR sensor_id = ANY ($1)",
                &parameters,
            )
            .await?;
        // A sensor has at most a few hundred points: all of them cost less than finding out which.
        let points = lease
            .client()
            .query_typed(
                "SELECT sensor_id, point_id, interface, direction FROM observation_point
                 WHERE $1 IS NULL OR sensor_id = ANY ($1)",
                &parameters,
            )
            .await?;
        let point = |row: &Row| Point { interface: row.get(2), direction: row.get(3) };
        Ok(Self {
            sensors: sensors.iter().map(|row| (row.get(0), row.get(1))).collect(),
            points: points.iter().map(|row| ((row.get(0), row.get(1)), point(row))).collect(),
            naming: Arc::clone(naming),
        })
    }

    pub(super) fn flow(&self, row: &Row) -> Flow {
        let sensor_id: i32 = row.get("sensor_id");
        let point = |id: i32| self.points.get(&(sensor_id, id)).cloned().unwrap_or_default();
        let path: Option<Vec<i32>> = row.get("path");
        let (src, dst): (IpAddr, IpAddr) = (row.get("src"), row.get("dst"));
        let networks = &self.naming.networks;
        let kind = |address| networks.kind(sensor_id, address);
        Flow {
            position: Position {
                window_start_us: micros(row.get("window_start")),
                sensor_id,
                flow_id: row.get("flow_id"),
            },
            sensor: self.sensors.get(&sensor_id).cloned().unwrap_or_default(),
            start_ns: row.get("start_ns"),
            first_ns: row.get("first_ns"),
            last_ns: row.get("last_ns"),
            src,
            dst,
            protocol: row.get("protocol"),
            src_port: row.get("src_port"),
            dst_port: row.get("dst_port"),
            packets: row.get("packets"),
            octets: row.get("octets"),
            reverse_packets: row.get("reverse_packets"),
            reverse_octets: row.get("reverse_octets"),
            tcp_flags: row.get("tcp_flags"),
            reverse_tcp_flags: row.get("reverse_tcp_flags"),
            tcp_state: row.get("tcp_state"),
            end_reason: row.get("end_reason"),
            handshake_rtt_us: row.get("handshake_rtt_us"),
            fragment: row.get("fragment"),
            icmp_type: row.get("icmp_type"),
            icmp_code: row.get("icmp_code"),
            sampling_interval: row.get("sampling_interval"),
            retransmits: row.get("retransmits"),
            point: point(row.get("point_id")),
            link: row.get::<_, Option<Vec<i32>>>("link").unwrap_or_default(),
            path: path.unwrap_or_default().into_iter().map(point).collect(),
            name: row.get("name"),
            name_source: row.get("name_source"),
            src_place: Place {
                country: row.get("src_country"),
                asn: row.get("src_asn"),
                organisation: row.get("src_organisation"),
            },
            dst_place: Place {
                country: row.get("dst_country"),
                asn: row.get("dst_asn"),
                organisation: row.get("dst_organisation"),
            },
            src_process: process(row, "src_process"),
            dst_process: process(row, "dst_process"),
            src_device: None,
            dst_device: None,
            src_network: networks.name(sensor_id, src).map(str::to_owned),
            dst_network: networks.name(sensor_id, dst).map(str::to_owned),
            scope: Scope::of(kind(src), kind(dst)),
            service: self.naming.services.of_row(row.get("protocol"), row.get("dst_port")).map(str::to_owned),
        }
    }
}

/// Whose the addresses of a page were when its flows were seen.
pub(super) async fn find_devices(lease: &Lease<'_>, flows: &mut [Flow]) -> Result<(), StoreError> {
    let ends = |flow: &Flow| [flow.src, flow.dst].map(|address| (flow.position.sensor_id, address));
    // What an erasure left was nobody's.
    let pairs: BTreeSet<(i32, IpAddr)> =
        flows.iter().flat_map(ends).filter(|(_, address)| !address.is_unspecified()).collect();
    let times = flows.iter().map(|flow| flow.position.window_start_us);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return Ok(()) };
    let holders = Holders::of(lease, &pairs, (system_time(first), system_time(last))).await?;
    for flow in flows {
        let sensor_id = flow.position.sensor_id;
        flow.src_device = holders.at(sensor_id, flow.src, flow.first_ns);
        flow.dst_device = holders.at(sensor_id, flow.dst, flow.first_ns);
    }
    Ok(())
}

/// A process by its four texts; all are empty where the flow has none.
fn process(row: &Row, column: &str) -> Process {
    let texts: Vec<String> = row.get::<_, Option<_>>(column).unwrap_or_default();
    let texts: Result<[String; 4], _> = texts.try_into();
    let [name, executable, container, unit] = texts.unwrap_or_default();
    Process { name, executable, container, unit }
}

/// Microseconds since the Unix epoch, as `timestamptz` has them.
fn micros(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

fn system_time(micros: i64) -> SystemTime {
    let distance = std::time::Duration::from_micros(micros.unsigned_abs());
    if micros >= 0 { SystemTime::UNIX_EPOCH + distance } else { SystemTime::UNIX_EPOCH - distance }
}
