//! Tokens that enrol a sensor, once: made by an operator, traded by a sensor for a credential of its own.

use std::time::SystemTime;

use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::audit::{self, Author, Change};
use super::sensors::{self, Belonging};
use super::{Class, Isolation, Lease, Pool, StoreError, credentials};

/// An enrolment as the API shows it.
#[derive(Clone, Debug)]
pub struct Enrollment {
    pub enrollment_id: i32,
    /// The sensor's; `None` leaves it to the sensor.
    pub name: Option<String>,
    pub belonging: Belonging,
    pub created_by: String,
    pub created_at: SystemTime,
    pub expires_at: SystemTime,
    pub revoked_at: Option<SystemTime>,
    pub used_at: Option<SystemTime>,
    pub sensor_id: Option<i32>,
}

/// One to make.
pub struct NewEnrollment<'a> {
    pub token_sha256: [u8; 32],
    pub name: Option<&'a str>,
    pub belonging: &'a Belonging,
    pub expires_at: SystemTime,
}

/// What a sensor brings.
pub struct Enrolling<'a> {
    pub enrollment_sha256: [u8; 32],
    /// What it calls itself.
    pub name: Option<&'a str>,
    pub credential_sha256: [u8; 32],
    pub expires_at: Option<SystemTime>,
    pub address: Option<String>,
    pub request_id: Option<String>,
}

/// Why a sensor was not enrolled. Nothing was changed: a token that was valid still is.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error("the token is none that enrols")]
    Unknown,
    #[error(
        "the token was used already; ask for another one, and revoke the sensor it made if that was not you"
    )]
    Used,
    #[error("the token was revoked")]
    Revoked,
    #[error("the token's time is over")]
    Expired,
    #[error("the token is for a sensor named `{0}`")]
    Named(String),
    #[error("the token leaves the name to the sensor: say one")]
    Nameless,
    #[error("there is a sensor of that name already (a revoked one keeps its name)")]
    Taken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

const COLUMNS: &str =
    "enrollment_id, name, site, group_name, labels::text, created_by, created_at, expires_at,
    revoked_at, used_at, sensor_id";

/// Makes an enrolment.
pub async fn add(pool: &Pool, author: &Author, new: &NewEnrollment<'_>) -> Result<Enrollment, StoreError> {
    let Belonging { site, group, labels } = new.belonging;
    let labels = json!(labels).to_string();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "enrollment_add").await?;
        let result = async {
            let sql = format!(
                "INSERT INTO enrollment (token_sha256, name, site, group_name, labels, created_by, expires_at)
                 VALUES ($1, $2, $3, $4, $5::text::jsonb, $6, $7) RETURNING {COLUMNS}"
            );
            let row = lease
                .client()
                .query_one(
                    &sql,
                    &[&&new.token_sha256[..], &new.name, site, group, &labels, &author.name, &new.expires_at],
                )
                .await?;
            let made = from_row(&row);
            let after = json!({"name": made.name, "site": site, "group": group});
            let change = Change { after: Some(after), ..change("enrollment.create", &made) };
            audit::record(&lease, author, &change).await?;
            Ok(made)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Revokes one. Revoking twice keeps the first time, and a used one stays used. `None` if there is none.
pub async fn revoke(
    pool: &Pool,
    author: &Author,
    enrollment_id: i32,
) -> Result<Option<Enrollment>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "enrollment_revoke").await?;
        let result = async {
            let sql = "UPDATE enrollment SET revoked_at = now()
                       WHERE enrollment_id = $1 AND revoked_at IS NULL AND used_at IS NULL";
            let revoked = lease.client().execute(sql, &[&enrollment_id]).await?;
            let sql = format!("SELECT {COLUMNS} FROM enrollment WHERE enrollment_id = $1");
            let Some(row) = lease.client().query_opt(&sql, &[&enrollment_id]).await? else {
                return Ok(None);
            };
            let found = from_row(&row);
            if revoked > 0 {
                audit::record(&lease, author, &change("enrollment.revoke", &found)).await?;
            }
            Ok(Some(found))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Those after `after`, in order of id.
pub async fn list(pool: &Pool, after: i32, limit: i64) -> Result<Vec<Enrollment>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "enrollment_list").await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM enrollment WHERE enrollment_id > $1 ORDER BY enrollment_id LIMIT $2"
        );
        let result = lease.client().query(&sql, &[&after, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(from_row).collect())
}

/// Trades a token for a sensor with a credential; gives the sensor's id and name. Of two that race with one
/// token the second finds it used.
pub async fn enroll(pool: &Pool, who: &Enrolling<'_>) -> Result<(i32, String), EnrollError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "enroll").await?;
        let result = enroll_in(&lease, who).await;
        lease.settle(result).await
    };
    match pool.within(Class::Admin, work).await {
        Err(StoreError::Database(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(EnrollError::Taken)
        }
        result => result?,
    }
}

async fn enroll_in(lease: &Lease<'_>, who: &Enrolling<'_>) -> Result<(i32, String), EnrollError> {
    // The row is held until the end: the other one of a race reads it when this one is over.
    let sql = format!("SELECT {COLUMNS} FROM enrollment WHERE token_sha256 = $1 FOR UPDATE");
    let row =
        lease.client().query_opt(&sql, &[&&who.enrollment_sha256[..]]).await.map_err(StoreError::from)?;
    let enrollment = from_row(&row.ok_or(EnrollError::Unknown)?);
    if enrollment.used_at.is_some() {
        return Err(EnrollError::Used);
    }
    if enrollment.revoked_at.is_some() {
        return Err(EnrollError::Revoked);
    }
    if enrollment.expires_at <= SystemTime::now() {
        return Err(EnrollError::Expired);
    }
    let name = match (&enrollment.name, who.name) {
        (Some(preset), Some(said)) if preset != said => return Err(EnrollError::Named(preset.clone())),
        (Some(preset), _) => preset.as_str(),
        (None, Some(said)) => said,
        (None, None) => return Err(EnrollError::Nameless),
    };
    let enrolled = async {
        let sensor_id = sensors::insert(lease, name, &enrollment.belonging).await?;
        credentials::first(lease, sensor_id, &who.credential_sha256, who.expires_at).await?;
        let sql = "UPDATE enrollment SET used_at = now(), sensor_id = $2 WHERE enrollment_id = $1";
        lease.client().execute(sql, &[&enrollment.enrollment_id, &sensor_id]).await?;
        let author = Author {
            kind: "sensor",
            id: Some(sensor_id.to_string()),
            name: name.to_owned(),
            address: who.address.clone(),
            request_id: who.request_id.clone(),
        };
        let after = Some(json!({"enrollment": enrollment.enrollment_id, "by": enrollment.created_by}));
        sensors::tell(lease, &author, "sensor.enroll", sensor_id, name, (None, after)).await?;
        Ok::<_, StoreError>((sensor_id, name.to_owned()))
    };
    Ok(enrolled.await?)
}

fn change(action: &'static str, enrollment: &Enrollment) -> Change {
    Change {
        action,
        subject_kind: "enrollment",
        subject_id: Some(enrollment.enrollment_id.to_string()),
        subject_name: enrollment.name.clone(),
        ..Change::default()
    }
}

fn from_row(row: &Row) -> Enrollment {
    Enrollment {
        enrollment_id: row.get(0),
        name: row.get(1),
        belonging: Belonging {
            site: row.get(2),
            group: row.get(3),
            labels: serde_json::from_str(row.get(4)).unwrap_or_default(),
        },
        created_by: row.get(5),
        created_at: row.get(6),
        expires_at: row.get(7),
        revoked_at: row.get(8),
        used_at: row.get(9),
        sensor_id: row.get(10),
    }
}
