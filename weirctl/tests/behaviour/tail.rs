//! A9: what happens is followed over the end of a connection, of a server, and of an access token.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::program::Program;
use crate::support::{Plane, batch, eventually, mixed_flows, recent_minute_ns};

/// The next event on its standard output.
async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line =
        tokio::time::timeout(Duration::from_mins(1), lines.next_line()).await.expect("an event in time");
    serde_json::from_str(&line.expect("text").expect("an event")).expect("JSON")
}

fn follow(program: &Program, more: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = program.command(&["tail", "-f", "--json", "--topic", "flows"]);
    let mut child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    (child, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_events_are_followed_over_a_restart_each_once_and_in_order() {
    let mut plane = Plane::start().await;
    // The next server is to be where this one was.
    plane.config.listen = plane.server().address;
    let token = plane.sensor("edge-1").await;
    let program = Program::of(&plane);
    let store = async |plane: &Plane<'_>, epoch| {
        plane.store(&token, &batch(1, epoch, recent_minute_ns(), mixed_flows())).await;
    };
    store(&plane, 0).await;
    let (mut child, mut lines) = follow(&program, &["--after", "0"]);
    assert_eq!(next(&mut lines).await["data"]["epoch"], 0);
    store(&plane, 1).await;
    assert_eq!(next(&mut lines).await["data"]["epoch"], 1);
    plane.restart().await;
    for epoch in 2..5 {
        store(&plane, epoch).await;
    }
    for epoch in 2..5 {
        assert_eq!(next(&mut lines).await["data"]["epoch"], epoch);
    }
    child.start_kill().expect("it is ended");
    child.wait().await.expect("it ends");
    // The same as what is replayed.
    let replayed = program.admin(&["tail", "--json", "--topic", "flows"]).await.json();
    let epochs: Vec<&Value> = replayed.iter().map(|event| &event["data"]["epoch"]).collect();
    assert_eq!(epochs, [0, 1, 2, 3, 4]);
    let after = replayed[2]["cursor"].to_string();
    assert_eq!(
        program.admin(&["tail", "--json", "--topic", "flows", "--after", &after]).await.json(),
        replayed[3..]
    );
}

/// Where no stream is to be had, pages are read.
#[tokio::test(flavor = "multi_thread")]
async fn a9_a_server_without_room_for_a_stream_is_asked_for_pages() {
    let plane = Plane::start_with(|config| config.stream.max_clients = 1).await;
    let token = plane.sensor("edge-1").await;
    let program = Program::of(&plane);
    let (_first, mut first) = follow(&program, &["--after", "0"]);
    eventually("the only place is taken", || async {
        plane
            .metrics()
            .await
            .lines()
            .any(|line| line.starts_with("weir_stream_clients") && line.ends_with(" 1"))
    })
    .await;
    let (_second, mut second) = follow(&program, &["--after", "0"]);
    for epoch in 0..3 {
        plane.store(&token, &batch(1, epoch, recent_minute_ns(), mixed_flows())).await;
        assert_eq!(next(&mut first).await["data"]["epoch"], epoch);
        assert_eq!(next(&mut second).await["data"]["epoch"], epoch);
    }
}
