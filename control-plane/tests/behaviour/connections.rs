//! A2: connections are bounded: who comes beyond the bound is let go at once, and those that are there go on.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::support::{Plane, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a2_connections_beyond_the_bound_are_closed_and_counted_and_the_rest_goes_on() {
    let plane = Plane::start_with(|config| config.api.max_connections = 3).await;
    let connections = &plane.state().metrics.connections;
    let mut held = Vec::new();
    for count in 1..=3 {
        held.push(TcpStream::connect(plane.address()).await.expect("it is accepted"));
        eventually("it is counted", || async { connections.open.get() == count }).await;
    }
    let mut beyond = TcpStream::connect(plane.address()).await.expect("the kernel accepts it");
    // Closed, or reset: either way nothing comes.
    assert_eq!(beyond.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!((connections.refused.get(), connections.open.get()), (1, 3));
    held.pop();
    eventually("there is a place again", || async { connections.open.get() == 2 }).await;
    assert_eq!(plane.http.get(plane.url("/healthz")).send().await.expect("an answer").status(), 200);
    assert_eq!(connections.refused.get(), 1);
}
