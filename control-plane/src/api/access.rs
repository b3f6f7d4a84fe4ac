//! Who may pass: the check in front of each group of routes.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::request::Actor;
use super::{ApiError, AppState, limit};
use crate::auth::SensorCheck;

/// An authenticated sensor, for the handler.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    pub sensor_id: i32,
}

/// Lets an operator through.
pub async fn operator(State(state): State<AppState>, request: Request, next: Next) -> Response {
    // A browser cannot send a bearer token by itself; it may show the documentation after asking for the
    // token as a password.
    let for_browsers = matches!(request.uri().path(), "/api/docs" | "/api/openapi.json");
    let token =
        bearer(&request).map(str::to_owned).or_else(|| for_browsers.then(|| basic(&request)).flatten());
    let mut response = match token {
        Some(token) if state.auth.is_admin(&token) => {
            let mut response = limit::run(&state, "admin", request, next).await;
            response.extensions_mut().insert(Actor("admin".to_owned()));
            return response;
        }
        Some(_) => {
            ApiError::unauthenticated("invalid-token", "the token is not an operator's").into_response()
        }
        None => missing().into_response(),
    };
    if for_browsers {
        let challenge = HeaderValue::from_static("Basic realm=\"weir: the admin token is the password\"");
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Lets a sensor through that was not revoked.
pub async fn sensor(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let Some(token) = bearer(&request) else {
        return missing().into_response();
    };
    match state.auth.sensor(&state.pool, token).await {
        Err(error) => ApiError::from(error).into_response(),
        Ok(SensorCheck::Unknown) => {
            ApiError::unauthenticated("invalid-token", "the token is not a sensor's").into_response()
        }
        Ok(SensorCheck::Revoked { name }) => with_actor(ApiError::revoked().into_response(), &name),
        Ok(SensorCheck::Gone { name }) => with_actor(ApiError::gone().into_response(), &name),
        Ok(SensorCheck::Known { sensor_id, name }) => {
            request.extensions_mut().insert(Sender { sensor_id });
            let response = limit::run(&state, &format!("sensor:{sensor_id}"), request, next).await;
            with_actor(response, &name)
        }
    }
}

/// The sensor that [`sensor`] let through.
pub type AuthenticatedSensor = Extension<Sender>;

fn with_actor(mut response: Response, name: &str) -> Response {
    response.extensions_mut().insert(Actor(format!("sensor:{name}")));
    response
}

fn missing() -> ApiError {
    ApiError::unauthenticated("missing-token", "send the header `Authorization: Bearer TOKEN`")
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn basic(request: &Request) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}
