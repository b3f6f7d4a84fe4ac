//! The OpenAPI document: the routes' own descriptions, and what they have in common.

use utoipa::OpenApi as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Info, OpenApi};

use super::examples;
use super::routes::{ADMIN_TOKEN, MACHINE, SENSOR, SESSION};

#[derive(utoipa::OpenApi)]
#[openapi(tags(
    (name = "flows", description = "What was counted"),
    (name = "domains", description = "What responders were called"),
    (name = "events", description = "What happened, as it happens and afterwards"),
    (name = "sensors", description = "Who counts, and whether all of it arrived"),
    (name = "detections", description = "What is a problem, and what was said of it"),
    (name = "search", description = "One question over all that has a name"),
    (name = "devices", description = "Who is on the networks, and what operators say of them"),
    (name = "networks", description = "What operators call networks"),
    (name = "ingest", description = "For sensors"),
    (name = "auth", description = "Log in, go on, log out"),
    (name = "sessions", description = "Who is logged in from where"),
    (name = "tokens", description = "API tokens of machines"),
    (name = "users", description = "Who may log in"),
    (name = "audit", description = "Who changed what"),
    (name = "alerts", description = "What is watched for, what fires, and who is told"),
    (name = "operations", description = "What the server does by itself"),
    (name = "health", description = "For probes and Prometheus; open to all"),
    (name = "documentation", description = "This document"),
))]
struct Base;

/// The document of all routes.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = Base::openapi();
    document.merge(super::routes(None).document());
    let mut info = Info::new("Weir control plane", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Flows that Weir's sensors counted. Errors are problem details (RFC 9457) with a `category` and the \
         `request_id` that is in the log. Unknown or repeated query parameters are errors. Times are RFC \
         3339 with nanoseconds, octets are layer 3 unless they say otherwise."
            .to_owned(),
    );
    document.info = info;
    examples::complete(document.components.get_or_insert_default());
    let components = document.components.get_or_insert_default();
    let mut bearer = |name: &str, description: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(description.to_owned());
        components.security_schemes.insert(name.to_owned(), SecurityScheme::Http(scheme).into());
    };
    bearer(SESSION, "The `access_token` of `/api/v1/auth/login`, for a few minutes");
    bearer(MACHINE, "A machine's token of `/api/v1/tokens`, with the scope that the route names");
    bearer(ADMIN_TOKEN, "The token of the file `auth.admin_token_file`, for set-up and recovery");
    bearer(SENSOR, "A sensor's token, of `/api/v1/enroll` or `weir-control-plane sensor add NAME`");
    document
}
