//! Networks that operators named: their list, changes of it, and what everything is called now.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::audit::{self, Author};
use super::filter::Network as Prefix;
use super::{Class, Isolation, Lease, Pool, Reference, StoreError, locks, reference};
use crate::naming::{Named, Naming, Networks, Services};

/// Networks that there can be, and prefixes of all together: each question that names one reads them.
pub const MAX_NETWORKS: usize = 1_000;
pub const MAX_PREFIXES: usize = 4_000;

/// A network as it is kept.
#[derive(Clone, Debug)]
pub struct Network {
    pub network_id: i32,
    /// The only sensor that sees it under these addresses: id and name.
    pub sensor: Option<(i32, String)>,
    pub created_at: SystemTime,
    pub said: Said,
}

/// What operators say of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub name: String,
    pub prefixes: Vec<Prefix>,
    pub internal: bool,
    pub description: String,
}

/// What changes of one; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    /// Whose it is; an inner `None` is every sensor's.
    pub sensor: Option<Option<Reference>>,
    pub prefixes: Option<Vec<Prefix>>,
    pub internal: Option<bool>,
    pub description: Option<String>,
}

/// Why a network was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("no network has this id or name")]
    Unknown,
    #[error("another network has this name")]
    Taken,
    #[error("{0} is `{1}` already; one network has it, at one sensor or at all")]
    PrefixTaken(Prefix, String),
    #[error("there are {MAX_NETWORKS} networks already, which is the bound")]
    TooMany,
    #[error("networks may have {MAX_PREFIXES} prefixes together; this would be {0}")]
    TooManyPrefixes(usize),
    #[error("no sensor has this id or name")]
    NoSensor,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for NetworkError {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
            Self::Taken
        } else {
            Self::Store(error.into())
        }
    }
}

/// Whether a name may be a network's: 1 to 63 small letters, digits, `.`, `_`, `-`; not only digits.
#[must_use]
pub fn is_name(name: &str) -> bool {
    reference::is_name(name, |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    })
}

/// The network that a text names; `None` for what can be neither id nor name.
#[must_use]
pub fn named(text: &str) -> Option<Reference> {
    Reference::parse(text, is_name)
}

const SELECT: &str =
    "SELECT network_id, network.name, network.sensor_id, sensor.name, prefixes::text[], internal,
        description, network.created_at
     FROM network LEFT JOIN sensor USING (sensor_id)";

/// Adds a network.
pub async fn add(
    pool: &Pool,
    author: &Author,
    said: &Said,
    sensor: Option<&Reference>,
) -> Result<Network, NetworkError> {
    let begun = pool.begin(Class::Admin, Isolation::ReadCommitted, "network_add");
    changed(pool, begun, async |lease| {
        let others = all(lease).await?;
        if others.len() >= MAX_NETWORKS {
            return Err(NetworkError::TooMany);
        }
        let sensor_id = sensor_id(lease, sensor).await?;
        check(said, sensor_id, &others)?;
        let sql = "INSERT INTO network (name, sensor_id, prefixes, internal, description)
                   VALUES ($1, $2, $3::text[]::cidr[], $4, $5) RETURNING network_id";
        let prefixes = texts(&said.prefixes);
        let row = lease
            .client()
            .query_one(sql, &[&said.name, &sensor_id, &prefixes, &said.internal, &said.description])
            .await?;
        let network = one(lease, &Reference::Id(row.get(0))).await?;
        tell(lease, author, "network.create", &network, None, Some(shown(&network))).await?;
        Ok(network)
    })
    .await
}

/// Changes a network: from now on what it says holds, for what was stored before as well.
pub async fn update(
    pool: &Pool,
    author: &Author,
    which: &Reference,
    new: &Change,
) -> Result<Network, NetworkError> {
    let begun = pool.begin(Class::Admin, Isolation::ReadCommitted, "network_change");
    changed(pool, begun, async |lease| {
        let before = one(lease, which).await?;
        let id = before.network_id;
        let sensor_id = match &new.sensor {
            None => before.sensor.as_ref().map(|(id, _)| *id),
            Some(sensor) => sensor_id(lease, sensor.as_ref()).await?,
        };
        let new = new.clone();
        let old = before.said.clone();
        let said = Said {
            name: new.name.unwrap_or(old.name),
            prefixes: new.prefixes.unwrap_or(old.prefixes),
            internal: new.internal.unwrap_or(old.internal),
            description: new.description.unwrap_or(old.description),
        };
        let mut others = all(lease).await?;
        others.retain(|other| other.network_id != id);
        check(&said, sensor_id, &others)?;
        let sql =
            "UPDATE network SET name = $2, sensor_id = $3, prefixes = $4::text[]::cidr[], internal = $5,
                          description = $6
                   WHERE network_id = $1";
        let prefixes = texts(&said.prefixes);
        lease
            .client()
            .execute(sql, &[&id, &said.name, &sensor_id, &prefixes, &said.internal, &said.description])
            .await?;
        let after = one(lease, &Reference::Id(id)).await?;
        tell(lease, author, "network.change", &after, Some(shown(&before)), Some(shown(&after))).await?;
        Ok(after)
    })
    .await
}

/// Deletes a network: its addresses are those of the next shorter prefix, or nobody's.
pub async fn remove(pool: &Pool, author: &Author, which: &Reference) -> Result<Network, NetworkError> {
    let begun = pool.begin(Class::Admin, Isolation::ReadCommitted, "network_remove");
    changed(pool, begun, async |lease| {
        let network = one(lease, which).await?;
        lease.client().execute("DELETE FROM network WHERE network_id = $1", &[&network.network_id]).await?;
        tell(lease, author, "network.remove", &network, Some(shown(&network)), None).await?;
        Ok(network)
    })
    .await
}

/// A change in a transaction of its own, one at a time.
async fn changed(
    pool: &Pool,
    begun: impl Future<Output = Result<Lease<'_>, StoreError>>,
    work: impl AsyncFnOnce(&Lease<'_>) -> Result<Network, NetworkError>,
) -> Result<Network, NetworkError> {
    let work = async {
        let lease = begun.await?;
        let result = async {
            lease.client().execute(locks::ALONE, &[&locks::NETWORKS]).await?;
            work(&lease).await
        }
        .await;
        lease.settle(result).await
    };
    pool.within(Class::Admin, work).await?
}

/// Networks after an id, in order of id.
pub async fn list(pool: &Pool, after: i32, limit: i64) -> Result<Vec<Network>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "network_list").await?;
        let sql = format!("{SELECT} WHERE network_id > $1 ORDER BY network_id LIMIT $2");
        let result = lease.client().query(&sql, &[&after, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await?.iter().map(from_row).collect()
}

/// One network, if there is one.
pub async fn get(pool: &Pool, which: &Reference) -> Result<Option<Network>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "network_get").await?;
        let result = find(&lease, which).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// What everything is called now; services as this instance is told.
pub async fn naming(pool: &Pool, services: &Arc<Services>) -> Result<Naming, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "network_names").await?;
        let result = all(&lease).await;
        lease.finish(result).await
    };
    let networks = pool.within(Class::Query, work).await?.into_iter().map(|network| Named {
        sensor_id: network.sensor.map(|(id, _)| id),
        name: network.said.name,
        internal: network.said.internal,
        prefixes: network.said.prefixes,
    });
    Ok(Naming { networks: Networks::new(networks.collect()), services: Arc::clone(services) })
}

async fn all(lease: &Lease<'_>) -> Result<Vec<Network>, StoreError> {
    let rows = lease.client().query(&format!("{SELECT} ORDER BY network_id"), &[]).await?;
    rows.iter().map(from_row).collect()
}

async fn find(lease: &Lease<'_>, which: &Reference) -> Result<Option<Network>, StoreError> {
    let (id, name) = which.parts();
    let sql = format!("{SELECT} WHERE network_id = $1 OR network.name = $2");
    lease.client().query_opt(&sql, &[&id, &name]).await?.as_ref().map(from_row).transpose()
}

async fn one(lease: &Lease<'_>, which: &Reference) -> Result<Network, NetworkError> {
    find(lease, which).await?.ok_or(NetworkError::Unknown)
}

/// The sensor stays until the change is made: its erasure finds the network.
async fn sensor_id(lease: &Lease<'_>, sensor: Option<&Reference>) -> Result<Option<i32>, NetworkError> {
    let Some(sensor) = sensor else { return Ok(None) };
    let (id, name) = sensor.parts();
    let sql = "SELECT sensor_id FROM sensor
               WHERE (sensor_id = $1 OR name = $2) AND deleted_at IS NULL FOR SHARE";
    let row = lease.client().query_opt(sql, &[&id, &name]).await?;
    row.map(|row| Some(row.get(0))).ok_or(NetworkError::NoSensor)
}

/// Whether it can be beside the others.
fn check(said: &Said, sensor_id: Option<i32>, others: &[Network]) -> Result<(), NetworkError> {
    let count = others.iter().map(|other| other.said.prefixes.len()).sum::<usize>() + said.prefixes.len();
    if count > MAX_PREFIXES {
        return Err(NetworkError::TooManyPrefixes(count));
    }
    let beside = others.iter().filter(|other| other.sensor.as_ref().map(|(id, _)| *id) == sensor_id);
    for other in beside {
        if let Some(prefix) = said.prefixes.iter().find(|prefix| other.said.prefixes.contains(prefix)) {
            return Err(NetworkError::PrefixTaken(*prefix, other.said.name.clone()));
        }
    }
    Ok(())
}

fn texts(prefixes: &[Prefix]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

/// For the log: the sensor by its number, which outlives its name.
fn shown(network: &Network) -> Value {
    let Said { name, prefixes, internal, description } = &network.said;
    json!({
        "name": name, "sensor_id": network.sensor.as_ref().map(|(id, _)| id), "prefixes": texts(prefixes),
        "internal": internal, "description": description,
    })
}

async fn tell(
    lease: &Lease<'_>,
    author: &Author,
    action: &'static str,
    network: &Network,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<(), StoreError> {
    let change = audit::Change {
        action,
        subject_kind: "network",
        subject_id: Some(network.network_id.to_string()),
        subject_name: Some(network.said.name.clone()),
        before,
        after,
    };
    audit::record(lease, author, &change).await
}

fn from_row(row: &Row) -> Result<Network, StoreError> {
    let prefixes: Vec<String> = row.get(4);
    let prefixes: Option<Vec<Prefix>> = prefixes.iter().map(|text| Prefix::parse(text)).collect();
    let sensor_id: Option<i32> = row.get(2);
    Ok(Network {
        network_id: row.get(0),
        sensor: sensor_id.zip(row.get(3)),
        created_at: row.get(7),
        said: Said {
            name: row.get(1),
            prefixes: prefixes.ok_or_else(|| {
                StoreError::Unavailable(format!("network {} has a prefix that is none", row.get::<_, i32>(0)))
            })?,
            internal: row.get(5),
            description: row.get(6),
        },
    })
}
