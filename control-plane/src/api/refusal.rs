//! What identity has to refuse, as problems.

use axum::http::StatusCode;

use super::ApiError;
use super::error::Category;
use crate::auth::{AuthError, LoginError, PasswordError, weakness};
use crate::store::users::UserError;

impl ApiError {
    pub fn conflict(slug: &'static str, detail: impl Into<String>) -> Self {
        let title = "This is not possible as things are";
        Self::new(StatusCode::CONFLICT, Category::Conflict, slug, title, detail)
    }

    /// The password of a request that may not be one.
    pub fn weak_password(field: &str, password: &str, name: &str) -> Result<(), Self> {
        weakness(password, name).map_or(Ok(()), |weakness| Err(Self::parameter(field, weakness)))
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match &error {
            PasswordError::Busy => {
                let mut problem = Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Category::RateLimit,
                    "busy",
                    "The server is busy",
                    error.to_string(),
                );
                problem.retry_after = Some(2);
                problem
            }
            PasswordError::Hash(_) => internal(&error),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(error) => error.into(),
            AuthError::Password(error) => error.into(),
            AuthError::Key | AuthError::Randomness(_) => internal(&error),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => Self::unauthenticated("wrong-credentials", error.to_string()),
            LoginError::Blocked { seconds, .. } => {
                let mut problem = Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    Category::RateLimit,
                    "too-many-attempts",
                    "Too many failed attempts",
                    error.to_string(),
                );
                problem.retry_after = Some(seconds);
                problem
            }
            LoginError::Password(error) => error.into(),
            LoginError::Auth(error) => error.into(),
            LoginError::Store(error) => error.into(),
        }
    }
}

impl From<UserError> for ApiError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Taken => Self::conflict("name-taken", error.to_string()),
            UserError::LastAdmin => Self::conflict("last-admin", error.to_string()),
            UserError::Unknown => Self::not_found(error.to_string()),
            UserError::NoSetup => Self::unauthenticated("invalid-setup-token", error.to_string()),
            UserError::Store(error) => error.into(),
        }
    }
}

fn internal(error: &impl ToString) -> ApiError {
    let mut problem = ApiError::from_status(StatusCode::INTERNAL_SERVER_ERROR);
    problem.internal = Some(error.to_string());
    problem
}
