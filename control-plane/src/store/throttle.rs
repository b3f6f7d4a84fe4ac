//! Failed logins, shared by all instances: after a few free attempts the wait doubles with each.
//!
//! An attempt is counted before its password is looked at and forgiven after a success, so a thousand
//! attempts at once get as many looks as one after the other. Rows are keyed by account, by a bucket of
//! names that no account has, and by a bucket of addresses: their number is bounded.

use super::{Class, Isolation, Lease, Pool, StoreError};

/// The two rows of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    pub account: Key,
    pub address: Key,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    kind: i16,
    bucket: i32,
}

impl Key {
    #[must_use]
    pub fn account(user_id: i32) -> Self {
        Self { kind: 0, bucket: user_id }
    }

    /// One of 65,536 buckets.
    #[must_use]
    pub fn unknown_name(hash: u32) -> Self {
        Self { kind: 1, bucket: (hash & 0xffff) as i32 }
    }

    /// One of a million buckets.
    #[must_use]
    pub fn address(hash: u32) -> Self {
        Self { kind: 2, bucket: (hash & 0xf_ffff) as i32 }
    }

    /// Failures before the first wait: people mistype, and share addresses.
    fn free(self) -> i32 {
        if self.kind == 2 { 20 } else { 5 }
    }

    fn which(self) -> Blocked {
        if self.kind == 2 { Blocked::Address } else { Blocked::Account }
    }
}

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    Account,
    Address,
}

/// Whether an attempt may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Counted as the account's so-manieth failure until it is forgiven.
    Counted {
        failures: i32,
    },
    Blocked {
        by: Blocked,
        seconds: u32,
    },
}

/// The wait doubles from a second to a quarter of an hour; who stays away for an hour begins anew. Without a
/// wait the row is blocked until the epoch, not until now: another attempt may have begun a moment before.
const COUNT: &str = "INSERT INTO login_throttle AS t (kind, bucket, failures, last_at, blocked_until)
     VALUES ($1, $2, 1, now(), to_timestamp(0))
     ON CONFLICT (kind, bucket) DO UPDATE SET
         failures = CASE WHEN t.last_at < now() - interval '1 hour' THEN 1 ELSE least(t.failures, 1000000) + 1 END,
         last_at = now(),
         blocked_until = CASE WHEN t.last_at < now() - interval '1 hour' OR t.failures + 1 < $3 THEN to_timestamp(0)
             ELSE now() + make_interval(secs => least(900, power(2, least(t.failures + 1 - $3, 10)))) END
     WHERE t.blocked_until <= now()
     RETURNING failures";

/// Counts an attempt, unless it must wait.
pub async fn attempt(pool: &Pool, keys: &Keys) -> Result<Attempt, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "login_attempt").await?;
        let result = count(&lease, keys).await;
        match result {
            Ok(blocked @ Attempt::Blocked { .. }) => lease.undo().await.map(|()| blocked),
            other => lease.finish(other).await,
        }
    };
    pool.within(Class::Admin, work).await
}

async fn count(lease: &Lease<'_>, keys: &Keys) -> Result<Attempt, StoreError> {
    let mut failures = 0;
    // Always in this order, so that two attempts never wait for each other.
    for key in [keys.address, keys.account] {
        let counted = lease.client().query_opt(COUNT, &[&key.kind, &key.bucket, &key.free()]).await?;
        let Some(row) = counted else {
            let sql = "SELECT ceil(extract(epoch FROM blocked_until - clock_timestamp()))::integer
                       FROM login_throttle WHERE kind = $1 AND bucket = $2";
            let row = lease.client().query_opt(sql, &[&key.kind, &key.bucket]).await?;
            let seconds = row.map_or(1, |row| row.get::<_, i32>(0)).max(1);
            return Ok(Attempt::Blocked { by: key.which(), seconds: seconds.cast_unsigned() });
        };
        failures = row.get(0);
    }
    Ok(Attempt::Counted { failures })
}

/// [`forgive`] in a transaction of its own.
pub async fn succeeded(pool: &Pool, keys: &Keys) -> Result<(), StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "login_forgive").await?;
        let result = forgive(&lease, keys).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// After a success: the account begins anew, the address has one failure less. In the caller's
/// transaction, in the order of [`attempt`].
pub(super) async fn forgive(lease: &Lease<'_>, keys: &Keys) -> Result<(), StoreError> {
    let address =
        "UPDATE login_throttle SET failures = greatest(failures - 1, 0), blocked_until = to_timestamp(0)
                   WHERE kind = $1 AND bucket = $2";
    lease.client().execute(address, &[&keys.address.kind, &keys.address.bucket]).await?;
    let account = "DELETE FROM login_throttle WHERE kind = $1 AND bucket = $2";
    lease.client().execute(account, &[&keys.account.kind, &keys.account.bucket]).await?;
    Ok(())
}

pub(super) async fn sweep(lease: &Lease<'_>) -> Result<(), StoreError> {
    let sql = "DELETE FROM login_throttle WHERE last_at < now() - interval '1 day'";
    lease.client().execute(sql, &[]).await?;
    Ok(())
}
