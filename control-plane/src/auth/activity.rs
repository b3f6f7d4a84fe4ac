//! Who was seen when: remembered here, written every few seconds, so that a request costs no write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use uuid::Uuid;

use super::{Principal, Who};
use crate::store::activity::{self, Seen};
use crate::store::{Pool, StoreError};

/// Time between two writes.
const EVERY: Duration = Duration::from_secs(5);
/// Of each kind; more are not remembered until the next write.
const MOST: usize = 10_000;

/// Seen since the last write.
#[derive(Default)]
pub struct Activity {
    users: Mutex<HashMap<i32, SystemTime>>,
    sessions: Mutex<HashMap<Uuid, SystemTime>>,
    tokens: Mutex<HashMap<i32, SystemTime>>,
}

impl Activity {
    pub fn note(&self, principal: &Principal) {
        match principal.who {
            Who::AdminToken => {}
            Who::User { user_id, session_id } => {
                note(&self.users, user_id);
                note(&self.sessions, session_id);
            }
            Who::Machine { api_token_id, .. } => note(&self.tokens, api_token_id),
        }
    }

    /// Writes what was seen; what could not be written is forgotten, the next request tells it anew.
    pub async fn write(&self, pool: &Pool) -> Result<(), StoreError> {
        let seen =
            Seen { users: take(&self.users), sessions: take(&self.sessions), tokens: take(&self.tokens) };
        if seen.users.is_empty() && seen.sessions.is_empty() && seen.tokens.is_empty() {
            return Ok(());
        }
        activity::write(pool, &seen).await
    }

    /// Writes until `stop` changes or its sender is gone, and once more then.
    pub async fn run(&self, pool: &Pool, mut stop: watch::Receiver<bool>) {
        let mut going = true;
        while going {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = stop.changed() => going = false,
            }
            if let Err(error) = self.write(pool).await {
                tracing::warn!(%error, "write when users and tokens were last seen");
            }
        }
    }
}

fn note<K: std::hash::Hash + Eq>(map: &Mutex<HashMap<K, SystemTime>>, key: K) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if map.len() < MOST || map.contains_key(&key) {
        map.insert(key, SystemTime::now());
    }
}

/// In order of key, so that two instances do not wait for each other's rows.
fn take<K: Ord>(map: &Mutex<HashMap<K, SystemTime>>) -> Vec<(K, SystemTime)> {
    let map = std::mem::take(&mut *map.lock().unwrap_or_else(PoisonError::into_inner));
    let mut seen: Vec<(K, SystemTime)> = map.into_iter().collect();
    seen.sort_by(|one, other| one.0.cmp(&other.0));
    seen
}
