//! A control plane of the test's own, and batches to send it.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::{Client, Method, RequestBuilder, Response};
use secrecy::SecretString;
use serde_json::Value;
use weir_control_plane::api::AppState;
use weir_control_plane::auth::SensorToken;
use weir_control_plane::config::Config;
use weir_control_plane::jobs::Jobs;
use weir_control_plane::server::{self, Server};
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::{Pool, sensors};
use weir_testbed::postgres::Postgres;
use weir_wire::{
    Batch, Detection, Direction, DropReason, Dropped, Fact, FactValue, Flow, Point, Severity, Totals,
};

pub const ADMIN_TOKEN: &str = "a-test-admin-token-of-32-characters";
pub const SECOND: i64 = 1_000_000_000;

static SHARED: LazyLock<Postgres> =
    LazyLock::new(|| Postgres::start().expect("a private Postgres server starts"));
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The server that tests share, as long as they leave it running.
pub fn shared() -> &'static Postgres {
    &SHARED
}

/// Rounds of a race, each at another moment: so many, times `WEIR_RACES` where that is set.
pub fn rounds(usually: u64) -> u64 {
    let Ok(times) = std::env::var("WEIR_RACES") else { return usually };
    usually * times.parse::<u64>().expect("WEIR_RACES is a whole number")
}

/// A new, empty database.
pub fn database(postgres: &Postgres) -> String {
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    postgres.create_database(&name).expect("a database can be made");
    name
}

/// A running control plane.
pub struct Plane<'a> {
    pub postgres: &'a Postgres,
    pub database: String,
    pub config: Config,
    pub http: Client,
    server: Option<Server>,
    _token_file: tempfile::NamedTempFile,
}

impl Plane<'static> {
    /// On the shared server.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With other settings.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Plane::start_on(shared(), change).await
    }
}

impl<'a> Plane<'a> {
    pub async fn start_on(postgres: &'a Postgres, change: impl FnOnce(&mut Config)) -> Self {
        let database = database(postgres);
        let token_file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(token_file.path(), ADMIN_TOKEN).expect("it can be written");
        let mut config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
        config.database.url = Some(SecretString::from(postgres.database_url(&database)));
        config.database.pool_size = 12;
        config.auth.admin_token_file = Some(token_file.path().to_owned());
        // Rounds that a test did not ask for would disturb its counting.
        config.retention.interval_s = 86_400;
        config.jobs.poll_ms = 86_400_000;
        config.alerts.interval_s = 86_400;
        config.alerts.delivery_interval_s = 86_400;
        config.sensors.watch_interval_s = 86_400;
        change(&mut config);
        let server = server::start(&config).await.expect("the server starts");
        let http = Client::builder().no_proxy().build().expect("a client");
        let server = Some(server);
        let plane = Self { postgres, database, config, http, server, _token_file: token_file };
        plane.settled().await;
        plane
    }

    /// The jobs that are due at the start are over; then nothing happens by itself.
    pub async fn settled(&self) {
        eventually("no job runs or is due", || async {
            let gauged = self.state().metrics.jobs.runs.with_label_values(&["sensor-gauges", "done"]).get();
            gauged > 0
                && self.sql("SELECT count(*) FROM job WHERE holder IS NOT NULL OR next_at <= now()") == "0"
        })
        .await;
    }

    /// Makes every write of a table fail, at the end of its statement.
    pub fn arm(&self, table: &str, operation: &str) {
        self.sql(&format!(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'injected'; END $$;
             CREATE TRIGGER fail AFTER {operation} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION fail()"
        ));
    }

    /// Undoes [`Self::arm`].
    pub fn disarm(&self) {
        self.sql("DROP FUNCTION fail() CASCADE");
    }

    /// Stops the server and starts another one on the same database.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.server = Some(server::start(&self.config).await.expect("the server starts again"));
    }

    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs")
    }

    pub fn state(&self) -> &AppState {
        &self.server().state
    }

    pub fn jobs(&self) -> &Jobs {
        &self.server().jobs
    }

    pub fn pool(&self) -> &Pool {
        &self.state().pool
    }

    pub fn url(&self, path: &str) -> String {
        let Server { address, tls, .. } = self.server();
        let scheme = if tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}{path}")
    }

    /// Adds a sensor and gives its token.
    pub async fn sensor(&self, name: &str) -> String {
        let token = SensorToken::generate().expect("a token");
        sensors::add(self.pool(), &Author::command_line(), name, &token.sha256())
            .await
            .expect("the sensor is added");
        token.expose().to_owned()
    }

    /// As if a sensor had been silent for so long, and that had been noticed.
    pub async fn silent(&self, name: &str, since: &str) {
        // What was heard of it before is written, and not later.
        self.state().auth.activity.write(self.pool()).await.expect("it is written");
        self.sql(&format!(
            "UPDATE sensor_presence p SET alive_at = now() - interval '{since}', online = false
             FROM sensor s WHERE s.sensor_id = p.sensor_id AND s.name = '{name}'"
        ));
    }

    pub fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(token)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path, ADMIN_TOKEN).send().await.expect("an answer")
    }

    /// The JSON of an answer that must be 200.
    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post_bytes(&self, token: &str, body: Vec<u8>) -> Response {
        self.request(Method::POST, "/api/v1/ingest", token)
            .header("content-type", weir_wire::CONTENT_TYPE)
            .header("content-encoding", weir_wire::CONTENT_ENCODING)
            .body(body)
            .send()
            .await
            .expect("an answer")
    }

    /// Sends a batch; gives the status and the body.
    pub async fn post(&self, token: &str, batch: &Batch) -> (u16, Value) {
        let response = self.post_bytes(token, weir_wire::encode(batch).expect("it encodes")).await;
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// Sends a batch with the sensor's clock at sending.
    pub async fn post_at(&self, token: &str, batch: &Batch, sent_at_ms: i64) -> (u16, Value) {
        let response = self
            .request(Method::POST, "/api/v1/ingest", token)
            .header("content-type", weir_wire::CONTENT_TYPE)
            .header("content-encoding", weir_wire::CONTENT_ENCODING)
            .header(weir_wire::SENT_AT_HEADER, sent_at_ms)
            .body(weir_wire::encode(batch).expect("it encodes"))
            .send()
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// All metrics, as text.
    pub async fn metrics(&self) -> String {
        let response = self.http.get(self.url("/metrics")).send().await.expect("an answer");
        response.text().await.expect("text")
    }

    /// Sends a batch that must be stored by this request.
    pub async fn store(&self, token: &str, batch: &Batch) {
        let (status, body) = self.post(token, batch).await;
        assert_eq!((status, body["status"].as_str()), (200, Some("stored")), "{body}");
    }

    /// Runs SQL; rows are lines, columns split by `|`.
    pub fn sql(&self, sql: &str) -> String {
        self.postgres.sql(&self.database, sql).expect("the SQL runs").trim().to_owned()
    }

    pub fn count(&self, table: &str) -> u64 {
        self.sql(&format!("SELECT count(*) FROM {table}")).parse().expect("a number")
    }

    /// Waits until a statement in this database sleeps: it has all that it asked for before.
    pub async fn sleeper(&self) {
        eventually("a statement sleeps", || async {
            self.sql(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event = 'PgSleep'",
            ) != "0"
        })
        .await;
    }

    /// Ends every session of this database that sleeps.
    pub fn end_sleepers(&self) {
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event = 'PgSleep'",
        );
    }

    /// Everything that an ingest transaction writes, as one text to compare.
    pub fn contents(&self) -> String {
        ["batch", "point_total", "observation_point", "flow", "rollup_1m", "rollup_1h", "detection"]
            .map(|table| {
                self.sql(&format!(
                    "SELECT '{table}', count(*), md5(coalesce(string_agg(t::text, '/' ORDER BY t::text), '')) FROM {table} AS t"
                ))
            })
            .join("\n")
    }
}

/// Now, in nanoseconds.
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i64
}

/// The beginning of a minute a few minutes ago: windows after it lie in one bucket of each rollup.
pub fn recent_minute_ns() -> i64 {
    (now_ns() / (60 * SECOND) - 3) * 60 * SECOND
}

pub fn rfc3339(ns: i64) -> String {
    format!("{:.9}", jiff::Timestamp::from_nanosecond(i128::from(ns)).expect("a time"))
}

pub const INGRESS: u32 = 40;
pub const EGRESS: u32 = 41;

/// One IPv4/TCP flow, seen on ingress.
pub fn flow(src: [u8; 4], dst: [u8; 4], dst_port: u32, packets: u64) -> Flow {
    Flow {
        ip_version: 4,
        src_low: u64::from(u32::from_be_bytes(src)),
        dst_low: u64::from(u32::from_be_bytes(dst)),
        protocol: 6,
        src_port: 50_000,
        dst_port,
        packets,
        octets: packets * 100,
        reverse_packets: packets / 2,
        reverse_octets: packets * 700,
        first_ns: SECOND,
        last_ns: 2 * SECOND,
        start_ns: SECOND,
        tcp_flags: 0x1b,
        point: INGRESS,
        ..Flow::default()
    }
}

/// A whole epoch in one part, whose kernel totals say the same as its flows.
pub fn batch(generation: u8, epoch: u64, window_start_ns: i64, flows: Vec<Flow>) -> Batch {
    let packets = flows.iter().map(|flow| flow.packets + flow.reverse_packets).sum::<u64>();
    let octets = flows.iter().map(|flow| flow.octets + flow.reverse_octets).sum::<u64>();
    let totals = Totals {
        frames: packets + 5,
        octets_l2: octets + 14 * (packets + 5),
        flow_packets: packets,
        flow_octets: octets,
        non_ip: 3,
        malformed: 2,
        ..Totals::default()
    };
    let point = |id, direction: Direction, totals| Point {
        id,
        interface: "eth0".to_owned(),
        ifindex: 2,
        direction: direction as i32,
        totals: Some(totals),
    };
    Batch {
        version: weir_wire::VERSION,
        generation: vec![generation; 16],
        epoch,
        part: 0,
        parts: 1,
        window_start_ns,
        window_end_ns: window_start_ns + 5 * SECOND,
        sampling_interval: 1,
        points: vec![
            point(INGRESS, Direction::Ingress, totals),
            point(EGRESS, Direction::Egress, Totals::default()),
        ],
        flows,
        ..Batch::default()
    }
}

/// What an epoch adds to a detection: seen for four seconds of it.
pub fn detection(kind: &str, subject: &str, severity: Severity, count: u64) -> Detection {
    let address: Option<std::net::Ipv4Addr> =
        subject.split(' ').next().and_then(|address| address.parse().ok());
    let fact = |name: &str, value| Fact { name: name.to_owned(), value: Some(value) };
    Detection {
        kind: kind.to_owned(),
        severity: severity as i32,
        subject: subject.to_owned(),
        address: address.map_or_else(Vec::new, |address| address.octets().to_vec()),
        first_ns: 0,
        last_ns: 4 * SECOND,
        count,
        technique: "T1046".to_owned(),
        source: "flows".to_owned(),
        evidence: vec![
            fact("port", FactValue::Number(445)),
            fact("host", FactValue::Address(vec![10, 0, 0, 1])),
            fact("host", FactValue::Address(vec![10, 0, 0, 2])),
        ],
    }
}

/// The notice that stands for a batch whose flows were dropped.
pub fn notice(mut batch: Batch, reason: DropReason) -> Batch {
    let flows = std::mem::take(&mut batch.flows);
    batch.dropped = Some(Dropped {
        reason: reason as i32,
        records: flows.len() as u64,
        packets: flows.iter().map(|flow| flow.packets + flow.reverse_packets).sum(),
        octets: flows.iter().map(|flow| flow.octets + flow.reverse_octets).sum(),
    });
    batch
}

/// A few flows that differ in every way that a rollup tells apart.
pub fn mixed_flows() -> Vec<Flow> {
    let mut flows: Vec<Flow> = (0..40)
        .map(|i| flow([10, 0, 0, i % 7], [192, 0, 2, i % 5], 443 + u32::from(i % 3), 1 + u64::from(i)))
        .collect();
    flows.push(Flow {
        ip_version: 6,
        src_high: 0x2001_0db8 << 32,
        src_low: 1,
        dst_high: 0x2001_0db8 << 32,
        dst_low: 2,
        protocol: 17,
        ..flow([0; 4], [0; 4], 53, 9)
    });
    flows
}

/// Percent-encoded, all of it: what a filter holds is its own affair.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

/// The responder's ports of the flows that a filter chooses, in order.
pub async fn ports(plane: &Plane<'_>, filter: &str) -> Vec<u64> {
    let page = plane.json(&format!("/api/v1/flows?filter={}", encoded(filter))).await;
    let items = page["items"].as_array().expect("a list");
    let mut ports: Vec<u64> = items.iter().filter_map(|item| item["dst_port"].as_u64()).collect();
    ports.sort_unstable();
    ports
}

/// Waits until something holds; gives up after a time that no machine is too busy for.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds().await {
        assert!(Instant::now() < deadline, "after a minute it still does not hold: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
