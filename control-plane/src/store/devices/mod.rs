//! Devices: what sensors tell of them ([`told`]), what operators say, and both together.

mod change;
mod forgotten;
mod held;
mod joined;
mod merges;
mod told;
mod tombstones;

use std::net::IpAddr;
use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::expression::like;
use super::filter::Sql;
use super::{Class, Isolation, Lease, Pool, Reference, StoreError};

pub use change::{Change, ChangeError, change, merge};
pub use forgotten::{delete_before, forget_sensor};
pub use held::{HeldError, Holder, Holders, Resolved, resolve};
pub use merges::{Merge, forget as forget_merges, split};
pub(super) use told::add;
pub(super) use tombstones::{bury, lock, may_say, title};
pub use tombstones::{forget as forget_tombstones, held};

/// A device as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub device_id: i64,
    /// None where its sensor has none.
    pub site: Option<String>,
    pub first_seen: SystemTime,
    pub last_seen: SystemTime,
    pub vendor: Option<String>,
    /// What it calls itself, by the best source.
    pub told_name: Option<String>,
    /// What it seems to be, and the sum of the weights that say so.
    pub told_type: Option<String>,
    pub told_score: Option<i32>,
    pub said: Said,
    /// Known by: kind and value.
    pub keys: Vec<(String, String)>,
    /// The last ones first.
    pub addresses: Vec<IpAddr>,
}

/// What operators said; it is final.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub name: Option<String>,
    pub r#type: Option<String>,
    pub notes: Option<String>,
    pub owner: Option<String>,
}

/// A fact, over all sensors.
#[derive(Clone, Debug)]
pub struct Fact {
    pub kind: String,
    pub source: String,
    pub value: String,
    pub weight: Option<i32>,
    pub detail: Option<String>,
    pub first_seen: SystemTime,
    pub last_seen: SystemTime,
}

/// Which devices.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub site: Option<String>,
    pub sensor: Option<Reference>,
    pub r#type: Option<String>,
    /// Parts of texts; `*` stands for anything.
    pub vendor: Option<String>,
    pub name: Option<String>,
    /// An address or network that it ever had, as text that Postgres reads.
    pub network: Option<String>,
    /// Seen at or after this time.
    pub from: Option<SystemTime>,
    /// First seen before this time.
    pub to: Option<SystemTime>,
}

/// Addresses that a list shows of each.
const SHOWN: &str = "8";

fn columns() -> String {
    format!(
        "device.device_id, CASE WHEN left(scope, 1) <> '#' THEN scope END, first_seen, last_seen, vendor, told_name,
         told_type, told_score, name, type, notes, owner,
         ARRAY(SELECT kind FROM device_key AS key WHERE key.device_id = device.device_id ORDER BY kind, value),
         ARRAY(SELECT value FROM device_key AS key WHERE key.device_id = device.device_id ORDER BY kind, value),
         ARRAY(SELECT address FROM device_fact AS fact
               WHERE fact.device_id = device.device_id AND kind = 'address'
               GROUP BY address ORDER BY max(last_seen) DESC, address LIMIT {SHOWN})"
    )
}

/// Devices with an id below `before`, the last that came to be known first, at most `limit`.
pub async fn list(
    pool: &Pool,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Device>, StoreError> {
    let mut sql = Sql::new(&format!("SELECT {} FROM device WHERE TRUE", columns()));
    if let Some(site) = &filter.site {
        let site = sql.bind(site.clone(), Type::TEXT);
        sql.push(&format!(" AND scope = {site}"));
    }
    if let Some(sensor) = &filter.sensor {
        let (id, name) = sensor.parts();
        let id = sql.bind(id, Type::INT4);
        let name = sql.bind(name.map(str::to_owned), Type::TEXT);
        sql.push(&format!(
            " AND EXISTS (SELECT FROM device_fact AS fact JOIN sensor USING (sensor_id)
                          WHERE fact.device_id = device.device_id AND fact.kind = 'seen'
                            AND (sensor_id = {id} OR sensor.name = {name}))"
        ));
    }
    if let Some(of) = &filter.r#type {
        let of = sql.bind(of.clone(), Type::TEXT);
        sql.push(&format!(" AND coalesce(type, told_type) = {of}"));
    }
    for (column, part) in [("vendor", &filter.vendor), ("coalesce(name, told_name)", &filter.name)] {
        if let Some(part) = part {
            let pattern = sql.bind(like(&format!("*{}*", part.to_lowercase())), Type::TEXT);
            sql.push(&format!(" AND lower({column}) LIKE {pattern}"));
        }
    }
    if let Some(network) = &filter.network {
        let network = sql.bind(network.clone(), Type::TEXT);
        sql.push(&format!(
            " AND device.device_id IN (SELECT fact.device_id FROM device_fact AS fact
                                       WHERE fact.address <<= {network}::inet)"
        ));
    }
    for (time, condition) in [(filter.from, "last_seen >="), (filter.to, "first_seen <")] {
        if let Some(time) = time {
            let time = sql.bind(time, Type::TIMESTAMPTZ);
            sql.push(&format!(" AND {condition} {time}"));
        }
    }
    if let Some(before) = before {
        let before = sql.bind(before, Type::INT8);
        sql.push(&format!(" AND device.device_id < {before}"));
    }
    let limit = sql.bind(limit, Type::INT8);
    sql.push(&format!(" ORDER BY device.device_id DESC LIMIT {limit}"));
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "device_list").await?;
        let result = lease.client().query_typed(&sql.text, &sql.parameters()).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Query, work).await?.iter().map(device).collect())
}

/// One device with its facts, all sensors together, and with its merges; the last ones first.
pub async fn get(pool: &Pool, device_id: i64) -> Result<Option<(Device, Vec<Fact>, Vec<Merge>)>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "device_get").await?;
        let result = async {
            let Some(found) = find(&lease, device_id).await? else { return Ok(None) };
            let sql =
                "SELECT kind, CASE WHEN kind = 'seen' THEN sensor.name ELSE source END AS said_by, value,
                              max(weight), max(detail), min(first_seen), max(last_seen) AS last
                       FROM device_fact JOIN sensor USING (sensor_id) WHERE device_id = $1
                       GROUP BY kind, said_by, value ORDER BY last DESC, kind, said_by, value LIMIT 2000";
            let rows = lease.client().query(sql, &[&device_id]).await?;
            let merges = merges::of(&lease, device_id).await?;
            Ok(Some((found, rows.iter().map(fact).collect(), merges)))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}

async fn find(lease: &Lease<'_>, device_id: i64) -> Result<Option<Device>, StoreError> {
    let sql = format!("SELECT {} FROM device WHERE device_id = $1", columns());
    Ok(lease.client().query_opt(&sql, &[&device_id]).await?.as_ref().map(device))
}

fn device(row: &Row) -> Device {
    let (kinds, values): (Vec<String>, Vec<String>) = (row.get(12), row.get(13));
    Device {
        device_id: row.get(0),
        site: row.get(1),
        first_seen: row.get(2),
        last_seen: row.get(3),
        vendor: row.get(4),
        told_name: row.get(5),
        told_type: row.get(6),
        told_score: row.get(7),
        said: Said { name: row.get(8), r#type: row.get(9), notes: row.get(10), owner: row.get(11) },
        keys: kinds.into_iter().zip(values).collect(),
        addresses: row.get(14),
    }
}

fn fact(row: &Row) -> Fact {
    Fact {
        kind: row.get(0),
        source: row.get(1),
        value: row.get(2),
        weight: row.get(3),
        detail: row.get(4),
        first_seen: row.get(5),
        last_seen: row.get(6),
    }
}
