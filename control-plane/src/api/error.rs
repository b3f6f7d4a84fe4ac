//! The one shape of an error answer: RFC 9457 problem details with a category and the request's id.
//!
//! Handlers return an [`ApiError`]; [`super::request`] adds the request's id, counts it and writes the
//! body. What went wrong inside goes to the log and not into the answer.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::Rng as _;
use serde::Serialize;
use utoipa::ToSchema;
use weir_wire::CodecError;

use crate::ingest::{Busy, IngestError};
use crate::store::StoreError;

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    Validation,
    Authentication,
    Authorization,
    NotFound,
    Conflict,
    RateLimit,
    Database,
    Upstream,
    Internal,
}

impl Category {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimit => "rate_limit",
            Self::Database => "database",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}

/// Problem details (RFC 9457), `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:weir:problem:invalid-parameters",
    "title": "A parameter is not valid",
    "status": 400,
    "detail": "limit: 0 is not between 1 and 1000",
    "category": "validation",
    "request_id": "0197a2c0-5d0e-7c3e-9d8b-6f2a1f6f0b1c",
    "errors": [{"field": "limit", "message": "0 is not between 1 and 1000"}]
}))]
pub struct Problem {
    /// Names the kind of problem; the same kind has always the same type
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is wrong with this request
    pub detail: String,
    pub category: Category,
    /// As in the header `X-Request-ID` and in the server's log
    pub request_id: String,
    /// The fields at fault, where there are any
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One field of a request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    #[schema(example = "limit")]
    pub field: String,
    #[schema(example = "`0` is not between 1 and 1000")]
    pub message: String,
}

/// An error on its way out of a handler.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub slug: &'static str,
    pub title: &'static str,
    pub detail: String,
    pub category: Category,
    pub errors: Vec<FieldError>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// For the log only.
    pub internal: Option<String>,
}

impl ApiError {
    #[must_use]
    pub fn new(
        status: StatusCode,
        category: Category,
        slug: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            slug,
            title,
            detail: detail.into(),
            category,
            errors: Vec::new(),
            retry_after: None,
            internal: None,
        }
    }

    /// Parameters at fault, each named.
    #[must_use]
    pub fn parameters(errors: Vec<FieldError>) -> Self {
        let detail: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        let mut problem = Self::new(
            StatusCode::BAD_REQUEST,
            Category::Validation,
            "invalid-parameters",
            "A parameter is not valid",
            detail.join("; "),
        );
        problem.errors = errors;
        problem
    }

    #[must_use]
    pub fn parameter(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::parameters(vec![FieldError { field: field.into(), message: message.into() }])
    }

    #[must_use]
    pub fn unauthenticated(slug: &'static str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            Category::Authentication,
            slug,
            "The credential is not valid",
            detail,
        )
    }

    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        let title = "There is no such thing";
        Self::new(StatusCode::NOT_FOUND, Category::NotFound, "not-found", title, detail)
    }

    /// What the router itself refuses: it has only a status.
    #[must_use]
    pub fn from_status(status: StatusCode) -> Self {
        let invalid = Category::Validation;
        match status {
            StatusCode::NOT_FOUND => Self::not_found("no route has this path"),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(
                status,
                invalid,
                "method-not-allowed",
                "The method is not allowed here",
                "the header Allow names the methods of this path",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, invalid, "body-too-large", "The body is too large", "the body is too large")
            }
            status if status.is_client_error() => Self::new(
                status,
                invalid,
                "bad-request",
                "The request is not valid",
                status.canonical_reason().unwrap_or("the request is not valid"),
            ),
            status => {
                let (title, detail) = ("The server failed", "the log names the cause by the request id");
                Self::new(status, Category::Internal, "internal", title, detail)
            }
        }
    }

    /// The answer's body.
    #[must_use]
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            kind: format!("urn:weir:problem:{}", self.slug),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            category: self.category,
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
        }
    }

    /// Some seconds within the range, so that those who are turned away together do not come back
    /// together.
    fn retry(mut self, seconds: std::ops::RangeInclusive<u32>) -> Self {
        self.retry_after = Some(rand::rng().random_range(seconds));
        self
    }

    fn because(mut self, internal: &impl ToString) -> Self {
        self.internal = Some(internal.to_string());
        self
    }
}

impl IntoResponse for ApiError {
    /// The body is written by [`super::request`], which knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"weir\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let database =
            |status, slug, title, detail: &str| Self::new(status, Category::Database, slug, title, detail);
        match &error {
            // Sent again it finds out what is gone: its sender, or what it is about.
            StoreError::Unavailable(_)
            | StoreError::Conflict(_)
            | StoreError::MissingPartition(_)
            | StoreError::Erased => database(
                StatusCode::SERVICE_UNAVAILABLE,
                "database-unavailable",
                "The database is unavailable",
                "nothing was changed or it is not known whether it was; the request may be sent again",
            )
            .retry(2..=10),
            StoreError::Timeout(limit) => database(
                StatusCode::GATEWAY_TIMEOUT,
                "database-timeout",
                "The database took too long",
                &format!("no answer within {limit} ms; a narrower time window or filter may help"),
            )
            .retry(5..=15),
            StoreError::OutOfRange(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                Category::Validation,
                "counts-out-of-range",
                "The counts are out of range",
                "with these counts a sum would leave the range of a 64-bit integer",
            ),
            StoreError::Database(_) => database(
                StatusCode::INTERNAL_SERVER_ERROR,
                "database-error",
                "The database refused",
                "nothing was changed; the log names the cause by the request id",
            ),
        }
        .because(&error)
    }
}

impl From<Busy> for ApiError {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Sensor => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Category::RateLimit,
                "too-many-batches",
                "Too many batches at once",
                "as many batches of this sensor as are allowed are in work",
            )
            .retry(1..=4),
            Busy::Total => Self::busy("as many batches as are allowed are in work"),
        }
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        let invalid =
            |status, slug, title| Self::new(status, Category::Validation, slug, title, error.to_string());
        match &error {
            IngestError::Codec(CodecError::TooLarge(_) | CodecError::Bomb) => {
                invalid(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The batch is too large")
            }
            IngestError::Codec(_) => {
                invalid(StatusCode::BAD_REQUEST, "not-a-batch", "The body is not a batch")
            }
            IngestError::Invalid(field) => {
                let slug = if field.field == "version" { "unsupported-version" } else { "invalid-batch" };
                let mut problem =
                    invalid(StatusCode::UNPROCESSABLE_ENTITY, slug, "The batch breaks a rule of its format");
                problem.errors =
                    vec![FieldError { field: field.field.clone(), message: field.message.clone() }];
                problem
            }
            IngestError::Revoked => Self::revoked(),
            IngestError::Gone => Self::gone(),
            IngestError::Panicked => {
                Self::from_status(StatusCode::INTERNAL_SERVER_ERROR).because(&"decoding a batch panicked")
            }
            IngestError::Store(_) => match error {
                IngestError::Store(error) => error.into(),
                _ => unreachable!("matched above"),
            },
        }
    }
}

impl ApiError {
    /// Load is shed: another time it will do.
    #[must_use]
    pub fn busy(detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Category::RateLimit, "busy", "The server is busy", detail)
            .retry(2..=10)
    }

    /// Final: a sensor stops sending when it reads this type.
    #[must_use]
    pub fn revoked() -> Self {
        Self::unauthenticated("sensor-revoked", "this sensor was revoked; its batches are not taken any more")
    }

    /// Final too.
    #[must_use]
    pub fn gone() -> Self {
        Self::new(
            StatusCode::GONE,
            Category::NotFound,
            "sensor-gone",
            "The sensor was deleted",
            "this sensor was deleted with all that it sent; its batches are not taken any more",
        )
    }
}
