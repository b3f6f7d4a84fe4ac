//! HTTP: routes, parameters, answers, and nothing else. No SQL in here.
//!
//! Every route is registered once, by [`routes`], from its `#[utoipa::path]`: the router and the OpenAPI
//! document are the same list. Operators' routes, the sensors' route and the open ones are three groups;
//! a route outside the open group without a credential does not compile into the router.

mod access;
mod completion;
mod cursor;
mod docs;
mod error;
mod export;
mod flows;
mod health;
mod ingest;
mod ledger;
mod limit;
mod linger;
mod openapi;
mod params;
mod render;
mod request;
mod sensors;
mod table;
mod timeseries;
mod top;
mod window;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Auth;
use crate::config;
use crate::ingest::{Admission, Ingest};
use crate::limits::Limits;
use crate::store::Pool;
use crate::telemetry::Metrics;

pub use error::{ApiError, Category, FieldError, Problem};
pub use openapi::document;

/// Bytes of a body, batches apart.
const MAX_BODY: usize = 256 << 10;

/// What handlers need; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub pool: Pool,
    pub auth: Auth,
    pub ingest: Ingest,
    pub admission: Admission,
    pub limits: Limits,
    pub metrics: Metrics,
    pub settings: Arc<config::Api>,
    pub retention: Arc<config::Retention>,
    /// Places for exports.
    pub exports: Arc<Semaphore>,
}

/// All routes, in their groups, with their documentation. `guard` wraps a group in its access check.
fn routes(state: Option<&AppState>) -> OpenApiRouter<AppState> {
    let operators = OpenApiRouter::new()
        .routes(routes!(flows::list))
        .routes(routes!(completion::complete))
        .routes(routes!(export::export))
        .routes(routes!(top::top))
        .routes(routes!(timeseries::timeseries))
        .routes(routes!(sensors::list))
        .routes(routes!(sensors::get, sensors::remove))
        .routes(routes!(ledger::ledger))
        .routes(routes!(docs::openapi_json))
        .routes(routes!(docs::page));
    let sensors = OpenApiRouter::new().routes(routes!(ingest::ingest));
    let open = OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics));
    let (operators, sensors) = match state {
        None => (operators, sensors),
        Some(state) => (
            operators.route_layer(middleware::from_fn_with_state(state.clone(), access::operator)),
            sensors.route_layer(middleware::from_fn_with_state(state.clone(), access::sensor)),
        ),
    };
    operators.merge(sensors).merge(open)
}

/// The whole service.
pub fn router(state: AppState) -> Router {
    let (router, _) = routes(Some(&state)).split_for_parts();
    router
        .fallback(|| async { ApiError::from_status(StatusCode::NOT_FOUND) })
        // For whoever reads a body by an extractor; the handler of batches reads its own, within its bound.
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(|_| {
            axum::response::IntoResponse::into_response(ApiError::from_status(
                StatusCode::INTERNAL_SERVER_ERROR,
            ))
        }))
        .layer(middleware::from_fn_with_state(state.clone(), request::observe))
        .layer(cors(&state.settings.cors_origins))
        .with_state(state)
}

/// Outermost, so that errors carry the headers too.
fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> =
        origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, request::REQUEST_ID])
        .expose_headers([request::REQUEST_ID, header::RETRY_AFTER, limit::POLICY, limit::STATE])
        .max_age(std::time::Duration::from_mins(10))
}
