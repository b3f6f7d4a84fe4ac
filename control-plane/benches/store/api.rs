//! P5, A9: how long questions and live events take while sensors send at full rate.
//!
//! Eight sensors send batch after batch; a few readers ask the dashboard's questions one after the other; a
//! thousand clients follow, of which some never read. Everything shares the machine, the clients too; so two trivial
//! questions are asked in the same minute, to quote ratios by.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use reqwest::header;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::traffic::{Traffic, now_ns};
use crate::{ADMIN_TOKEN, Bench, Common};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Seconds of load
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Sensors that send as fast as they are answered
    #[arg(long, default_value_t = 8)]
    sensors: usize,
    /// Batches in work at once, where it is not the default
    #[arg(long)]
    ingest_concurrent: Option<usize>,
    /// Records of a batch
    #[arg(long, default_value_t = 5_000)]
    records: usize,
    /// Callers who ask one question after the other
    #[arg(long, default_value_t = 4)]
    readers: usize,
    /// Clients of the live stream
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// Those of them that never read
    #[arg(long, default_value_t = 50)]
    stuck: usize,
}

/// What everybody adds to.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    batches: AtomicU64,
    events: AtomicU64,
    /// Milliseconds, by what took them.
    took: Mutex<BTreeMap<&'static str, Vec<f64>>>,
}

impl Tally {
    fn took(&self, what: &'static str, duration: Duration) {
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        took.entry(what).or_default().push(duration.as_secs_f64() * 1e3);
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }
}

#[derive(Deserialize)]
struct Frame {
    event: Option<Event>,
}

#[derive(Deserialize)]
struct Event {
    cursor: i64,
    at: String,
}

type Socket = WebSocketStream<tokio::net::TcpStream>;

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bench = Bench::start_with(&arguments.common, |config| {
        config.stream.max_clients = arguments.clients + 10;
        config.stream.max_clients_per_caller = arguments.clients + 10;
        // A second or two of events, so that a run sees clients fall behind.
        config.stream.buffer_events = 100;
        if let Some(batches) = arguments.ingest_concurrent {
            config.ingest.max_concurrent = batches;
        }
        let rate = weir_control_plane::config::Rate { per_minute: 6_000_000, burst: 1_000_000 };
        (config.limits.query, config.limits.read) = (rate, rate);
    })
    .await?;
    let bench = Arc::new(bench);
    let address = bench.server.address;
    let tally = Arc::new(Tally::default());
    let mut tokens = Vec::new();
    for index in 0..arguments.sensors {
        tokens.push(bench.sensor(&format!("bench-{index}")).await?);
    }

    let mut stuck = Vec::new();
    let mut followers = Vec::new();
    for index in 0..arguments.clients {
        let socket = follow(address, index < arguments.stuck).await?;
        if index < arguments.stuck {
            stuck.push(socket);
        } else {
            followers.push(tokio::spawn(take(socket, Arc::clone(&tally))));
        }
    }
    let mut work = Vec::new();
    for (index, token) in tokens.into_iter().enumerate() {
        let (bench, tally, records) = (Arc::clone(&bench), Arc::clone(&tally), arguments.records);
        work.push(tokio::spawn(async move { send(&bench, &tally, &token, index as u64, records).await }));
    }
    for _ in 0..arguments.readers {
        let (bench, tally) = (Arc::clone(&bench), Arc::clone(&tally));
        work.push(tokio::spawn(async move { ask(&bench, &tally).await }));
    }

    let (beside, client) = (Arc::clone(&tally), bench.connect().await?);
    work.push(tokio::spawn(async move { least(&client, &beside).await }));

    let started = Instant::now();
    let (mut most_active, mut most_waiting) = (0, 0);
    while started.elapsed().as_secs() < arguments.seconds {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let pool = bench.server.state.pool.state();
        most_active = most_active.max(pool.total - pool.idle);
        most_waiting = most_waiting.max(pool.waiting);
    }
    let seconds = started.elapsed().as_secs_f64();
    let memory = resident_mib()?;
    tally.over.store(true, Ordering::Relaxed);
    for task in work {
        task.await??;
    }
    let batches = tally.batches.load(Ordering::Relaxed);
    let clients = followers.len() as u64;
    let patience = Instant::now() + Duration::from_secs(30);
    while tally.events.load(Ordering::Relaxed) < batches * clients && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let missing = (batches * clients).saturating_sub(tally.events.load(Ordering::Relaxed));
    // One that was closed, or saw events in the wrong order.
    let unwell = followers.iter().filter(|follower| follower.is_finished()).count();
    let behind = bench.server.state.metrics.stream.closed.with_label_values(&["behind"]).get();
    followers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(stuck);

    let rows = batches as f64 * arguments.records as f64 / seconds;
    let took = std::mem::take(&mut *tally.took.lock().unwrap_or_else(PoisonError::into_inner));
    if !arguments.common.json {
        println!(
            "{rows:.0} rows/s from {} sensors; {clients} clients followed, {missing} events missing, {unwell} of them \
             closed, {behind} fell behind with {} stuck; pool: {most_active} at most in use, {most_waiting} waiting; {memory} MiB resident \
             (clients included)",
            arguments.sensors, arguments.stuck,
        );
        println!("{:<24} {:>8} {:>10} {:>10} {:>10}", "what", "times", "p50 ms", "p95 ms", "p99 ms");
    }
    for (what, mut took) in took {
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        let (p50, p95, p99) = (at(0.5), at(0.95), at(0.99));
        if arguments.common.json {
            let line = json!({
                "bench": "api", "what": what, "times": took.len(), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
                "rows_per_s": rows.round(), "clients": clients, "missing_events": missing,
                "unwell_clients": unwell, "closed_behind": behind, "pool_in_use": most_active, "resident_mib": memory,
            });
            println!("{line}");
        } else {
            println!("{what:<24} {:>8} {p50:>10.1} {p95:>10.1} {p99:>10.1}", took.len());
        }
    }
    if let Some(bench) = Arc::into_inner(bench) {
        bench.server.stop().await;
    }
    Ok(())
}

/// Opens a stream; with a small buffer in the kernel where nobody will read it.
async fn follow(address: SocketAddr, narrow: bool) -> anyhow::Result<Socket> {
    let socket = TcpSocket::new_v4()?;
    if narrow {
        socket.set_recv_buffer_size(4 << 10)?;
    }
    let stream = socket.connect(address).await?;
    let mut request = format!("ws://{address}/api/v1/stream?topic=flows").into_client_request()?;
    request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {ADMIN_TOKEN}").parse()?);
    Ok(client_async(request, stream).await.context("open a stream")?.0)
}

/// Takes events as they come, and holds their order against the promise.
async fn take(mut socket: Socket, tally: Arc<Tally>) -> anyhow::Result<()> {
    let mut last = 0;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let Some(event) = serde_json::from_str::<Frame>(&text)?.event else { continue };
        let late = jiff::Timestamp::now().duration_since(event.at.parse()?);
        tally.took("event to client", Duration::try_from(late).unwrap_or_default());
        anyhow::ensure!(event.cursor > last, "event {} after {last}", event.cursor);
        last = event.cursor;
        tally.events.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn send(bench: &Bench, tally: &Tally, token: &str, seed: u64, records: usize) -> anyhow::Result<()> {
    let mut traffic = Traffic::new(seed);
    for epoch in 0.. {
        if !tally.goes_on() {
            break;
        }
        let body = weir_wire::encode(&traffic.batch(epoch, now_ns() - 5_000_000_000, records))?;
        let started = Instant::now();
        bench.post(token, body.into()).await?;
        tally.took("batch", started.elapsed());
        tally.batches.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn ask(bench: &Bench, tally: &Tally) -> anyhow::Result<()> {
    let questions = [
        // No table and no caller: what HTTP itself takes beside that load.
        ("baseline: healthz", "/healthz"),
        ("flows", "/api/v1/flows?limit=100"),
        ("flows of a port", "/api/v1/flows?limit=100&dst_port=22"),
        ("top sources", "/api/v1/flows/top?by=source"),
        ("timeseries", "/api/v1/flows/timeseries?step=1m"),
        ("sensors", "/api/v1/sensors"),
        ("ledger", "/api/v1/sensors/bench-0/ledger"),
        ("events", "/api/v1/events?limit=100"),
    ];
    for (what, path) in questions.into_iter().cycle() {
        if !tally.goes_on() {
            break;
        }
        let started = Instant::now();
        let url = format!("http://{}{path}", bench.server.address);
        let response = bench.http.get(url).bearer_auth(ADMIN_TOKEN).send().await?;
        let status = response.status();
        let text = response.text().await?;
        anyhow::ensure!(status == 200, "{what}: {status} {text}");
        tally.took(what, started.elapsed());
    }
    Ok(())
}

/// The least that Postgres can be asked, by a connection of its own: what the machine takes beside that load.
async fn least(client: &tokio_postgres::Client, tally: &Tally) -> anyhow::Result<()> {
    while tally.goes_on() {
        let started = Instant::now();
        client.query_one("SELECT 1", &[]).await?;
        tally.took("baseline: SELECT 1", started.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn resident_mib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib >> 10)
}
