//! A9, U5: live streams: order, resume, bounds, goodbyes, and who may follow what for how long.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_control_plane::config::Config;
use weir_control_plane::server::{self, Server};

use crate::follow::{EventStream, Said, Socket, resume_after};
use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

impl Plane<'_> {
    pub fn address(&self) -> SocketAddr {
        self.url("").strip_prefix("http://").expect("plain HTTP").parse().expect("an address")
    }

    /// Open streams on this instance.
    pub fn streams(&self) -> i64 {
        streams(self.state())
    }

    /// Makes so many events at once, as if jobs told of something.
    pub fn happen(&self, count: u64, bytes: usize) {
        self.sql(&format!(
            "INSERT INTO event_pending (topic, kind, body)
             SELECT 'jobs', 'test', json_build_object('number', n, 'text', repeat('x', {bytes}))
             FROM generate_series(1, {count}) AS n ORDER BY n"
        ));
    }
}

pub fn streams(state: &weir_control_plane::api::AppState) -> i64 {
    let of = |transport| state.metrics.stream.clients.with_label_values(&[transport]).get();
    of("websocket") + of("sse")
}

pub fn closed(state: &weir_control_plane::api::AppState, reason: &str) -> u64 {
    state.metrics.stream.closed.with_label_values(&[reason]).get()
}

pub fn cursors(events: &[Value]) -> Vec<i64> {
    events.iter().map(|event| event["cursor"].as_i64().expect("a cursor")).collect()
}

async fn open(plane: &Plane<'_>, query: &str) -> Socket {
    Socket::open(plane.address(), query, Some(ADMIN_TOKEN)).await.expect("the stream opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_stream_tells_what_happens_and_the_replay_tells_the_same() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let other = plane.sensor("edge-2").await;
    let mut all = open(&plane, "after=0").await;
    let mut flows = open(&plane, "topic=flows&sensor=edge-1&after=0").await;
    assert_eq!(flows.hello().await, 0);
    let mut sse =
        EventStream::open(&plane, "/api/v1/events/stream?topic=flows,ledger", ADMIN_TOKEN, Some(0)).await;
    assert_eq!(sse.next().await.expect("a hello").0, "hello");
    for epoch in 0..3 {
        plane.store(&token, &batch(1, epoch, recent_minute_ns(), mixed_flows())).await;
        plane.store(&other, &batch(2, epoch, recent_minute_ns(), mixed_flows())).await;
    }
    // Two sensors were added, each told to the audit log and to whoever follows sensors.
    let events = all.events(10).await;
    assert_eq!(cursors(&events), (1..=10).collect::<Vec<i64>>());
    let page = plane.json("/api/v1/events?after=0").await;
    assert_eq!((page["items"].as_array(), page["has_more"].as_bool()), (Some(&events), Some(false)));
    assert_eq!(page["cursor"], 10);
    let mine = flows.events(3).await;
    for (epoch, event) in mine.iter().enumerate() {
        assert_eq!((&event["sensor"], &event["data"]["epoch"]), (&json!("edge-1"), &json!(epoch)), "{event}");
    }
    for event in events.iter().filter(|event| event["topic"] == "flows") {
        let (topic, id, data) = sse.next().await.expect("an event");
        assert_eq!((topic.as_str(), Some(id), &data), ("flows", event["cursor"].as_i64(), event));
    }

    // In pages, from where one ends to where the next begins.
    let mut paged = Vec::new();
    let mut path = "/api/v1/events?after=0&limit=3&topic=flows".to_owned();
    loop {
        let page = plane.json(&path).await;
        paged.extend(page["items"].as_array().expect("items").clone());
        let Some(token) = page["continuation"].as_str() else { break };
        assert_eq!(page["has_more"], true);
        path = format!("/api/v1/events?after=0&limit=3&topic=flows&continuation={token}");
    }
    assert_eq!(paged.len(), 6);
    assert_eq!(plane.get("/api/v1/events?after=0&continuation=nonsense").await.status(), 400);
    assert_eq!(plane.get("/api/v1/events?limit=1001").await.status(), 400);
    for wrong in ["after=11", "topic=weather", "sensor=edge-77", "after=-1"] {
        assert_eq!(plane.get(&format!("/api/v1/events?{wrong}")).await.status(), 400, "{wrong}");
        assert_eq!(Socket::open(plane.address(), wrong, Some(ADMIN_TOKEN)).await.err(), Some(400), "{wrong}");
    }
    drop((all, flows, sse));
    eventually("everybody has left", || async { plane.streams() == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_client_that_comes_back_with_its_cursor_misses_nothing_and_gets_nothing_twice() {
    let plane = Plane::start().await;
    plane.happen(400, 10);
    let mut after = 0;
    let mut seen = Vec::new();
    while seen.len() < 1_000 {
        // Events come while the replay runs, and between two connections.
        plane.happen(170, 10);
        let mut socket = open(&plane, &format!("topic=jobs&after={after}")).await;
        assert_eq!(socket.hello().await, after);
        seen.extend(cursors(&socket.events(170).await));
        after = *seen.last().expect("events");
    }
    assert_eq!(seen, (1..=seen.len() as i64).collect::<Vec<i64>>());
    eventually("nobody is left", || async { plane.streams() == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_cursor_whose_events_are_past_their_retention_is_gone() {
    let plane = Plane::start().await;
    plane.happen(20, 10);
    eventually("they are told", || async { plane.count("event") == 20 }).await;
    plane.sql("DELETE FROM event WHERE cursor <= 15; UPDATE event_head SET pruned_to = 15");
    let response = plane.get("/api/v1/events?after=14").await;
    assert_eq!(response.status(), 410);
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(problem["type"], "urn:weir:problem:cursor-expired");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("after=20")), "{problem}");
    assert_eq!(Socket::open(plane.address(), "after=14", Some(ADMIN_TOKEN)).await.err(), Some(410));
    assert_eq!(plane.get("/api/v1/events/stream?after=14").await.status(), 410);
    assert_eq!(plane.json("/api/v1/events?after=15").await["items"].as_array().map(Vec::len), Some(5));
    assert_eq!(plane.json("/api/v1/events").await["items"][0]["cursor"], 16, "from the oldest that is kept");
}

fn narrow(config: &mut Config) {
    config.stream.buffer_events = 50;
    config.stream.max_clients_per_caller = 1_000;
    // The stuck ones begin to read when the healthy ones are done.
    config.stream.close_timeout_ms = 60_000;
}

/// A hundred clients, five of them stuck, and events faster than those take them.
#[tokio::test(flavor = "multi_thread")]
async fn a9_stuck_clients_are_closed_with_1008_and_delay_nobody() {
    let plane = Plane::start_with(narrow).await;
    let stuck =
        join_all((0..5).map(|_| Socket::open_narrow(plane.address(), "topic=jobs", Some(ADMIN_TOKEN)))).await;
    let mut healthy = Vec::new();
    for _ in 0..95 {
        let mut socket = open(&plane, "topic=jobs").await;
        socket.hello().await;
        healthy.push(socket);
    }
    assert_eq!(plane.streams(), 100);
    let (rounds, each) = (40, 25);
    let received = AtomicUsize::new(0);
    let reading = join_all(healthy.iter_mut().map(|socket| async {
        let mut events = Vec::new();
        while events.len() < rounds * each {
            events.extend(socket.events(1).await);
            received.fetch_add(1, Ordering::Relaxed);
        }
        events
    }));
    let telling = async {
        for round in 1..=rounds {
            plane.happen(each as u64, 4_000);
            // A round is less than a buffer: a client that reads has it before the next one comes.
            let all = 95 * round * each;
            eventually("all have the round", || async { received.load(Ordering::Relaxed) == all }).await;
        }
    };
    let (read, ()) = tokio::join!(reading, telling);
    let expected: Vec<i64> = (1..=(rounds * each) as i64).collect();
    for events in &read {
        assert_eq!(cursors(events), expected, "every healthy client has every event, in order");
    }
    assert_eq!(closed(plane.state(), "behind"), 5);
    for socket in stuck {
        let (got, code, reason) = socket.expect("it was open").until_closed().await;
        assert_eq!(code, 1008, "{reason}");
        assert!(reason.starts_with("behind"), "{reason}");
        let after = resume_after(&reason);
        assert_eq!(
            got,
            (1..=after).collect::<Vec<i64>>(),
            "it has all up to the cursor that the reason names"
        );
        let mut again = open(&plane, &format!("topic=jobs&after={after}")).await;
        let rest = again.events(expected.len() - got.len()).await;
        assert_eq!([got, cursors(&rest)].concat(), expected);
    }
    drop(healthy);
    eventually("everybody has left", || async { plane.streams() == 0 }).await;
}

/// The same on Server-Sent Events: whoever comes back to reading finds a last event with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a9_an_event_stream_that_falls_behind_ends_with_a_reason_and_resumes() {
    let plane = Plane::start_with(narrow).await;
    let mut sse = EventStream::open(&plane, "/api/v1/events/stream?topic=jobs", ADMIN_TOKEN, None).await;
    assert_eq!(sse.next().await.expect("a hello").1, 0);
    let mut told = 0;
    eventually("it has fallen behind", || {
        plane.happen(50, 4_000);
        told += 50;
        // The body is not asked for its end as long as its client does not read.
        let told = told;
        async move { told >= 6_000 }
    })
    .await;
    let mut seen = Vec::new();
    let end = loop {
        match sse.next().await {
            Some((event, cursor, data)) if event == "end" => break (cursor, data),
            Some((event, cursor, _)) if event == "jobs" => seen.push(cursor),
            Some(_) => {}
            None => panic!("the body ends without a word after {} events", seen.len()),
        }
    };
    assert_eq!((end.1["code"].as_u64(), end.1["cursor"].as_i64()), (Some(1008), Some(end.0)), "{}", end.1);
    assert_eq!(sse.next().await, None, "then the body ends");
    assert_eq!(seen, (1..=end.0).collect::<Vec<i64>>());
    let mut again =
        EventStream::open(&plane, "/api/v1/events/stream?topic=jobs", ADMIN_TOKEN, Some(end.0)).await;
    assert_eq!(again.next().await.map(|it| (it.0, it.1)), Some(("hello".to_owned(), end.0)));
    assert_eq!(again.next().await.map(|it| it.1), Some(end.0 + 1));
    drop((sse, again));
    eventually("everybody has left", || async { plane.streams() == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_heartbeats_carry_the_cursor_past_events_that_are_not_for_the_client() {
    let plane = Plane::start_with(|config| config.stream.heartbeat_s = 1).await;
    let mut flows = open(&plane, "topic=flows").await;
    assert_eq!(flows.hello().await, 0);
    plane.happen(7, 10);
    loop {
        match flows.next().await {
            Said::Heartbeat(7) => break,
            Said::Heartbeat(0) => {}
            other => panic!("a heartbeat, not {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_client_that_answers_no_ping_is_closed() {
    let plane = Plane::start_with(|config| {
        config.stream.heartbeat_s = 1;
        config.stream.idle_timeout_s = 2;
        config.stream.close_timeout_ms = 60_000;
    })
    .await;
    // Nothing is read here, so nothing is answered.
    let silent = open(&plane, "topic=flows").await;
    eventually("it was closed", || async { closed(plane.state(), "idle") >= 1 }).await;
    let (_, code, reason) = { silent }.until_closed().await;
    assert_eq!((code, resume_after(&reason)), (1008, 0), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_streams_are_bounded_in_total_and_for_each_caller() {
    let plane = Plane::start_with(|config| {
        config.stream.max_clients = 4;
        config.stream.max_clients_per_caller = 2;
    })
    .await;
    let mut open = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..3 {
        let (machine, _) = plane.machine(ADMIN_TOKEN, "viewer", &["flows"]).await;
        for _ in 0..3 {
            match Socket::open(plane.address(), "", Some(&machine)).await {
                Ok(socket) => open.push(socket),
                Err(status) => refused.push(status),
            }
        }
    }
    assert_eq!((open.len(), refused), (4, vec![429, 503, 503, 503, 503]));
    assert_eq!(plane.state().metrics.stream.refused.get(), 5);
    open.clear();
    eventually("the places are free", || async { plane.streams() == 0 }).await;
    assert!(Socket::open(plane.address(), "", Some(ADMIN_TOKEN)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_a_caller_follows_the_topics_of_its_role_and_scopes() {
    let plane = Plane::start().await;
    plane.user("vera", Role::Viewer).await;
    let vera = plane.log_in("vera").await.access;
    let (flows, _) = plane.machine(ADMIN_TOKEN, "viewer", &["flows"]).await;
    let (nothing, _) = plane.machine(ADMIN_TOKEN, "viewer", &["documentation"]).await;
    for (token, query, expected) in [
        (&vera, "topic=audit", Some(403)),
        (&vera, "topic=jobs", Some(403)),
        (&vera, "topic=flows,audit", Some(403)),
        (&vera, "topic=flows,sensors", None),
        (&vera, "", None),
        (&flows, "topic=ledger", Some(403)),
        (&flows, "", None),
        (&nothing, "", Some(403)),
        (&"nonsense".to_owned(), "", Some(401)),
    ] {
        assert_eq!(Socket::open(plane.address(), query, Some(token)).await.err(), expected, "{query}");
        let path = format!("/api/v1/events?{query}");
        let status = plane.call(Method::GET, &path, token, &Value::Null).await.0;
        assert_eq!(status, expected.unwrap_or(200), "{query}");
    }
    // Everything that she may read is not everything.
    let mut stream = Socket::open(plane.address(), "after=0", Some(&vera)).await.expect("it opens");
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    let topics: Vec<Value> = stream.events(2).await.iter().map(|event| event["topic"].clone()).collect();
    assert_eq!(topics, ["sensors", "flows"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_a_ticket_opens_one_stream_once_on_any_instance_and_ends_with_its_credential() {
    let plane = Plane::start().await;
    let second = server::start(&plane.config).await.expect("a second instance");
    plane.user("ann", Role::Viewer).await;
    let ann = plane.log_in("ann").await;
    let ticket = async |token: &str| {
        let (status, made) = plane.call(Method::POST, "/api/v1/stream/tickets", token, &Value::Null).await;
        assert_eq!(status, 200, "{made}");
        made["ticket"].as_str().expect("a ticket").to_owned()
    };
    let one = ticket(&ann.access).await;
    let query = format!("topic=flows&ticket={one}");
    let mut stream = Socket::open(second.address, &query, None).await.expect("it opens");
    stream.hello().await;
    for address in [plane.address(), second.address] {
        assert_eq!(Socket::open(address, &query, None).await.err(), Some(401), "it is used up");
    }
    assert_eq!(Socket::open(plane.address(), "ticket=nonsense", None).await.err(), Some(401));
    assert_eq!(Socket::open(plane.address(), "", None).await.err(), Some(401));
    let late = ticket(&ann.access).await;
    plane.sql("UPDATE stream_ticket SET expires_at = now()");
    assert_eq!(Socket::open(plane.address(), &format!("ticket={late}"), None).await.err(), Some(401));
    let of_admin = ticket(ADMIN_TOKEN).await;
    assert!(Socket::open(plane.address(), &format!("ticket={of_admin}"), None).await.is_ok());
    // A ticket is nothing on other routes.
    let stolen = ticket(&ann.access).await;
    assert_eq!(
        plane
            .http
            .get(plane.url(&format!("/api/v1/events?ticket={stolen}")))
            .send()
            .await
            .expect("an answer")
            .status(),
        401
    );

    plane.call(Method::POST, "/api/v1/auth/logout", &ann.access, &Value::Null).await;
    let (_, code, reason) = stream.until_closed().await;
    assert_eq!(code, 4401, "{reason}");
    assert_eq!(plane.count("stream_ticket"), 1, "tickets that nobody used are swept with the next");
    second.stop().await;
}

/// A stream of each kind of credential on an instance.
async fn followers(server: SocketAddr, tokens: &[&str]) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for token in tokens {
        let mut socket = Socket::open(server, "topic=flows", Some(token)).await.expect("it opens");
        socket.hello().await;
        sockets.push(socket);
    }
    sockets
}

#[tokio::test(flavor = "multi_thread")]
async fn u3_a_credential_that_ends_ends_its_streams_on_every_instance() {
    let plane = Plane::start().await;
    let second = server::start(&plane.config).await.expect("a second instance");
    plane.user("ann", Role::Viewer).await;
    plane.user("eve", Role::Admin).await;
    let both = async |tokens: &[&str]| {
        let mut sockets = followers(plane.address(), tokens).await;
        sockets.extend(followers(second.address, tokens).await);
        sockets
    };
    let ends = async |sockets: Vec<Socket>, expected: u16, word: &str| {
        for mut socket in sockets {
            let (_, code, reason) = socket.until_closed().await;
            assert_eq!((code, reason.starts_with(word)), (expected, true), "{reason}");
        }
    };
    let null = &Value::Null;

    // What stays open through all of it.
    let mut witness = both(&[ADMIN_TOKEN]).await;
    let (machine, id) = plane.machine(ADMIN_TOKEN, "viewer", &["flows"]).await;
    let sockets = both(&[&machine]).await;
    plane.call(Method::DELETE, &format!("/api/v1/tokens/{id}"), ADMIN_TOKEN, null).await;
    ends(sockets, 4401, "revoked").await;

    let ann = plane.log_in("ann").await;
    let sockets = both(&[&ann.access]).await;
    plane.call(Method::POST, "/api/v1/auth/logout", &ann.access, null).await;
    ends(sockets, 4401, "revoked").await;

    // By the command line, say: nobody tells the instances.
    let eve = plane.log_in("eve").await;
    let mut admins = Vec::new();
    for server in [plane.address(), second.address] {
        admins.push(Socket::open(server, "topic=audit", Some(&eve.access)).await.expect("it opens"));
    }
    let eve_flows = both(&[&eve.access]).await;
    plane.sql("UPDATE account SET role = 'viewer' WHERE name = 'eve'");
    ends(admins, 4401, "revoked").await;
    plane.sql("UPDATE account SET disabled_at = now() WHERE name = 'eve'");
    ends(eve_flows, 4401, "revoked").await;

    let (short, _) = plane.quick_session("not a hash", 1, Duration::from_secs(10)).await;
    ends(both(&[&short]).await, 4401, "expired").await;

    plane.sensor("edge-1").await;
    plane.store(&plane.sensor("edge-2").await, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    for socket in &mut witness {
        assert_eq!(socket.events(1).await[0]["sensor"], "edge-2", "others go on");
    }
    drop(witness);
    let all_left = |second: &Server| plane.streams() + streams(&second.state) == 0;
    eventually("everybody has left", || async { all_left(&second) }).await;
    second.stop().await;
}

/// U5: whoever deletes a user finds no stream of theirs, in a race with opening some and with events.
#[tokio::test(flavor = "multi_thread")]
async fn u5_a_deleted_user_has_no_stream_left_however_the_race_goes() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let hash =
        plane.state().auth.passwords.hash("correct horse battery".to_owned().into()).await.expect("a hash");
    let mut open = 0_u32;
    for round in 0..200_u64 {
        // Made directly: a password's hash and a login take longer than a round.
        let (session, user) = plane.quick_session(&hash, round, Duration::from_mins(5)).await;
        let early = Socket::open(plane.address(), "topic=flows", Some(&session)).await.expect("it opens");
        let late = Socket::open(plane.address(), "topic=flows", Some(&session));
        let path = format!("/api/v1/users/{user}");
        let remove = plane.erase(&path, ADMIN_TOKEN);
        let body = batch(1, round, recent_minute_ns(), mixed_flows());
        let (late, (status, answer), ()) = tokio::join!(late, remove, plane.store(&token, &body));
        assert_eq!((status, &answer["places"][0]["erased"]), (202, &json!(1)), "{answer}");
        for socket in [Some(early), late.ok()] {
            let Some(mut socket) = socket else { continue };
            open += 1;
            let (_, code, reason) = socket.until_closed().await;
            assert_eq!(code, 4401, "{reason}");
        }
        assert!(Socket::open(plane.address(), "", Some(&session)).await.is_err());
    }
    assert!(open >= 200);
    eventually("everybody has left", || async { plane.streams() == 0 }).await;
    assert_eq!((plane.count("account"), plane.count("session"), plane.count("batch")), (0, 0, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_a_server_that_stops_says_goodbye_with_the_cursor() {
    let mut plane = Plane::start().await;
    let mut socket = open(&plane, "topic=jobs&after=0").await;
    let mut sse =
        EventStream::open(&plane, "/api/v1/events/stream?topic=jobs&after=0", ADMIN_TOKEN, None).await;
    plane.happen(5, 10);
    let before = socket.events(5).await;
    for _ in 0..6 {
        sse.next().await.expect("a hello and five events");
    }
    let state = plane.state().clone();
    plane.stop().await;
    let (more, code, reason) = socket.until_closed().await;
    assert_eq!((cursors(&before).len() + more.len(), code, resume_after(&reason)), (5, 1001, 5), "{reason}");
    let (event, cursor, data) = sse.next().await.expect("a last event");
    assert_eq!((event.as_str(), cursor, data["code"].as_u64()), ("end", 5, Some(1001)), "{data}");
    assert_eq!(streams(&state), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_client_that_speaks_is_told_that_nobody_listens() {
    let plane = Plane::start().await;
    let mut socket = open(&plane, "").await;
    socket.hello().await;
    socket.say("hello?").await;
    let (_, code, reason) = socket.until_closed().await;
    assert_eq!(code, 1003, "{reason}");
}
