//! Who is told of alerts, and how: a target as it is written down, and the request or mail that it makes of a
//! delivery.
//!
//! Secrets are files of `alerts.secrets_dir`. A receiver names the file; what is in it is read for each
//! request and is in no row, answer or line of the log.

use std::fmt::Write as _;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use utoipa::ToSchema;

use super::email::{self, MAX_RECIPIENTS, MailTls};
use crate::outbound::mail::{self, Mail};
use crate::outbound::{self, OutboundError, Outgoing};
use crate::store::alerts::deliveries::Delivery;

/// An Alertmanager forgets what it is not told again; this long after the last word.
const ALERTMANAGER_LASTS: i64 = 3;

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(example = json!({"kind": "webhook", "url_secret": "hook-url", "signing_secret": "hook"}))]
pub enum Target {
    /// A `POST` of JSON for each delivery
    Webhook {
        /// Either this
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// or the name of a secret that is the URL
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
        url_secret: Option<String>,
        /// Name of the secret that signs: `X-Weir-Signature: v1=hex(hmac_sha256(secret, timestamp + "." + body))`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
        signing_secret: Option<String>,
    },
    /// The API v2 of a Prometheus Alertmanager
    Alertmanager {
        /// Its address, without `/api/v2/alerts`
        url: String,
        /// Name of the secret that is its bearer token
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
        bearer_secret: Option<String>,
    },
    /// Mail, by SMTP
    Email {
        /// The mail server's name or address
        #[schema(max_length = 253, example = "mail.example.org")]
        host: String,
        /// 587 if it is left out, 465 with `implicit`, 25 with `none`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(minimum = 1, example = 587)]
        port: Option<u16>,
        #[serde(default)]
        tls: MailTls,
        /// Who logs in at the server
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(min_length = 1, max_length = 254)]
        user: Option<String>,
        /// Name of the secret that is the password
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_length = 63, pattern = "^([A-Za-z][A-Za-z0-9._-]*|[0-9]+[A-Za-z._-][A-Za-z0-9._-]*)$")]
        password_secret: Option<String>,
        /// Whose mail it is
        #[schema(max_length = 254, example = "weir@example.org")]
        from: String,
        /// Whom it goes to: all, or nobody if the server refuses one
        #[schema(min_items = 1, max_items = 20, example = json!(["on-call@example.org"]))]
        to: Vec<String>,
    },
}

/// What a target makes of a delivery.
#[derive(Debug)]
pub enum Letter {
    Request(Outgoing),
    Mail(Mail),
}

/// Why a delivery makes no request.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("the secret `{0}` cannot be read: alerts.secrets_dir is not set")]
    NoSecrets(String),
    #[error("the secret `{name}` cannot be read: {error}")]
    Secret { name: String, error: std::io::Error },
    #[error("the secret `{0}` is empty, or has characters that a header cannot have")]
    BadSecret(String),
    #[error("`{0}` is not an address that mail can go to")]
    Address(String),
    #[error("a message cannot be made: {0}")]
    Message(String),
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the receiver answered {0}")]
    Status(u16),
}

impl Target {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Email { .. } => "email",
        }
    }

    /// How often it is told of an alert that goes on, where nobody said.
    #[must_use]
    pub fn usual_repeat_s(&self) -> u32 {
        match self {
            Self::Webhook { .. } | Self::Email { .. } => 4 * 3_600,
            // Under the five minutes after which it takes an alert for resolved.
            Self::Alertmanager { .. } => 60,
        }
    }

    /// The faults of what was written, each with its field. Mail without TLS is one unless it is allowed.
    #[must_use]
    pub fn faults(&self, plain_mail: bool) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let (url, secrets) = match self {
            Self::Webhook { url, url_secret, signing_secret } => {
                if url.is_some() == url_secret.is_some() {
                    faults.push(("target.url", "give one of `url` and `url_secret`".to_owned()));
                }
                let secrets = [("target.url_secret", url_secret), ("target.signing_secret", signing_secret)];
                (url.as_deref(), secrets.to_vec())
            }
            Self::Alertmanager { url, bearer_secret } => {
                (Some(url.as_str()), vec![("target.bearer_secret", bearer_secret)])
            }
            Self::Email { host, port, tls, user, password_secret, from, to } => {
                if host.len() > 253 || mail::host(host).is_none() {
                    faults.push(("target.host", "is not a name or an address".to_owned()));
                }
                if *port == Some(0) {
                    faults.push(("target.port", "is not between 1 and 65535".to_owned()));
                }
                if *tls == MailTls::None && !plain_mail {
                    faults.push(("target.tls", "needs `outbound.allow_plain_mail`".to_owned()));
                }
                if *tls == MailTls::None && user.is_some() {
                    faults.push(("target.user", "would be sent in the clear: use TLS".to_owned()));
                }
                if user.is_some() != password_secret.is_some() {
                    faults.push(("target.password_secret", "goes with `user`".to_owned()));
                }
                let plain =
                    |user: &String| (1..=254).contains(&user.len()) && !user.chars().any(char::is_control);
                if user.as_ref().is_some_and(|user| !plain(user)) {
                    faults.push(("target.user", "is not 1 to 254 plain characters".to_owned()));
                }
                if email::address(from).is_none() {
                    faults.push(("target.from", "is not an address such as weir@example.org".to_owned()));
                }
                if !(1..=MAX_RECIPIENTS).contains(&to.len()) {
                    faults.push(("target.to", format!("has not 1 to {MAX_RECIPIENTS} addresses")));
                }
                if to.iter().any(|address| email::address(address).is_none()) {
                    faults
                        .push(("target.to", "has what is not an address such as ann@example.org".to_owned()));
                }
                (None, vec![("target.password_secret", password_secret)])
            }
        };
        if let Some(Err(error)) = url.map(outbound::url) {
            faults.push(("target.url", error.to_string()));
        }
        for (field, secret) in secrets {
            if secret.as_deref().is_some_and(|name| !crate::store::sensors::is_name(name)) {
                faults.push((field, "is not the name of a file: letters, digits, `.`, `_`, `-`".to_owned()));
            }
        }
        faults
    }

    /// What is sent for a delivery, secrets included.
    pub fn letter(
        &self,
        delivery: &Delivery,
        secrets: Option<&Path>,
        now: Timestamp,
    ) -> Result<Letter, TargetError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = delivery.key.to_string();
        if let Ok(key) = HeaderValue::from_str(&key) {
            headers.insert("idempotency-key", key.clone());
            headers.insert("x-weir-delivery", key);
        }
        match self {
            Self::Webhook { url, url_secret, signing_secret } => {
                let url = match (url, url_secret) {
                    (Some(url), _) => url.clone(),
                    (None, Some(name)) => secret(secrets, name)?,
                    (None, None) => String::new(),
                };
                let body = webhook(delivery).to_string().into_bytes();
                if let Some(name) = signing_secret {
                    let timestamp = now.as_second().to_string();
                    let signature = sign(secret(secrets, name)?.as_bytes(), &timestamp, &body);
                    headers.insert("x-weir-timestamp", header(name, &timestamp)?);
                    headers.insert("x-weir-signature", header(name, &format!("v1={signature}"))?);
                }
                Ok(Letter::Request(Outgoing::post(outbound::url(&url)?, headers, body)))
            }
            Self::Alertmanager { url, bearer_secret } => {
                if let Some(name) = bearer_secret {
                    let mut value = header(name, &format!("Bearer {}", secret(secrets, name)?))?;
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
                let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
                let body = alertmanager(delivery, now).to_string().into_bytes();
                Ok(Letter::Request(Outgoing::post(outbound::url(&url)?, headers, body)))
            }
            Self::Email { host, port, tls, user, password_secret, from, to } => {
                let address =
                    |text: &String| email::address(text).ok_or_else(|| TargetError::Address(text.clone()));
                let from = address(from)?;
                let to = to.iter().map(address).collect::<Result<Vec<_>, _>>()?;
                let login = match (user, password_secret) {
                    (Some(user), Some(name)) => Some((user.clone(), secret(secrets, name)?.into())),
                    _ => None,
                };
                let message = email::message(delivery, &from, &to).map_err(TargetError::Message)?;
                let (host, port) = (host.clone(), port.unwrap_or_else(|| tls.port()));
                Ok(Letter::Mail(Mail { host, port, safety: tls.safety(), login, from, to, message }))
            }
        }
    }
}

fn header(name: &str, text: &str) -> Result<HeaderValue, TargetError> {
    HeaderValue::from_str(text).map_err(|_| TargetError::BadSecret(name.to_owned()))
}

/// What is in the file; names cannot lead out of the folder, since they begin with a letter or digit and have no
/// slash.
fn secret(folder: Option<&Path>, name: &str) -> Result<String, TargetError> {
    let folder = folder.ok_or_else(|| TargetError::NoSecrets(name.to_owned()))?;
    let text = std::fs::read_to_string(folder.join(name))
        .map_err(|error| TargetError::Secret { name: name.to_owned(), error })?;
    let text = text.trim();
    if text.is_empty() { Err(TargetError::BadSecret(name.to_owned())) } else { Ok(text.to_owned()) }
}

fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in [timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac.finalize().into_bytes().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn webhook(delivery: &Delivery) -> Value {
    json!({
        "version": 1,
        "delivery": delivery.key.to_string(),
        "receiver": delivery.receiver,
        "rule": delivery.rule,
        "status": delivery.status,
        "alerts": delivery.alerts,
    })
}

fn alertmanager(delivery: &Delivery, now: Timestamp) -> Value {
    let lasts = SignedDuration::from_secs(ALERTMANAGER_LASTS * i64::from(delivery.repeat_s.max(60)));
    let until = now.checked_add(lasts).unwrap_or(now);
    let alerts = delivery.alerts.as_array().into_iter().flatten().map(|alert| {
        let mut labels = alert["labels"].clone();
        labels["alertname"] = alert["rule"].clone();
        let ends = if delivery.status == "resolved" {
            alert["resolved_at"].clone()
        } else {
            Value::from(format!("{until:.3}"))
        };
        json!({
            "labels": labels,
            "annotations": {"summary": alert["summary"], "value": alert["value"].to_string()},
            "startsAt": alert["firing_at"],
            "endsAt": ends,
        })
    });
    Value::Array(alerts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<&'static str> {
        let target: Target = serde_json::from_str(text).expect(text);
        target.faults(false).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn i6_targets_that_cannot_be_are_named() {
        assert_eq!(
            fields(r#"{"kind":"webhook","url":"https://a.example/x","signing_secret":"hook"}"#),
            [""; 0]
        );
        assert_eq!(fields(r#"{"kind":"webhook","url_secret":"hook-url"}"#), [""; 0]);
        assert_eq!(fields(r#"{"kind":"webhook"}"#), ["target.url"]);
        assert_eq!(fields(r#"{"kind":"webhook","url":"file:///etc/passwd"}"#), ["target.url"]);
        assert_eq!(fields(r#"{"kind":"webhook","url_secret":"../admin-token"}"#), ["target.url_secret"]);
        assert_eq!(fields(r#"{"kind":"webhook","url_secret":"..","signing_secret":"a/b"}"#).len(), 2);
        assert_eq!(fields(r#"{"kind":"alertmanager","url":"am:9093"}"#), ["target.url"]);
        let mail = |more: &str| {
            let text = r#"{"kind":"email","host":"mail.example.org","from":"weir@example.org","to":["ann@example.org"]"#;
            fields(&format!("{text}{more}}}"))
        };
        assert_eq!(mail(""), [""; 0]);
        assert_eq!(mail(r#","tls":"implicit","user":"weir","password_secret":"mail""#), [""; 0]);
        assert_eq!(mail(r#","tls":"none""#), ["target.tls"]);
        assert_eq!(mail(r#","user":"weir""#), ["target.password_secret"]);
        assert_eq!(
            mail(r#","user":"we\r\nir","password_secret":"../x""#),
            ["target.user", "target.password_secret"]
        );
        assert_eq!(mail(r#","port":0"#), ["target.port"]);
        assert_eq!(
            fields(r#"{"kind":"email","host":"a b","from":"weir","to":["a@b.c\r\nRCPT TO:<x@y.z>"]}"#),
            ["target.host", "target.from", "target.to"]
        );
        assert_eq!(
            fields(r#"{"kind":"email","host":"a.example","from":"a@b.example","to":[]}"#),
            ["target.to"]
        );
    }

    /// As `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret` has it.
    #[test]
    fn signatures_are_hmac_sha256() {
        assert_eq!(
            sign(b"secret", "1700000000", b"{}"),
            "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
    }
}
