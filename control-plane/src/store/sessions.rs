//! Sessions and their refresh tokens: opened by a login, continued by a refresh, ended by whoever may.
//!
//! A session is a family of refresh tokens of which one is unused. A used one that comes again ends the
//! family: either its thief or its owner has it, and nobody can say which.

use std::time::SystemTime;

use serde_json::json;
use tokio_postgres::Row;
use uuid::Uuid;

use super::audit::{self, Author, Change};
use super::throttle::{self, Keys};
use super::{Class, Isolation, Lease, Pool, StoreError};
use crate::auth::Role;

/// Sessions that one account may have; the oldest makes room.
const PER_USER: i64 = 50;

/// A session as the API shows it.
#[derive(Clone, Debug)]
pub struct Session {
    pub session_id: Uuid,
    pub user_id: i32,
    pub user: String,
    pub created_at: SystemTime,
    pub expires_at: SystemTime,
    pub last_active_at: SystemTime,
    pub address: String,
    pub user_agent: String,
}

/// What a login opens.
pub struct Opening<'a> {
    pub user_id: i32,
    /// As it was verified: another one by now means that the password was changed meanwhile.
    pub password_hash: &'a str,
    pub session_id: Uuid,
    pub refresh_sha256: [u8; 32],
    pub address: &'a str,
    pub user_agent: &'a str,
    pub lifetimes: Lifetimes,
    /// Failed logins that this success makes up for.
    pub throttle: Keys,
}

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    pub session_s: f64,
    pub refresh_s: f64,
}

/// Whose session it is, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub session_id: Uuid,
    pub user_id: i32,
    pub name: String,
    pub role: Role,
    pub alive: bool,
}

/// What became of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It is used up, and the new one is in its place.
    Continued(Holder),
    /// It was used before: the session is over.
    Reused(Holder),
    /// It is nobody's, too old, or of a session that is over.
    Refused,
}

/// Opens a session, in one transaction with its first refresh token and its row of the audit log. `None`
/// if the account was disabled, deleted or given another password since it was looked at.
pub async fn open(pool: &Pool, author: &Author, opening: &Opening<'_>) -> Result<Option<Holder>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "session_open").await?;
        let result = insert(&lease, author, opening).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn insert(
    lease: &Lease<'_>,
    author: &Author,
    opening: &Opening<'_>,
) -> Result<Option<Holder>, StoreError> {
    let client = lease.client();
    let account = client
        .query_opt(
            "SELECT name, role FROM account
             WHERE user_id = $1 AND password_hash = $2 AND disabled_at IS NULL FOR UPDATE",
            &[&opening.user_id, &opening.password_hash],
        )
        .await?;
    let Some(account) = account else { return Ok(None) };
    let (name, role) = (account.get::<_, String>(0), Role::stored(account.get(1)));
    throttle::forgive(lease, &opening.throttle).await?;
    client
        .execute(
            "UPDATE session SET ended_at = now(), ended_because = 'too many sessions'
             WHERE session_id IN (SELECT session_id FROM session
                                  WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now()
                                  ORDER BY last_active_at DESC OFFSET $2)",
            &[&opening.user_id, &(PER_USER - 1)],
        )
        .await?;
    client
        .execute(
            "INSERT INTO session (session_id, user_id, expires_at, address, user_agent)
             VALUES ($1, $2, now() + make_interval(secs => $3), $4, $5)",
            &[
                &opening.session_id,
                &opening.user_id,
                &opening.lifetimes.session_s,
                &opening.address,
                &opening.user_agent,
            ],
        )
        .await?;
    add_token(lease, opening.session_id, &opening.refresh_sha256, opening.lifetimes).await?;
    let change = Change {
        action: "session.open",
        subject_kind: "session",
        subject_id: Some(opening.session_id.to_string()),
        subject_name: Some(name.clone()),
        before: None,
        after: Some(json!({"user_agent": opening.user_agent})),
    };
    audit::record(lease, author, &change).await?;
    let holder = Holder { session_id: opening.session_id, user_id: opening.user_id, name, role, alive: true };
    Ok(Some(holder))
}

/// Trades a refresh token for a new one, or ends the session of one that was used before.
pub async fn refresh(
    pool: &Pool,
    author: &Author,
    used_sha256: &[u8; 32],
    new_sha256: &[u8; 32],
    lifetimes: Lifetimes,
) -> Result<Refreshed, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "session_refresh").await?;
        let result = trade(&lease, author, used_sha256, new_sha256, lifetimes).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn trade(
    lease: &Lease<'_>,
    author: &Author,
    used: &[u8; 32],
    new: &[u8; 32],
    lifetimes: Lifetimes,
) -> Result<Refreshed, StoreError> {
    let client = lease.client();
    // The account first, as every other change locks them: account, session, token.
    let owner = client
        .query_opt(
            "SELECT a.user_id FROM account a JOIN session s USING (user_id) JOIN refresh_token t USING (session_id)
             WHERE t.token_sha256 = $1 FOR UPDATE OF a",
            &[&&used[..]],
        )
        .await?;
    if owner.is_none() {
        return Ok(Refreshed::Refused);
    }
    let row = client
        .query_opt(
            "SELECT s.session_id, a.user_id, a.name, a.role,
                    s.ended_at IS NULL AND s.expires_at > now() AND a.disabled_at IS NULL,
                    t.used_at IS NOT NULL, t.expires_at > now()
             FROM refresh_token t JOIN session s USING (session_id) JOIN account a USING (user_id)
             WHERE t.token_sha256 = $1 FOR UPDATE OF s, t",
            &[&&used[..]],
        )
        .await?;
    let Some(row) = row else { return Ok(Refreshed::Refused) };
    let holder = holder(&row);
    let (was_used, in_time): (bool, bool) = (row.get(5), row.get(6));
    if !holder.alive {
        return Ok(Refreshed::Refused);
    }
    if was_used {
        client
            .execute(
                "UPDATE session SET ended_at = now(), ended_because = 'refresh token used twice'
                 WHERE session_id = $1",
                &[&holder.session_id],
            )
            .await?;
        let change = Change {
            action: "session.refresh_token_reused",
            subject_kind: "session",
            subject_id: Some(holder.session_id.to_string()),
            subject_name: Some(holder.name.clone()),
            before: None,
            after: Some(json!({"ended": true})),
        };
        audit::record(lease, author, &change).await?;
        return Ok(Refreshed::Reused(holder));
    }
    if !in_time {
        return Ok(Refreshed::Refused);
    }
    client.execute("UPDATE refresh_token SET used_at = now() WHERE token_sha256 = $1", &[&&used[..]]).await?;
    client
        .execute("UPDATE session SET last_active_at = now() WHERE session_id = $1", &[&holder.session_id])
        .await?;
    add_token(lease, holder.session_id, new, lifetimes).await?;
    Ok(Refreshed::Continued(holder))
}

async fn add_token(
    lease: &Lease<'_>,
    session_id: Uuid,
    sha256: &[u8; 32],
    lifetimes: Lifetimes,
) -> Result<(), StoreError> {
    lease
        .client()
        .execute(
            "INSERT INTO refresh_token (token_sha256, session_id, expires_at)
             SELECT $1::bytea, session_id, least(expires_at, now() + make_interval(secs => $3))
             FROM session WHERE session_id = $2",
            &[&&sha256[..], &session_id, &lifetimes.refresh_s],
        )
        .await?;
    Ok(())
}

/// Whose session this is, and whether it goes on. `None` if it was never, or is long gone.
pub async fn holder_of(pool: &Pool, session_id: Uuid) -> Result<Option<Holder>, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "session_holder").await?;
        let result = async {
            let sql = "SELECT session_id, user_id, a.name, a.role,
                              ended_at IS NULL AND expires_at > now() AND disabled_at IS NULL
                       FROM session JOIN account a USING (user_id) WHERE session_id = $1";
            let statement = lease.prepared(sql).await?;
            Ok(lease.client().query_opt(&statement, &[&session_id]).await?)
        }
        .await;
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.as_ref().map(holder))
}

/// Sessions that go on, of one user or of all, in order of id after `after`.
pub async fn list(
    pool: &Pool,
    user_id: Option<i32>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Session>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "session_list").await?;
        let result = lease
            .client()
            .query(
                "SELECT session_id, user_id, name, s.created_at, expires_at, s.last_active_at, address, user_agent
                 FROM session s JOIN account a USING (user_id)
                 WHERE ended_at IS NULL AND expires_at > now() AND ($1::integer IS NULL OR user_id = $1)
                   AND ($2::uuid IS NULL OR session_id > $2)
                 ORDER BY session_id LIMIT $3",
                &[&user_id, &after, &limit],
            )
            .await
            .map_err(StoreError::from);
        lease.finish(result).await
    };
    let rows = pool.within(Class::Admin, work).await?;
    Ok(rows
        .iter()
        .map(|row| Session {
            session_id: row.get(0),
            user_id: row.get(1),
            user: row.get(2),
            created_at: row.get(3),
            expires_at: row.get(4),
            last_active_at: row.get(5),
            address: row.get(6),
            user_agent: row.get(7),
        })
        .collect())
}

/// Ends a session, if `owner` (where one is named) has it. `None` if there is no such session.
pub async fn end(
    pool: &Pool,
    author: &Author,
    session_id: Uuid,
    owner: Option<i32>,
) -> Result<Option<Uuid>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "session_end").await?;
        let result = async {
            let row = lease
                .client()
                .query_opt(
                    "UPDATE session s SET ended_at = now(), ended_because = 'ended' FROM account a
                     WHERE s.user_id = a.user_id AND session_id = $1 AND ended_at IS NULL AND expires_at > now()
                       AND ($2::integer IS NULL OR s.user_id = $2)
                     RETURNING a.name",
                    &[&session_id, &owner],
                )
                .await?;
            let Some(row) = row else { return Ok(None) };
            let change = Change {
                action: "session.end",
                subject_kind: "session",
                subject_id: Some(session_id.to_string()),
                subject_name: Some(row.get(0)),
                before: None,
                after: None,
            };
            audit::record(&lease, author, &change).await?;
            Ok(Some(session_id))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Ends all sessions of a user but one; gives their number. `None` if there is no such user.
pub async fn end_others(
    pool: &Pool,
    author: &Author,
    user_id: i32,
    keep: Option<Uuid>,
) -> Result<Option<u64>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "session_end_all").await?;
        let result = async {
            let sql = "SELECT name FROM account WHERE user_id = $1 FOR UPDATE";
            let Some(row) = lease.client().query_opt(sql, &[&user_id]).await? else { return Ok(None) };
            let ended = end_all(&lease, user_id, keep, "ended").await?;
            let change = Change {
                action: "session.end_all",
                subject_kind: "user",
                subject_id: Some(user_id.to_string()),
                subject_name: Some(row.get(0)),
                before: None,
                after: Some(json!({"sessions_ended": ended})),
            };
            audit::record(&lease, author, &change).await?;
            Ok(Some(ended))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Ends a user's sessions in the caller's transaction.
pub(super) async fn end_all(
    lease: &Lease<'_>,
    user_id: i32,
    keep: Option<Uuid>,
    because: &str,
) -> Result<u64, StoreError> {
    let sql = "UPDATE session SET ended_at = now(), ended_because = $3
               WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now()
                 AND ($2::uuid IS NULL OR session_id <> $2)";
    Ok(lease.client().execute(sql, &[&user_id, &keep, &because]).await?)
}

/// Deletes sessions that ended or ran out long ago, and failures that nobody counts any more. Their
/// refresh tokens go with them.
pub async fn sweep(pool: &Pool) -> Result<u64, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "session_sweep").await?;
        let result = async {
            let sql = "DELETE FROM session WHERE expires_at < now() - interval '1 day'
                       OR ended_at < now() - interval '1 day'";
            let sessions = lease.client().execute(sql, &[]).await?;
            throttle::sweep(&lease).await?;
            Ok(sessions)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await
}

fn holder(row: &Row) -> Holder {
    Holder {
        session_id: row.get(0),
        user_id: row.get(1),
        name: row.get(2),
        role: Role::stored(row.get(3)),
        alive: row.get(4),
    }
}
