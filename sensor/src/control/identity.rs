//! The sensor's certificate and its key: made here, kept in one file, shown in every TLS handshake.
//!
//! The control plane signs it ([`certify`]) where it asks sensors for one; the key never leaves this host. What must
//! stay true: certificate and key are one file that is replaced whole, open to nobody else; one that the control
//! plane does not take is set aside, so that the sensor can ask for another.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::error::{ClientError, ControlError};
use super::{Credential, TokenFile, address, answer, chain, client};
use crate::config::{ControlPlane, Secret};

/// Where certificates are signed.
const PATH: &str = "api/v1/sensor/certificate";
/// Beside the token, where the configuration names no file.
const FILE: &str = "identity.pem";

/// What this sensor shows in handshakes; clones change together.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    file: Option<PathBuf>,
    current: RwLock<Current>,
    /// Counts changes, for whoever waits for one.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Current {
    /// Certificate and key in PEM.
    held: Option<Secret>,
    /// The control plane did not take it.
    aside: bool,
}

/// A client that shows the identity as it is now; changes with it.
pub struct Line {
    settings: ControlPlane,
    identity: Identity,
    made: Mutex<(u64, reqwest::Client)>,
}

impl Identity {
    /// Reads the file, if there is one. One that cannot be used counts as none: the sensor asks for another.
    #[must_use]
    pub fn open(settings: &ControlPlane) -> Self {
        let file = settings.identity_file.clone().or_else(|| {
            let token_file = settings.token_file.as_ref().filter(|_| settings.token.is_none())?;
            Some(token_file.with_file_name(FILE))
        });
        let held = file.as_deref().and_then(read);
        let current = RwLock::new(Current { held, aside: false });
        Self(Arc::new(Parts { file, current, version: watch::Sender::new(0) }))
    }

    /// Whether there is one to show.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.shown().is_some()
    }

    /// Changes, from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Which one this is, for whoever counts attempts to replace it.
    pub(super) fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    /// Shows it no more; whether it was shown.
    pub fn set_aside(&self) -> bool {
        self.change(|current| {
            let shown = current.held.is_some() && !current.aside;
            current.aside = true;
            shown
        })
    }

    /// Shows it again: there is no other, and it may have been the server's fault.
    pub(super) fn take_back(&self) {
        self.change(|current| std::mem::take(&mut current.aside) && current.held.is_some());
    }

    /// Reads the file again: somebody else may have replaced it. Whether it has changed.
    pub(super) fn read_again(&self) -> bool {
        let Some(found) = self.0.file.as_deref().and_then(read) else { return false };
        self.change(|current| {
            let changed = current.held.as_ref() != Some(&found);
            if changed {
                *current = Current { held: Some(found), aside: false };
            }
            changed
        })
    }

    fn keep(&self, place: TokenFile, pem: Secret) -> Result<(), ControlError> {
        // A pair that does not fit is found here, and what is in the file stays.
        usable(&pem).map_err(ControlError::Strange)?;
        place.keep(&pem)?;
        self.change(|current| {
            *current = Current { held: Some(pem), aside: false };
            true
        });
        Ok(())
    }

    fn shown(&self) -> Option<Secret> {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
        current.held.clone().filter(|_| !current.aside)
    }

    fn change(&self, change: impl FnOnce(&mut Current) -> bool) -> bool {
        let changed = change(&mut self.0.current.write().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.0.version.send_modify(|version| *version += 1);
        }
        changed
    }
}

impl Line {
    pub fn new(settings: &ControlPlane, identity: Identity) -> Result<Self, ClientError> {
        let version = identity.version();
        let made = Mutex::new((version, client(settings, identity.shown().as_ref())?));
        Ok(Self { settings: settings.clone(), identity, made })
    }

    /// The client to use now. Connections that showed another identity end with their last request.
    pub fn http(&self) -> reqwest::Client {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.identity.version();
        if made.0 != version {
            match client(&self.settings, self.identity.shown().as_ref()) {
                Ok(http) => *made = (version, http),
                Err(error) => tracing::error!(%error, "the client stays as it was"),
            }
        }
        made.1.clone()
    }

    /// A request found no answer: if the server did not take the certificate, it is shown no more.
    pub fn failed(&self, error: &reqwest::Error) {
        if is_refused(error) && self.identity.set_aside() {
            tracing::warn!(
                error = chain(error),
                "the control plane does not take the sensor's certificate; it asks for another one"
            );
        }
    }
}

/// Asks for a certificate for a key that is made here, and shows it from now on.
pub async fn certify(
    settings: &ControlPlane,
    credential: &Credential,
    line: &Line,
) -> Result<(), ControlError> {
    #[derive(Deserialize)]
    struct Issued {
        certificate: String,
    }
    let identity = credential.identity();
    let place = TokenFile::prepare(identity.0.file.as_deref().ok_or(ControlError::NoFile)?)?;
    let made = KeyPair::generate().and_then(|key| {
        let mut params = CertificateParams::default();
        // The control plane says what the certificate says.
        params.distinguished_name = DistinguishedName::new();
        Ok((params.serialize_request(&key)?.pem()?, key))
    });
    let (request, key) = made.map_err(|error| ControlError::Key(error.to_string()))?;
    let url = address(settings, PATH)?;
    let asked = line.http().post(url).header(AUTHORIZATION, credential.header());
    let sent = asked.json(&json!({"csr": request})).send().await;
    let sent =
        sent.inspect_err(|error| line.failed(error)).map_err(|error| ControlError::Away(chain(&error)))?;
    let Issued { certificate } = answer(sent).await?;
    let pem = Secret::new(format!("{}\n{}", certificate.trim_end(), key.serialize_pem().trim_end()));
    identity.keep(place, pem)
}

fn usable(pem: &Secret) -> Result<reqwest::Identity, String> {
    reqwest::Identity::from_pem(pem.expose().as_bytes()).map_err(|error| chain(&error))
}

fn read(path: &Path) -> Option<Secret> {
    let text = match fs::read_to_string(path) {
        Ok(text) => Secret::new(text.trim_end().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "the sensor's certificate cannot be read");
            return None;
        }
    };
    match usable(&text) {
        Ok(_) => Some(text),
        Err(error) => {
            tracing::error!(error, path = %path.display(), "this is no certificate with its key");
            None
        }
    }
}

/// The server ended the handshake, or the connection right after it: with an alert, which TLS sends for reasons of
/// the certificate only once a connection is as far as this.
fn is_refused(error: &reqwest::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let of_tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = of_tls.or_else(|| cause.downcast_ref()) {
            use rustls::AlertDescription as Alert;
            return matches!(
                alert,
                Alert::BadCertificate
                    | Alert::CertificateExpired
                    | Alert::CertificateRevoked
                    | Alert::CertificateUnknown
                    | Alert::DecryptError
                    | Alert::UnknownCA
                    | Alert::UnsupportedCertificate
            );
        }
        source = cause.source();
    }
    false
}
