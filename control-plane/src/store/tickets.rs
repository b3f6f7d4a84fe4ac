//! Tickets for streams: made by whoever has a credential, used up by the one stream that they open.

use std::time::SystemTime;

use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{Class, Isolation, Pool, StoreError};

/// Whose ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    AdminToken,
    Session(Uuid),
    Token(i32),
}

/// What a ticket stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    AdminToken,
    Session(Uuid),
    /// The hash of the API token.
    Token([u8; 32]),
}

/// A ticket that was just used up.
#[derive(Clone, Debug)]
pub struct Issued {
    pub of: Holds,
    pub until: Option<SystemTime>,
}

/// Makes a ticket; `false` if its maker is gone.
pub async fn add(
    pool: &Pool,
    sha256: &[u8; 32],
    maker: Maker,
    until: Option<SystemTime>,
    seconds: f64,
) -> Result<bool, StoreError> {
    let (session_id, api_token_id) = match maker {
        Maker::AdminToken => (None, None),
        Maker::Session(id) => (Some(id), None),
        Maker::Token(id) => (None, Some(id)),
    };
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "ticket_add").await?;
        let result = async {
            let client = lease.client();
            client.execute("DELETE FROM stream_ticket WHERE expires_at <= now()", &[]).await?;
            let sql =
                "INSERT INTO stream_ticket (ticket_sha256, session_id, api_token_id, valid_until, expires_at)
                       VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))";
            client.execute(sql, &[&&sha256[..], &session_id, &api_token_id, &until, &seconds]).await?;
            Ok(true)
        }
        .await;
        lease.finish(result).await
    };
    match pool.within(Class::Admin, work).await {
        Err(StoreError::Database(error)) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            Ok(false)
        }
        result => result,
    }
}

/// Uses a ticket up. `None` if there is none, or its time is over.
pub async fn redeem(pool: &Pool, sha256: &[u8; 32]) -> Result<Option<Issued>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "ticket_redeem").await?;
        let sql = "DELETE FROM stream_ticket t WHERE ticket_sha256 = $1 AND expires_at > now()
                   RETURNING session_id, api_token_id IS NOT NULL, valid_until,
                       (SELECT token_sha256 FROM api_token a WHERE a.api_token_id = t.api_token_id)";
        let result = lease.client().query_opt(sql, &[&&sha256[..]]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let Some(row) = pool.within(Class::Admin, work).await? else { return Ok(None) };
    let token: Option<&[u8]> = row.get(3);
    let of = match (row.get::<_, Option<Uuid>>(0), token.and_then(|hash| <[u8; 32]>::try_from(hash).ok())) {
        (Some(session_id), _) => Holds::Session(session_id),
        (None, Some(hash)) => Holds::Token(hash),
        (None, None) if row.get(1) => return Ok(None),
        (None, None) => Holds::AdminToken,
    };
    Ok(Some(Issued { of, until: row.get(2) }))
}
