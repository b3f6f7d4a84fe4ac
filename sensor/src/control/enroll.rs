//! How this host comes to be a sensor: a one-time token for a credential of its own.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use weir_pin::Fingerprint;

use super::error::{ClientError, ControlError};
use super::pin::certificate_of;
use super::{Credential, Line, TokenFile, address, answer, certify, chain, client};
use crate::config::{ControlPlane, Secret};

/// What is asked for, and where it goes.
pub struct Enrollment {
    /// Its address and whom to trust; `token_file` is where the credential goes.
    pub control_plane: ControlPlane,
    pub token: Secret,
    /// What this host is to be called; an enrolment for another name refuses it.
    pub name: Option<String>,
    /// The same where nobody said a name: only for an enrolment that leaves it open.
    pub own_name: Option<String>,
    /// Trust the server that has this certificate; it is written to the file, for the configuration.
    pub pin: Option<(Fingerprint, PathBuf)>,
    /// A credential that is there is replaced.
    pub replace: bool,
}

/// What came of it.
#[derive(Debug, Deserialize)]
pub struct Enrolled {
    pub sensor_id: i32,
    /// The sensor's name at the control plane.
    pub name: String,
    token: Secret,
    /// It has a certificate, too.
    #[serde(skip)]
    pub certified: bool,
}

/// Trades the token. All that can be wrong here is looked at before: a token that was used is gone.
pub async fn enroll(wanted: &Enrollment) -> Result<Enrolled, ControlError> {
    let mut control_plane = wanted.control_plane.clone();
    let path = control_plane.token_file.clone().ok_or(ControlError::NoFile)?;
    if path.exists() && !wanted.replace {
        return Err(ControlError::Enrolled(path));
    }
    let place = TokenFile::prepare(&path)?;
    if let Some((fingerprint, file)) = &wanted.pin {
        let certificate = certificate_of(&address(&control_plane, "healthz")?, *fingerprint).await?;
        let failed = |source| ControlError::Write { path: file.clone(), source };
        std::fs::write(file, pem(&certificate)).map_err(failed)?;
        control_plane.ca_file = Some(file.clone());
    }
    let http = client(&control_plane, None)?;
    // As the sensor will: a certificate that does not name this address is found before the token is used.
    let reached = http.get(address(&control_plane, "healthz")?).send().await;
    reached.map_err(|error| ControlError::Away(chain(&error)))?;
    let url = address(&control_plane, "api/v1/enroll")?;
    let trade = async |name: Option<&String>| {
        let body = json!({"token": wanted.token.expose(), "name": name});
        let asked = http.post(url.clone()).json(&body).send().await;
        answer::<Enrolled>(asked.map_err(|error| ControlError::Away(chain(&error)))?).await
    };
    let mut enrolled = match (trade(wanted.name.as_ref()).await, &wanted.own_name) {
        // The enrolment has no name either. A refusal leaves the token as it was.
        (Err(ControlError::Refused { status: 400, .. }), Some(own)) if wanted.name.is_none() => {
            trade(Some(own)).await?
        }
        (traded, _) => traded?,
    };
    if !enrolled.token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::Token(path).into());
    }
    place.keep(&enrolled.token)?;
    enrolled.certified = begin(&control_plane).await?;
    Ok(enrolled)
}

/// The first certificate, where the control plane signs them. One that does not come now is asked for by the
/// running sensor: the token is used, and its credential kept.
async fn begin(settings: &ControlPlane) -> Result<bool, ControlError> {
    let credential = Credential::open(settings)?;
    let identity = credential.identity();
    // Of an enrolment before.
    identity.set_aside();
    let line = Line::new(settings, identity)?;
    match certify(settings, &credential, &line).await {
        Ok(()) => Ok(true),
        // None are signed, or nobody there knows of them.
        Err(ControlError::Refused { status: 404 | 405 | 409, .. }) => Ok(false),
        Err(error) => {
            tracing::warn!(%error, "the sensor has no certificate yet; it asks again when it runs");
            Ok(false)
        }
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    // Base64 is ASCII: lines may be cut anywhere.
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
