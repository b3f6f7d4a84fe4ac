//! The control plane, as far as it is not batches: who this sensor is there, and how it comes to be known.
//!
//! [`enroll`] trades a one-time token for a credential; [`Credential`] keeps it, shared by whoever talks to the
//! control plane, and [`renew`] replaces it without a gap; [`Identity`] is the certificate that it shows beside it, where
//! the control plane asks for one; [`Heart`] says that the sensor is there. What must stay true: a token is asked for only
//! when there is a place to keep it, and the file that has it is never half written and open to nobody else.

mod credential;
mod enroll;
mod error;
mod heart;
mod identity;
mod pin;
mod pushed;
mod renewal;

use reqwest::{Certificate, Response, Url, redirect};
use serde::de::DeserializeOwned;

use crate::config::{ControlPlane, Secret};

pub use credential::{Credential, TokenFile};
pub use enroll::{Enrolled, Enrollment, enroll};
pub use error::{ClientError, ControlError};
pub use heart::Heart;
pub use identity::{Identity, Line, certify};
pub use pin::certificate_of;
pub use pushed::{Book, Pushed, Report};
pub use renewal::{Renewal, Term};
pub use weir_pin::Fingerprint;

/// Bytes of an answer that are read; ours are smaller by far.
const MAX_ANSWER: usize = 64 << 10;

/// The address of one of its routes.
pub fn address(settings: &ControlPlane, path: &str) -> Result<Url, ClientError> {
    // A base without a final slash would lose its last segment in the join.
    let base = format!("{}/", settings.url.trim_end_matches('/'));
    Url::parse(&base)
        .and_then(|base| base.join(path))
        .map_err(|error| ClientError::Url { url: settings.url.clone(), reason: error.to_string() })
}

/// A client as configured: deadlines, no redirects, and whom to trust; with the certificate that it shows.
fn client(settings: &ControlPlane, identity: Option<&Secret>) -> Result<reqwest::Client, ClientError> {
    let timeout = settings.timeout.0;
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("weir-sensor/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(std::time::Duration::from_secs(90))
        .pool_max_idle_per_host(1);
    if let Some(path) = &settings.ca_file {
        for certificate in certificates(path)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(pem) = identity {
        let identity = reqwest::Identity::from_pem(pem.expose().as_bytes()).map_err(ClientError::Build)?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(ClientError::Build)
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate>, ClientError> {
    let pem = std::fs::read(path).map_err(|source| ClientError::File {
        key: "ca_file",
        path: path.to_owned(),
        source,
    })?;
    let wrong = |reason: String| ClientError::Certificates { path: path.to_owned(), reason };
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(&error)))?;
    if certificates.is_empty() { Err(wrong("the file has none".to_owned())) } else { Ok(certificates) }
}

/// Asks for the next credential, which is in its file when this returns. The one before goes on until this one
/// is used.
pub async fn renew(settings: &ControlPlane, credential: &Credential) -> Result<(), ControlError> {
    #[derive(serde::Deserialize)]
    struct Made {
        token: Secret,
    }
    let line = Line::new(settings, credential.identity())?;
    let url = address(settings, "api/v1/sensor/credentials")?;
    let place = credential.place()?;
    let request = line.http().post(url).header(reqwest::header::AUTHORIZATION, credential.header());
    let Made { token } =
        answer(request.send().await.map_err(|error| ControlError::Away(chain(&error)))?).await?;
    credential.replace(place, &token)
}

/// The JSON of an answer that must be a success.
async fn answer<T: DeserializeOwned>(mut response: Response) -> Result<T, ControlError> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ControlError::Away(chain(&error)))? {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| ControlError::Strange(error.to_string()));
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let said = |field: &str| {
        let said = problem.as_ref().and_then(|problem| problem.get(field)?.as_str()).unwrap_or_default();
        said.chars().filter(|char| !char.is_control()).take(300).collect()
    };
    Err(ControlError::Refused { status: status.as_u16(), problem: said("type"), detail: said("detail") })
}

/// An error with its causes; reqwest keeps the telling part in them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
