//! Ends the streams of credentials that do not hold any more, on every instance within a second: as soon as
//! an event of the audit log comes by, and every half second whether one does or not.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::access::may;
use super::hub::Member;
use super::{End, Shared};
use crate::auth::{Role, Scope, Who};
use crate::store::standing::{self, Standing};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Many that come at once are looked at together.
const GATHER: Duration = Duration::from_millis(20);

/// Looks until `stop` changes.
pub(super) async fn run(shared: &Shared, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = shared.doubt.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.changed() => return,
        }
        tokio::select! {
            () = look(shared) => {}
            _ = stop.changed() => return,
        }
    }
}

async fn look(shared: &Shared) {
    let who = shared.hub.survey(|member| match member.principal.who {
        Who::AdminToken => None,
        Who::User { session_id, .. } => Some(Asked::Session(session_id)),
        Who::Machine { api_token_id, .. } => Some(Asked::Token(api_token_id)),
    });
    if who.is_empty() {
        return;
    }
    let (mut sessions, mut tokens) = (HashSet::new(), HashSet::new());
    for asked in who {
        match asked {
            Asked::Session(id) => drop(sessions.insert(id)),
            Asked::Token(id) => drop(tokens.insert(id)),
        }
    }
    let sessions: Vec<Uuid> = sessions.into_iter().collect();
    let tokens: Vec<i32> = tokens.into_iter().collect();
    match standing::of(&shared.pool, &sessions, &tokens).await {
        Ok(standing) => {
            let holding = Holding::new(standing, sessions, tokens);
            shared.hub.end_where(|member| (!holding.holds(member)).then_some(End::Revoked));
        }
        // Without the database no event comes through either.
        Err(error) => tracing::warn!(%error, "look at the credentials of streams; it is tried again"),
    }
}

enum Asked {
    Session(Uuid),
    Token(i32),
}

/// What the credentials that were asked about allow.
struct Holding {
    sessions: HashMap<Uuid, Option<Role>>,
    tokens: HashMap<i32, Option<(Role, Vec<Scope>)>>,
}

impl Holding {
    fn new(standing: Standing, sessions: Vec<Uuid>, tokens: Vec<i32>) -> Self {
        let mut holding = Self {
            sessions: sessions.into_iter().map(|id| (id, None)).collect(),
            tokens: tokens.into_iter().map(|id| (id, None)).collect(),
        };
        holding.sessions.extend(standing.sessions.into_iter().map(|(id, role)| (id, Some(role))));
        let tokens = standing.tokens.into_iter().map(|(id, role, scopes)| (id, Some((role, scopes))));
        holding.tokens.extend(tokens);
        holding
    }

    /// Whether a follower may still read all of its topics. Who came after the question is not judged.
    fn holds(&self, member: &Member) -> bool {
        let all = |role: Role, scopes: Option<&[Scope]>| {
            member.topics.iter().all(|topic| may(role, scopes, *topic))
        };
        match &member.principal.who {
            Who::AdminToken => true,
            Who::User { session_id, .. } => match self.sessions.get(session_id) {
                Some(role) => role.is_some_and(|role| all(role, None)),
                None => true,
            },
            Who::Machine { api_token_id, .. } => match self.tokens.get(api_token_id) {
                Some(grant) => grant.as_ref().is_some_and(|(role, scopes)| all(*role, Some(scopes))),
                None => true,
            },
        }
    }
}
