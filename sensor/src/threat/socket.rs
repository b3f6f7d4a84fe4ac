//! A running sensor answers for its lists on a Unix socket: HTTP, for whoever may open it (mode 0600).
//! `weir-sensor lists` asks here.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::keeper::Order;
use super::standing::Standing;

/// Which lists are refreshed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Which {
    /// All without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Also one that has shrunk.
    #[serde(default)]
    pub force: bool,
}

/// Serves until the process ends.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<Order>) {
    let routes = Router::new()
        .route("/lists", get(standing))
        .route("/refresh", post(refresh))
        .route("/lift", post(lift))
        .with_state(orders);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::warn!(%error, "the socket of the threat lists has failed");
    }
}

type Orders = State<mpsc::Sender<Order>>;

async fn standing(orders: Orders) -> Response {
    ask(orders, Order::Standing).await
}

async fn refresh(orders: Orders, Query(Which { name, force }): Query<Which>) -> Response {
    ask(orders, |done| Order::Refresh { name, force, done }).await
}

async fn lift(orders: Orders) -> Response {
    ask(orders, Order::Lift).await
}

async fn ask(State(orders): Orders, order: impl FnOnce(oneshot::Sender<Standing>) -> Order) -> Response {
    let (done, standing) = oneshot::channel();
    let answer = async {
        orders.send(order(done)).await.ok()?;
        standing.await.ok()
    };
    match answer.await {
        Some(standing) => Json(standing).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the sensor is stopping").into_response(),
    }
}
