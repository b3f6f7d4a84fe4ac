//! The authority that signs sensors' certificates: its certificate, its key, those before it, and what was signed.
//!
//! What must stay true: there is one that signs at a time; whatever was signed is trusted until its end, unless
//! a key leaked; a key that signs no more is deleted.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio_postgres::Row;

use super::audit::{self, Author, Change};
use super::{Class, Isolation, Lease, Pool, StoreError, locks, sensors};

/// An authority without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub ca_id: i32,
    /// DER.
    pub certificate: Vec<u8>,
    pub created_at: SystemTime,
    pub signs_from: SystemTime,
    pub expires_at: SystemTime,
    /// A later one signs.
    pub followed: bool,
    /// Of one that is followed: the end of the last certificate that it signed.
    pub trusted_until: Option<SystemTime>,
}

/// One to make.
pub struct Offered {
    pub certificate: Vec<u8>,
    /// PKCS#8.
    pub key: Vec<u8>,
    pub expires_at: SystemTime,
}

/// The one that signs now.
pub struct Signer {
    pub ca_id: i32,
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub expires_at: SystemTime,
}

/// A certificate that was signed.
pub struct Signed {
    /// DER.
    pub certificate: Vec<u8>,
    pub serial: String,
    pub issued_at: SystemTime,
    pub expires_at: SystemTime,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("tls.client_auth is off: certificates are not signed")]
    Off,
    #[error("a new authority of sensors' certificates signs in a few seconds")]
    NotYet,
    #[error(
        "this sensor has shown a certificate with this credential: the next one is asked for with that \
         certificate, or by a new credential of an operator's (`POST /api/v1/sensors/{{id}}/credentials`)"
    )]
    Certified,
    #[error("sign a certificate: {0}")]
    Sign(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks for a certificate.
pub struct Asking<'a> {
    pub author: &'a Author,
    pub sensor_id: i32,
    pub credential_id: i32,
    /// It shows one that holds.
    pub by_certificate: bool,
}

const FOLLOWED: &str = "EXISTS (SELECT FROM certificate_authority later
                                WHERE later.ca_id > a.ca_id AND later.signs_from <= now())";

/// Those that are trusted now, newest first.
pub async fn trusted(pool: &Pool) -> Result<Vec<Authority>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "authority_trusted").await?;
        let result = read(&lease).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// The same; makes the offered one where there is none. Of instances that start together one makes it.
pub async fn ensure(pool: &Pool, author: &Author, offered: &Offered) -> Result<Vec<Authority>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "authority_ensure").await?;
        let result = async {
            lease.client().execute(locks::ALONE, &[&locks::AUTHORITY]).await?;
            let there = lease.client().query_opt("SELECT FROM certificate_authority LIMIT 1", &[]).await?;
            if there.is_none() {
                insert(&lease, author, offered, "authority.create", Duration::ZERO).await?;
            }
            read(&lease).await
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Makes the offered one, which signs after `lead`, when every instance trusts it. With `now` the others are trusted
/// no more at once, and every sensor may ask for a certificate by its credential alone again, once.
pub async fn rotate(
    pool: &Pool,
    author: &Author,
    offered: &Offered,
    lead: Duration,
    now: bool,
) -> Result<Vec<Authority>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "authority_rotate").await?;
        let result = async {
            let client = lease.client();
            client.execute(locks::ALONE, &[&locks::AUTHORITY]).await?;
            let first = client.query_opt("SELECT FROM certificate_authority LIMIT 1", &[]).await?.is_none();
            if now {
                // Authorities before credentials, as everybody: whoever notes that one of them was shown is
                // either before this, and undone below, or finds that it is gone.
                client.execute("DELETE FROM certificate_authority", &[]).await?;
                let sql = "UPDATE sensor_credential SET certified_at = NULL WHERE certified_at IS NOT NULL";
                client.execute(sql, &[]).await?;
            }
            let (action, lead) = match (first, now) {
                (true, _) => ("authority.create", Duration::ZERO),
                (false, true) => ("authority.replace", lead),
                (false, false) => ("authority.rotate", lead),
            };
            insert(&lease, author, offered, action, lead).await?;
            read(&lease).await
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Deletes the keys of those that are followed, and those that nothing is left of. Whether there were any.
pub async fn sweep(pool: &Pool) -> Result<bool, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "authority_sweep").await?;
        let result = async {
            let sql = format!(
                "DELETE FROM certificate_authority_key k USING certificate_authority a
                 WHERE a.ca_id = k.ca_id AND {FOLLOWED}"
            );
            let keys = lease.client().execute(&sql, &[]).await?;
            let sql =
                format!("DELETE FROM certificate_authority a WHERE {FOLLOWED} AND trusted_until <= now()");
            let authorities = lease.client().execute(&sql, &[]).await?;
            Ok(keys + authorities > 0)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Signs a certificate for a sensor: `sign` gets the authority, which stays trusted until what it signed ends.
pub async fn issue(
    pool: &Pool,
    asking: &Asking<'_>,
    sign: impl FnOnce(&Signer) -> Result<Signed, String>,
) -> Result<Signed, IssueError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "authority_issue").await?;
        let result = issue_in(&lease, asking, sign).await;
        lease.settle(result).await
    };
    pool.within(Class::Admin, work).await?
}

async fn issue_in(
    lease: &Lease<'_>,
    asking: &Asking<'_>,
    sign: impl FnOnce(&Signer) -> Result<Signed, String>,
) -> Result<Signed, IssueError> {
    let client = lease.client();
    let asked = async {
        // Held until the end: a rotation waits, and then sees what was signed.
        let sql = "SELECT ca_id, certificate, key, expires_at
                   FROM certificate_authority a JOIN certificate_authority_key USING (ca_id)
                   WHERE signs_from <= now() ORDER BY ca_id DESC LIMIT 1 FOR UPDATE OF a";
        let signer = client.query_opt(sql, &[]).await?;
        // Held too: of requests that race none sees a state between.
        let sql =
            "SELECT certified_at IS NOT NULL FROM sensor_credential WHERE credential_id = $1 FOR UPDATE";
        let certified: bool = client.query_one(sql, &[&asking.credential_id]).await?.get(0);
        Ok::<_, StoreError>((certified, signer))
    };
    let (certified, row) = asked.await?;
    if certified && !asking.by_certificate {
        return Err(IssueError::Certified);
    }
    let row = row.ok_or(IssueError::NotYet)?;
    let signer =
        Signer { ca_id: row.get(0), certificate: row.get(1), key: row.get(2), expires_at: row.get(3) };
    let signed = sign(&signer).map_err(IssueError::Sign)?;
    let noted = async {
        let sql =
            "UPDATE certificate_authority SET trusted_until = greatest(trusted_until, $2) WHERE ca_id = $1";
        client.execute(sql, &[&signer.ca_id, &signed.expires_at]).await?;
        let after = json!({
            "serial": signed.serial, "authority": signer.ca_id, "by_certificate": asking.by_certificate,
            "days": signed.expires_at.duration_since(signed.issued_at).unwrap_or_default().as_secs() / 86_400,
        });
        let name = &asking.author.name;
        let change = (None, Some(after));
        sensors::tell(lease, asking.author, "sensor.certificate", asking.sensor_id, name, change).await
    };
    noted.await?;
    Ok(signed)
}

/// Notes that the sensor showed a certificate with this credential, of an authority that is trusted still.
pub async fn certify(pool: &Pool, credential_id: i32, ca_id: i32) -> Result<(), StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "credential_certify").await?;
        let result = async {
            let sql = "SELECT FROM certificate_authority WHERE ca_id = $1 FOR KEY SHARE";
            if lease.client().query_opt(sql, &[&ca_id]).await?.is_some() {
                let sql = "UPDATE sensor_credential SET certified_at = now()
                           WHERE credential_id = $1 AND certified_at IS NULL";
                lease.client().execute(sql, &[&credential_id]).await?;
            }
            Ok(())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn read(lease: &Lease<'_>) -> Result<Vec<Authority>, StoreError> {
    let sql = format!(
        "SELECT ca_id, certificate, created_at, signs_from, expires_at, {FOLLOWED},
                nullif(trusted_until, '-infinity')
         FROM certificate_authority a WHERE NOT {FOLLOWED} OR trusted_until > now() ORDER BY ca_id DESC"
    );
    Ok(lease.client().query(&sql, &[]).await?.iter().map(from_row).collect())
}

async fn insert(
    lease: &Lease<'_>,
    author: &Author,
    offered: &Offered,
    action: &'static str,
    lead: Duration,
) -> Result<(), StoreError> {
    let sql = "WITH made AS (
                   INSERT INTO certificate_authority (certificate, signs_from, expires_at)
                   VALUES ($1, now() + make_interval(secs => $2), $3) RETURNING ca_id
               )
               INSERT INTO certificate_authority_key (ca_id, key) SELECT ca_id, $4 FROM made RETURNING ca_id";
    let row = lease
        .client()
        .query_one(sql, &[&offered.certificate, &lead.as_secs_f64(), &offered.expires_at, &offered.key])
        .await?;
    let ca_id: i32 = row.get(0);
    let change = Change {
        action,
        subject_kind: "authority",
        subject_id: Some(ca_id.to_string()),
        after: Some(json!({"signs_in_s": lead.as_secs()})),
        ..Change::default()
    };
    audit::record(lease, author, &change).await
}

fn from_row(row: &Row) -> Authority {
    Authority {
        ca_id: row.get(0),
        certificate: row.get(1),
        created_at: row.get(2),
        signs_from: row.get(3),
        expires_at: row.get(4),
        followed: row.get(5),
        trusted_until: row.get(6),
    }
}
