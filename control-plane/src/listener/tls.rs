//! Certificate and key: read, changed while connections go on, and the handshake.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::self_signed::{self, Made};
use super::validity;
use crate::authority::Shown;
use crate::config::Config;
use crate::telemetry::Metrics;

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read tls.{key} {path}: {reason}", path = path.display())]
    File { key: &'static str, path: PathBuf, reason: String },
    #[error("tls.certificate {path} holds no certificate in PEM", path = .0.display())]
    NoCertificate(PathBuf),
    #[error("tls.key does not belong to tls.certificate, or is of a kind that is not supported: {0}")]
    Pair(#[source] rustls::Error),
    #[error("make a self-signed certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("write {path} for tls.state_folder: {source}", path = path.display())]
    Keep { path: PathBuf, source: std::io::Error },
}

/// The listener's TLS; cheap to clone, and all clones change together.
#[derive(Clone)]
pub struct Tls(Arc<Parts>);

struct Parts {
    source: Source,
    current: RwLock<Current>,
    /// Who looks at the certificates that peers show; without one none is asked for.
    verifier: RwLock<Option<Verifier>>,
    places: Semaphore,
    timeout: Duration,
    metrics: Metrics,
}

#[derive(Clone)]
struct Current {
    certified: Arc<CertifiedKey>,
    config: Arc<ServerConfig>,
    fingerprint: String,
    ends: Option<SystemTime>,
    /// Of the files that it was read from.
    stamps: Vec<Option<Stamp>>,
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// What tells that a file is another one.
type Stamp = (SystemTime, u64);

enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    Made(Made),
}

impl Tls {
    /// Reads or makes the certificate; `None` where the listener speaks plain HTTP.
    pub fn open(
        config: &Config,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        metrics: &Metrics,
    ) -> Result<Option<Self>, TlsError> {
        let settings = &config.tls;
        let source = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => {
                Source::Files { certificate: certificate.clone(), key: key.clone() }
            }
            _ if settings.self_signed => Source::Made(self_signed::make(settings, config.listen.ip())?),
            _ => return Ok(None),
        };
        let current = source.read(verifier.clone())?;
        current.show(metrics);
        if settings.self_signed {
            tracing::warn!(
                fingerprint = current.fingerprint,
                "the certificate is self-signed: whoever connects must know its SHA-256 fingerprint"
            );
        }
        Ok(Some(Self(Arc::new(Parts {
            source,
            current: RwLock::new(current),
            verifier: RwLock::new(verifier),
            places: Semaphore::new(settings.max_handshakes),
            timeout: settings.handshake_timeout(),
            metrics: Arc::clone(metrics),
        }))))
    }

    /// SHA-256 of the server's certificate, as hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.current().fingerprint
    }

    /// Reads certificate and key again; if they are not usable, the old ones go on. Whether they were.
    pub fn reload(&self) -> bool {
        let verifier = self.0.verifier.read().unwrap_or_else(PoisonError::into_inner);
        let outcome = match self.0.source.read(verifier.clone()) {
            Ok(new) => {
                tracing::info!(fingerprint = new.fingerprint, "certificate and key were read again");
                new.show(&self.0.metrics);
                *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                "done"
            }
            Err(error) => {
                tracing::error!(%error, "certificate and key stay as they were");
                "failed"
            }
        };
        self.0.metrics.tls.reloads.with_label_values(&[outcome]).inc();
        outcome == "done"
    }

    /// Has peers' certificates looked at by this one from the next handshake on, or none asked for.
    pub fn ask_for(&self, verifier: Option<Arc<dyn ClientCertVerifier>>) {
        // Held until the end: a reload at the same time takes the new one.
        let mut asking = self.0.verifier.write().unwrap_or_else(PoisonError::into_inner);
        asking.clone_from(&verifier);
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        match config(Arc::clone(&current.certified), verifier) {
            Ok(config) => current.config = config,
            Err(error) => tracing::error!(%error, "the listener asks for certificates as before"),
        }
    }

    /// Reads them again whenever the files change, until `stop` changes.
    pub async fn watch(tls: Option<Self>, mut stop: watch::Receiver<bool>) {
        let Some(tls) = tls else { return };
        let mut seen = tls.current().stamps;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.changed() => return,
            }
            // Both are written one after the other: a look that falls between them fails, and the next one
            // sees another change.
            let now = tls.0.source.stamps();
            if now != seen {
                seen = now;
                if seen != tls.current().stamps {
                    tls.reload();
                }
            }
        }
    }

    /// The handshake, and what certificate the peer showed; `None` where it failed or took too long.
    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        metrics: &Metrics,
    ) -> Option<(TlsStream<TcpStream>, Option<Arc<Shown>>)> {
        let handshake = async {
            // Who says nothing takes no place from those who do.
            stream.readable().await?;
            // Never closed.
            let _place = self.0.places.acquire().await;
            TlsAcceptor::from(self.current().config).accept(stream).await
        };
        let (outcome, stream) = match tokio::time::timeout(self.0.timeout, handshake).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let shown = shown.and_then(|certificate| Shown::read(certificate)).map(Arc::new);
                ("done", Some((stream, shown)))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                if is_of_the_certificate(&error) {
                    metrics.client_certificates.refused.with_label_values(&["handshake"]).inc();
                }
                ("failed", None)
            }
            Err(_) => ("timeout", None),
        };
        metrics.tls.handshakes.with_label_values(&[outcome]).inc();
        stream
    }

    fn current(&self) -> Current {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Current {
    fn show(&self, metrics: &Metrics) {
        let since = self.ends.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        metrics.tls.expiry.set(since.map_or(0, |since| since.as_secs().cast_signed()));
    }
}

impl Source {
    fn read(&self, verifier: Option<Verifier>) -> Result<Current, TlsError> {
        // Before the files: a change during the read is seen as one later.
        let stamps = self.stamps();
        let (chain, key) = match self {
            Self::Files { certificate, key } => (read_chain(certificate)?, read_key(key)?),
            Self::Made(made) => (vec![made.certificate.clone()], made.key.clone_key()),
        };
        let fingerprint = chain.first().map(|certificate| fingerprint(certificate)).unwrap_or_default();
        let ends = chain.first().and_then(|certificate| validity::ends(certificate));
        let certified =
            CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Pair)?;
        let certified = Arc::new(certified);
        let config = config(Arc::clone(&certified), verifier).map_err(TlsError::Pair)?;
        Ok(Current { certified, config, fingerprint, ends, stamps })
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        match self {
            Self::Files { certificate, key } => [certificate, key].map(stamp).to_vec(),
            Self::Made(_) => Vec::new(),
        }
    }
}

fn config(
    certified: Arc<CertifiedKey>,
    verifier: Option<Verifier>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        // TLS 1.2 and 1.3: rustls knows nothing older.
        .with_safe_default_protocol_versions()?;
    let config = match verifier {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The peer's certificate is what the handshake failed for.
fn is_of_the_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error: rustls::pki_types::pem::Error| TlsError::File {
        key: "certificate",
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if chain.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        key: "key",
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// SHA-256 as hexadecimal digits.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(certificate).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
