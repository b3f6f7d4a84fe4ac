//! What operators say of devices: names, types, notes, owners, and that two are one.

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use super::super::audit::{self, Author};
use super::super::events::{self, NewEvent, Topic};
use super::super::{Class, Isolation, Lease, Pool, StoreError};
use super::{Device, Said, find, joined, merges, told};

/// What changes; what is `None` stays, and an inner `None` clears.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<Option<String>>,
    pub r#type: Option<Option<String>>,
    pub notes: Option<Option<String>>,
    pub owner: Option<Option<String>>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("another device of this site has this name")]
    Taken,
    #[error("no device has this id")]
    Unknown,
    #[error("the devices are of different sites")]
    OtherSite,
    #[error("the device has no merge with this id that can be undone")]
    NoMerge,
    #[error("merge {0} came later: undo that one first")]
    Later(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ChangeError {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
            Self::Taken
        } else {
            Self::Store(error.into())
        }
    }
}

/// Says something of a device; the device as it is then.
pub async fn change(pool: &Pool, author: &Author, id: i64, new: &Change) -> Result<Device, ChangeError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "device_change").await?;
        let result = changed(&lease, author, id, new).await;
        lease.settle(result).await
    };
    pool.within(Class::Admin, work).await?
}

async fn changed(lease: &Lease<'_>, author: &Author, id: i64, new: &Change) -> Result<Device, ChangeError> {
    let client = lease.client();
    client.execute("SELECT FROM device WHERE device_id = $1 FOR UPDATE", &[&id]).await?;
    let old = find(lease, id).await?.ok_or(ChangeError::Unknown)?;
    let before = old.said.clone();
    let said = |new: &Option<Option<String>>, old: Option<String>| new.clone().unwrap_or(old);
    let after = Said {
        name: said(&new.name, before.name.clone()),
        r#type: said(&new.r#type, before.r#type.clone()),
        notes: said(&new.notes, before.notes.clone()),
        owner: said(&new.owner, before.owner.clone()),
    };
    if before == after {
        return Ok(old);
    }
    let sql = "UPDATE device SET name = $2, type = $3, notes = $4, owner = $5 WHERE device_id = $1";
    client.execute(sql, &[&id, &after.name, &after.r#type, &after.notes, &after.owner]).await?;
    let device = find(lease, id).await?.ok_or(ChangeError::Unknown)?;
    let change = (Some(shown(&before)), Some(shown(&after)));
    tell(lease, author, "device.change", &device, change, json!({"id": id})).await?;
    Ok(device)
}

/// Says that two devices are one: `other` is no more, and all that was its is the device's.
pub async fn merge(pool: &Pool, author: &Author, id: i64, other: i64) -> Result<Device, ChangeError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "device_merge").await?;
        let result = merged(&mut lease, author, id, other).await;
        lease.settle(result).await
    };
    pool.within(Class::Admin, work).await?
}

async fn merged(lease: &mut Lease<'_>, author: &Author, id: i64, other: i64) -> Result<Device, ChangeError> {
    let sql = "SELECT scope FROM device WHERE device_id = ANY ($1)";
    let scopes: Vec<String> =
        lease.client().query(sql, &[&vec![id, other]]).await?.iter().map(|row| row.get(0)).collect();
    let [one, two] = &scopes[..] else { return Err(ChangeError::Unknown) };
    if one != two {
        return Err(ChangeError::OtherSite);
    }
    told::lock(lease, one).await?;
    // Somebody else may have been faster.
    let (Some(into), Some(from)) = (find(lease, id).await?, find(lease, other).await?) else {
        return Err(ChangeError::Unknown);
    };
    merges::keep(lease, id, other).await?;
    joined::join(lease, id, other).await?;
    joined::summarize(lease, &[id]).await?;
    let device = find(lease, id).await?.ok_or(ChangeError::Unknown)?;
    let change = (Some(json!([known(&into), known(&from)])), Some(known(&device)));
    // By what it was called before: what the other was called is the other's.
    tell(lease, author, "device.merge", &into, change, json!({"id": id, "from": other})).await?;
    Ok(device)
}

/// Tells that a device is two again.
pub(super) async fn tell_split(
    lease: &Lease<'_>,
    author: &Author,
    before: &Device,
    device: &Device,
    restored: &Device,
) -> Result<(), StoreError> {
    let change = (Some(known(before)), Some(json!([known(device), known(restored)])));
    let body = json!({"id": restored.device_id, "from": device.device_id});
    tell(lease, author, "device.split", device, change, body).await
}

/// A device as the log has it.
fn known(device: &Device) -> Value {
    let keys: Vec<_> =
        device.keys.iter().map(|(kind, value)| json!({"kind": kind, "value": value})).collect();
    json!({"id": device.device_id, "said": shown(&device.said), "keys": keys})
}

fn shown(Said { name, r#type, notes, owner }: &Said) -> Value {
    json!({"name": name, "type": r#type, "notes": notes, "owner": owner})
}

/// The audit log, and whoever follows devices.
async fn tell(
    lease: &Lease<'_>,
    author: &Author,
    action: &'static str,
    device: &Device,
    (before, after): (Option<Value>, Option<Value>),
    body: Value,
) -> Result<(), StoreError> {
    let change = audit::Change {
        action,
        subject_kind: "device",
        subject_id: Some(device.device_id.to_string()),
        subject_name: device.said.name.clone().or_else(|| device.told_name.clone()),
        before,
        after,
    };
    audit::record(lease, author, &change).await?;
    events::append(lease, &NewEvent { topic: Topic::Devices, kind: action, sensor_id: None, body }).await
}
