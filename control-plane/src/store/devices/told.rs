//! What sensors tell of devices, added in the transaction of their batch.
//!
//! Facts are joined by least and greatest, so the order of batches does not matter and a repeat changes nothing.
//! Which device a fact belongs to is decided by its keys, under the lock of the site: all sensors of a site see one
//! device. Keys that were of several devices and are told as one's join them, unless that would join two network
//! cards, or two devices that operators named: then each key stays where it is.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;
use tokio_postgres::types::ToSql;

use super::super::events::{NewEvent, Topic};
use super::super::{Lease, StoreError, locks};
use super::{joined, tombstones};
use crate::ingest::{self, Batch, Device, FactKind};

/// The kind of key that a network card has of its maker.
const CARD: &str = "mac";

/// A key: kind and value.
type Key = (String, String);

/// A device that is there, as far as joining asks.
#[derive(Clone, Copy, Debug)]
struct Known {
    carded: bool,
    /// An operator said something of it.
    named: bool,
}

/// Adds what a batch tells; what is to be told of that, and how many facts were of devices that are erased.
pub async fn add(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
) -> Result<(Vec<NewEvent>, u64), StoreError> {
    if batch.devices.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let scope = scope(lease, sensor_id).await?;
    lock(lease, &scope).await?;
    let erased = tombstones::erased_keys(lease, &scope, &batch.devices).await?;
    let (devices, clipped) = if erased.is_empty() {
        (Cow::Borrowed(&batch.devices[..]), 0)
    } else {
        let (devices, clipped) = ingest::clip_devices(batch, &erased);
        (Cow::Owned(devices), clipped)
    };
    let mut homes = Homes::find(lease, &scope, &devices).await?;
    let mut told: BTreeMap<i64, Vec<&Device>> = BTreeMap::new();
    let mut unknown = Vec::new();
    let mut joins = Vec::new();
    for device in &*devices {
        match homes.home(device, &mut joins) {
            Some(home) => told.entry(home).or_default().push(device),
            None => unknown.push(device),
        }
    }
    let mut events = Vec::new();
    for (into, from) in joins {
        joined::join(lease, into, from).await?;
        // Told of what came before in this batch.
        let moved = told.remove(&from).unwrap_or_default();
        told.entry(into).or_default().extend(moved);
        let body = json!({"id": into, "from": from});
        events.push(NewEvent {
            topic: Topic::Devices,
            kind: "device.join",
            sensor_id: Some(sensor_id),
            body,
        });
    }
    let new = open(lease, &scope, unknown.len()).await?;
    for (device, id) in unknown.into_iter().zip(&new) {
        told.entry(*id).or_default().push(device);
        let keys: Vec<_> = device.keys().map(|(kind, value)| json!({"kind": kind, "value": value})).collect();
        let body = json!({"id": id, "keys": keys});
        events.push(NewEvent { topic: Topic::Devices, kind: "device.new", sensor_id: Some(sensor_id), body });
    }
    add_keys(lease, &scope, &told).await?;
    add_facts(lease, sensor_id, batch, &told).await?;
    let ids: Vec<i64> = told.keys().copied().collect();
    joined::summarize(lease, &ids).await?;
    Ok((events, clipped))
}

/// The site of a sensor; one without is a site of its own.
async fn scope(lease: &mut Lease<'_>, sensor_id: i32) -> Result<String, StoreError> {
    let statement =
        lease.prepared("SELECT coalesce(site, '#' || sensor_id) FROM sensor WHERE sensor_id = $1").await?;
    Ok(lease.client().query_one(&statement, &[&sensor_id]).await?.get(0))
}

/// Nobody else decides whose a key of this site is until the transaction ends.
pub(super) async fn lock(lease: &Lease<'_>, scope: &str) -> Result<(), StoreError> {
    let sql = "SELECT pg_advisory_xact_lock($1, hashtext($2))";
    lease.client().execute(sql, &[&locks::DEVICES, &scope]).await?;
    Ok(())
}

/// Where the keys of a batch lead.
struct Homes {
    keys: HashMap<Key, i64>,
    devices: HashMap<i64, Known>,
    /// What was joined to what, in this batch.
    moved: HashMap<i64, i64>,
}

impl Homes {
    async fn find(lease: &mut Lease<'_>, scope: &str, devices: &[Device]) -> Result<Self, StoreError> {
        let (kinds, values): (Vec<&str>, Vec<&str>) = devices.iter().flat_map(Device::keys).unzip();
        let statement = lease
            .prepared(
                "SELECT kind, value, device_id FROM device_key
                 JOIN unnest($2::text[], $3::text[]) AS told (kind, value) USING (kind, value)
                 WHERE scope = $1",
            )
            .await?;
        let rows = lease.client().query(&statement, &[&scope, &kinds, &values]).await?;
        let keys: HashMap<Key, i64> = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
        let ids: BTreeSet<i64> = keys.values().copied().collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        let statement = lease
            .prepared(
                "SELECT device_id, EXISTS (SELECT FROM device_key WHERE device_key.device_id = device.device_id
                                           AND device_key.kind = $2),
                        coalesce(name, type, notes, owner) IS NOT NULL
                 FROM device WHERE device_id = ANY ($1)",
            )
            .await?;
        let rows = lease.client().query(&statement, &[&ids, &CARD]).await?;
        let known = |row: &tokio_postgres::Row| (row.get(0), Known { carded: row.get(1), named: row.get(2) });
        Ok(Self { keys, devices: rows.iter().map(known).collect(), moved: HashMap::new() })
    }

    /// The device that a told one is; `joins` gets what has to become one for it.
    fn home(&mut self, device: &Device, joins: &mut Vec<(i64, i64)>) -> Option<i64> {
        let of = |key: (&str, &str)| self.keys.get(&(key.0.to_owned(), key.1.to_owned())).copied();
        let at = |id: i64| {
            let mut id = id;
            while let Some(next) = self.moved.get(&id) {
                id = *next;
            }
            id
        };
        let card = device.keys().find(|(kind, _)| *kind == CARD);
        let carded = card.and_then(of).map(at);
        // In the order of ids: the oldest stays.
        let found: BTreeSet<i64> = device.keys().filter_map(of).map(at).collect();
        let known = |id: i64| self.devices.get(&id).copied().unwrap_or(Known { carded: false, named: false });
        // A card that is nobody's yet cannot become another card's.
        let may_be = |id: &i64| card.is_none() || Some(*id) == carded || !known(*id).carded;
        let home = carded.or_else(|| found.iter().copied().find(may_be))?;
        let mut joined = known(home);
        for other in found.into_iter().filter(|other| *other != home) {
            let its = known(other);
            if joined.carded && its.carded || joined.named && its.named || card.is_some() && its.carded {
                continue;
            }
            joined = Known { carded: joined.carded || its.carded, named: joined.named || its.named };
            joins.push((home, other));
            self.moved.insert(other, home);
        }
        joined.carded |= card.is_some();
        self.devices.insert(home, joined);
        Some(home)
    }
}

/// Rows for devices that were not known; what follows fills them.
async fn open(lease: &mut Lease<'_>, scope: &str, count: usize) -> Result<Vec<i64>, StoreError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let statement = lease
        .prepared(
            "INSERT INTO device (scope, first_seen, last_seen)
             SELECT $1, clock_timestamp(), clock_timestamp() FROM generate_series(1, $2::bigint)
             RETURNING device_id",
        )
        .await?;
    let rows = lease.client().query(&statement, &[&scope, &(count as i64)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Keys that lead nowhere yet lead to the device that was told with them.
async fn add_keys(
    lease: &mut Lease<'_>,
    scope: &str,
    told: &BTreeMap<i64, Vec<&Device>>,
) -> Result<(), StoreError> {
    let mut columns: (Vec<i64>, Vec<&str>, Vec<&str>) = Default::default();
    for (id, devices) in told {
        for (kind, value) in devices.iter().flat_map(|device| device.keys()) {
            columns.0.push(*id);
            columns.1.push(kind);
            columns.2.push(value);
        }
    }
    let statement = lease
        .prepared(
            "INSERT INTO device_key (scope, kind, value, device_id)
             SELECT $1, kind, value, device_id
             FROM unnest($2::bigint[], $3::text[], $4::text[]) AS told (device_id, kind, value)
             ORDER BY kind, value
             ON CONFLICT (scope, kind, value) DO NOTHING",
        )
        .await?;
    lease.client().execute(&statement, &[&scope, &columns.0, &columns.1, &columns.2]).await?;
    Ok(())
}

/// Facts as columns, each fact once.
#[derive(Default)]
struct Columns<'a> {
    device_ids: Vec<i64>,
    kinds: Vec<&'static str>,
    sources: Vec<&'a str>,
    values: Vec<&'a str>,
    addresses: Vec<Option<String>>,
    weights: Vec<Option<i32>>,
    details: Vec<Option<&'a str>>,
    first_us: Vec<i64>,
    last_us: Vec<i64>,
}

async fn add_facts(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
    told: &BTreeMap<i64, Vec<&Device>>,
) -> Result<(), StoreError> {
    let time = |ns: i64| batch.base_ns().saturating_add(ns).div_euclid(1_000);
    let mut columns = Columns::default();
    for (id, devices) in told {
        // Two told devices may be one here.
        let mut at: HashMap<(FactKind, &str, &str), usize> = HashMap::new();
        for fact in devices.iter().flat_map(|device| &device.facts) {
            let (first, last) = (time(fact.first_ns), time(fact.last_ns));
            if let Some(at) = at.get(&(fact.kind, &*fact.source, &*fact.value)) {
                columns.first_us[*at] = columns.first_us[*at].min(first);
                columns.last_us[*at] = columns.last_us[*at].max(last);
                continue;
            }
            at.insert((fact.kind, &fact.source, &fact.value), columns.device_ids.len());
            columns.device_ids.push(*id);
            columns.kinds.push(fact.kind.name());
            columns.sources.push(&fact.source);
            columns.values.push(&fact.value);
            columns.addresses.push(fact.address.map(|address| address.to_string()));
            columns.weights.push(fact.weight);
            columns.details.push(fact.detail.as_deref());
            columns.first_us.push(first);
            columns.last_us.push(last);
        }
    }
    let statement = lease
        .prepared(
            "INSERT INTO device_fact AS fact (device_id, sensor_id, kind, source, value, address, weight, detail,
                                              first_seen, last_seen)
             SELECT device_id, $1, kind, source, value, address::inet, weight, detail,
                    timestamptz 'epoch' + first_us * interval '1 us',
                    timestamptz 'epoch' + last_us * interval '1 us'
             FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::integer[], $8::text[],
                         $9::bigint[], $10::bigint[])
                  AS told (device_id, kind, source, value, address, weight, detail, first_us, last_us)
             ORDER BY device_id, kind, source, value
             ON CONFLICT (device_id, sensor_id, kind, source, value) DO UPDATE SET
                 first_seen = least(fact.first_seen, EXCLUDED.first_seen),
                 last_seen = greatest(fact.last_seen, EXCLUDED.last_seen),
                 weight = CASE WHEN EXCLUDED.last_seen > fact.last_seen THEN EXCLUDED.weight ELSE fact.weight END,
                 detail = CASE WHEN EXCLUDED.last_seen > fact.last_seen THEN EXCLUDED.detail ELSE fact.detail END
             WHERE EXCLUDED.first_seen < fact.first_seen OR EXCLUDED.last_seen > fact.last_seen",
        )
        .await?;
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &sensor_id,
        &columns.device_ids,
        &columns.kinds,
        &columns.sources,
        &columns.values,
        &columns.addresses,
        &columns.weights,
        &columns.details,
        &columns.first_us,
        &columns.last_us,
    ];
    lease.client().execute(&statement, &parameters).await?;
    Ok(())
}
