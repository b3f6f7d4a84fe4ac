//! Passwords: what may be one, and Argon2id with OWASP's parameters, off the runtime's threads.
//!
//! A hash takes 19 MiB and a good part of a core for some 50 ms, so only a few run at once; who waits
//! longer than [`PATIENCE`] is told that the server is busy. Strangers cannot take all of the machine.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::TryRngCore as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

/// OWASP Password Storage Cheat Sheet: Argon2id, m = 19 MiB, t = 2, p = 1.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const MAX_AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(5);

/// Shorter ones are within reach of a stolen table.
pub const MIN_CHARACTERS: usize = 12;
/// Longer text is no password and would only cost time.
pub const MAX_BYTES: usize = 256;
const MIN_DISTINCT: usize = 5;

/// Why there is no hash, or no verdict.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    #[error("hash a password: {0}")]
    Hash(String),
}

/// What is wrong with a new password; `None` if it may be one.
#[must_use]
pub fn weakness(password: &str, name: &str) -> Option<&'static str> {
    let mut distinct: Vec<char> = password.to_lowercase().chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let lower = password.to_lowercase();
    if password.chars().count() < MIN_CHARACTERS {
        Some("has fewer than 12 characters")
    } else if password.len() > MAX_BYTES {
        Some("has more than 256 bytes")
    } else if distinct.len() < MIN_DISTINCT {
        Some("has fewer than 5 different characters")
    } else if name.len() > 3 && lower.contains(&name.to_lowercase()) {
        Some("contains the user's name")
    } else {
        None
    }
}

/// Hashes and verifies, a few at once.
#[derive(Clone)]
pub struct Passwords {
    slots: Arc<Semaphore>,
    /// Verified where there is no account, so that its absence does not show in the time.
    decoy: Arc<str>,
}

impl Passwords {
    pub fn new() -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let decoy = hash(b"no account has this one")?;
        Ok(Self { slots: Arc::new(Semaphore::new(cores.clamp(1, MAX_AT_ONCE))), decoy: decoy.into() })
    }

    /// The PHC string of a password with a new salt.
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        self.run(move || hash(password.expose_secret().as_bytes())).await?
    }

    /// Whether the password is the one of `stored`; without a stored hash the same work, and no.
    pub async fn verify(
        &self,
        password: SecretString,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        let decoy = Arc::clone(&self.decoy);
        self.run(move || {
            let known = stored.is_some();
            let stored = stored.as_deref().unwrap_or(&decoy);
            let stored = PasswordHash::new(stored).map_err(|error| PasswordError::Hash(error.to_string()))?;
            let same = argon2()?.verify_password(password.expose_secret().as_bytes(), &stored).is_ok();
            Ok(same && known)
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let waited = tokio::time::timeout(PATIENCE, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(slot)) = waited else { return Err(PasswordError::Busy) };
        // The slot goes with the work, which goes on when the caller does not.
        let done = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            work()
        });
        done.await.map_err(|error| PasswordError::Hash(error.to_string()))
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8]) -> Result<String, PasswordError> {
    let mut salt = [0_u8; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut salt).map_err(|error| PasswordError::Hash(error.to_string()))?;
    let hash = argon2()?
        .hash_password_with_salt(password, &salt)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    /// U1: the parameters are in the hash, two hashes of one password differ, and only it verifies.
    #[tokio::test]
    async fn u1_only_the_password_verifies_and_the_hash_is_argon2id() {
        let passwords = Passwords::new().expect("it hashes");
        let one = passwords.hash(secret("correct horse battery")).await.expect("hashed");
        let two = passwords.hash(secret("correct horse battery")).await.expect("hashed");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, two);
        let verify = async |password: &str, stored: Option<&String>| {
            passwords.verify(secret(password), stored.cloned()).await.expect("a verdict")
        };
        assert!(verify("correct horse battery", Some(&one)).await);
        assert!(!verify("correct horse batterz", Some(&one)).await);
        assert!(!verify("no account has this one", None).await, "the decoy is nobody's password");
    }

    #[test]
    fn a_weak_password_is_refused_with_its_reason() {
        for weak in
            ["", "short", "aaaaaaaaaaaaaaaa", "abababababab1", &"long enough ".repeat(30), "alice-in-chains"]
        {
            assert!(weakness(weak, "alice").is_some(), "{weak}");
        }
        for fine in ["correct horse battery", "пароль-с-буквами", "x9$kPq2!vBn7"] {
            assert_eq!(weakness(fine, "alice"), None, "{fine}");
        }
    }
}
