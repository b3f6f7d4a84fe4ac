//! Who may pass: what a route asks of its caller, and the guard in front of it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::{self, Origin};
use super::error::Category;
use super::request::Actor;
use super::routes::{ADMIN_TOKEN, MACHINE, SENSOR, SESSION};
use super::sensors::unknown;
use super::{ApiError, AppState, certificate, limit};
use crate::auth::{Check, Principal, Role, Scope, SensorCheck, Who};
use crate::authority::Shown;
use crate::store::audit::Author;
use crate::store::{StoreError, authority, sensors};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: health, metrics, and the doors themselves.
    Open,
    /// A sensor's own token, and no other; beside it its certificate, where those are required.
    Sensor,
    /// The same for a sensor that has no certificate yet.
    SensorBeginning,
    /// This role, and of a machine's token this scope.
    Role(Role, Scope),
    /// Anybody who is somebody; the handler looks at what of it they may see.
    AnyScope,
    /// The same, where a ticket does as well: browsers open streams without a header of their own.
    Stream,
    /// This role and a person, or the admin token: a machine does not make itself credentials.
    Person(Role),
    /// A session, whatever its role: for what somebody does to their own.
    Session,
}

impl Access {
    /// Names of the credentials that the route takes, any one of them.
    pub fn credentials(self) -> &'static [&'static str] {
        match self {
            Self::Open => &[],
            Self::Sensor | Self::SensorBeginning => &[SENSOR],
            Self::Role(..) | Self::AnyScope | Self::Stream => &[SESSION, MACHINE, ADMIN_TOKEN],
            Self::Person(_) => &[SESSION, ADMIN_TOKEN],
            Self::Session => &[SESSION],
        }
    }

    /// The same for people who read the documentation.
    pub fn words(self) -> Option<String> {
        match self {
            Self::Open | Self::Sensor | Self::SensorBeginning => None,
            Self::Role(role, scope) => {
                Some(format!("Role: {} (a machine's token: scope `{}`).", role.name(), scope.name()))
            }
            Self::AnyScope | Self::Stream => Some(
                "Role: viewer; a topic asks for the role and the scope of the routes that show the same."
                    .to_owned(),
            ),
            Self::Person(role) => Some(format!("Role: {}; not for machines' tokens.", role.name())),
            Self::Session => Some("For whoever logged in.".to_owned()),
        }
    }

    /// Whether somebody may pass; else why not, for the metrics and for them.
    fn admits(self, principal: &Principal) -> Result<(), (&'static str, String)> {
        let role = match self {
            Self::Open => return Ok(()),
            Self::Sensor | Self::SensorBeginning => {
                return Err(("kind", "this route is for sensors".to_owned()));
            }
            Self::Role(role, _) | Self::Person(role) => role,
            Self::AnyScope | Self::Stream | Self::Session => Role::Viewer,
        };
        match (self, &principal.who) {
            (Self::Session, Who::Machine { .. } | Who::AdminToken) => {
                return Err(("kind", "this route is for whoever logged in with a password".to_owned()));
            }
            (Self::Person(_), Who::Machine { .. }) => {
                return Err(("kind", "this route is not for machines' tokens".to_owned()));
            }
            (Self::Role(_, scope), Who::Machine { scopes, .. }) if !scopes.contains(&scope) => {
                return Err(("scope", format!("the token has not the scope `{}`", scope.name())));
            }
            _ => {}
        }
        if principal.role < role {
            return Err((
                "role",
                format!("this needs the role {}, yours is {}", role.name(), principal.role.name()),
            ));
        }
        Ok(())
    }
}

/// An authenticated sensor, for the handler.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    pub sensor_id: i32,
    pub credential_id: i32,
    /// It shows a certificate of its own, too.
    pub by_certificate: bool,
}

/// The sensor that [`guard`] let through.
pub type AuthenticatedSensor = Extension<Sender>;

impl Sender {
    /// Who a change is by that the sensor itself asks for.
    pub async fn author(&self, state: &AppState, origin: Origin) -> Result<Author, ApiError> {
        Ok(Author {
            kind: "sensor",
            id: Some(self.sensor_id.to_string()),
            name: sensors::name_of(&state.pool, self.sensor_id).await?.ok_or_else(unknown)?,
            address: origin.address.map(|address| address.to_string()),
            request_id: Some(origin.request_id),
        })
    }
}

/// The person or machine that [`guard`] let through, and where they are: who a change is by.
pub struct Caller {
    pub principal: Principal,
    pub origin: Origin,
}

impl Caller {
    pub fn author(&self) -> Author {
        let (kind, id) = match &self.principal.who {
            Who::AdminToken => ("admin_token", None),
            Who::User { user_id, .. } => ("user", Some(user_id.to_string())),
            Who::Machine { api_token_id, .. } => ("token", Some(api_token_id.to_string())),
        };
        Author {
            kind,
            id,
            name: self.principal.name.to_string(),
            address: self.origin.address.map(|address| address.to_string()),
            request_id: Some(self.origin.request_id.clone()),
        }
    }

    /// The user, where it is one.
    pub fn user_id(&self) -> Option<i32> {
        match self.principal.who {
            Who::User { user_id, .. } => Some(user_id),
            Who::AdminToken | Who::Machine { .. } => None,
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let origin = Origin::from_request_parts(parts, state).await?;
        // Only an open route has none, and an open route has no handler that asks.
        let principal = parts.extensions.get::<Principal>().cloned().ok_or_else(missing)?;
        Ok(Self { principal, origin })
    }
}

/// Lets through whom the route admits.
pub async fn guard(
    State((state, access)): State<(AppState, Access)>,
    request: Request,
    next: Next,
) -> Response {
    match access {
        Access::Open => return open(&state, request, next).await,
        Access::Sensor | Access::SensorBeginning => {
            return sensor(&state, access == Access::SensorBeginning, request, next).await;
        }
        Access::Role(..) | Access::AnyScope | Access::Stream | Access::Person(_) | Access::Session => {}
    }
    // A browser cannot send a bearer token by itself; it may show the documentation after asking for the
    // token as a password.
    let for_browsers = matches!(access, Access::Role(_, Scope::Documentation));
    let token =
        bearer(&request).map(str::to_owned).or_else(|| for_browsers.then(|| basic(&request)).flatten());
    let ticket = (access == Access::Stream && token.is_none()).then(|| ticket(&request)).flatten();
    let mut response = match (token, ticket) {
        (None, None) => refuse(&state, "missing", missing()),
        (token, ticket) => match known(&state, token, ticket).await {
            Err(error) => away(error),
            Ok(Check::Known(principal)) => return admit(&state, access, principal, request, next).await,
            Ok(check) => {
                let (reason, error) = refusal(&check);
                refuse(&state, reason, error)
            }
        },
    };
    if for_browsers && response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"weir: a token is the password\"");
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

async fn known(state: &AppState, token: Option<String>, ticket: Option<String>) -> Result<Check, StoreError> {
    match (token, ticket) {
        (Some(token), _) => state.auth.principal(&state.pool, &token).await,
        (None, Some(ticket)) => state.auth.ticket(&state.pool, &ticket).await,
        (None, None) => Ok(Check::Unknown),
    }
}

async fn admit(
    state: &AppState,
    access: Access,
    principal: Principal,
    mut request: Request,
    next: Next,
) -> Response {
    let actor = match &principal.who {
        Who::AdminToken => principal.name.to_string(),
        Who::User { .. } => format!("user:{}", principal.name),
        Who::Machine { .. } => format!("token:{}", principal.name),
    };
    let mut response = match access.admits(&principal) {
        Ok(()) => {
            let key = match &principal.who {
                Who::AdminToken => "admin".to_owned(),
                Who::User { user_id, .. } => format!("user:{user_id}"),
                Who::Machine { api_token_id, .. } => format!("token:{api_token_id}"),
            };
            request.extensions_mut().insert(principal);
            limit::run(state, &key, request, next).await
        }
        Err((reason, words)) => {
            let mut response = refuse(state, reason, forbidden(words));
            let challenge = HeaderValue::from_static("Bearer realm=\"weir\", error=\"insufficient_scope\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            response
        }
    };
    response.extensions_mut().insert(Actor(actor));
    response
}

/// Probes and Prometheus are not held up; who knocks at a door has the limit of their address.
async fn open(state: &AppState, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let address = client::address(request.headers(), request.extensions(), state);
    let key = address.map_or_else(|| "address".to_owned(), |address| format!("address:{address}"));
    limit::run(state, &key, request, next).await
}

async fn sensor(state: &AppState, beginning: bool, mut request: Request, next: Next) -> Response {
    let Some(token) = bearer(&request) else {
        return refuse(state, "missing", missing());
    };
    match state.auth.sensor(&state.pool, token).await {
        Err(error) => away(error),
        Ok(SensorCheck::Unknown) => refuse(
            state,
            "unknown",
            ApiError::unauthenticated("invalid-token", "the token is not a sensor's"),
        ),
        Ok(SensorCheck::Revoked { name }) => with_actor(refuse(state, "revoked", ApiError::revoked()), &name),
        Ok(SensorCheck::Gone { name }) => with_actor(refuse(state, "revoked", ApiError::gone()), &name),
        Ok(SensorCheck::Over { name }) => {
            let error = ApiError::unauthenticated(
                "token-revoked",
                "the token was revoked or replaced, or its time is over",
            );
            with_actor(refuse(state, "revoked", error), &name)
        }
        Ok(SensorCheck::Known { sensor_id, credential_id, certified, name }) => {
            let shown = request.extensions().get::<Arc<Shown>>().cloned();
            let authority = match state.authority.judge(shown.as_deref(), sensor_id, beginning) {
                Ok(authority) => authority,
                Err(refusal) => {
                    let address = client::address(request.headers(), request.extensions(), state);
                    let shown = shown.and_then(|shown| shown.sensor_id);
                    let refused = certificate::refuse(state, refusal, sensor_id, &name, shown, address);
                    return with_actor(refused.await, &name);
                }
            };
            if let Some(ca_id) = authority
                && !certified
            {
                if let Err(error) = authority::certify(&state.pool, credential_id, ca_id).await {
                    return away(error);
                }
                state.auth.forget(sensor_id);
            }
            let by_certificate = authority.is_some();
            // Whatever it came for: it is there.
            state.auth.activity.sensor(sensor_id, None);
            request.extensions_mut().insert(Sender { sensor_id, credential_id, by_certificate });
            let response = limit::run(state, &format!("sensor:{sensor_id}"), request, next).await;
            with_actor(response, &name)
        }
    }
}

fn refusal(check: &Check) -> (&'static str, ApiError) {
    match check {
        Check::Expired => ("expired", ApiError::unauthenticated("token-expired", "the token's time is over")),
        Check::Revoked => ("revoked", ApiError::unauthenticated("token-revoked", "the token was revoked")),
        Check::Unknown | Check::Known(_) => (
            "unknown",
            ApiError::unauthenticated("invalid-token", "the token is none that is valid on this route"),
        ),
    }
}

pub(super) fn refuse(state: &AppState, reason: &str, error: ApiError) -> Response {
    state.metrics.access_refused.with_label_values(&[reason]).inc();
    let invalid = error.status == StatusCode::UNAUTHORIZED && error.slug != "missing-token";
    let mut response = error.into_response();
    if invalid {
        // RFC 6750: who sent a token learns that it is the token.
        let challenge = HeaderValue::from_static("Bearer realm=\"weir\", error=\"invalid_token\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Nothing is known without the database, so nobody passes.
fn away(error: StoreError) -> Response {
    ApiError::from(error).into_response()
}

fn with_actor(mut response: Response, name: &str) -> Response {
    response.extensions_mut().insert(Actor(format!("sensor:{name}")));
    response
}

fn missing() -> ApiError {
    ApiError::unauthenticated("missing-token", "send the header `Authorization: Bearer TOKEN`")
}

fn forbidden(detail: String) -> ApiError {
    let title = "The credential does not allow this";
    ApiError::new(StatusCode::FORBIDDEN, Category::Authorization, "forbidden", title, detail)
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The handler reads the query again, and finds fault with what is wrong in it.
fn ticket(request: &Request) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "ticket").map(|(_, value)| value.into_owned())
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
