//! `GET /api/v1/alerts/deliveries`: what receivers were told, and what waits.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::api::paging::PageParams;
use crate::api::params::{FromParams, Params, Query};
use crate::api::{ApiError, AppState, render};
use crate::store::alerts::deliveries::{self, Logged};

/// Which deliveries.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveryParams {
    /// To the receiver with this id
    #[param(minimum = 1, maximum = 2_147_483_647, example = 1)]
    pub receiver: Option<i32>,
    /// `waiting`, `delivered` or `given_up`
    #[param(value_type = Option<String>, example = "waiting", pattern = "^(waiting|delivered|given_up)$")]
    pub state: Option<&'static str>,
}

pub struct ListParams {
    filter: DeliveryParams,
    page: PageParams,
}

impl FromParams for ListParams {
    fn read(params: &mut Params) -> Self {
        let states = [("waiting", "waiting"), ("delivered", "delivered"), ("given_up", "given_up")];
        let filter = DeliveryParams {
            receiver: params.number("receiver", 1..=i32::MAX as u64).map(|id| id as i32),
            state: params.choice("state", &states),
        };
        Self { filter, page: PageParams::read(params) }
    }
}

/// One delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 9, "key": "2b0c1d34-5e6f-4a7b-8c9d-0e1f2a3b4c5d", "receiver_id": 1, "receiver": "on-call",
    "rule": "much-from-one", "status": "firing", "alerts": 1, "state": "delivered", "attempts": 1, "next_at": null,
    "created_at": "2026-01-31T12:01:00.000000000Z", "ended_at": "2026-01-31T12:01:00.200000000Z", "last_error": null
}))]
pub struct Delivery {
    pub id: i64,
    /// As its receiver gets it in `Idempotency-Key`, the same in each attempt
    pub key: String,
    pub receiver_id: i32,
    pub receiver: String,
    pub rule: String,
    /// `firing` or `resolved`
    pub status: String,
    /// How many alerts it tells of
    pub alerts: i32,
    /// `waiting`, `delivered` or `given_up`
    pub state: String,
    pub attempts: i32,
    /// When it is tried next
    pub next_at: Option<String>,
    pub created_at: String,
    pub ended_at: Option<String>,
    pub last_error: Option<String>,
}

/// A page of deliveries, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryPage {
    pub items: Vec<Delivery>,
    pub has_more: bool,
    pub continuation: Option<String>,
}

impl From<Logged> for Delivery {
    fn from(logged: Logged) -> Self {
        let waiting = logged.state == "waiting";
        Self {
            id: logged.delivery_id,
            key: logged.key.to_string(),
            receiver_id: logged.receiver_id,
            receiver: logged.receiver,
            rule: logged.rule,
            status: logged.status,
            alerts: logged.alerts,
            state: logged.state,
            attempts: logged.attempts,
            next_at: waiting.then(|| render::system_time(logged.next_at)),
            created_at: render::system_time(logged.created_at),
            ended_at: logged.ended_at.map(render::system_time),
            last_error: logged.last_error,
        }
    }
}

/// List deliveries
#[utoipa::path(
    get,
    path = "/api/v1/alerts/deliveries",
    tag = "alerts",
    params(DeliveryParams, PageParams),
    responses((status = 200, body = DeliveryPage, description = "A page, maybe empty"))
)]
pub async fn list(
    State(state): State<AppState>,
    Query { value: params, given }: Query<ListParams>,
) -> Result<Json<DeliveryPage>, ApiError> {
    let (page, filter) = (params.page, params.filter);
    let before = page.after::<8>(&state, "alert-deliveries", &given)?.map(i64::from_be_bytes);
    let limit = page.limit() as i64 + 1;
    let mut found = deliveries::list(&state.pool, filter.receiver, filter.state, before, limit).await?;
    let next = |delivery: &Logged| delivery.delivery_id.to_be_bytes();
    let continuation = page.next(&state, "alert-deliveries", &given, &mut found, next);
    let items = found.into_iter().map(Delivery::from).collect();
    Ok(Json(DeliveryPage { items, has_more: continuation.is_some(), continuation }))
}
