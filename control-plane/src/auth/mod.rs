//! Who is asking: sensors by their own token, operators by one token from a file.
//!
//! A sensor's token is 32 random bytes, so its SHA-256 is as good as a slow hash and can be looked up. An
//! answer of that look-up is kept for a few seconds; the transaction that stores a batch looks at
//! `revoked_at` again under a lock, so a revoked sensor stores nothing, whatever is remembered here.

mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::store::sensors::{Identity, Standing};
use crate::store::{Pool, StoreError, sensors};

pub use token::SensorToken;

/// How long an answer about a token is believed.
const MEMORY: Duration = Duration::from_secs(5);
/// Tokens remembered at most, wrong ones included.
const MEMORY_SIZE: usize = 10_000;

/// What a bearer token turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SensorCheck {
    Known {
        sensor_id: i32,
        name: Arc<str>,
    },
    Revoked {
        name: Arc<str>,
    },
    /// Deleted.
    Gone {
        name: Arc<str>,
    },
    Unknown,
}

/// By the hash of a token: what it was, and when that was looked up.
type Remembered = HashMap<[u8; 32], (Instant, SensorCheck)>;

/// The operators' token and the sensors' look-up.
#[derive(Clone)]
pub struct Auth {
    admin_sha256: [u8; 32],
    token_key: [u8; 32],
    remembered: Arc<Mutex<Remembered>>,
}

impl Auth {
    #[must_use]
    pub fn new(admin_token: &SecretString) -> Self {
        Self {
            admin_sha256: Sha256::digest(admin_token.expose_secret().as_bytes()).into(),
            token_key: derive(admin_token, b"weir continuation token, version 1"),
            remembered: Arc::default(),
        }
    }

    /// Compares hashes in constant time, so neither the token nor its length shows in the answer's time.
    #[must_use]
    pub fn is_admin(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        given.ct_eq(&self.admin_sha256).into()
    }

    /// Key that signs continuation tokens: the same on every instance that has the same admin token.
    #[must_use]
    pub fn continuation_key(&self) -> &[u8; 32] {
        &self.token_key
    }

    /// Looks a sensor's token up.
    pub async fn sensor(&self, pool: &Pool, token: &str) -> Result<SensorCheck, StoreError> {
        // What no token of ours looks like costs no connection.
        let Some(token) = SensorToken::parse(token) else {
            return Ok(SensorCheck::Unknown);
        };
        let hash = token.sha256();
        if let Some(check) = self.recall(&hash) {
            return Ok(check);
        }
        let check = match sensors::by_token(pool, &hash).await? {
            Some(Identity { sensor_id, name, standing }) => match standing {
                Standing::Active => SensorCheck::Known { sensor_id, name: name.into() },
                Standing::Revoked => SensorCheck::Revoked { name: name.into() },
                Standing::Gone => SensorCheck::Gone { name: name.into() },
            },
            None => SensorCheck::Unknown,
        };
        self.remember(hash, check.clone());
        Ok(check)
    }

    /// Forgets what was remembered of a token: the store found its sensor revoked.
    pub fn forget(&self, sensor_id: i32) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|_, (_, check)| {
            !matches!(check, SensorCheck::Known { sensor_id: known, .. } if *known == sensor_id)
        });
    }

    fn recall(&self, hash: &[u8; 32]) -> Option<SensorCheck> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, check) = remembered.get(hash)?;
        (at.elapsed() < MEMORY).then(|| check.clone())
    }

    fn remember(&self, hash: [u8; 32], check: SensorCheck) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MEMORY_SIZE {
            remembered.retain(|_, (at, _)| at.elapsed() < MEMORY);
        }
        if remembered.len() < MEMORY_SIZE {
            remembered.insert(hash, (Instant::now(), check));
        }
    }
}

fn derive(secret: &SecretString, purpose: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of every length");
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_admin_token_is_the_admin() {
        let auth = Auth::new(&SecretString::from("0123456789abcdef01234567".to_owned()));
        assert!(auth.is_admin("0123456789abcdef01234567"));
        for wrong in ["", "0123456789abcdef0123456", "0123456789abcdef012345678", "0123456789ABCDEF01234567"]
        {
            assert!(!auth.is_admin(wrong), "{wrong:?}");
        }
    }
}
