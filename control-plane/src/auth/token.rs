//! A sensor's token: `weir_s_` and 32 random bytes as base64url.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// Tells secret scanners, and people, what they found.
const PREFIX: &str = "weir_s_";
const BYTES: usize = 32;

/// Shown once, when made; the database has its hash.
pub struct SensorToken(SecretString);

impl SensorToken {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Result<Self, rand::rand_core::OsError> {
        let mut bytes = [0_u8; BYTES];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes)?;
        Ok(Self(SecretString::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))))
    }

    /// `None` for text that no token of ours looks like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (bytes.len() == BYTES).then(|| Self(SecretString::from(text.to_owned())))
    }

    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.expose_secret().as_bytes()).into()
    }

    /// For the one time that it is printed.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_parses_and_no_other_text_does() {
        let token = SensorToken::generate().expect("the system has randomness");
        let parsed = SensorToken::parse(token.expose()).expect("it is a token");
        assert_eq!(parsed.sha256(), token.sha256());
        for wrong in ["", "weir_s_", "weir_s_short", &token.expose()[1..], &format!("{}x", token.expose())] {
            assert!(SensorToken::parse(wrong).is_none(), "{wrong}");
        }
    }
}
