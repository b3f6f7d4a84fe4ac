//! The Ed25519 keys that sign access tokens: shared through the database, rotated, known by `kid`.
//!
//! Every instance reads them once a minute and when a token names one that it does not know. A new key is
//! made when the newest gets old; it signs only [`Keys::LEAD`] later, when every instance knows it, and the old
//! one verifies until the last token that it signed has ended.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::{AuthError, token};
use crate::store::signing::{self, Rotation, SigningKey};
use crate::store::{Pool, StoreError};

/// Unknown key ids cost one look a second, not one a request.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// A key with its id.
pub struct Key {
    pub kid: String,
    pub pair: Ed25519KeyPair,
    signs_from: SystemTime,
}

impl Key {
    /// The public half, as JWKs have it.
    #[must_use]
    pub fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref())
    }
}

/// The keys as this instance knows them, newest first.
pub struct Keys {
    rotation: Rotation,
    known: RwLock<Arc<Vec<Arc<Key>>>>,
    read_at: RwLock<Instant>,
}

impl Keys {
    /// From being made to being used.
    pub const LEAD: Duration = Duration::from_mins(2);

    /// Reads the keys and makes the first one where there is none.
    pub async fn load(pool: &Pool, every: Duration, access_token: Duration) -> Result<Self, AuthError> {
        let rotation = Rotation { every, lead: Self::LEAD, trail: access_token + Self::LEAD };
        let keys = Self { rotation, known: RwLock::default(), read_at: RwLock::new(Instant::now()) };
        keys.refresh(pool, false).await?;
        Ok(keys)
    }

    /// Reads them again, and makes a new one if it is time, or if `now`.
    pub async fn refresh(&self, pool: &Pool, now: bool) -> Result<(), AuthError> {
        let offered = SigningKey {
            kid: URL_SAFE_NO_PAD.encode(&token::random()?[..12]),
            seed: token::random()?,
            signs_from: SystemTime::now(),
        };
        let rows = signing::rotate(pool, self.rotation, now, &offered).await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let pair = Ed25519KeyPair::from_seed_unchecked(&row.seed).map_err(|_| AuthError::Key)?;
            keys.push(Arc::new(Key { kid: row.kid, pair, signs_from: row.signs_from }));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// The key that signs now.
    pub fn signing(&self) -> Result<Arc<Key>, AuthError> {
        let (known, now) = (self.all(), SystemTime::now());
        let signs = known.iter().find(|key| key.signs_from <= now).or_else(|| known.last());
        signs.cloned().ok_or(AuthError::Key)
    }

    /// The key of this id; asks the database about one that another instance may have made.
    pub async fn verifying(&self, pool: &Pool, kid: &str) -> Result<Option<Arc<Key>>, StoreError> {
        let find = || self.all().iter().find(|key| key.kid == kid).cloned();
        if let Some(key) = find() {
            return Ok(Some(key));
        }
        {
            let mut read_at = self.read_at.write().unwrap_or_else(PoisonError::into_inner);
            if read_at.elapsed() < RELOAD_EVERY {
                return Ok(None);
            }
            *read_at = Instant::now();
        }
        match self.refresh(pool, false).await {
            Ok(()) => Ok(find()),
            Err(AuthError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "read the signing keys");
                Ok(None)
            }
        }
    }

    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<Key>>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
pub mod test_key {
    use super::*;

    /// A key of a test's own.
    pub fn of(seed: u8) -> Key {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("any seed is a key");
        Key { kid: format!("test-{seed}"), pair, signs_from: UNIX }
    }

    const UNIX: SystemTime = std::time::UNIX_EPOCH;
}
