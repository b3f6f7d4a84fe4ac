//! The largest sources, destinations, pairs, services, protocols, domains, countries, systems and processes of a window.
//!
//! Rows are exact and rollups are quick. A window with few rows, or a filter that rollups cannot answer,
//! is counted from the rows; any other from the rollups, whose smallest keys are pooled (see
//! `ingest::rollup`).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::filter::{Filter, Sql, sum};
use super::owners::Owners;
use super::resolution::{MINUTE, ceil, floor, pieces, push_pieces};
use super::{Class, Isolation, Lease, Pool, StoreError};
use crate::ingest::rollup::Dimension;

/// Rows that are summed in some 50 ms; a window with more is answered from the rollups.
const EXACT_ROWS: i64 = 150_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Octets,
    Packets,
    Flows,
}

/// What is ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Key(Dimension),
    /// Processes that have something in common.
    Process(Part),
    /// Devices that had an end's address at the time.
    Device(End),
    /// Networks that an end's address is of.
    Network(End),
}

/// Of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Name,
    Executable,
    Container,
    Unit,
}

/// Of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Initiator,
    Responder,
}

impl End {
    /// Of its address.
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Initiator => "src",
            Self::Responder => "dst",
        }
    }
}

impl By {
    pub(super) fn dimension(self) -> Dimension {
        match self {
            Self::Key(dimension) => dimension,
            Self::Process(_) => Dimension::Process,
            Self::Device(End::Initiator) | Self::Network(End::Initiator) => Dimension::Source,
            Self::Device(End::Responder) | Self::Network(End::Responder) => Dimension::Destination,
        }
    }
}

/// What is added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub flows: i64,
    pub packets: i64,
    pub octets: i64,
    pub reverse_packets: i64,
    pub reverse_octets: i64,
}

/// One of the largest.
#[derive(Clone, Debug)]
pub struct Item {
    pub src: Option<IpAddr>,
    pub dst: Option<IpAddr>,
    pub protocol: Option<i16>,
    /// The responder's port, or what stands for a domain, a country or a system (`ingest::rollup::number`).
    pub number: Option<i32>,
    /// A device's id.
    pub device: Option<i64>,
    /// What processes have in common, or a network's name.
    pub label: Option<String>,
    /// A domain's or a device's name, or who runs a system.
    pub name: Option<String>,
    pub sums: Sums,
}

impl Item {
    /// Whether both stand for the same source, pair, or whatever was asked for.
    #[must_use]
    pub fn has_key_of(&self, other: &Self) -> bool {
        (self.src, self.dst, self.protocol, self.number, self.device, &self.label)
            == (other.src, other.dst, other.protocol, other.number, other.device, &other.label)
    }
}

/// Which entries.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// So many of the largest.
    Largest(i64),
    /// Those with the keys of these, whatever their size.
    Like(&'a [Item]),
}

/// The answer, and how it was found.
#[derive(Clone, Debug)]
pub struct Top {
    pub items: Vec<Item>,
    pub total: Sums,
    /// From the rows, not from rollups.
    pub exact: bool,
    /// What was added up: rollups know whole minutes.
    pub from: Timestamp,
    pub to: Timestamp,
}

/// How a dimension reads in rows and in rollups.
struct Keys {
    columns: &'static [&'static str],
    /// The same in `flow`.
    flow_columns: &'static str,
    /// Tells a rollup's named keys from the row of all others.
    named: &'static str,
    /// A column of the processes that are numbered, which is what is ranked.
    label: Option<&'static str>,
}

fn keys(by: By) -> Keys {
    let dimension = match by {
        By::Key(dimension) => dimension,
        By::Device(_) => {
            return Keys {
                columns: &["device"],
                flow_columns: "coalesce(held_device, -1) AS device",
                named: "device <> -1",
                label: None,
            };
        }
        // What it is called is asked of the filter's naming.
        By::Network(_) => {
            return Keys { columns: &["label"], flow_columns: "label", named: "label <> ''", label: None };
        }
        By::Process(part) => {
            let label = match part {
                Part::Name => "name",
                Part::Executable => "executable",
                Part::Container => "container",
                Part::Unit => "unit",
            };
            return Keys {
                columns: &["label"],
                named: "label <> ''",
                label: Some(label),
                ..keys(By::Key(Dimension::Process))
            };
        }
    };
    let (columns, flow_columns, named): (&'static [&'static str], _, _) = match dimension {
        Dimension::Source => (&["src"], "src", "src <> '::/0'"),
        Dimension::Destination => (&["dst"], "dst", "dst <> '::/0'"),
        Dimension::Pair => (&["src", "dst"], "src, dst", "src <> '::/0'"),
        Dimension::Service => (&["protocol", "number"], "protocol, dst_port AS number", "protocol >= 0"),
        Dimension::Protocol => (&["protocol"], "protocol", "protocol >= 0"),
        Dimension::Domain => (&["number"], "coalesce(domain_id, -1) AS number", "number <> -1"),
        Dimension::Country => (
            &["number"],
            "coalesce(ascii(left(dst_country, 1)) * 256 + ascii(right(dst_country, 1)), -1) AS number",
            "number <> -1",
        ),
        // The 32 bits as a signed number.
        Dimension::System => {
            (&["number"], "coalesce(dst_asn::bit(32)::integer, -1) AS number", "number <> -1")
        }
        Dimension::Process => {
            (&["number"], "coalesce(src_process_id, dst_process_id, -1) AS number", "number <> -1")
        }
    };
    Keys { columns, flow_columns, named, label: None }
}

/// The chosen entries of the filter's flows. Minutes before `minutes_since` are not kept.
pub async fn top(
    pool: &Pool,
    filter: &Filter,
    by: By,
    metric: Metric,
    choice: Choice<'_>,
    minutes_since: Timestamp,
) -> Result<Top, StoreError> {
    let dimension = by.dimension();
    let by_protocol = matches!(dimension, Dimension::Service | Dimension::Protocol);
    let rollups_answer = filter.only_by_sensor() && (filter.protocol.is_none() || by_protocol);
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "flows_top").await?;
        let result = async {
            let mut top = if rollups_answer && rows_about(&lease, filter, minutes_since).await? > EXACT_ROWS {
                from_rollups(&lease, filter, by, metric, choice, minutes_since).await?
            } else {
                from_rows(&lease, filter, by, metric, choice).await?
            };
            if !matches!(by, By::Device(_)) {
                name(&lease, dimension, &mut top.items).await?;
            }
            Ok(top)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}

/// The names of the entries that have some.
async fn name(lease: &Lease<'_>, dimension: Dimension, items: &mut [Item]) -> Result<(), StoreError> {
    let sql = match dimension {
        Dimension::Domain => "SELECT domain_id, name FROM domain WHERE domain_id = ANY ($1)",
        Dimension::System => {
            "SELECT asn::bit(32)::integer, organisation FROM autonomous_system
             WHERE asn::bit(32)::integer = ANY ($1)"
        }
        _ => return Ok(()),
    };
    let numbers: Vec<i32> = items.iter().filter_map(|item| item.number).collect();
    let rows = lease.client().query_typed(sql, &[(&numbers, Type::INT4_ARRAY)]).await?;
    let names: HashMap<i32, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for item in items {
        item.name = item.number.and_then(|number| names.get(&number).cloned());
    }
    Ok(())
}

/// How many rows the window has, by the rollups.
async fn rows_about(lease: &Lease<'_>, filter: &Filter, minutes_since: Timestamp) -> Result<i64, StoreError> {
    let mut sql = Sql::new("SELECT ");
    sql.push(&sum("flows"));
    sql.push(" FROM ");
    let whole = pieces(floor(filter.from, MINUTE), ceil(filter.to, MINUTE), minutes_since);
    push_pieces(&mut sql, &whole, Dimension::Protocol, filter);
    sql.push(" AS rows");
    Ok(lease.client().query_typed_one(&sql.text, &sql.parameters()).await?.get(0))
}

async fn from_rows(
    lease: &Lease<'_>,
    filter: &Filter,
    by: By,
    metric: Metric,
    choice: Choice<'_>,
) -> Result<Top, StoreError> {
    let keys = keys(by);
    let owners = Owners::of(lease, filter, by, None).await?;
    // Processes are counted by their number, which is quick, and then by what they are called.
    let first = if keys.label.is_some() { "counted" } else { "keyed" };
    let mut sql = Sql::new(&format!("WITH {first} AS (SELECT "));
    let key = match by {
        By::Network(end) => sql.network(&filter.naming, end),
        _ => keys.flow_columns.to_owned(),
    };
    let _ = write!(sql.text, "{key}, count(*) AS flows, {} FROM flow", summed(false));
    owners.push(&mut sql, "first_ns >= held_from AND first_ns < held_until");
    sql.push_filter(filter);
    let _ = write!(sql.text, " GROUP BY {})", grouped(&keys));
    if let Some(label) = keys.label {
        let _ = write!(
            sql.text,
            ", keyed AS (SELECT coalesce(process.{label}, '') AS label, {} FROM counted
                         LEFT JOIN process ON process_id = number GROUP BY 1)",
            summed(true),
        );
    }
    let columns = keys.columns.join(", ");
    let rank = match metric {
        Metric::Octets => "octets + reverse_octets",
        Metric::Packets => "packets + reverse_packets",
        Metric::Flows => "flows",
    };
    let (join, order) = push_choice(&mut sql, &keys, choice);
    let _ = write!(
        sql.text,
        ", totals AS (SELECT {} FROM keyed),
         largest AS (SELECT *, {rank} AS rank FROM keyed {join} WHERE {} {order})",
        totals(),
        keys.named,
    );
    push_answer(&mut sql, &columns);
    let rows = lease.client().query_typed(&sql.text, &sql.parameters()).await?;
    let mut top = answer(&rows, &keys, owners.complete, filter.from, filter.to);
    owners.name(&mut top.items);
    Ok(top)
}

/// Ranks all keys by one sum, then adds up the others for the few that are shown.
async fn from_rollups(
    lease: &Lease<'_>,
    filter: &Filter,
    by: By,
    metric: Metric,
    choice: Choice<'_>,
    minutes_since: Timestamp,
) -> Result<Top, StoreError> {
    let keys = keys(by);
    let columns = keys.columns.join(", ");
    let pieces = pieces(floor(filter.from, MINUTE), ceil(filter.to, MINUTE), minutes_since);
    let rank = match metric {
        Metric::Octets => "sum(octets) + sum(reverse_octets)",
        Metric::Packets => "sum(packets) + sum(reverse_packets)",
        Metric::Flows => "sum(flows)",
    };
    let owners = Owners::of(lease, filter, by, Some(&pieces)).await?;
    let device = if owners.end.is_some() { ", coalesce(held_device, -1) AS device" } else { "" };
    let label =
        keys.label.map(|label| format!(", coalesce(process.{label}, '') AS label")).unwrap_or_default();
    let mut sql = Sql::new(&format!("WITH rows AS MATERIALIZED (SELECT pieces.*{label}{device}"));
    if let By::Network(end) = by {
        let network = sql.network(&filter.naming, end);
        let _ = write!(sql.text, ", {network}");
    }
    sql.push(" FROM ");
    push_pieces(&mut sql, &pieces, by.dimension(), filter);
    sql.push(" AS pieces");
    if keys.label.is_some() {
        sql.push(" LEFT JOIN process ON process_id = number");
    }
    // A bucket in which an address changed hands is nobody's: it is among the others.
    let whole =
        "bucket >= to_timestamp(held_from / 1e9) AND bucket + length <= to_timestamp(held_until / 1e9)";
    owners.push(&mut sql, whole);
    let (join, order) = push_choice(&mut sql, &keys, choice);
    let _ = write!(
        sql.text,
        "), leaders AS (
             SELECT {columns}, {rank} AS rank FROM rows {join} WHERE {} GROUP BY {columns} {order}
         ), largest AS (
             SELECT {columns}, rank, {} FROM leaders JOIN rows USING ({columns}) GROUP BY {columns}, rank
         ), totals AS (SELECT {} FROM ",
        keys.named,
        summed(true),
        totals(),
    );
    // Protocols are few and all named: the total of every dimension, also under a filter of them.
    push_pieces(&mut sql, &pieces, Dimension::Protocol, filter);
    sql.push(" AS rows)");
    push_answer(&mut sql, &columns);
    let rows = lease.client().query_typed(&sql.text, &sql.parameters()).await?;
    let (from, to) = match (pieces.first(), pieces.last()) {
        (Some(first), Some(last)) => (first.from, last.to),
        _ => (filter.from, filter.to),
    };
    let mut top = answer(&rows, &keys, false, from, to);
    owners.name(&mut top.items);
    Ok(top)
}

/// Binds what chooses the entries; gives a join that goes behind the table of keys, and an order with its end.
fn push_choice(sql: &mut Sql, keys: &Keys, choice: Choice<'_>) -> (String, String) {
    let columns = keys.columns.join(", ");
    let items = match choice {
        Choice::Largest(limit) => {
            let limit = sql.bind(limit, Type::INT8);
            return (String::new(), format!("ORDER BY rank DESC, {columns} LIMIT {limit}"));
        }
        Choice::Like(items) => items,
    };
    let arrays: Vec<String> = keys
        .columns
        .iter()
        .map(|column| match *column {
            "src" => sql.bind(items.iter().map(|item| item.src).collect::<Vec<_>>(), Type::INET_ARRAY),
            "dst" => sql.bind(items.iter().map(|item| item.dst).collect::<Vec<_>>(), Type::INET_ARRAY),
            "protocol" => {
                sql.bind(items.iter().map(|item| item.protocol).collect::<Vec<_>>(), Type::INT2_ARRAY)
            }
            "device" => sql.bind(items.iter().map(|item| item.device).collect::<Vec<_>>(), Type::INT8_ARRAY),
            "label" => {
                sql.bind(items.iter().map(|item| item.label.clone()).collect::<Vec<_>>(), Type::TEXT_ARRAY)
            }
            _ => sql.bind(items.iter().map(|item| item.number).collect::<Vec<_>>(), Type::INT4_ARRAY),
        })
        .collect();
    let join = format!("JOIN unnest({}) AS chosen ({columns}) USING ({columns})", arrays.join(", "));
    (join, String::new())
}

/// Sums per key. Not clamped: the ranking adds them up again.
fn summed(with_flows: bool) -> String {
    let columns = SUMS.iter().skip(usize::from(!with_flows));
    columns.map(|column| format!("sum({column}) AS {column}")).collect::<Vec<_>>().join(", ")
}

fn grouped(keys: &Keys) -> String {
    (1..=keys.columns.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}

const SUMS: [&str; 5] = ["flows", "packets", "octets", "reverse_packets", "reverse_octets"];

fn totals() -> String {
    SUMS.map(|column| format!("coalesce(sum({column}), 0) AS {column}")).join(", ")
}

/// The answer from `totals` and `largest`: each of the largest with the totals beside it. Where there is
/// none, one row has the totals alone.
fn push_answer(sql: &mut Sql, columns: &str) {
    let clamped = |table: &str| {
        SUMS.map(|column| format!("LEAST({table}.{column}, 9223372036854775807)::bigint")).join(", ")
    };
    let _ = write!(
        sql.text,
        " SELECT {}, {}, largest.rank IS NOT NULL, {columns} FROM totals LEFT JOIN largest ON TRUE
         ORDER BY largest.rank DESC, {columns}",
        clamped("totals"),
        clamped("largest"),
    );
}

fn answer(rows: &[Row], keys: &Keys, exact: bool, from: Timestamp, to: Timestamp) -> Top {
    let sums = |row: &Row, first: usize| Sums {
        flows: row.get(first),
        packets: row.get(first + 1),
        octets: row.get(first + 2),
        reverse_packets: row.get(first + 3),
        reverse_octets: row.get(first + 4),
    };
    let total = rows.first().map(|row| sums(row, 0)).unwrap_or_default();
    let named = rows.iter().filter(|row| row.get(10));
    let items = named
        .map(|row| {
            let place = |name: &str| keys.columns.iter().position(|column| *column == name).map(|at| 11 + at);
            Item {
                src: place("src").map(|at| row.get(at)),
                dst: place("dst").map(|at| row.get(at)),
                protocol: place("protocol").map(|at| row.get(at)),
                number: place("number").map(|at| row.get(at)),
                device: place("device").map(|at| row.get(at)),
                label: place("label").map(|at| row.get(at)),
                name: None,
                sums: sums(row, 5),
            }
        })
        .collect();
    Top { items, total, exact, from, to }
}
