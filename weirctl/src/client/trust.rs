//! Whom a connection believes: the system's authorities, those of a file, or one certificate by its fingerprint.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::ClientBuilder;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

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

/// One certificate, and the fingerprint of the last that was another.
#[derive(Debug)]
pub(super) struct Pinned {
    wanted: [u8; 32],
    provider: Arc<CryptoProvider>,
    other: Mutex<Option<String>>,
}

impl Pinned {
    /// 64 hexadecimal digits; colons between them are let pass.
    pub(super) fn parse(text: &str) -> Result<Arc<Self>, ClientError> {
        let wrong = || {
            ClientError::Usage(
                "a fingerprint has 64 hexadecimal digits (SHA-256 of the certificate)".to_owned(),
            )
        };
        let digits: Option<Vec<u32>> =
            text.chars().filter(|char| *char != ':').map(|char| char.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
        let wanted = bytes.try_into().map_err(|_| wrong())?;
        Ok(Arc::new(Self {
            wanted,
            provider: Arc::new(provider::default_provider()),
            other: Mutex::new(None),
        }))
    }

    pub(super) fn apply(self: &Arc<Self>, client: ClientBuilder) -> Result<ClientBuilder, ClientError> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Usage(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        Ok(client.use_preconfigured_tls(config))
    }

    /// The fingerprint that was shown instead.
    pub(super) fn other(&self) -> Option<String> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        if digest.as_ref() == self.wanted {
            return Ok(ServerCertVerified::assertion());
        }
        let shown = digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
