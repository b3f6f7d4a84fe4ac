//! The limits around a request whose caller is known: its bucket, its place in the lane, and the headers that
//! tell (draft-ietf-httpapi-ratelimit-headers).

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::Category;
use super::{ApiError, AppState};
use crate::limits::{Class, Full, Rate, Verdict};

pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Runs the request if `principal` may ask now and a place is free. Called by the guard that knows who asks.
pub async fn run(state: &AppState, principal: &str, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let class = Class::of(request.method(), route);
    let verdict = state.limits.decide(class, principal).await;
    let mut response = if verdict.allowed {
        match state.limits.lane(class).await {
            Ok(place) => {
                let response = next.run(request).await;
                drop(place);
                response
            }
            Err(Full) => ApiError::busy("as many questions as are allowed are in work").into_response(),
        }
    } else {
        limited(class, verdict).into_response()
    };
    tell(&mut response, class, state.limits.rate(class), verdict);
    response
}

fn limited(class: Class, verdict: Verdict) -> ApiError {
    let detail = format!("the limit of class `{}` is reached; Retry-After says for how long", class.name());
    let title = "Too many requests";
    let mut error =
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, Category::RateLimit, "rate-limited", title, detail);
    error.retry_after = u32::try_from(seconds_up(verdict.retry_after.as_micros())).ok();
    error
}

fn tell(response: &mut Response, class: Class, rate: Rate, verdict: Verdict) {
    let name = class.name();
    let window = seconds_up(u128::from(rate.window_us()));
    let reset = seconds_up(verdict.reset.as_micros());
    for (header, value) in [
        (POLICY, format!("\"{name}\";q={};w={window}", rate.burst)),
        (STATE, format!("\"{name}\";r={};t={reset}", verdict.remaining)),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(header, value);
        }
    }
}

fn seconds_up(microseconds: u128) -> u128 {
    microseconds.div_ceil(1_000_000)
}
