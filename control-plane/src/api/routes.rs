//! The one way to register a route: with what it asks of its caller.
//!
//! [`Routes::add`] takes an [`Access`] first, so a route without one does not compile; the same value
//! makes the guard in front of the handler and the credentials in the OpenAPI document. Deny is the
//! default: there is no route that nobody decided about.

use std::collections::BTreeMap;

use axum::{Router, middleware};
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::access::{self, Access};
use super::{AppState, shapes};

/// Names of the security schemes in the document.
pub const SESSION: &str = "access_token";
pub const MACHINE: &str = "api_token";
pub const ADMIN_TOKEN: &str = "admin_token";
pub const SENSOR: &str = "sensor_token";

const PROBLEM: &str = "application/problem+json";

/// Routes with their documentation.
pub struct Routes {
    state: Option<AppState>,
    router: OpenApiRouter<AppState>,
}

impl Routes {
    /// Without a state only the document is made; such routes answer nothing.
    pub fn new(state: Option<&AppState>) -> Self {
        Self { state: state.cloned(), router: OpenApiRouter::new() }
    }

    /// Adds what `routes!` made.
    pub fn add(mut self, access: Access, routes: UtoipaMethodRouter<AppState>) -> Self {
        let (schemas, mut paths, methods) = routes;
        describe(access, &mut paths);
        let methods = match &self.state {
            None => methods,
            Some(state) => {
                methods.layer(middleware::from_fn_with_state((state.clone(), access), access::guard))
            }
        };
        self.router = self.router.routes((schemas, paths, methods));
        self
    }

    pub fn router(self) -> Router<AppState> {
        assert!(self.state.is_some(), "routes without guards are for the document only");
        self.router.split_for_parts().0
    }

    pub fn document(self) -> OpenApi {
        self.router.split_for_parts().1
    }
}

/// Credentials, and the answers that every such route may give.
fn describe(access: Access, paths: &mut Paths) {
    for (path, item) in &mut paths.paths {
        let methods = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in methods.into_iter().flatten() {
            let credentials = access.credentials();
            operation.security = (!credentials.is_empty()).then(|| {
                credentials.iter().map(|name| SecurityRequirement::new(*name, Vec::<String>::new())).collect()
            });
            if let Some(words) = access.words() {
                let text = operation.description.take().unwrap_or_default();
                operation.description = Some(format!("{text}\n\n{words}").trim().to_owned());
            }
            shapes::complete(path, operation);
            answers(access, path.starts_with("/api/"), operation);
        }
    }
}

/// What any request may be answered, and what those of the API may be.
fn answers(access: Access, of_the_api: bool, operation: &mut Operation) {
    let mut usual = vec![
        ("408", "The request took too long"),
        ("414", "The URL is too long"),
        ("431", "More or longer headers than are read"),
        ("500", "The server failed"),
    ];
    if of_the_api {
        usual.extend([
            ("400", "A parameter or the body is not valid"),
            ("429", "Over the caller's limit; `Retry-After` and `RateLimit` say until when"),
            ("503", "The server is busy, or the database is unavailable"),
            ("504", "The database took too long"),
        ]);
    }
    if operation.request_body.is_some() {
        usual.extend([("413", "The body is too large"), ("415", "The body has another type")]);
    }
    if access != Access::Open {
        usual.push(("401", "No credential that is valid here"));
    }
    if !matches!(access, Access::Open | Access::Sensor | Access::SensorBeginning) {
        usual.push(("403", "The credential does not allow this"));
    }
    let known: &mut BTreeMap<String, RefOr<Response>> = &mut operation.responses.responses;
    for (status, words) in usual {
        known.entry(status.to_owned()).or_insert_with(|| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            ResponseBuilder::new().description(words).content(PROBLEM, content).build().into()
        });
    }
}
