//! Secrets that we hand out: a prefix that tells their kind, and 32 random bytes as base64url.
//!
//! With 256 random bits a plain SHA-256 is as good as a slow hash, and it can be looked up.

use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const BYTES: usize = 32;

/// What a secret is for.
pub trait Kind {
    /// Tells secret scanners, and people, what they found.
    const PREFIX: &'static str;
}

macro_rules! kind {
    ($(#[$doc:meta])* $alias:ident, $kind:ident, $prefix:literal) => {
        #[derive(Debug)]
        pub enum $kind {}
        impl Kind for $kind {
            const PREFIX: &'static str = $prefix;
        }
        $(#[$doc])*
        pub type $alias = Token<$kind>;
    };
}

kind!(
    /// A sensor's own.
    SensorToken, OfSensor, "weir_s_"
);
kind!(
    /// Enrols a sensor, once.
    EnrollmentToken, OfEnrollment, "weir_e_"
);
kind!(
    /// A machine's, for the API.
    ApiToken, OfMachine, "weir_a_"
);
kind!(
    /// Continues a session, once.
    RefreshToken, OfSession, "weir_r_"
);
kind!(
    /// Makes the first admin, once.
    SetupToken, OfSetup, "weir_u_"
);

kind!(
    /// Opens one stream, within seconds, where a client cannot send a header.
    Ticket, OfStream, "weir_t_"
);

kind!(
    /// Confirms one erasure, once, within minutes.
    EraseToken, OfErasure, "weir_x_"
);

/// Shown once, when made; the database has its hash.
pub struct Token<K>(SecretString, PhantomData<K>);

impl<K: Kind> Token<K> {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Result<Self, rand::rand_core::OsError> {
        let bytes = random()?;
        Ok(Self::of(format!("{}{}", K::PREFIX, URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// `None` for text that no token of this kind looks like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(K::PREFIX)?).ok()?;
        (bytes.len() == BYTES).then(|| Self::of(text.to_owned()))
    }

    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.expose_secret().as_bytes()).into()
    }

    /// For the one time that it is shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    fn of(text: String) -> Self {
        Self(SecretString::from(text), PhantomData)
    }
}

/// 256 bits of the operating system's randomness.
pub fn random() -> Result<[u8; BYTES], rand::rand_core::OsError> {
    let mut bytes = [0_u8; BYTES];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes)?;
    Ok(bytes)
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

    #[test]
    fn a_token_of_one_kind_is_none_of_another() {
        let sensor = SensorToken::generate().expect("the system has randomness");
        assert!(ApiToken::parse(sensor.expose()).is_none());
        let refresh = RefreshToken::generate().expect("the system has randomness");
        assert!(SetupToken::parse(refresh.expose()).is_none());
        assert!(ApiToken::parse(refresh.expose()).is_none());
    }
}
