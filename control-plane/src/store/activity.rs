//! When people, sessions, machines and sensors were last seen, many at a time.

use std::time::SystemTime;

use uuid::Uuid;

use super::presence::{self, Sign};
use super::{Class, Isolation, Pool, StoreError};

/// Who was seen since the last write.
#[derive(Debug, Default)]
pub struct Seen {
    pub users: Vec<(i32, SystemTime)>,
    pub sessions: Vec<(Uuid, SystemTime)>,
    pub tokens: Vec<(i32, SystemTime)>,
    pub sensors: Vec<Sign>,
}

/// Writes them in one transaction; never back in time, and nobody who is gone comes back.
pub async fn write(pool: &Pool, seen: &Seen) -> Result<(), StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "activity").await?;
        let result = async {
            let client = lease.client();
            let (ids, times): (Vec<i32>, Vec<SystemTime>) = seen.users.iter().copied().unzip();
            client
                .execute(
                    "UPDATE account a SET last_active_at = greatest(a.last_active_at, s.at)
                     FROM unnest($1::integer[], $2::timestamptz[]) AS s(id, at) WHERE a.user_id = s.id",
                    &[&ids, &times],
                )
                .await?;
            let (ids, times): (Vec<Uuid>, Vec<SystemTime>) = seen.sessions.iter().copied().unzip();
            client
                .execute(
                    "UPDATE session t SET last_active_at = greatest(t.last_active_at, s.at)
                     FROM unnest($1::uuid[], $2::timestamptz[]) AS s(id, at) WHERE t.session_id = s.id",
                    &[&ids, &times],
                )
                .await?;
            let (ids, times): (Vec<i32>, Vec<SystemTime>) = seen.tokens.iter().copied().unzip();
            client
                .execute(
                    "UPDATE api_token t SET last_used_at = greatest(t.last_used_at, s.at)
                     FROM unnest($1::integer[], $2::timestamptz[]) AS s(id, at) WHERE t.api_token_id = s.id",
                    &[&ids, &times],
                )
                .await?;
            presence::write(&lease, &seen.sensors).await
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}
