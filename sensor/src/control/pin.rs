//! The certificate of a server that is known by its fingerprint alone: for a first try without a CA.

use std::time::Duration;

use reqwest::Url;
use weir_pin::{CertificateDer, Fingerprint, Pinned};

use super::chain;
use super::error::{ClientError, ControlError};

/// The certificate of the server at `url`, which must have this fingerprint. Nothing is sent but a question
/// after its health.
pub async fn certificate_of(url: &Url, wanted: Fingerprint) -> Result<CertificateDer<'static>, ControlError> {
    let pinned = Pinned::new(wanted);
    let config = pinned.config().map_err(|error| ControlError::Away(error.to_string()))?;
    let http = reqwest::Client::builder()
        .use_preconfigured_tls(config)
        .timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(ClientError::Build)?;
    let asked = http.get(url.clone()).send().await;
    if let Some(found) = pinned.other() {
        return Err(ControlError::Fingerprint { found: found.to_string() });
    }
    match (asked, pinned.shown()) {
        (Ok(_), Some(shown)) => Ok(shown),
        (Ok(_), None) => Err(ControlError::NoCertificate),
        (Err(error), _) => Err(ControlError::Away(chain(&error))),
    }
}
