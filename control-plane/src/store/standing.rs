//! Whether credentials that were valid still are: those of all open streams, in one question.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Class, Isolation, Pool, StoreError};
use crate::auth::{Role, Scope};

/// What the sessions and tokens that were asked about allow now; those that are over are not in here.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub sessions: Vec<(Uuid, Role)>,
    pub tokens: Vec<(i32, Role, Vec<Scope>)>,
}

/// Asks about sessions and API tokens.
pub async fn of(pool: &Pool, sessions: &[Uuid], tokens: &[i32]) -> Result<Standing, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "standing").await?;
        let result = async {
            let of_sessions = lease
                .prepared(
                    "SELECT session_id, a.role FROM session JOIN account a USING (user_id)
                     WHERE session_id = ANY ($1) AND ended_at IS NULL AND expires_at > now()
                       AND disabled_at IS NULL",
                )
                .await?;
            let of_tokens = lease
                .prepared(
                    "SELECT api_token_id, t.role, a.role, scopes
                     FROM api_token t LEFT JOIN account a USING (user_id)
                     WHERE api_token_id = ANY ($1) AND revoked_at IS NULL AND a.disabled_at IS NULL
                       AND coalesce(expires_at > now(), true)",
                )
                .await?;
            let client = lease.client();
            let (sessions, tokens): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) =
                ([&sessions], [&tokens]);
            Ok(tokio::try_join!(client.query(&of_sessions, &sessions), client.query(&of_tokens, &tokens))?)
        }
        .await;
        lease.finish(result).await
    };
    let (sessions, tokens) = pool.within(Class::Admin, work).await?;
    Ok(Standing {
        sessions: sessions.iter().map(|row| (row.get(0), Role::stored(row.get(1)))).collect(),
        tokens: tokens
            .iter()
            .map(|row| {
                let role = Role::stored(row.get(1));
                // Never more than its owner's.
                let owners = row.get::<_, Option<&str>>(2).map(Role::stored);
                let scopes = row.get::<_, Vec<&str>>(3).into_iter().filter_map(Scope::stored).collect();
                (row.get(0), owners.map_or(role, |owners| owners.min(role)), scopes)
            })
            .collect(),
    })
}
