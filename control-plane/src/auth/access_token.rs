//! Access tokens: JWTs (RFC 7519) signed with Ed25519 (`EdDSA`, RFC 8037), for a few minutes.
//!
//! A token says who and which session, not what they may: role and revocation are looked up, so that
//! they change at once. One algorithm, one issuer, one audience; whatever differs is no token. Written on
//! `ring`, which is in the tree: the JWT crates bring a second cryptography library for these 100 lines
//! (docs/decisions/0030-identity.md).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::Key;

pub const ISSUER: &str = "weir";
/// Who the tokens are for. Sensors' tokens are no JWTs, and for nobody else.
pub const AUDIENCE: &str = "weir-api";
const ALGORITHM: &str = "EdDSA";
/// Ours have some 400 bytes.
const MAX_LENGTH: usize = 1_024;
/// Instances' clocks may differ by so much.
const SKEW_S: u64 = 60;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    /// The user's id
    pub sub: String,
    /// The session
    pub sid: Uuid,
    pub iat: u64,
    pub exp: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// Why a token is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Not ours, or changed.
    Token,
    Expired,
    Audience,
}

impl Claims {
    /// For a session, from now on.
    #[must_use]
    pub fn new(user_id: i32, session: Uuid, lasts: Duration, now: SystemTime) -> Self {
        let iat = seconds(now);
        Self {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id.to_string(),
            sid: session,
            iat,
            exp: iat + lasts.as_secs(),
        }
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.exp)
    }

    /// The token in JWS compact serialisation.
    pub fn sign(&self, key: &Key) -> Result<String, serde_json::Error> {
        let header = Header { alg: ALGORITHM.to_owned(), typ: "JWT".to_owned(), kid: key.kid.clone() };
        let mut text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(self)?, &mut text);
        let signature = key.pair.sign(text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut text);
        Ok(text)
    }
}

/// Whether text could be an access token, before anything is looked up. Gives the id of its key.
#[must_use]
pub fn key_id(token: &str) -> Option<String> {
    if token.len() > MAX_LENGTH || token.split('.').count() != 3 {
        return None;
    }
    let header: Header = part(token.split('.').next()?)?;
    (header.alg == ALGORITHM && header.typ == "JWT" && header.kid.len() <= 64).then_some(header.kid)
}

/// What the token says, if this key signed it and it holds now.
pub fn verify(token: &str, key: &Key, now: SystemTime) -> Result<Claims, Invalid> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Invalid::Token)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Invalid::Token)?;
    UnparsedPublicKey::new(&ED25519, key.pair.public_key().as_ref())
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| Invalid::Token)?;
    let claims: Claims = signed.split_once('.').and_then(|(_, claims)| part(claims)).ok_or(Invalid::Token)?;
    let now = seconds(now);
    if claims.iss != ISSUER || claims.iat > now + SKEW_S {
        Err(Invalid::Token)
    } else if claims.aud != AUDIENCE {
        Err(Invalid::Audience)
    } else if claims.exp <= now {
        Err(Invalid::Expired)
    } else {
        Ok(claims)
    }
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::test_key;

    const LASTS: Duration = Duration::from_mins(5);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_007)
    }

    fn claims() -> Claims {
        Claims::new(7, Uuid::from_u128(1), LASTS, now())
    }

    #[test]
    fn a_token_verifies_to_what_was_signed() {
        let key = test_key::of(1);
        let token = claims().sign(&key).expect("it signs");
        assert_eq!(key_id(&token).as_deref(), Some("test-1"));
        assert_eq!(verify(&token, &key, now()), Ok(claims()));
        let last_moment = now() + Duration::from_secs(299);
        assert_eq!(verify(&token, &key, last_moment), Ok(claims()));
        assert_eq!(verify(&token, &key, now() + LASTS), Err(Invalid::Expired));
    }

    /// U1: another key, audience, issuer, algorithm, or any changed character makes it no token.
    #[test]
    fn u1_nothing_else_verifies() {
        let key = test_key::of(1);
        let token = claims().sign(&key).expect("it signs");
        assert_eq!(verify(&token, &test_key::of(2), now()), Err(Invalid::Token));
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(changed == token || verify(&changed, &key, now()).is_err(), "{at}: {changed}");
        }
        let other = |claims: Claims| verify(&claims.sign(&key).expect("it signs"), &key, now());
        assert_eq!(other(Claims { aud: "weir-sensor".to_owned(), ..claims() }), Err(Invalid::Audience));
        assert_eq!(other(Claims { iss: "else".to_owned(), ..claims() }), Err(Invalid::Token));
        assert_eq!(other(Claims { iat: 1_800_000_068, ..claims() }), Err(Invalid::Token));
        let header = |text: &str| format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(text));
        assert_eq!(key_id(&header(r#"{"alg":"EdDSA","typ":"JWT","kid":"k"}"#)).as_deref(), Some("k"));
        for wrong in [
            r#"{"alg":"none","typ":"JWT","kid":"k"}"#,
            r#"{"alg":"HS256","typ":"JWT","kid":"k"}"#,
            r#"{"alg":"EdDSA","typ":"JWT"}"#,
            "{}",
            "",
        ] {
            assert_eq!(key_id(&header(wrong)), None, "{wrong}");
        }
        assert_eq!(key_id("a.b"), None);
        assert_eq!(key_id(&"a".repeat(2_000)), None);
    }
}
