//! What the listener shows who it is with.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Without a certificate the listener speaks plain HTTP, for a proxy that ends TLS.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM: the server's certificate, then those between it and the root.
    pub certificate: Option<PathBuf>,
    /// PEM: its private key.
    pub key: Option<PathBuf>,
    /// Make a certificate instead, for a first try; its fingerprint is logged.
    pub self_signed: bool,
    /// Names and addresses of a self-signed certificate, beside localhost and the listener's own.
    pub names: Vec<String>,
    /// Where a self-signed certificate and its key are kept; without it every start makes others.
    pub state_folder: Option<PathBuf>,
    /// A handshake takes no longer.
    pub handshake_timeout_ms: u64,
    /// Handshakes at once; further ones wait for their turn.
    pub max_handshakes: usize,
    /// How long browsers are told to insist on HTTPS; 0 does not tell them. Never told with `self_signed`.
    pub hsts_max_age_s: u32,
    /// Whether sensors show certificates that this control plane signed.
    pub client_auth: ClientAuth,
    /// How long a sensor's certificate lasts; it asks for the next one after two thirds of it.
    pub client_certificate_days: u32,
    /// How long the authority that signs them lasts.
    pub client_ca_days: u32,
}

/// What sensors show beside their credentials. Nobody else is asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Nothing: no certificates are signed, and none is looked at.
    #[default]
    Off,
    /// A certificate where they have one, which must be theirs.
    Optional,
    /// A certificate.
    Required,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            self_signed: false,
            names: Vec::new(),
            state_folder: None,
            handshake_timeout_ms: 10_000,
            max_handshakes: 256,
            hsts_max_age_s: 31_536_000,
            client_auth: ClientAuth::Off,
            client_certificate_days: 90,
            client_ca_days: 1_825,
        }
    }
}

impl Tls {
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    #[must_use]
    pub fn client_certificate_lasts(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.client_certificate_days))
    }

    #[must_use]
    pub fn client_ca_lasts(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.client_ca_days))
    }

    /// Whether the listener speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.self_signed || self.certificate.is_some()
    }

    pub(super) fn within(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        within("tls.handshake_timeout_ms", self.handshake_timeout_ms, 100, 60_000);
        within("tls.max_handshakes", self.max_handshakes as u64, 1, 100_000);
        within("tls.hsts_max_age_s", u64::from(self.hsts_max_age_s), 0, 126_144_000);
        within("tls.client_certificate_days", u64::from(self.client_certificate_days), 1, 398);
        let shortest = u64::from(self.client_certificate_days);
        within("tls.client_ca_days", u64::from(self.client_ca_days), shortest, 7_300);
    }

    pub(super) fn validate(&self, broken: &mut Vec<String>) {
        if self.client_auth != ClientAuth::Off && !self.is_on() {
            broken.push(
                "tls.client_auth: needs tls.certificate or tls.self_signed: a proxy that ends TLS does not \
                 pass certificates on"
                    .to_owned(),
            );
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => broken.push("tls.key: not set, but tls.certificate is".to_owned()),
            (None, Some(_)) => broken.push("tls.certificate: not set, but tls.key is".to_owned()),
            (Some(_), Some(_)) if self.self_signed => {
                broken.push("tls.self_signed: tls.certificate is set too; keep one of them".to_owned());
            }
            _ => {}
        }
    }
}
