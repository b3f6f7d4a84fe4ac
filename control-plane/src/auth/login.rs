//! From a name and a password to a session, and from a refresh token to the next one.

use std::net::IpAddr;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::SecretString;
use sha2::Sha256;
use uuid::Uuid;

use super::access_token::Claims;
use super::{Auth, AuthError, PasswordError, RefreshToken};
use crate::store::audit::{self, Author, Change};
use crate::store::sessions::{self, Holder, Lifetimes, Opening, Refreshed};
use crate::store::throttle::{self, Attempt, Blocked, Key, Keys};
use crate::store::users::{self, Credentials};
use crate::store::{Pool, StoreError};

/// The account's so-manieth failure that goes to the audit log: by then the wait is half a minute.
const LOCKED_OUT_AT: i32 = 10;
/// A user agent is kept up to so many bytes.
const MAX_USER_AGENT: usize = 200;

/// Somebody who says who they are.
pub struct Login {
    pub name: String,
    pub password: SecretString,
    pub address: Option<IpAddr>,
    pub user_agent: String,
    pub request_id: String,
}

/// Shown once to whoever logged in.
pub struct Granted {
    pub access_token: String,
    pub access_token_s: u64,
    pub refresh_token: RefreshToken,
    pub holder: Holder,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The same for an unknown name, a wrong password and a disabled account.
    #[error("the name or the password is wrong")]
    Wrong,
    #[error("too many failed attempts; the next one may come in {seconds} s")]
    Blocked { by: Blocked, seconds: u32 },
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Auth {
    /// Checks a password and opens a session.
    pub async fn log_in(&self, pool: &Pool, login: Login) -> Result<Granted, LoginError> {
        let result = self.try_log_in(pool, login).await;
        let outcome = match &result {
            Ok(_) => "granted",
            Err(LoginError::Wrong) => "wrong",
            Err(LoginError::Blocked { by: Blocked::Account, .. }) => "blocked_account",
            Err(LoginError::Blocked { by: Blocked::Address, .. }) => "blocked_address",
            Err(_) => "failed",
        };
        self.metrics.logins.with_label_values(&[outcome]).inc();
        result
    }

    async fn try_log_in(&self, pool: &Pool, login: Login) -> Result<Granted, LoginError> {
        let name = login.name.to_lowercase();
        let account = if users::is_name(&name) { users::credentials(pool, &name).await? } else { None };
        let address = login.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let keys = self.throttle_keys(&name, account.as_ref(), login.address);
        let failures = match throttle::attempt(pool, &keys).await? {
            Attempt::Counted { failures } => failures,
            Attempt::Blocked { by, seconds } => {
                tell(&login.request_id, account.is_some().then_some(&name), &address, "blocked");
                return Err(LoginError::Blocked { by, seconds });
            }
        };
        let stored = account.as_ref().map(|account| account.password_hash.clone());
        let right = self.passwords.verify(login.password, stored).await?;
        let mut author = Author {
            kind: "user",
            id: account.as_ref().map(|account| account.user_id.to_string()),
            name,
            address: Some(address.clone()),
            request_id: Some(login.request_id),
        };
        let Some(account) = account.filter(|account| right && !account.disabled) else {
            let request_id = author.request_id.as_deref().unwrap_or_default();
            tell(request_id, author.id.is_some().then_some(&author.name), &address, "wrong");
            if failures == LOCKED_OUT_AT && author.id.is_some() {
                note_lock_out(pool, &mut author, failures).await?;
            }
            return Err(LoginError::Wrong);
        };
        let refresh_token = RefreshToken::generate().map_err(AuthError::from)?;
        let opening = Opening {
            user_id: account.user_id,
            password_hash: &account.password_hash,
            session_id: Uuid::new_v4(),
            refresh_sha256: refresh_token.sha256(),
            address: &address,
            user_agent: &shortened(&login.user_agent),
            lifetimes: self.lifetimes(),
            throttle: keys,
        };
        let holder = sessions::open(pool, &author, &opening).await?.ok_or(LoginError::Wrong)?;
        self.grant(holder, refresh_token)
    }

    /// Checks the password of somebody who is logged in, under the same limits as a login. Gives the
    /// stored hash that it matched; `None` if it is another one.
    pub async fn prove(
        &self,
        pool: &Pool,
        name: &str,
        password: SecretString,
        address: Option<IpAddr>,
    ) -> Result<Option<String>, LoginError> {
        let account = users::credentials(pool, name).await?;
        let keys = self.throttle_keys(name, account.as_ref(), address);
        if let Attempt::Blocked { by, seconds } = throttle::attempt(pool, &keys).await? {
            return Err(LoginError::Blocked { by, seconds });
        }
        let stored = account.map(|account| account.password_hash);
        if !self.passwords.verify(password, stored.clone()).await? {
            self.metrics.logins.with_label_values(&["wrong"]).inc();
            return Ok(None);
        }
        throttle::succeeded(pool, &keys).await?;
        Ok(stored)
    }

    fn throttle_keys(&self, name: &str, account: Option<&Credentials>, address: Option<IpAddr>) -> Keys {
        Keys {
            account: account.map_or_else(
                || Key::unknown_name(self.bucket(b"name", name.as_bytes())),
                |account| Key::account(account.user_id),
            ),
            address: Key::address(self.bucket(b"address", &prefix(address))),
        }
    }

    /// Trades a refresh token. A used one ends its session, and nobody is told why the door is shut.
    pub async fn refresh(
        &self,
        pool: &Pool,
        token: &str,
        address: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Granted, LoginError> {
        let used = RefreshToken::parse(token).ok_or(LoginError::Wrong)?;
        let new = RefreshToken::generate().map_err(AuthError::from)?;
        let author = Author {
            kind: "nobody",
            name: "holder of a refresh token".to_owned(),
            address: address.map(|address| address.to_string()),
            request_id: Some(request_id.to_owned()),
            id: None,
        };
        let (used, next, lifetimes) = (used.sha256(), new.sha256(), self.lifetimes());
        match sessions::refresh(pool, &author, &used, &next, lifetimes).await? {
            Refreshed::Continued(holder) => self.grant(holder, new),
            Refreshed::Reused(holder) => {
                self.forget_session(holder.session_id);
                self.metrics.refresh_tokens_reused.inc();
                tracing::warn!(user = holder.name, session = %holder.session_id, "a refresh token came twice: the session is over");
                Err(LoginError::Wrong)
            }
            Refreshed::Refused => Err(LoginError::Wrong),
        }
    }

    fn grant(&self, holder: Holder, refresh_token: RefreshToken) -> Result<Granted, LoginError> {
        let lasts = self.settings.access_token();
        let claims = Claims::new(holder.user_id, holder.session_id, lasts, SystemTime::now());
        let access_token = claims.sign(&*self.keys.signing()?).map_err(|_| AuthError::Key)?;
        Ok(Granted { access_token, access_token_s: lasts.as_secs(), refresh_token, holder })
    }

    fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            session_s: f64::from(self.settings.session_days) * 86_400.0,
            refresh_s: f64::from(self.settings.refresh_token_hours) * 3_600.0,
        }
    }

    /// A keyed hash: nobody who does not know the key can choose a bucket.
    fn bucket(&self, kind: &[u8], value: &[u8]) -> u32 {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.continuation_key()).expect("HMAC takes keys of every length");
        mac.update(b"weir login throttle ");
        mac.update(kind);
        mac.update(value);
        let bytes = mac.finalize().into_bytes();
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

/// A line in the log for whoever looks into failed logins. A name that nobody has may be a password in the
/// wrong field, so it is not repeated.
fn tell(request_id: &str, user: Option<&String>, address: &str, outcome: &str) {
    let user = user.map_or("(nobody)", String::as_str);
    tracing::warn!(request_id, user, address, outcome, "login failed");
}

async fn note_lock_out(pool: &Pool, author: &mut Author, failures: i32) -> Result<(), StoreError> {
    let change = Change {
        action: "user.locked_out",
        subject_kind: "user",
        subject_id: author.id.take(),
        subject_name: Some(std::mem::replace(&mut author.name, "somebody with a wrong password".to_owned())),
        before: None,
        after: Some(serde_json::json!({"failures": failures})),
    };
    author.kind = "nobody";
    audit::note(pool, author, &change).await
}

/// What one caller has: an IPv4 address, or an IPv6 network of 64 bits.
fn prefix(address: Option<IpAddr>) -> Vec<u8> {
    match address.map(|address| address.to_canonical()) {
        None => Vec::new(),
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets()[..8].to_vec(),
    }
}

/// Plain and short, as it goes into a table and onto screens.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    for char in text.chars().filter(|char| !char.is_control()) {
        if short.len() + char.len_utf8() > MAX_USER_AGENT {
            break;
        }
        short.push(char);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_caller_and_an_ipv4_address_is_one_however_it_is_written() {
        let of = |text: &str| prefix(Some(text.parse().expect("an address")));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_user_agent_is_cut_between_characters_and_has_no_control_characters() {
        assert_eq!(shortened("a\r\nb\0"), "ab");
        assert_eq!(shortened(&"é".repeat(300)).len(), MAX_USER_AGENT);
    }
}
