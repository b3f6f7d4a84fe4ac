//! Who is asking: people by their sessions, machines by API tokens, sensors by their own tokens, and
//! whoever holds the admin token of the configuration.
//!
//! What a credential is worth is looked up in the database and believed for [`MOMENT`]: a role that
//! changes, a session that ends, a token that is revoked takes effect on every instance within that time,
//! and at once where it was changed. With the database away nothing is known, and nobody passes.

mod access_token;
mod activity;
mod keys;
mod login;
mod memory;
mod password;
mod role;
mod token;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use uuid::Uuid;

use crate::config;
use crate::store::credentials::{self, Standing};
use crate::store::sessions::{self, Holder};
use crate::store::tickets::{self, Holds};
use crate::store::tokens::{self, Grant, State};
use crate::store::{Pool, StoreError, signing};
use crate::telemetry::Metrics;
use memory::Memory;

pub use access_token::{AUDIENCE, Claims, ISSUER, Invalid};
pub use activity::Activity;
pub use keys::{Key, Keys};
pub use login::{Granted, Login, LoginError};
pub use password::{MAX_BYTES as MAX_PASSWORD_BYTES, PasswordError, Passwords, weakness};
pub use role::{Role, Scope};
pub use token::{ApiToken, EnrollmentToken, EraseToken, RefreshToken, SensorToken, SetupToken, Ticket};

/// How long an answer about a credential is believed: half of the second within which a revocation must take
/// effect everywhere. A sensor's batches are checked again in the transaction that stores them.
const MOMENT: Duration = Duration::from_millis(500);
/// Time between two looks at the signing keys.
const KEYS_EVERY: Duration = Duration::from_mins(1);

/// What cannot be done without randomness, keys or the database.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("read the system's randomness: {0}")]
    Randomness(#[from] rand::rand_core::OsError),
    #[error("there is no usable signing key; `weir-control-plane keys rotate --now` makes one")]
    Key,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a sensor's token turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SensorCheck {
    Known {
        sensor_id: i32,
        credential_id: i32,
        /// It was used with a certificate of the sensor's.
        certified: bool,
        name: Arc<str>,
    },
    /// The token was revoked or replaced, or its time is over; the sensor may have another one.
    Over {
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

/// Somebody who may call the API, and what they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub who: Who,
    pub name: Arc<str>,
    pub role: Role,
    /// An access token's end; what else ends, the database knows.
    pub until: Option<SystemTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The admin token of the configuration.
    AdminToken,
    User {
        user_id: i32,
        session_id: Uuid,
    },
    Machine {
        api_token_id: i32,
        user_id: Option<i32>,
        scopes: Arc<[Scope]>,
    },
}

/// What a credential turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Known(Principal),
    /// It was one of ours, and is over.
    Expired,
    Revoked,
    Unknown,
}

/// Everything that tells who is asking; cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Parts>);

/// What [`Auth`] is made of.
pub struct Parts {
    admin_sha256: Option<[u8; 32]>,
    continuation_key: [u8; 32],
    settings: config::Auth,
    metrics: Metrics,
    pub keys: Keys,
    pub passwords: Passwords,
    pub activity: Activity,
    sensors: Memory<[u8; 32], SensorCheck>,
    sessions: Memory<Uuid, Option<Holder>>,
    machines: Memory<[u8; 32], Option<Grant>>,
}

impl std::ops::Deref for Auth {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Auth {
    /// Reads the keys that all instances share, and makes them where there are none.
    pub async fn start(
        pool: &Pool,
        admin_token: Option<&SecretString>,
        settings: &config::Auth,
        metrics: Metrics,
    ) -> Result<Self, AuthError> {
        Ok(Self(Arc::new(Parts {
            admin_sha256: admin_token.map(|token| sha256(token.expose_secret())),
            continuation_key: signing::secret(pool, "continuation", &token::random()?).await?,
            keys: Keys::load(pool, settings.key_rotation(), settings.access_token()).await?,
            settings: settings.clone(),
            metrics,
            passwords: Passwords::new()?,
            activity: Activity::default(),
            sensors: Memory::new(MOMENT),
            sessions: Memory::new(MOMENT),
            machines: Memory::new(MOMENT),
        })))
    }

    /// What happens by itself, until `stop` changes: keys rotate, activity is written.
    pub async fn run(self, pool: Pool, stop: watch::Receiver<bool>) {
        let mut stopped = stop.clone();
        let rotation = async {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(KEYS_EVERY) => {}
                    _ = stopped.changed() => return,
                }
                if let Err(error) = self.keys.refresh(&pool, false).await {
                    tracing::error!(%error, "read the signing keys; those that are known go on");
                }
                if let Err(error) = sessions::sweep(&pool).await {
                    tracing::warn!(%error, "delete sessions that are over");
                }
            }
        };
        tokio::join!(rotation, self.activity.run(&pool, stop));
    }

    /// Key that signs continuation tokens: the same on every instance of one database.
    #[must_use]
    pub fn continuation_key(&self) -> &[u8; 32] {
        &self.continuation_key
    }

    /// Looks a bearer's credential up, whatever kind it is. A sensor's token is none of these.
    pub async fn principal(&self, pool: &Pool, token: &str) -> Result<Check, StoreError> {
        if self.is_admin(token) {
            let name = Arc::from("admin");
            return Ok(Check::Known(Principal {
                who: Who::AdminToken,
                name,
                role: Role::Admin,
                until: None,
            }));
        }
        // What no credential of ours looks like costs no connection.
        let check = if let Some(token) = ApiToken::parse(token) {
            self.machine(pool, token.sha256()).await?
        } else if let Some(kid) = access_token::key_id(token) {
            self.user(pool, token, &kid).await?
        } else {
            Check::Unknown
        };
        if let Check::Known(principal) = &check {
            self.activity.note(principal);
        }
        Ok(check)
    }

    /// Compares hashes in constant time, so neither the token nor its length shows in the answer's time.
    fn is_admin(&self, token: &str) -> bool {
        self.admin_sha256.is_some_and(|admin| sha256(token).ct_eq(&admin).into())
    }

    /// Looks up who made a ticket; it is used up by that.
    pub async fn ticket(&self, pool: &Pool, ticket: &str) -> Result<Check, StoreError> {
        let Some(ticket) = Ticket::parse(ticket) else { return Ok(Check::Unknown) };
        let Some(issued) = tickets::redeem(pool, &ticket.sha256()).await? else { return Ok(Check::Unknown) };
        let mut check = match issued.of {
            Holds::AdminToken => {
                let name = Arc::from("admin");
                Check::Known(Principal { who: Who::AdminToken, name, role: Role::Admin, until: None })
            }
            Holds::Session(session_id) => self.session(pool, session_id).await?,
            Holds::Token(token_sha256) => self.machine(pool, token_sha256).await?,
        };
        if let Check::Known(principal) = &mut check {
            principal.until = issued.until;
        }
        Ok(check)
    }

    async fn machine(&self, pool: &Pool, hash: [u8; 32]) -> Result<Check, StoreError> {
        let grant = if let Some(grant) = self.machines.recall(&hash) {
            grant
        } else {
            let asked = Instant::now();
            let grant = tokens::by_hash(pool, &hash).await?;
            self.machines.remember(asked, hash, grant.clone());
            grant
        };
        Ok(match grant {
            None => Check::Unknown,
            Some(Grant { state: State::Expired, .. }) => Check::Expired,
            Some(Grant { state: State::Revoked, .. }) => Check::Revoked,
            Some(grant) => Check::Known(Principal {
                who: Who::Machine {
                    api_token_id: grant.api_token_id,
                    user_id: grant.user_id,
                    scopes: grant.scopes.into(),
                },
                name: grant.name.into(),
                role: grant.role,
                until: None,
            }),
        })
    }

    async fn user(&self, pool: &Pool, token: &str, kid: &str) -> Result<Check, StoreError> {
        let Some(key) = self.keys.verifying(pool, kid).await? else { return Ok(Check::Unknown) };
        let claims = match access_token::verify(token, &key, SystemTime::now()) {
            Ok(claims) => claims,
            Err(Invalid::Expired) => return Ok(Check::Expired),
            Err(Invalid::Token | Invalid::Audience) => return Ok(Check::Unknown),
        };
        let mut check = self.session(pool, claims.sid).await?;
        if let Check::Known(principal) = &mut check {
            if !matches!(principal.who, Who::User { user_id, .. } if user_id.to_string() == claims.sub) {
                return Ok(Check::Revoked);
            }
            principal.until = Some(claims.until());
        }
        Ok(check)
    }

    async fn session(&self, pool: &Pool, session_id: Uuid) -> Result<Check, StoreError> {
        let holder = if let Some(holder) = self.sessions.recall(&session_id) {
            holder
        } else {
            let asked = Instant::now();
            let holder = sessions::holder_of(pool, session_id).await?;
            self.sessions.remember(asked, session_id, holder.clone());
            holder
        };
        Ok(match holder {
            Some(holder) if holder.alive => Check::Known(Principal {
                who: Who::User { user_id: holder.user_id, session_id: holder.session_id },
                name: holder.name.into(),
                role: holder.role,
                until: None,
            }),
            _ => Check::Revoked,
        })
    }

    /// Looks a sensor's token up.
    pub async fn sensor(&self, pool: &Pool, token: &str) -> Result<SensorCheck, StoreError> {
        let Some(token) = SensorToken::parse(token) else {
            return Ok(SensorCheck::Unknown);
        };
        let hash = token.sha256();
        if let Some(check) = self.sensors.recall(&hash) {
            return Ok(check);
        }
        let asked = Instant::now();
        let identity = credentials::by_token(pool, &hash).await?;
        if let Some(identity) = identity.as_ref().filter(|it| it.is_new && it.standing == Standing::Active) {
            credentials::confirm(pool, identity).await?;
            // The older ones are void.
            self.forget(identity.sensor_id);
        }
        let check = identity.map_or(SensorCheck::Unknown, |identity| {
            let name = identity.name.into();
            match identity.standing {
                Standing::Active => SensorCheck::Known {
                    sensor_id: identity.sensor_id,
                    credential_id: identity.credential_id,
                    certified: identity.certified,
                    name,
                },
                Standing::Over => SensorCheck::Over { name },
                Standing::Revoked => SensorCheck::Revoked { name },
                Standing::Gone => SensorCheck::Gone { name },
            }
        });
        self.sensors.remember(asked, hash, check.clone());
        Ok(check)
    }

    /// Forgets what was remembered of a sensor's tokens: one of them, or the sensor, is revoked.
    pub fn forget(&self, sensor_id: i32) {
        self.sensors.forget(
            |check| matches!(check, SensorCheck::Known { sensor_id: known, .. } if *known == sensor_id),
        );
    }

    /// Forgets a session that ended, so that this instance asks again.
    pub fn forget_session(&self, session_id: Uuid) {
        self.sessions.forget(|holder| holder.as_ref().is_some_and(|holder| holder.session_id == session_id));
    }

    /// Forgets all that is remembered of a user: sessions, and the tokens that follow their role.
    pub fn forget_user(&self, user_id: i32) {
        self.sessions.forget(|holder| holder.as_ref().is_some_and(|holder| holder.user_id == user_id));
        self.machines.forget(|grant| grant.as_ref().is_some_and(|grant| grant.user_id == Some(user_id)));
    }

    /// Forgets a token that was revoked.
    pub fn forget_token(&self, api_token_id: i32) {
        self.machines.forget(|grant| grant.as_ref().is_some_and(|grant| grant.api_token_id == api_token_id));
    }
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
