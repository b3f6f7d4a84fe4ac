//! P5: the questions that a dashboard asks, over many rows of a day, through HTTP.

use std::time::Instant;

use serde_json::json;

use crate::traffic::{Traffic, now_ns};
use crate::{ADMIN_TOKEN, Bench, Common, median};

const DAY_NS: i64 = 86_400_000_000_000;
const SENSORS: usize = 4;
/// Batches on their way at once while the rows are made.
const AT_ONCE: usize = 4;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Rows to make, spread over the last day
    #[arg(long, default_value_t = 20_000_000)]
    rows: usize,
    /// Records of a batch
    #[arg(long, default_value_t = 5_000)]
    records: usize,
    /// Times that each question is asked
    #[arg(long, default_value_t = 15)]
    times: usize,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bench = Bench::start(&arguments.common).await?;
    let admin = bench.connect().await?;
    let newest: Option<i64> = admin.query_one("SELECT max(window_start_ns) FROM batch", &[]).await?.get(0);
    let now = if let Some(newest) = newest {
        // A database that an earlier run has filled is asked as it is.
        newest + 1_000
    } else {
        let now = now_ns();
        fill(&bench, &arguments, now).await?;
        // What the jobs and autovacuum do within minutes.
        while !bench.server.jobs.round(jiff::Timestamp::now()).await? {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        admin.batch_execute("VACUUM ANALYZE").await?;
        now
    };

    let time = |ns: i64| jiff::Timestamp::from_nanosecond(i128::from(ns)).map(|time| format!("{time:.3}"));
    let (day, hour) = (time(now - DAY_NS)?, time(now - DAY_NS / 24)?);
    let six = time(now - DAY_NS / 4)?;
    let to = time(now)?;
    let questions = [
        ("flows_newest", format!("/api/v1/flows?from={day}&to={to}&limit=100")),
        ("flows_of_sensor", format!("/api/v1/flows?from={day}&to={to}&limit=100&sensor=bench-1")),
        ("flows_of_port", format!("/api/v1/flows?from={day}&to={to}&limit=100&dst_port=22")),
        ("flows_of_busy_address", format!("/api/v1/flows?from={day}&to={to}&limit=100&address=10.0.0.1")),
        ("flows_of_rare_address", format!("/api/v1/flows?from={day}&to={to}&limit=100&dst=45.25.200.1")),
        ("top_sources_1h", format!("/api/v1/flows/top?by=source&from={hour}&to={to}")),
        ("top_sources_6h", format!("/api/v1/flows/top?by=source&from={six}&to={to}")),
        ("top_sources_24h", format!("/api/v1/flows/top?by=source&from={day}&to={to}")),
        ("top_pairs_24h", format!("/api/v1/flows/top?by=pair&from={day}&to={to}")),
        ("top_ports_24h", format!("/api/v1/flows/top?by=port&from={day}&to={to}")),
        ("top_protocols_24h", format!("/api/v1/flows/top?by=protocol&from={day}&to={to}")),
        ("timeseries_1h_1m", format!("/api/v1/flows/timeseries?step=1m&from={hour}&to={to}")),
        ("timeseries_24h_5m", format!("/api/v1/flows/timeseries?step=5m&from={day}&to={to}")),
        ("timeseries_24h_1h", format!("/api/v1/flows/timeseries?step=1h&from={day}&to={to}")),
        ("sensors", "/api/v1/sensors".to_owned()),
        ("ledger_24h", format!("/api/v1/sensors/bench-1/ledger?from={day}&to={to}")),
    ];
    if !arguments.common.json {
        println!("{:<24} {:>12} {:>12}", "question", "median ms", "slowest ms");
    }
    for (name, path) in questions {
        let mut took = Vec::new();
        for turn in 0..=arguments.times {
            let started = Instant::now();
            let url = format!("http://{}{path}", bench.server.address);
            let response = bench.http.get(url).bearer_auth(ADMIN_TOKEN).send().await?;
            let status = response.status();
            let text = response.text().await?;
            anyhow::ensure!(status == 200, "{name}: {status} {text}");
            // The first one fills caches.
            if turn > 0 {
                took.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        let slowest = took.iter().copied().fold(0.0, f64::max);
        let middle = median(took);
        if arguments.common.json {
            let line = json!({
                "bench": "query", "query": name, "rows": arguments.rows,
                "median_ms": (middle * 1e3).round() / 1e3, "max_ms": (slowest * 1e3).round() / 1e3,
            });
            println!("{line}");
        } else {
            println!("{name:<24} {middle:>12.2} {slowest:>12.2}");
        }
    }
    bench.server.stop().await;
    Ok(())
}

/// Rows of the last day, through the ingest path, so that rollups and ledger are what they would be.
async fn fill(bench: &Bench, arguments: &Arguments, now: i64) -> anyhow::Result<()> {
    let mut tokens = Vec::new();
    for index in 0..SENSORS {
        tokens.push(bench.sensor(&format!("bench-{index}")).await?);
    }
    let batches = arguments.rows.div_ceil(arguments.records);
    let step = DAY_NS / batches as i64;
    let started = Instant::now();
    let writers = (0..AT_ONCE).map(|writer| {
        let token = &tokens[writer % SENSORS];
        async move {
            let mut traffic = Traffic::new(writer as u64);
            for (epoch, batch) in (writer..batches).step_by(AT_ONCE).enumerate() {
                let start = now - DAY_NS + batch as i64 * step;
                let batch = traffic.batch(epoch as u64, start, arguments.records);
                bench.post(token, weir_wire::encode(&batch)?.into()).await?;
            }
            anyhow::Ok(())
        }
    });
    futures_util::future::try_join_all(writers).await?;
    if !arguments.common.json {
        println!("{} rows made in {:.0} s", batches * arguments.records, started.elapsed().as_secs_f64());
    }
    Ok(())
}
