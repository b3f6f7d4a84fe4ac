//! People's accounts. Every change is one transaction with its row of the audit log, and ends what the
//! change makes invalid in the same transaction.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::audit::{self, Author, Change};
use super::reference::{self, Reference};
use super::{Class, Isolation, Lease, Pool, StoreError, locks, sessions};
use crate::auth::Role;

/// An account as the API shows it.
#[derive(Clone, Debug)]
pub struct User {
    pub user_id: i32,
    pub name: String,
    pub role: Role,
    pub created_at: SystemTime,
    pub password_changed_at: SystemTime,
    pub disabled_at: Option<SystemTime>,
    pub last_active_at: Option<SystemTime>,
}

/// What a login is checked against.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub user_id: i32,
    pub password_hash: String,
    pub disabled: bool,
}

/// What changes of an account; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Update {
    pub role: Option<Role>,
    pub disabled: Option<bool>,
    pub password_hash: Option<String>,
}

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("there is a user of that name already, or one is being erased")]
    Taken,
    #[error("no user has this id or name")]
    Unknown,
    #[error("this is the last admin who can log in: make another one first")]
    LastAdmin,
    #[error("the set-up link is not valid: it was used, is over, or another user was made since")]
    NoSetup,
    #[error(transparent)]
    Store(#[from] StoreError),
}

const COLUMNS: &str = "user_id, name, role, created_at, password_changed_at, disabled_at, last_active_at";

/// Whether a name may be a user's: 1 to 63 small letters, digits, `.`, `_`, `-`, `@`; not only digits.
#[must_use]
pub fn is_name(name: &str) -> bool {
    reference::is_name(name, |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b'@')
    })
}

/// The account that a text names; `None` for what can be neither id nor name.
#[must_use]
pub fn named(text: &str) -> Option<Reference> {
    Reference::parse(text, is_name)
}

/// Adds an account.
pub async fn add(
    pool: &Pool,
    author: &Author,
    name: &str,
    role: Role,
    password_hash: &str,
) -> Result<User, UserError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "user_add").await?;
        let result = insert(&lease, author, name, role, password_hash).await;
        lease.settle(result).await
    };
    taken(within(pool, work).await)
}

/// Makes the first admin with a set-up link, which works once and only while there is no account.
pub async fn set_up(
    pool: &Pool,
    author: &Author,
    token_sha256: &[u8],
    name: &str,
    password_hash: &str,
) -> Result<User, UserError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "user_set_up").await?;
        let result = async {
            // Two links at once: the second waits for this row and finds it gone, or finds an account.
            let client = lease.client();
            client.batch_execute("LOCK TABLE setup_link IN EXCLUSIVE MODE").await?;
            let sql = "DELETE FROM setup_link WHERE token_sha256 = $1 AND expires_at > now()
                       AND NOT EXISTS (SELECT FROM account)";
            if client.execute(sql, &[&token_sha256]).await? == 0 {
                return Ok(false);
            }
            client.execute("DELETE FROM setup_link", &[]).await?;
            Ok(true)
        };
        let result = match result.await.map_err(UserError::Store) {
            Ok(true) => insert(&lease, author, name, Role::Admin, password_hash).await,
            Ok(false) => Err(UserError::NoSetup),
            Err(error) => Err(error),
        };
        lease.settle(result).await
    };
    taken(within(pool, work).await)
}

/// Whether a set-up link would work now; asked before a password is hashed for it.
pub async fn may_set_up(pool: &Pool, token_sha256: &[u8]) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM setup_link WHERE token_sha256 = $1 AND expires_at > now()
               AND NOT EXISTS (SELECT FROM account)";
    Ok(one(pool, "setup_link_find", sql, &[&token_sha256]).await?.is_some())
}

/// Keeps a set-up link's hash; `false` if there is an account, so that none is needed.
pub async fn add_setup_link(pool: &Pool, token_sha256: &[u8], hours: i32) -> Result<bool, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "setup_link_add").await?;
        let result = async {
            lease.client().execute("DELETE FROM setup_link WHERE expires_at <= now()", &[]).await?;
            let added = lease
                .client()
                .execute(
                    "INSERT INTO setup_link (token_sha256, expires_at)
                     SELECT $1::bytea, now() + make_interval(hours => $2) WHERE NOT EXISTS (SELECT FROM account)",
                    &[&token_sha256, &hours],
                )
                .await?;
            Ok(added > 0)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Changes an account. Who is disabled, or given another password, is logged out everywhere.
pub async fn update(
    pool: &Pool,
    author: &Author,
    user: &Reference,
    update: &Update,
) -> Result<User, UserError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "user_update").await?;
        let result = change(&lease, author, user, update).await;
        lease.settle(result).await
    };
    within(pool, work).await
}

async fn change(
    lease: &Lease<'_>,
    author: &Author,
    user: &Reference,
    update: &Update,
) -> Result<User, UserError> {
    // Not for its end: whoever changes something meanwhile holds it against that only.
    let old = held(lease, user, "FOR NO KEY UPDATE").await?;
    let row = lease
        .client()
        .query_one(
            &format!(
                "UPDATE account SET role = coalesce($2, role),
                     disabled_at = CASE WHEN $3 THEN coalesce(disabled_at, now()) WHEN NOT $3 THEN NULL
                                        ELSE disabled_at END,
                     password_hash = coalesce($4, password_hash),
                     password_changed_at = CASE WHEN $4 IS NULL THEN password_changed_at ELSE now() END
                 WHERE user_id = $1 RETURNING {COLUMNS}"
            ),
            &[&old.user_id, &update.role.map(Role::name), &update.disabled, &update.password_hash],
        )
        .await
        .map_err(StoreError::from)?;
    let new = from_row(&row);
    keep_an_admin(lease, &old).await?;
    if update.disabled == Some(true) {
        sessions::end_all(lease, new.user_id, None, "user disabled").await?;
    } else if update.password_hash.is_some() {
        sessions::end_all(lease, new.user_id, None, "password changed").await?;
    }
    let mut after = shown(&new);
    if update.password_hash.is_some() {
        after["password"] = Value::from("changed");
    }
    let change = subject("user.update", &new, Some(shown(&old)), Some(after));
    audit::record(lease, author, &change).await?;
    Ok(new)
}

/// Changes one's own password and ends the other sessions; `false` if it was changed meanwhile.
pub async fn change_password(
    pool: &Pool,
    author: &Author,
    user_id: i32,
    keep_session: uuid::Uuid,
    old_hash: &str,
    new_hash: &str,
) -> Result<Option<u64>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "user_password").await?;
        let result = async {
            let row = lease
                .client()
                .query_opt(
                    "UPDATE account SET password_hash = $3, password_changed_at = now()
                     WHERE user_id = $1 AND password_hash = $2 RETURNING name",
                    &[&user_id, &old_hash, &new_hash],
                )
                .await?;
            let Some(row) = row else { return Ok(None) };
            let ended = sessions::end_all(&lease, user_id, Some(keep_session), "password changed").await?;
            let change = Change {
                action: "user.password",
                subject_kind: "user",
                subject_id: Some(user_id.to_string()),
                subject_name: Some(row.get(0)),
                before: None,
                after: Some(json!({"password": "changed", "sessions_ended": ended})),
            };
            audit::record(&lease, author, &change).await?;
            Ok(Some(ended))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// What a login with this name is checked against.
pub async fn credentials(pool: &Pool, name: &str) -> Result<Option<Credentials>, StoreError> {
    let sql = "SELECT user_id, password_hash, disabled_at IS NOT NULL FROM account WHERE name = $1";
    let row = one(pool, "user_credentials", sql, &[&name]).await?;
    Ok(row.map(|row| Credentials { user_id: row.get(0), password_hash: row.get(1), disabled: row.get(2) }))
}

/// One account.
pub async fn get(pool: &Pool, user: &Reference) -> Result<Option<User>, StoreError> {
    let (id, name) = user.parts();
    let sql = format!("SELECT {COLUMNS} FROM account WHERE user_id = $1 OR name = $2");
    Ok(one(pool, "user_get", &sql, &[&id, &name]).await?.as_ref().map(from_row))
}

/// Whether somebody could log in.
pub async fn any(pool: &Pool) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM account WHERE disabled_at IS NULL LIMIT 1";
    Ok(one(pool, "user_any", sql, &[]).await?.is_some())
}

/// Every account after `after` in order of id, at most `limit`.
pub async fn list(pool: &Pool, after: i32, limit: i64) -> Result<Vec<User>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "user_list").await?;
        let sql = format!("SELECT {COLUMNS} FROM account WHERE user_id > $1 ORDER BY user_id LIMIT $2");
        let result = lease.client().query(&sql, &[&after, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(from_row).collect())
}

async fn one(
    pool: &Pool,
    operation: &'static str,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Option<Row>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, operation).await?;
        let result = lease.client().query_opt(sql, values).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn insert(
    lease: &Lease<'_>,
    author: &Author,
    name: &str,
    role: Role,
    password_hash: &str,
) -> Result<User, UserError> {
    let sql =
        format!("INSERT INTO account (name, role, password_hash) VALUES ($1, $2, $3) RETURNING {COLUMNS}");
    let client = lease.client();
    let row =
        client.query_one(&sql, &[&name, &role.name(), &password_hash]).await.map_err(StoreError::from)?;
    let user = from_row(&row);
    // After the insert, which waits for whoever is just taking the name out of use.
    let sql = "SELECT FROM erasure WHERE kind = 'user' AND name = $1 AND done_at IS NULL";
    if client.query_opt(sql, &[&name]).await.map_err(StoreError::from)?.is_some() {
        return Err(UserError::Taken);
    }
    audit::record(lease, author, &subject("user.create", &user, None, Some(shown(&user)))).await?;
    Ok(user)
}

/// Holds the account for whoever ends it. Whoever is just logging in, refreshing, making a token or changing
/// something holds it too, or waits here and then finds nobody.
pub(super) async fn lock(lease: &Lease<'_>, user: &Reference) -> Result<User, UserError> {
    held(lease, user, "FOR UPDATE").await
}

async fn held(lease: &Lease<'_>, user: &Reference, how: &str) -> Result<User, UserError> {
    let (id, name) = user.parts();
    let sql = format!("SELECT {COLUMNS} FROM account WHERE user_id = $1 OR name = $2 {how}");
    let row = lease.client().query_opt(&sql, &[&id, &name]).await.map_err(StoreError::from)?;
    row.as_ref().map(from_row).ok_or(UserError::Unknown)
}

/// Refuses, after the change, what took the last admin away. The lock makes two such changes wait for
/// each other, so that they cannot each count on the other's admin.
pub(super) async fn keep_an_admin(lease: &Lease<'_>, old: &User) -> Result<(), UserError> {
    if old.role != Role::Admin || old.disabled_at.is_some() {
        return Ok(());
    }
    let client = lease.client();
    client.execute(locks::ALONE, &[&locks::LAST_ADMIN]).await.map_err(StoreError::from)?;
    let sql = "SELECT 1 FROM account WHERE role = 'admin' AND disabled_at IS NULL LIMIT 1";
    let left = client.query_opt(sql, &[]).await.map_err(StoreError::from)?;
    left.map(|_| ()).ok_or(UserError::LastAdmin)
}

async fn within<T>(
    pool: &Pool,
    work: impl Future<Output = Result<Result<T, UserError>, StoreError>>,
) -> Result<T, UserError> {
    pool.within(Class::Admin, work).await?
}

fn taken<T>(result: Result<T, UserError>) -> Result<T, UserError> {
    result.map_err(|error| match error {
        UserError::Store(StoreError::Database(error))
            if error.code() == Some(&SqlState::UNIQUE_VIOLATION) =>
        {
            UserError::Taken
        }
        error => error,
    })
}

fn subject(action: &'static str, user: &User, before: Option<Value>, after: Option<Value>) -> Change {
    Change {
        action,
        subject_kind: "user",
        subject_id: Some(user.user_id.to_string()),
        subject_name: Some(user.name.clone()),
        before,
        after,
    }
}

fn shown(user: &User) -> Value {
    json!({"role": user.role.name(), "disabled": user.disabled_at.is_some()})
}

fn from_row(row: &Row) -> User {
    User {
        user_id: row.get(0),
        name: row.get(1),
        role: Role::stored(row.get(2)),
        created_at: row.get(3),
        password_changed_at: row.get(4),
        disabled_at: row.get(5),
        last_active_at: row.get(6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_by_id_or_by_name_and_never_by_both() {
        assert_eq!(named("7"), Some(Reference::Id(7)));
        assert_eq!(named("ann@example.org"), Some(Reference::Name("ann@example.org".to_owned())));
        for neither in ["", "0", "-1", "+1", "99999999999", ".a", "a b", "Ann", "é", "a\0", &"a".repeat(64)]
        {
            assert_eq!(named(neither), None, "{neither:?}");
        }
    }
}
