//! Whom connections to the outside believe: the system's authorities, and those of `outbound.ca_file`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::OutboundError;

/// The certificates of the file, as reqwest and rustls have them.
pub(super) struct Roots {
    pub(super) http: Vec<reqwest::Certificate>,
    pub(super) tls: Arc<ClientConfig>,
}

pub(super) fn read(file: Option<&Path>) -> Result<Roots, OutboundError> {
    let mut store = RootCertStore::empty();
    // A host without authorities reaches what `ca_file` vouches for; a bad one among many is left out.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut http = Vec::new();
    if let Some(path) = file {
        let wrong = |error: String| OutboundError::Authorities { path: path.to_owned(), error };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(error.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("has no certificate".to_owned()));
        }
        for certificate in certificates {
            let known = reqwest::Certificate::from_der(&certificate);
            http.push(known.map_err(|error| wrong(error.to_string()))?);
            store.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OutboundError::Failed { host: "TLS".to_owned(), what: error.to_string() })?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Roots { http, tls: Arc::new(tls) })
}
