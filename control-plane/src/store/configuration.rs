//! Settings that are pushed to sensors: versions of each sensor's and each group's, and what sensors say of them.
//!
//! What must stay true: a version is never changed, a rollback is a further version; a change, its row of the audit
//! log and its event are one transaction; what a sensor reports is told once, when it differs from what it said before.

use std::time::SystemTime;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use weir_wire::settings::{self, Settings};

use super::audit::{self, Author, Change};
use super::events::{self, NewEvent, Topic};
use super::{Class, Isolation, Lease, Pool, Reference, StoreError, sensors};

/// Versions of one sensor or group that are kept.
const MOST: i32 = 1_000;

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Sensor(Reference),
    Group(String),
}

/// One version.
#[derive(Clone, Debug)]
pub struct Version {
    pub version: i32,
    pub settings: Settings,
    pub author: String,
    pub comment: String,
    pub created_at: SystemTime,
    /// It is that version again.
    pub restores: Option<i32>,
}

/// What to write.
#[derive(Clone, Debug)]
pub enum New {
    Settings(Settings),
    /// The settings of that version; of the one before the newest, if none is named.
    Again(Option<i32>),
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error("no sensor has this id or name")]
    Unknown,
    #[error("the newest version is {0}, not the one that was expected: look at it, and say which to replace")]
    Changed(i32),
    #[error("there is no such version to go back to")]
    NoVersion,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a sensor should have in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Of these settings; the same settings have the same.
    pub id: String,
    pub settings: Settings,
    /// 0: the sensor has none of its own.
    pub sensor_version: i32,
    /// 0: its group has none, or it is in no group.
    pub group_version: i32,
}

/// What a sensor says of its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub in_force: Option<String>,
    pub trial: Option<String>,
    pub refused: Option<(String, String)>,
}

/// Everything about one sensor's settings.
#[derive(Clone, Debug)]
pub struct Standing {
    pub sensor: Option<Version>,
    pub group: Option<(String, Version)>,
    pub wanted: Wanted,
    pub report: Option<(Report, SystemTime)>,
}

const COLUMNS: &str = "version, settings::text, author, comment, created_at, restores";

/// The identity of settings: their canonical JSON, hashed. Keys are in order.
#[must_use]
pub fn identity(settings: &Settings) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(json!(settings).to_string().as_bytes());
    digest.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a version. `expected` is the newest one that the caller knows of (0: none), where they care.
pub async fn put(
    pool: &Pool,
    author: &Author,
    owner: &Owner,
    new: &New,
    comment: &str,
    expected: Option<i32>,
) -> Result<Version, PutError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "configuration_put").await?;
        let result = put_in(&lease, author, owner, new, comment, expected).await;
        lease.settle(result).await
    };
    match pool.within(Class::Admin, work).await {
        // Somebody else was faster by a moment.
        Err(StoreError::Database(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(PutError::Changed(newest(pool, owner).await?.map_or(0, |version| version.version)))
        }
        result => result?,
    }
}

async fn put_in(
    lease: &Lease<'_>,
    author: &Author,
    owner: &Owner,
    new: &New,
    comment: &str,
    expected: Option<i32>,
) -> Result<Version, PutError> {
    let found = find(lease, owner).await?.ok_or(PutError::Unknown)?;
    let before = version(lease, &found, None).await?;
    let last = before.as_ref().map_or(0, |version| version.version);
    if expected.is_some_and(|expected| expected != last) {
        return Err(PutError::Changed(last));
    }
    let (settings, restores) = match new {
        New::Settings(settings) => (settings.clone(), None),
        New::Again(wanted) => {
            let wanted = wanted.unwrap_or(last - 1);
            match version(lease, &found, Some(wanted)).await? {
                Some(version) => (version.settings, Some(wanted)),
                // Before the first there was nothing.
                None if wanted == 0 && last == 1 => (Settings::new(), Some(0)),
                None => return Err(PutError::NoVersion),
            }
        }
    };
    Ok(write(lease, author, &found, before.as_ref(), (&settings, restores), comment).await?)
}

async fn write(
    lease: &Lease<'_>,
    author: &Author,
    found: &Found,
    before: Option<&Version>,
    (settings, restores): (&Settings, Option<i32>),
    comment: &str,
) -> Result<Version, StoreError> {
    let client = lease.client();
    let number = before.map_or(0, |version| version.version) + 1;
    let sql = format!(
        "INSERT INTO sensor_configuration (sensor_id, group_name, version, settings, author, comment, restores)
         VALUES ($1, $2, $3, $4::text::json, $5, $6, $7) RETURNING {COLUMNS}"
    );
    let text = json!(settings).to_string();
    let row = client
        .query_one(&sql, &[&found.sensor_id, &found.group, &number, &text, &author.name, &comment, &restores])
        .await?;
    let sql = "DELETE FROM sensor_configuration
               WHERE (sensor_id = $1 OR group_name = $2) AND version <= $3";
    client.execute(sql, &[&found.sensor_id, &found.group, &(number - MOST)]).await?;
    let made = from_row(&row);
    let shown = |version: &Version| json!({"version": version.version, "settings": version.settings});
    let (before, after) = (before.map(shown), Some(shown(&made)));
    match (found.sensor_id, &found.group) {
        (Some(sensor_id), _) => {
            sensors::tell(lease, author, "sensor.configure", sensor_id, &found.name, (before, after)).await?;
        }
        (None, group) => {
            let change = Change {
                action: "sensor_group.configure",
                subject_kind: "sensor_group",
                subject_id: None,
                subject_name: group.clone(),
                before,
                after,
            };
            audit::record(lease, author, &change).await?;
            let body = json!({"group": group, "version": made.version});
            let kind = "sensor_group.configure";
            events::append(lease, &NewEvent { topic: Topic::Sensors, kind, sensor_id: None, body }).await?;
        }
    }
    Ok(made)
}

/// An owner that there is.
struct Found {
    sensor_id: Option<i32>,
    group: Option<String>,
    name: String,
}

/// A group is there as soon as somebody speaks of it: sensors may come to it later.
async fn find(lease: &Lease<'_>, owner: &Owner) -> Result<Option<Found>, StoreError> {
    let sensor = match owner {
        Owner::Group(group) => {
            return Ok(Some(Found { sensor_id: None, group: Some(group.clone()), name: group.clone() }));
        }
        Owner::Sensor(sensor) => sensor,
    };
    let (id, name) = sensor.parts();
    let sql = "SELECT sensor_id, name FROM sensor WHERE (sensor_id = $1 OR name = $2) AND deleted_at IS NULL";
    let row = lease.client().query_opt(sql, &[&id, &name]).await?;
    Ok(row.map(|row| Found { sensor_id: Some(row.get(0)), group: None, name: row.get(1) }))
}

/// A version, the newest if none is named.
async fn version(
    lease: &Lease<'_>,
    found: &Found,
    number: Option<i32>,
) -> Result<Option<Version>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sensor_configuration
         WHERE (sensor_id = $1 OR group_name = $2) AND ($3::integer IS NULL OR version = $3)
         ORDER BY version DESC LIMIT 1"
    );
    let row = lease.client().query_opt(&sql, &[&found.sensor_id, &found.group, &number]).await?;
    Ok(row.as_ref().map(from_row))
}

/// The newest version of an owner; `None` if there is none, or no such sensor.
pub async fn newest(pool: &Pool, owner: &Owner) -> Result<Option<Version>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "configuration_get").await?;
        let result = async {
            match find(&lease, owner).await? {
                Some(found) => version(&lease, &found, None).await,
                None => Ok(None),
            }
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Versions older than `before`, the newest first. `None` for a sensor that there is not.
pub async fn versions(
    pool: &Pool,
    owner: &Owner,
    before: i32,
    limit: i64,
) -> Result<Option<Vec<Version>>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "configuration_versions").await?;
        let result = async {
            let Some(found) = find(&lease, owner).await? else { return Ok(None) };
            let sql = format!(
                "SELECT {COLUMNS} FROM sensor_configuration
                 WHERE (sensor_id = $1 OR group_name = $2) AND version < $3 ORDER BY version DESC LIMIT $4"
            );
            let rows = lease.client().query(&sql, &[&found.sensor_id, &found.group, &before, &limit]).await?;
            Ok(Some(rows.iter().map(from_row).collect()))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// What a sensor has, should have, and says. `None` if there is none that was not deleted.
pub async fn standing(pool: &Pool, sensor: &Reference) -> Result<Option<Standing>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "configuration_standing").await?;
        let result = async {
            match find(&lease, &Owner::Sensor(sensor.clone())).await? {
                Some(Found { sensor_id: Some(sensor_id), .. }) => stands(&lease, sensor_id).await.map(Some),
                _ => Ok(None),
            }
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn stands(lease: &Lease<'_>, sensor_id: i32) -> Result<Standing, StoreError> {
    let client = lease.client();
    let of_sensor = Found { sensor_id: Some(sensor_id), group: None, name: String::new() };
    let own = version(lease, &of_sensor, None).await?;
    let sql = "SELECT group_name FROM sensor WHERE sensor_id = $1";
    let group: Option<String> =
        client.query_opt(sql, &[&sensor_id]).await?.and_then(|row| row.get::<_, Option<String>>(0));
    let group = match group {
        None => None,
        Some(name) => {
            let of_group = Found { sensor_id: None, group: Some(name.clone()), name: String::new() };
            version(lease, &of_group, None).await?.map(|version| (name, version))
        }
    };
    let none = Settings::new();
    let settings = settings::merged(
        group.as_ref().map_or(&none, |(_, version)| &version.settings),
        own.as_ref().map_or(&none, |version| &version.settings),
    );
    let wanted = Wanted {
        id: identity(&settings),
        settings,
        sensor_version: own.as_ref().map_or(0, |version| version.version),
        group_version: group.as_ref().map_or(0, |(_, version)| version.version),
    };
    let sql = "SELECT in_force, trial, refused, reason, reported_at FROM sensor_configuration_report
               WHERE sensor_id = $1";
    let report = client.query_opt(sql, &[&sensor_id]).await?.map(|row| {
        let refused = row.get::<_, Option<String>>(2).zip(row.get(3));
        (Report { in_force: row.get(0), trial: row.get(1), refused }, row.get(4))
    });
    Ok(Standing { sensor: own, group, wanted, report })
}

/// Takes a sensor's report: what is new in it is kept and told. Gives what the sensor should have in force.
pub async fn report(pool: &Pool, sensor_id: i32, said: &Report) -> Result<Wanted, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "configuration_wanted").await?;
        let result = stands(&lease, sensor_id).await;
        lease.finish(result).await
    };
    let Standing { wanted, report, .. } = pool.within(Class::Admin, work).await?;
    let known = report.map(|(report, _)| report);
    // A sensor that was never pushed anything has nothing to say.
    if known.as_ref() == Some(said) || (known.is_none() && *said == Report::default()) {
        return Ok(wanted);
    }
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "configuration_report").await?;
        let result = keep(&lease, sensor_id, said).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await?;
    Ok(wanted)
}

async fn keep(lease: &Lease<'_>, sensor_id: i32, said: &Report) -> Result<(), StoreError> {
    let client = lease.client();
    // Of two reports that come together one is told, if they say the same.
    let sql = "SELECT name FROM sensor WHERE sensor_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    let Some(row) = client.query_opt(sql, &[&sensor_id]).await? else { return Ok(()) };
    let name: String = row.get(0);
    let sql = "SELECT in_force, refused, reason FROM sensor_configuration_report WHERE sensor_id = $1";
    let before = client.query_opt(sql, &[&sensor_id]).await?;
    let (in_force, refused): (Option<String>, Option<(String, String)>) = match &before {
        None => (None, None),
        Some(row) => (row.get(0), row.get::<_, Option<String>>(1).zip(row.get(2))),
    };
    let sql = "INSERT INTO sensor_configuration_report (sensor_id, in_force, trial, refused, reason)
               VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (sensor_id) DO UPDATE SET in_force = $2, trial = $3, refused = $4, reason = $5,
                                                     reported_at = now()";
    let (id, reason) = said.refused.clone().unzip();
    client.execute(sql, &[&sensor_id, &said.in_force, &said.trial, &id, &reason]).await?;
    let tell = async |kind: &'static str, body: Value| {
        let event = NewEvent { topic: Topic::Sensors, kind, sensor_id: Some(sensor_id), body };
        events::append(lease, &event).await
    };
    if said.in_force != in_force {
        tell("sensor.configuration_applied", json!({"name": name, "configuration": said.in_force})).await?;
    }
    if let Some((id, reason)) = &said.refused
        && said.refused != refused
    {
        let body = json!({"name": name, "configuration": id, "reason": reason});
        tell("sensor.configuration_refused", body).await?;
    }
    Ok(())
}

fn from_row(row: &Row) -> Version {
    Version {
        version: row.get(0),
        settings: serde_json::from_str(row.get(1)).unwrap_or_default(),
        author: row.get(2),
        comment: row.get(3),
        created_at: row.get(4),
        restores: row.get(5),
    }
}
