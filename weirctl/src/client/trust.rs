//! Whom a connection believes beside the system's authorities: those of a file, or one certificate by its fingerprint.

use std::path::Path;
use std::sync::Arc;

use reqwest::ClientBuilder;
use weir_pin::Pinned;

use super::error::ClientError;

/// Believes the authorities of a file and no others.
pub(super) fn authorities(client: ClientBuilder, path: &Path) -> Result<ClientBuilder, ClientError> {
    let content = |error: String| ClientError::Content { path: path.to_owned(), error };
    let pem = std::fs::read(path).map_err(|error| ClientError::File { path: path.to_owned(), error })?;
    let certificates =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| content(error.to_string()))?;
    if certificates.is_empty() {
        return Err(content("has no certificate in PEM".to_owned()));
    }
    let client = client.tls_built_in_root_certs(false);
    Ok(certificates.into_iter().fold(client, ClientBuilder::add_root_certificate))
}

/// Believes the certificate with this fingerprint and no other.
pub(super) fn pinned(client: ClientBuilder, text: &str) -> Result<(ClientBuilder, Arc<Pinned>), ClientError> {
    let wanted = text.parse().map_err(|_| {
        ClientError::Usage("a fingerprint has 64 hexadecimal digits (SHA-256 of the certificate)".to_owned())
    })?;
    let pinned = Pinned::new(wanted);
    let config = pinned.config().map_err(|error| ClientError::Usage(error.to_string()))?;
    Ok((client.use_preconfigured_tls(config), pinned))
}
