//! API tokens of machines: their hashes, roles and scopes.

use std::time::SystemTime;

use serde_json::json;
use tokio_postgres::Row;

use super::audit::{self, Author, Change};
use super::{Class, Isolation, Pool, StoreError};
use crate::auth::{Role, Scope};

/// A token as the API shows it.
#[derive(Clone, Debug)]
pub struct ApiTokenRow {
    pub api_token_id: i32,
    pub name: String,
    pub user_id: Option<i32>,
    pub user: Option<String>,
    pub role: Role,
    pub scopes: Vec<Scope>,
    pub created_at: SystemTime,
    pub expires_at: Option<SystemTime>,
    pub revoked_at: Option<SystemTime>,
    pub last_used_at: Option<SystemTime>,
}

/// A token to make.
pub struct NewToken<'a> {
    pub name: &'a str,
    pub user_id: Option<i32>,
    pub sha256: [u8; 32],
    pub role: Role,
    pub scopes: &'a [Scope],
    pub expires_at: Option<SystemTime>,
}

/// What a token allows now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub api_token_id: i32,
    pub name: String,
    pub user_id: Option<i32>,
    /// Never more than its owner's.
    pub role: Role,
    pub scopes: Vec<Scope>,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Valid,
    Expired,
    Revoked,
}

const SELECT: &str =
    "SELECT api_token_id, t.name, t.user_id, a.name, t.role, scopes, t.created_at, expires_at,
                             revoked_at, last_used_at
                      FROM api_token t LEFT JOIN account a USING (user_id)";

/// Makes a token. `None` if its owner is gone.
pub async fn add(
    pool: &Pool,
    author: &Author,
    new: &NewToken<'_>,
) -> Result<Option<ApiTokenRow>, StoreError> {
    let scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.name()).collect();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "token_add").await?;
        let result = async {
            if let Some(user_id) = new.user_id {
                let sql = "SELECT 1 FROM account WHERE user_id = $1 AND disabled_at IS NULL FOR SHARE";
                if lease.client().query_opt(sql, &[&user_id]).await?.is_none() {
                    return Ok(None);
                }
            }
            let id: i32 = lease
                .client()
                .query_one(
                    "INSERT INTO api_token (name, user_id, token_sha256, role, scopes, expires_at)
                     VALUES ($1, $2, $3, $4, $5, $6) RETURNING api_token_id",
                    &[&new.name, &new.user_id, &&new.sha256[..], &new.role.name(), &scopes, &new.expires_at],
                )
                .await?
                .get(0);
            let row = lease.client().query_one(&format!("{SELECT} WHERE api_token_id = $1"), &[&id]).await?;
            let token = from_row(&row);
            let after =
                json!({"role": token.role.name(), "scopes": scopes, "expires": new.expires_at.is_some()});
            audit::record(&lease, author, &change("token.create", &token, Some(after))).await?;
            Ok(Some(token))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Revokes a token, if `owner` (where one is named) has it. Revoking twice keeps the first time. `None`
/// if there is no such token.
pub async fn revoke(
    pool: &Pool,
    author: &Author,
    api_token_id: i32,
    owner: Option<i32>,
) -> Result<Option<ApiTokenRow>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "token_revoke").await?;
        let result = async {
            let sql = "UPDATE api_token SET revoked_at = now()
                       WHERE api_token_id = $1 AND revoked_at IS NULL AND ($2::integer IS NULL OR user_id = $2)";
            let revoked = lease.client().execute(sql, &[&api_token_id, &owner]).await?;
            let sql = format!("{SELECT} WHERE api_token_id = $1 AND ($2::integer IS NULL OR t.user_id = $2)");
            let Some(row) = lease.client().query_opt(&sql, &[&api_token_id, &owner]).await? else {
                return Ok(None);
            };
            let token = from_row(&row);
            if revoked > 0 {
                audit::record(&lease, author, &change("token.revoke", &token, None)).await?;
            }
            Ok(Some(token))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Tokens after `after` in order of id, of one user or of all.
pub async fn list(
    pool: &Pool,
    user_id: Option<i32>,
    after: i32,
    limit: i64,
) -> Result<Vec<ApiTokenRow>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "token_list").await?;
        let sql = format!(
            "{SELECT} WHERE api_token_id > $1 AND ($2::integer IS NULL OR t.user_id = $2)
             ORDER BY api_token_id LIMIT $3"
        );
        let result = lease.client().query(&sql, &[&after, &user_id, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(from_row).collect())
}

/// What a token allows, valid or not. `None` if it is nobody's.
pub async fn by_hash(pool: &Pool, sha256: &[u8; 32]) -> Result<Option<Grant>, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "token_by_hash").await?;
        let result = async {
            let sql = "SELECT api_token_id, t.name, user_id, t.role, a.role, scopes,
                              revoked_at IS NOT NULL OR a.disabled_at IS NOT NULL,
                              coalesce(expires_at <= now(), false)
                       FROM api_token t LEFT JOIN account a USING (user_id) WHERE token_sha256 = $1";
            let statement = lease.prepared(sql).await?;
            Ok(lease.client().query_opt(&statement, &[&&sha256[..]]).await?)
        }
        .await;
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.map(|row| {
        let role = Role::stored(row.get(3));
        let owners = row.get::<_, Option<&str>>(4).map(Role::stored);
        Grant {
            api_token_id: row.get(0),
            name: row.get(1),
            user_id: row.get(2),
            role: owners.map_or(role, |owners| owners.min(role)),
            scopes: scopes(&row, 5),
            state: match (row.get(6), row.get(7)) {
                (true, _) => State::Revoked,
                (false, true) => State::Expired,
                (false, false) => State::Valid,
            },
        }
    }))
}

fn change(action: &'static str, token: &ApiTokenRow, after: Option<serde_json::Value>) -> Change {
    Change {
        action,
        subject_kind: "token",
        subject_id: Some(token.api_token_id.to_string()),
        subject_name: Some(token.name.clone()),
        before: None,
        after,
    }
}

fn scopes(row: &Row, at: usize) -> Vec<Scope> {
    row.get::<_, Vec<&str>>(at).into_iter().filter_map(Scope::stored).collect()
}

fn from_row(row: &Row) -> ApiTokenRow {
    ApiTokenRow {
        api_token_id: row.get(0),
        name: row.get(1),
        user_id: row.get(2),
        user: row.get(3),
        role: Role::stored(row.get(4)),
        scopes: scopes(row, 5),
        created_at: row.get(6),
        expires_at: row.get(7),
        revoked_at: row.get(8),
        last_used_at: row.get(9),
    }
}
