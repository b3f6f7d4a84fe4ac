//! HTTP: routes, parameters, answers, and nothing else. No SQL in here.
//!
//! Every route is registered once, by [`routes`], from its `#[utoipa::path]` and with its
//! [`access::Access`]: the router, its guards and the OpenAPI document are one list, and a route that does
//! not say who may call it does not compile.

mod access;
mod alerts;
mod answers;
mod audit;
mod auth;
mod belonging;
mod body;
mod certificate;
mod client;
mod columns;
mod completion;
mod configuration;
mod credentials;
mod cursor;
mod detections;
mod devices;
mod docs;
mod domains;
mod enrollments;
mod erasures;
mod error;
mod event_stream;
mod events;
mod examples;
mod export;
mod faults;
mod flows;
mod health;
mod heartbeat;
mod ingest;
mod jobs;
mod ledger;
mod limit;
mod linger;
mod networks;
mod openapi;
mod paging;
mod params;
mod refusal;
mod render;
mod request;
mod routes;
mod search;
mod sensors;
mod sessions;
mod shapes;
mod socket;
mod stream;
mod table;
mod timeseries;
mod tokens;
mod top;
mod users;
mod window;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::routes;
use weir_trace::Tracer;

use crate::auth::{Auth, Role, Scope};
use crate::authority::Authority;
use crate::config;
use crate::ingest::{Admission, Ingest};
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::naming::Services;
use crate::outbound::Outbound;
use crate::store::Pool;
use crate::stream::Stream;
use crate::telemetry::Metrics;

use access::Access;
pub use answers::Answers;
use routes::Routes;

pub use error::{ApiError, Category, FieldError, Problem};
pub use openapi::document;

/// Bytes of a body, batches apart.
const MAX_BODY: usize = 256 << 10;

/// What handlers need; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub pool: Pool,
    pub auth: Auth,
    pub authority: Authority,
    pub ingest: Ingest,
    pub admission: Admission,
    pub limits: Limits,
    pub metrics: Metrics,
    pub settings: Arc<config::Api>,
    pub sensors: Arc<config::Sensors>,
    /// What ports are called.
    pub services: Arc<Services>,
    pub retention: Arc<config::Retention>,
    pub jobs: Jobs,
    /// Answers of expensive questions.
    pub answers: Answers,
    pub stream: Stream,
    pub outbound: Outbound,
    /// Places for exports.
    pub exports: Arc<Semaphore>,
    pub tracer: Tracer,
}

/// All routes, each with what it asks of its caller.
fn routes(state: Option<&AppState>) -> Routes {
    of_operations(of_sensors(of_data(of_people(Routes::new(state)))))
}

/// Who may ask, and who did what.
fn of_people(routes: Routes) -> Routes {
    let users = Access::Role(Role::Admin, Scope::Users);
    let audit = Access::Role(Role::Admin, Scope::Audit);
    let own = Access::Person(Role::Viewer);
    routes
        .add(Access::Open, routes!(auth::jwks))
        .add(Access::Open, routes!(auth::login))
        .add(Access::Open, routes!(auth::refresh))
        .add(Access::Open, routes!(auth::setup))
        .add(Access::Session, routes!(auth::logout))
        .add(Access::Session, routes!(auth::password))
        .add(own, routes!(auth::me))
        .add(own, routes!(sessions::list))
        .add(own, routes!(sessions::end))
        .add(Access::Session, routes!(sessions::end_others))
        .add(own, routes!(tokens::list))
        .add(own, routes!(tokens::add))
        .add(own, routes!(tokens::revoke))
        .add(users, routes!(users::list))
        .add(users, routes!(users::add))
        .add(users, routes!(users::get))
        .add(users, routes!(users::change))
        .add(users, routes!(users::remove))
        .add(users, routes!(users::end_sessions))
        .add(audit, routes!(audit::list))
        .add(audit, routes!(audit::export))
}

/// What sensors have told.
fn of_data(routes: Routes) -> Routes {
    let flows = Access::Role(Role::Viewer, Scope::Flows);
    let change_devices = Access::Role(Role::Operator, Scope::Flows);
    let detections = Access::Role(Role::Viewer, Scope::Detections);
    let judge_detections = Access::Role(Role::Operator, Scope::Detections);
    routes
        .add(flows, routes!(flows::list))
        .add(flows, routes!(completion::complete))
        .add(flows, routes!(export::export))
        .add(flows, routes!(top::top))
        .add(flows, routes!(timeseries::timeseries))
        .add(flows, routes!(domains::list))
        .add(Access::AnyScope, routes!(events::list))
        .add(Access::AnyScope, routes!(stream::ticket))
        .add(Access::Stream, routes!(stream::socket))
        .add(Access::Stream, routes!(stream::event_stream))
        .add(detections, routes!(detections::list))
        .add(detections, routes!(detections::get))
        .add(judge_detections, routes!(detections::acknowledge))
        .add(judge_detections, routes!(detections::dismiss))
        .add(judge_detections, routes!(detections::reopen))
        .add(Access::AnyScope, routes!(search::search))
        .add(flows, routes!(devices::list))
        .add(flows, routes!(devices::get))
        .add(change_devices, routes!(devices::change))
        .add(change_devices, routes!(devices::merge))
        .add(change_devices, routes!(devices::split))
        .add(change_devices, routes!(devices::remove))
        .add(flows, routes!(networks::list))
        .add(flows, routes!(networks::get))
        .add(change_devices, routes!(networks::add))
        .add(change_devices, routes!(networks::change))
        .add(change_devices, routes!(networks::remove))
}

/// Sensors themselves, and what they ask.
fn of_sensors(routes: Routes) -> Routes {
    let sensors = Access::Role(Role::Viewer, Scope::Sensors);
    let change_sensors = Access::Role(Role::Operator, Scope::Sensors);
    routes
        .add(sensors, routes!(sensors::list))
        .add(sensors, routes!(sensors::get))
        .add(sensors, routes!(ledger::ledger))
        .add(change_sensors, routes!(sensors::place))
        .add(change_sensors, routes!(sensors::revoke))
        .add(change_sensors, routes!(sensors::remove))
        .add(sensors, routes!(configuration::of_sensor))
        .add(change_sensors, routes!(configuration::put_sensor))
        .add(sensors, routes!(configuration::sensor_versions))
        .add(change_sensors, routes!(configuration::roll_sensor_back))
        .add(sensors, routes!(configuration::of_group))
        .add(change_sensors, routes!(configuration::put_group))
        .add(sensors, routes!(configuration::group_versions))
        .add(change_sensors, routes!(configuration::roll_group_back))
        .add(sensors, routes!(credentials::list))
        .add(change_sensors, routes!(credentials::add))
        .add(change_sensors, routes!(credentials::revoke))
        .add(sensors, routes!(enrollments::list))
        .add(change_sensors, routes!(enrollments::add))
        .add(change_sensors, routes!(enrollments::revoke))
        .add(Access::Open, routes!(enrollments::enroll))
        .add(Access::Sensor, routes!(credentials::renew))
        .add(Access::SensorBeginning, routes!(certificate::issue))
        .add(Access::Sensor, routes!(heartbeat::beat))
        .add(Access::Sensor, routes!(ingest::ingest))
}

/// How the service does: alerts, jobs, health, documentation.
fn of_operations(routes: Routes) -> Routes {
    let alerts = Access::Role(Role::Viewer, Scope::Alerts);
    let change_alerts = Access::Role(Role::Operator, Scope::Alerts);
    let change_receivers = Access::Role(Role::Admin, Scope::Alerts);
    let operations = Access::Role(Role::Operator, Scope::Operations);
    let documentation = Access::Role(Role::Viewer, Scope::Documentation);
    routes
        .add(Access::Open, routes!(health::healthz))
        .add(Access::Open, routes!(health::readyz))
        .add(Access::Open, routes!(health::metrics))
        .add(alerts, routes!(alerts::list))
        .add(alerts, routes!(alerts::rules::list))
        .add(change_alerts, routes!(alerts::rules::add))
        .add(alerts, routes!(alerts::rules::get))
        .add(change_alerts, routes!(alerts::rules::change))
        .add(change_alerts, routes!(alerts::rules::remove))
        .add(alerts, routes!(alerts::silences::list))
        .add(change_alerts, routes!(alerts::silences::add))
        .add(change_alerts, routes!(alerts::silences::change))
        .add(change_alerts, routes!(alerts::silences::end))
        .add(change_alerts, routes!(alerts::receivers::list))
        .add(change_receivers, routes!(alerts::receivers::add))
        .add(change_receivers, routes!(alerts::receivers::change))
        .add(change_receivers, routes!(alerts::receivers::remove))
        .add(change_alerts, routes!(alerts::deliveries::list))
        .add(operations, routes!(jobs::list))
        .add(operations, routes!(jobs::runs))
        .add(operations, routes!(jobs::run))
        .add(operations, routes!(erasures::list))
        .add(operations, routes!(erasures::get))
        .add(documentation, routes!(docs::openapi_json))
        .add(documentation, routes!(docs::page))
}

/// The whole service.
pub fn router(state: AppState) -> Router {
    routes(Some(&state))
        .router()
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
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            request::REQUEST_ID,
            request::TRACEPARENT,
            stream::LAST_EVENT_ID,
        ])
        .expose_headers([
            request::REQUEST_ID,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
            limit::POLICY,
            limit::STATE,
        ])
        .max_age(std::time::Duration::from_mins(10))
}
