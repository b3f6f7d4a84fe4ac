//! The control plane's own authority: signs sensors' certificates, and says which ones hold.
//!
//! All instances share it through the database. Each looks every two seconds at what is trusted and tells the
//! listener; an authority that is new is trusted for [`Authority::LEAD`] before it signs, so that every instance
//! takes what it signs. A certificate is the second of two factors: it is held against the sensor of the
//! credential at each request, whatever the handshake said, so that one that ends or whose authority is void
//! ends with the connection that it came by.

mod x509;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use crate::auth::AuthError;
use crate::config::{self, ClientAuth};
use crate::listener::Tls;
use crate::store::audit::Author;
use crate::store::authority::{self, Asking, IssueError, Signed};
use crate::store::{Pool, StoreError};
use crate::telemetry::Metrics;

pub use x509::{RequestError, Shown, authority as make, pem};

/// Time between two looks at what is trusted.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A key that signs no more is deleted this soon.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// A sensor that shows another's certificate is written into the audit log once in this time.
const TELL_EVERY: Duration = Duration::from_mins(10);
/// Pairs of sensors of which it is remembered when that was.
const TOLD: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not zero");

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("make the authority of sensors' certificates: {0}")]
    Make(#[from] AuthError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("use the authority of sensors' certificates: {0}")]
    Use(String),
}

/// Why a sensor does not pass with what it shows, or without anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Missing,
    /// Of another sensor.
    Another,
    /// Its time is over.
    Over,
    /// Its authority is trusted no more.
    Untrusted,
}

impl Refusal {
    pub const ALL: [Self; 4] = [Self::Missing, Self::Another, Self::Over, Self::Untrusted];

    /// The label of the metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Another => "another",
            Self::Over => "over",
            Self::Untrusted => "untrusted",
        }
    }
}

/// Signs and judges; cheap to clone.
#[derive(Clone)]
pub struct Authority(Arc<Parts>);

struct Parts {
    mode: ClientAuth,
    lasts: Duration,
    trust: RwLock<Arc<Trust>>,
    metrics: Metrics,
    /// Who showed whose certificate, and when that was told.
    told: Mutex<LruCache<(i32, Option<i32>), Instant>>,
}

/// What is trusted now.
#[derive(Default)]
struct Trust {
    ids: Vec<i32>,
    names: Vec<Vec<u8>>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Authority {
    /// From being made to signing.
    pub const LEAD: Duration = Duration::from_secs(30);

    /// The same where those before are void: what sensors send waits at them meanwhile.
    pub const LEAD_NOW: Duration = Duration::from_secs(10);

    /// Reads what is trusted, and makes the first authority where there is none and one is needed.
    pub async fn start(
        pool: &Pool,
        settings: &config::Tls,
        metrics: Metrics,
    ) -> Result<Self, AuthorityError> {
        let trust = if settings.client_auth == ClientAuth::Off {
            Trust::default()
        } else {
            let offered = make(settings.client_ca_lasts())?;
            Trust::of(&authority::ensure(pool, &Author::command_line(), &offered).await?, &metrics)?
        };
        Ok(Self(Arc::new(Parts {
            mode: settings.client_auth,
            lasts: settings.client_certificate_lasts(),
            trust: RwLock::new(Arc::new(trust)),
            metrics,
            told: Mutex::new(LruCache::new(TOLD)),
        })))
    }

    /// Keeps up with rotations, also those of other instances, until `stop` changes.
    pub async fn run(self, pool: Pool, tls: Option<Tls>, mut stop: watch::Receiver<bool>) {
        if !self.is_on() {
            return;
        }
        let mut swept = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.changed() => return,
            }
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                if let Err(error) = authority::sweep(&pool).await {
                    tracing::warn!(%error, "delete the keys of authorities that sign no more");
                }
            }
            if let Err(error) = self.look(&pool, tls.as_ref()).await {
                tracing::warn!(%error, "look at the authorities of sensors' certificates; what is trusted stays");
            }
        }
    }

    /// Reads what is trusted; tells the listener of a change.
    pub async fn look(&self, pool: &Pool, tls: Option<&Tls>) -> Result<(), AuthorityError> {
        let found = authority::trusted(pool).await?;
        let trust = self.trust();
        if found.iter().map(|found| found.ca_id).eq(trust.ids.iter().copied()) {
            return Ok(());
        }
        let new = Arc::new(Trust::of(&found, &self.0.metrics)?);
        tracing::info!(authorities = ?new.ids, "the authorities of sensors' certificates changed");
        *self.0.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        if let Some(tls) = tls {
            tls.ask_for(new.verifier.clone());
        }
        Ok(())
    }

    /// Whether certificates are signed and looked at.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.mode != ClientAuth::Off
    }

    /// Who looks at certificates in handshakes.
    #[must_use]
    pub fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.trust().verifier.clone()
    }

    /// Whether a sensor passes with what its connection showed; gives the authority of its certificate, if it shows
    /// one. `beginning`: the route is for those who have none yet.
    pub fn judge(
        &self,
        shown: Option<&Shown>,
        sensor_id: i32,
        beginning: bool,
    ) -> Result<Option<i32>, Refusal> {
        let of = |shown: &Shown| {
            let trust = self.trust();
            let at = trust.names.iter().position(|name| *name == shown.issuer)?;
            trust.ids.get(at).copied()
        };
        let verdict = match (self.0.mode, shown) {
            (ClientAuth::Off, _) | (ClientAuth::Optional, None) => return Ok(None),
            (ClientAuth::Required, None) if beginning => return Ok(None),
            (ClientAuth::Required, None) => Refusal::Missing,
            (_, Some(shown)) if shown.sensor_id != Some(sensor_id) => Refusal::Another,
            (_, Some(shown)) if shown.ends <= SystemTime::now() => Refusal::Over,
            (_, Some(shown)) => match of(shown) {
                Some(ca_id) => return Ok(Some(ca_id)),
                None => Refusal::Untrusted,
            },
        };
        self.0.metrics.client_certificates.refused.with_label_values(&[verdict.name()]).inc();
        Err(verdict)
    }

    /// Whether it is to be written down that this sensor showed that one's certificate: not each time.
    pub fn is_news(&self, sensor_id: i32, shown: Option<i32>) -> bool {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&(sensor_id, shown)).is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return false;
        }
        told.put((sensor_id, shown), Instant::now());
        true
    }

    /// Signs the request of a sensor that was let in.
    pub async fn issue(
        &self,
        pool: &Pool,
        asking: &Asking<'_>,
        request: &str,
    ) -> Result<Result<Signed, IssueError>, RequestError> {
        let key = x509::requested(request)?;
        if !self.is_on() {
            return Ok(Err(IssueError::Off));
        }
        let sign = |signer: &authority::Signer| {
            x509::sign(signer, asking.sensor_id, &key, self.0.lasts).map_err(|error| error.to_string())
        };
        let signed = authority::issue(pool, asking, sign).await;
        if signed.is_ok() {
            self.0.metrics.client_certificates.issued.inc();
        }
        Ok(signed)
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.0.trust.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Trust {
    fn of(authorities: &[authority::Authority], metrics: &Metrics) -> Result<Self, AuthorityError> {
        let failed = |error: String| AuthorityError::Use(error);
        let mut roots = RootCertStore::empty();
        let (mut ids, mut names) = (Vec::new(), Vec::new());
        for authority in authorities {
            let certificate = CertificateDer::from(authority.certificate.clone());
            let name = x509::subject(&certificate).ok_or_else(|| failed("it cannot be read".to_owned()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            ids.push(authority.ca_id);
            names.push(name);
        }
        // The newest; it comes first.
        let ends = authorities
            .first()
            .and_then(|newest| newest.expires_at.duration_since(SystemTime::UNIX_EPOCH).ok());
        metrics.client_certificates.expiry.set(ends.map_or(0, |ends| ends.as_secs().cast_signed()));
        if roots.is_empty() {
            return Ok(Self { ids, names, verifier: None });
        }
        // Who shows none passes here: browsers do, and each sensor's request is looked at.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
                .allow_unauthenticated()
                .build()
                .map_err(|error| failed(error.to_string()))?;
        Ok(Self { ids, names, verifier: Some(verifier) })
    }
}
