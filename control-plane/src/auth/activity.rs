//! Who was seen when: remembered here, written every few seconds, so that a request costs no write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use uuid::Uuid;

use super::{Principal, Who};
use crate::store::activity::{self, Seen};
use crate::store::presence::Sign;
use crate::store::{Pool, StoreError};

/// Time between two writes: what is lost with an instance that is killed.
const EVERY: Duration = Duration::from_secs(2);
/// Of each kind; more are not remembered until the next write.
const MOST: usize = 10_000;

/// Seen since the last write.
#[derive(Default)]
pub struct Activity {
    users: Mutex<HashMap<i32, SystemTime>>,
    sessions: Mutex<HashMap<Uuid, SystemTime>>,
    tokens: Mutex<HashMap<i32, SystemTime>>,
    sensors: Mutex<HashMap<i32, Heard>>,
}

/// When a sensor was heard of, and what its heartbeat said.
#[derive(Clone)]
struct Heard {
    at: Instant,
    beat: Option<(Arc<str>, Instant)>,
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

    /// A sensor's credential was good, or its heartbeat said this.
    pub fn sensor(&self, sensor_id: i32, beat: Option<Arc<str>>) {
        let at = Instant::now();
        self.hear(sensor_id, Heard { at, beat: beat.map(|beat| (beat, at)) });
    }

    fn hear(&self, sensor_id: i32, new: Heard) {
        let mut sensors = self.sensors.lock().unwrap_or_else(PoisonError::into_inner);
        let full = sensors.len() >= MOST;
        match sensors.get_mut(&sensor_id) {
            Some(known) => {
                known.at = known.at.max(new.at);
                if let Some((_, at)) = &new.beat
                    && known.beat.as_ref().is_none_or(|(_, known)| known <= at)
                {
                    known.beat = new.beat;
                }
            }
            None if full => {}
            None => {
                sensors.insert(sensor_id, new);
            }
        }
    }

    /// Writes what was seen. What could not be written of people is forgotten, the next request tells it anew;
    /// of sensors it is kept, or they would seem silent.
    pub async fn write(&self, pool: &Pool) -> Result<(), StoreError> {
        let heard = std::mem::take(&mut *self.sensors.lock().unwrap_or_else(PoisonError::into_inner));
        let mut sensors: Vec<Sign> = heard
            .iter()
            .map(|(sensor_id, heard)| Sign {
                sensor_id: *sensor_id,
                age: heard.at.elapsed(),
                beat: heard.beat.as_ref().map(|(beat, at)| (Arc::clone(beat), at.elapsed())),
            })
            .collect();
        sensors.sort_by_key(|sign| sign.sensor_id);
        let (users, sessions, tokens) = (take(&self.users), take(&self.sessions), take(&self.tokens));
        let seen = Seen { users, sessions, tokens, sensors };
        if seen.users.is_empty()
            && seen.sessions.is_empty()
            && seen.tokens.is_empty()
            && seen.sensors.is_empty()
        {
            return Ok(());
        }
        let written = activity::write(pool, &seen).await;
        if written.is_err() {
            for (sensor_id, heard) in heard {
                self.hear(sensor_id, heard);
            }
        }
        written
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
                tracing::warn!(%error, "write when users, tokens and sensors were last seen");
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
