//! The keys that all instances share: those that sign access tokens, and the server's own secrets.

use std::time::{Duration, SystemTime};

use super::{Class, Isolation, Pool, StoreError, locks};

/// A key that signs, signed, or will.
#[derive(Clone)]
pub struct SigningKey {
    pub kid: String,
    pub seed: [u8; 32],
    pub signs_from: SystemTime,
}

/// When keys come and go.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// A key signs for so long.
    pub every: Duration,
    /// A new key is known to all instances before it signs.
    pub lead: Duration,
    /// A key that was followed still verifies for so long.
    pub trail: Duration,
}

/// Adds the offered key if the newest one is too old (or at once, if told so), deletes keys whose tokens
/// have ended, and gives all that are left, newest first.
pub async fn rotate(
    pool: &Pool,
    rotation: Rotation,
    now: bool,
    offered: &SigningKey,
) -> Result<Vec<SigningKey>, StoreError> {
    let (every, lead) = (rotation.every.as_secs_f64(), rotation.lead.as_secs_f64());
    let trail = rotation.trail.as_secs_f64();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "signing_rotate").await?;
        let result = async {
            let client = lease.client();
            client.execute(locks::ALONE, &[&locks::SIGNING]).await?;
            // The very first key signs at once.
            client
                .execute(
                    "INSERT INTO signing_key (kid, seed, signs_from)
                     SELECT $1::text, $2::bytea, CASE WHEN EXISTS (SELECT FROM signing_key)
                                         THEN now() + make_interval(secs => $4) ELSE now() END
                     WHERE $5::boolean OR NOT EXISTS (SELECT FROM signing_key
                                             WHERE signs_from > now() - make_interval(secs => $3))",
                    &[&offered.kid, &&offered.seed[..], &every, &lead, &now],
                )
                .await?;
            client
                .execute(
                    "DELETE FROM signing_key k WHERE EXISTS (
                         SELECT FROM signing_key later
                         WHERE later.signs_from > k.signs_from
                           AND later.signs_from < now() - make_interval(secs => $1))",
                    &[&trail],
                )
                .await?;
            let sql = "SELECT kid, seed, signs_from FROM signing_key ORDER BY signs_from DESC, kid";
            Ok(client.query(sql, &[]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let rows = pool.within(Class::Admin, work).await?;
    let key = |row: &tokio_postgres::Row| {
        let seed = row.get::<_, &[u8]>(1).try_into().ok()?;
        Some(SigningKey { kid: row.get(0), seed, signs_from: row.get(2) })
    };
    Ok(rows.iter().filter_map(key).collect())
}

/// Deletes every signing key: all access tokens are void at once.
pub async fn forget_all(pool: &Pool) -> Result<u64, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "signing_forget").await?;
        let result = lease.client().execute("DELETE FROM signing_key", &[]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// The secret of this name; the offered one if there was none. The same for all instances.
pub async fn secret(pool: &Pool, name: &str, offered: &[u8; 32]) -> Result<[u8; 32], StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "shared_key").await?;
        let result = async {
            let client = lease.client();
            let sql = "INSERT INTO server_secret (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            client.execute(sql, &[&name, &&offered[..]]).await?;
            Ok(client.query_one("SELECT value FROM server_secret WHERE name = $1", &[&name]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let row = pool.within(Class::Admin, work).await?;
    // The table's check holds it to 32 bytes.
    Ok(row.get::<_, &[u8]>(0).try_into().unwrap_or(*offered))
}
