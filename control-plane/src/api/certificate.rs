//! `/api/v1/sensor/certificate`: a sensor gets its certificate; and what one is told whose certificate does not do.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::access::{self, AuthenticatedSensor};
use super::body::Body;
use super::client::Origin;
use super::error::Problem;
use super::params::{NoParams, Query};
use super::{ApiError, AppState, render};
use crate::authority::{Refusal, pem};
use crate::store::audit::{self, Author, Change};
use crate::store::authority::{Asking, IssueError};

/// A request for a P-256 key has some 300 bytes.
const MAX_REQUEST: usize = 8_192;

/// What a sensor asks with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"csr": "-----BEGIN CERTIFICATE REQUEST-----\nMIHb...\n-----END CERTIFICATE REQUEST-----\n"}))]
pub struct CertificateRequest {
    /// PKCS#10 in PEM, for a key on P-256 that the sensor made and keeps. Only the key is taken from it: names,
    /// usages and whatever else it asks for are not looked at
    #[schema(max_length = 8192)]
    pub csr: String,
}

/// A sensor's certificate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "certificate": "-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n",
    "serial": "5f0c2b7e9a4d4c1e8b3a6d5f4e3c2b1a", "issued_at": "2026-01-31T11:00:00.000000000Z",
    "expires_at": "2026-05-01T11:00:00.000000000Z"
}))]
pub struct SensorCertificate {
    /// PEM; its one name is `urn:weir:sensor:` and the sensor's id, its one use TLS clients
    pub certificate: String,
    /// Hexadecimal, as in the audit log
    pub serial: String,
    pub issued_at: String,
    pub expires_at: String,
}

/// Get a certificate
///
/// For sensors, where `tls.client_auth` is on. By the credential alone as long as no certificate was shown with it
/// (after the enrolment, or with a new credential of an operator's); from then on with the certificate before.
#[utoipa::path(
    post,
    path = "/api/v1/sensor/certificate",
    tag = "ingest",
    request_body = CertificateRequest,
    responses(
        (status = 200, body = SensorCertificate, description = "The certificate"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "No valid credential, or one that was used with a certificate and comes without"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`tls.client_auth` is off: there are no certificates"),
    )
)]
pub async fn issue(
    State(state): State<AppState>,
    sender: AuthenticatedSensor,
    origin: Origin,
    _: Query<NoParams>,
    Body(body): Body<CertificateRequest>,
) -> Result<Response, ApiError> {
    if body.csr.len() > MAX_REQUEST {
        return Err(ApiError::parameter("csr", "has more than 8192 bytes"));
    }
    let author = sender.author(&state, origin).await?;
    let asking = Asking {
        author: &author,
        sensor_id: sender.sensor_id,
        credential_id: sender.credential_id,
        by_certificate: sender.by_certificate,
    };
    let issued = state.authority.issue(&state.pool, &asking, &body.csr).await;
    let signed = issued.map_err(|error| ApiError::parameter("csr", error.to_string()))??;
    let made = SensorCertificate {
        certificate: pem(&signed.certificate),
        serial: signed.serial,
        issued_at: render::system_time(signed.issued_at),
        expires_at: render::system_time(signed.expires_at),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

/// Turns a sensor away for what its connection showed. Another's certificate is written down: somebody has what
/// is not theirs.
pub async fn refuse(
    state: &AppState,
    refusal: Refusal,
    sensor_id: i32,
    name: &str,
    shown: Option<i32>,
    address: Option<IpAddr>,
) -> Response {
    if refusal == Refusal::Another && state.authority.is_news(sensor_id, shown) {
        let author = Author {
            kind: "sensor",
            id: Some(sensor_id.to_string()),
            name: name.to_owned(),
            address: address.map(|address| address.to_string()),
            request_id: None,
        };
        let change = Change {
            action: "sensor.certificate.another",
            subject_kind: "sensor",
            subject_id: Some(sensor_id.to_string()),
            subject_name: Some(name.to_owned()),
            after: Some(json!({"certificate_of": shown})),
            ..Change::default()
        };
        if let Err(error) = audit::note(&state.pool, &author, &change).await {
            tracing::warn!(%error, sensor = name, "note that another sensor's certificate was shown");
        }
    }
    let (slug, detail) = match refusal {
        Refusal::Missing => (
            "certificate-required",
            "sensors show a certificate here, and this connection showed none; \
             `POST /api/v1/sensor/certificate` gives one",
        ),
        Refusal::Another => {
            ("certificate-of-another", "the connection's certificate is not that of this credential's sensor")
        }
        Refusal::Over => ("certificate-over", "the time of the connection's certificate is over"),
        Refusal::Untrusted => {
            ("certificate-untrusted", "the authority of the connection's certificate is trusted no more")
        }
    };
    let mut response = access::refuse(state, "certificate", ApiError::unauthenticated(slug, detail));
    // What a connection showed it shows for good: the next one may do better.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

impl From<IssueError> for ApiError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Off => Self::conflict("no-client-certificates", error.to_string()),
            IssueError::NotYet => {
                Self::busy("a new authority of sensors' certificates signs in a few seconds")
            }
            IssueError::Certified => Self::unauthenticated("certificate-required", error.to_string()),
            IssueError::Sign(_) => {
                let mut problem = Self::from_status(StatusCode::INTERNAL_SERVER_ERROR);
                problem.internal = Some(error.to_string());
                problem
            }
            IssueError::Store(error) => error.into(),
        }
    }
}
