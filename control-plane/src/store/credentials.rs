//! Sensors' credentials: the hashes of their tokens, their rotation with overlap, and their end.
//!
//! What must stay true: a credential that was replaced works until its successor was used, or until the
//! overlap is over, and never after; nobody can pile credentials up.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio_postgres::Row;

use super::audit::Author;
use super::{Class, Isolation, Lease, Pool, Reference, StoreError, locks, sensors};

/// Credentials of one sensor that work at the same time.
const MOST_LIVE: i64 = 8;

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub sensor_id: i32,
    pub credential_id: i32,
    pub name: String,
    pub standing: Standing,
    /// It was never used before.
    pub is_new: bool,
    /// It was used with a certificate of the sensor's.
    pub certified: bool,
}

/// Whether a sensor may send with this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// The sensor is revoked.
    Revoked,
    /// Deleted, whether or not its data is gone yet.
    Gone,
    /// The sensor may send, but not with this token: it was revoked or replaced, or its time is over.
    Over,
}

/// A credential as the API shows it.
#[derive(Clone, Debug)]
pub struct Credential {
    pub credential_id: i32,
    pub by_sensor: bool,
    pub created_at: SystemTime,
    pub expires_at: Option<SystemTime>,
    pub revoked_at: Option<SystemTime>,
    pub first_used_at: Option<SystemTime>,
}

/// Why there is no new credential.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("no sensor has this id or name")]
    Unknown,
    #[error("the sensor is revoked")]
    Revoked,
    #[error(
        "{MOST_LIVE} credentials of this sensor work already: revoke one, or let the sensor use the newest"
    )]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A credential to make.
#[derive(Clone, Copy, Debug)]
pub struct NewCredential {
    pub sha256: [u8; 32],
    pub by_sensor: bool,
    /// How long the older ones go on, unless this one is used before.
    pub overlap: Duration,
    pub expires_at: Option<SystemTime>,
}

const COLUMNS: &str = "credential_id, by_sensor, created_at, expires_at, revoked_at, first_used_at";

/// Who a token's hash belongs to, or belonged to.
pub async fn by_token(pool: &Pool, token_sha256: &[u8]) -> Result<Option<Identity>, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_by_token").await?;
        let result = async {
            let sql = "SELECT c.sensor_id, credential_id, coalesce(s.name, ''),
                              s.sensor_id IS NULL OR s.deleted_at IS NOT NULL, s.revoked_at IS NOT NULL,
                              c.revoked_at IS NOT NULL OR coalesce(c.expires_at <= now(), false),
                              first_used_at IS NULL, certified_at IS NOT NULL
                       FROM sensor_credential c LEFT JOIN sensor s USING (sensor_id)
                       WHERE token_sha256 = $1";
            let statement = lease.prepared(sql).await?;
            Ok(lease.client().query_opt(&statement, &[&token_sha256]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let row = pool.within(Class::Admin, work).await?;
    Ok(row.map(|row| {
        let standing = match (row.get(3), row.get(4), row.get(5)) {
            (true, _, _) => Standing::Gone,
            (false, true, _) => Standing::Revoked,
            (false, false, true) => Standing::Over,
            (false, false, false) => Standing::Active,
        };
        Identity {
            sensor_id: row.get(0),
            credential_id: row.get(1),
            name: row.get(2),
            standing,
            is_new: row.get(6),
            certified: row.get(7),
        }
    }))
}

/// A sensor's first credential, in the transaction that adds it.
pub(super) async fn first(
    lease: &Lease<'_>,
    sensor_id: i32,
    token_sha256: &[u8],
    expires_at: Option<SystemTime>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO sensor_credential (sensor_id, token_sha256, expires_at) VALUES ($1, $2, $3)";
    lease.client().execute(sql, &[&sensor_id, &token_sha256, &expires_at]).await?;
    Ok(())
}

/// Makes a further credential: older ones end when it is used, or after the overlap. Gives
/// the sensor's id, too.
pub async fn rotate(
    pool: &Pool,
    author: &Author,
    sensor: &Reference,
    new: NewCredential,
) -> Result<(i32, Credential), RotateError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "sensor_rotate").await?;
        let result = rotate_in(&lease, author, sensor, new).await;
        lease.settle(result).await
    };
    pool.within(Class::Admin, work).await?
}

async fn rotate_in(
    lease: &Lease<'_>,
    author: &Author,
    sensor: &Reference,
    new: NewCredential,
) -> Result<(i32, Credential), RotateError> {
    let (sensor_id, name, revoked) = sensors::lock(lease, sensor).await?.ok_or(RotateError::Unknown)?;
    if revoked {
        return Err(RotateError::Revoked);
    }
    let client = lease.client();
    let asked = async {
        if new.by_sensor {
            // It asks again, so the answer before was lost on its way.
            let sql = "UPDATE sensor_credential SET revoked_at = now()
                       WHERE sensor_id = $1 AND by_sensor AND first_used_at IS NULL AND revoked_at IS NULL";
            client.execute(sql, &[&sensor_id]).await?;
        }
        let sql = "SELECT count(*) FROM sensor_credential
                   WHERE sensor_id = $1 AND revoked_at IS NULL AND coalesce(expires_at > now(), true)";
        let live: i64 = client.query_one(sql, &[&sensor_id]).await?.get(0);
        Ok::<_, StoreError>(live)
    };
    if asked.await? >= MOST_LIVE {
        return Err(RotateError::TooMany);
    }
    let made = async {
        let overlap_s = new.overlap.as_secs() as f64;
        let sql = "UPDATE sensor_credential SET expires_at = least(expires_at, now() + $2 * interval '1 s')
                   WHERE sensor_id = $1 AND revoked_at IS NULL";
        client.execute(sql, &[&sensor_id, &overlap_s]).await?;
        // A sensor that shows certificates goes on to: its next credential does not stand alone. One of an operator's does.
        let sql = format!(
            "INSERT INTO sensor_credential (sensor_id, token_sha256, by_sensor, expires_at, certified_at)
             VALUES ($1, $2, $3, $4, (SELECT max(certified_at) FROM sensor_credential
                                      WHERE sensor_id = $1 AND $3)) RETURNING {COLUMNS}"
        );
        let row =
            client.query_one(&sql, &[&sensor_id, &&new.sha256[..], &new.by_sensor, &new.expires_at]).await?;
        let credential = from_row(&row);
        let after = json!({
            "credential": credential.credential_id, "overlap_s": overlap_s, "expires": new.expires_at.is_some(),
        });
        sensors::tell(lease, author, "sensor.rotate", sensor_id, &name, (None, Some(after))).await?;
        Ok::<_, StoreError>((sensor_id, credential))
    };
    Ok(made.await?)
}

/// A credential was used for the first time: the sensor has it, and older ones are void.
pub async fn confirm(pool: &Pool, identity: &Identity) -> Result<(), StoreError> {
    let Identity { sensor_id, credential_id, name, .. } = identity;
    let author =
        Author { kind: "sensor", id: Some(sensor_id.to_string()), name: name.clone(), ..Author::default() };
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "sensor_confirm").await?;
        let result = async {
            let client = lease.client();
            // Two that are used for the first time together wait for each other, in no order that could lock.
            client.execute(locks::EXCLUSIVE, &[&locks::SENSOR, sensor_id]).await?;
            let sql = "UPDATE sensor_credential SET first_used_at = now()
                       WHERE credential_id = $1 AND first_used_at IS NULL AND revoked_at IS NULL";
            if client.execute(sql, &[credential_id]).await? == 0 {
                return Ok(());
            }
            let sql = "UPDATE sensor_credential SET revoked_at = now()
                       WHERE sensor_id = $1 AND credential_id < $2 AND revoked_at IS NULL";
            if client.execute(sql, &[sensor_id, credential_id]).await? > 0 {
                let after = Some(json!({"credential": credential_id, "older": "revoked"}));
                sensors::tell(&lease, &author, "sensor.rotated", *sensor_id, name, (None, after)).await?;
            }
            Ok(())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Revokes one credential after its sensor's batches in flight. `None` if the sensor has none of this id.
pub async fn revoke(
    pool: &Pool,
    author: &Author,
    sensor: &Reference,
    credential_id: i32,
) -> Result<Option<(i32, Credential)>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "credential_revoke").await?;
        let result = async {
            let Some((sensor_id, name, _)) = sensors::lock(&lease, sensor).await? else { return Ok(None) };
            let sql = "UPDATE sensor_credential SET revoked_at = now()
                       WHERE sensor_id = $1 AND credential_id = $2 AND revoked_at IS NULL";
            let revoked = lease.client().execute(sql, &[&sensor_id, &credential_id]).await?;
            let sql = format!(
                "SELECT {COLUMNS} FROM sensor_credential WHERE sensor_id = $1 AND credential_id = $2"
            );
            let row = lease.client().query_opt(&sql, &[&sensor_id, &credential_id]).await?;
            if revoked > 0 {
                let before = Some(json!({"credential": credential_id}));
                let action = "sensor.credential.revoke";
                sensors::tell(&lease, author, action, sensor_id, &name, (before, None)).await?;
            }
            Ok(row.map(|row| (sensor_id, from_row(&row))))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Credentials of a sensor after `after`, in order of id.
pub async fn list(
    pool: &Pool,
    sensor_id: i32,
    after: i32,
    limit: i64,
) -> Result<Vec<Credential>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "credential_list").await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM sensor_credential WHERE sensor_id = $1 AND credential_id > $2
             ORDER BY credential_id LIMIT $3"
        );
        let result = lease.client().query(&sql, &[&sensor_id, &after, &limit]).await;
        lease.finish(result.map_err(StoreError::from)).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(from_row).collect())
}

fn from_row(row: &Row) -> Credential {
    Credential {
        credential_id: row.get(0),
        by_sensor: row.get(1),
        created_at: row.get(2),
        expires_at: row.get(3),
        revoked_at: row.get(4),
        first_used_at: row.get(5),
    }
}
