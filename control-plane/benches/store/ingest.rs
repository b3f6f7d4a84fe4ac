//! P4: rows a second through the real ingest path, beside COPY of a prepared buffer into the same table.
//!
//! Both sides take turns within seconds of each other, with as many connections as there are sensors,
//! the very same rows, one transaction for each 50,000. The one side gets compressed batches over HTTP
//! and does all that ingest does; the other sends bytes that were made before. Each sensor sends its next
//! batch when the one before is acknowledged.

use std::pin::pin;
use std::time::Instant;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, TryStreamExt as _};
use serde_json::json;
use tokio_postgres::Client;
use weir_wire::limits::MAX_RECORDS;

use crate::traffic::{Traffic, now_ns};
use crate::{Bench, Common, median};

/// Bytes that are handed to the driver at once, as ingest does.
const PIECE: usize = 128 << 10;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Numbers of sensors that send at once
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    sensors: Vec<usize>,
    /// Batches of each side in one turn, over all sensors
    #[arg(long, default_value_t = 16)]
    batches: usize,
    /// Turns of each side; their median counts
    #[arg(long, default_value_t = 5)]
    turns: usize,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bench = Bench::start(&arguments.common).await?;
    let admin = bench.connect().await?;
    if !arguments.common.json {
        println!("{:>8} {:>14} {:>14} {:>7}", "sensors", "raw rows/s", "ingest rows/s", "ratio");
    }
    for (round, sensors) in arguments.sensors.iter().copied().enumerate() {
        let mut tokens = Vec::new();
        for index in 0..sensors {
            tokens.push(bench.sensor(&format!("bench-{round}-{index}")).await?);
        }
        let mut connections = Vec::new();
        for _ in 0..sensors {
            connections.push(bench.connect().await?);
        }
        let each = (arguments.batches / sensors).max(1);
        let rows = (sensors * each * MAX_RECORDS) as f64;
        let (mut raw, mut ingest) = (Vec::new(), Vec::new());
        // One turn of each to fill caches and to extend files, not counted.
        for turn in 0..=arguments.turns {
            let bodies = bodies(turn, sensors, each)?;
            settle(&admin).await?;
            let ingest_s = ingest_turn(&bench, &tokens, bodies).await?;
            let buffers = prepared_buffers(&admin, sensors).await?;
            settle(&admin).await?;
            let raw_s = raw_turn(&connections, buffers).await?;
            if turn > 0 {
                raw.push(rows / raw_s);
                ingest.push(rows / ingest_s);
            }
        }
        let (raw, ingest) = (median(raw), median(ingest));
        let ratio = ingest / raw;
        if arguments.common.json {
            let line = json!({
                "bench": "ingest", "sensors": sensors, "raw_rows_per_s": raw.round(),
                "ingest_rows_per_s": ingest.round(), "ratio": (ratio * 1e3).round() / 1e3,
            });
            println!("{line}");
        } else {
            println!("{sensors:>8} {raw:>14.0} {ingest:>14.0} {ratio:>7.3}");
        }
    }
    bench.server.stop().await;
    Ok(())
}

fn partition() -> String {
    format!("flow_{}", jiff::Timestamp::now().strftime("%Y%m%d"))
}

/// An empty table and no checkpoint in the middle, for whoever is next.
async fn settle(admin: &Client) -> anyhow::Result<()> {
    admin.batch_execute(&format!("TRUNCATE {}; CHECKPOINT", partition())).await.context("empty the table")
}

/// The rows of every batch that is stored, as COPY itself writes them, dealt out to the connections.
async fn prepared_buffers(admin: &Client, connections: usize) -> anyhow::Result<Vec<Vec<Bytes>>> {
    let table = partition();
    let batches = admin.query(&format!("SELECT DISTINCT flow_id >> 16 FROM {table} ORDER BY 1"), &[]).await?;
    let mut dealt = vec![Vec::new(); connections];
    for (index, row) in batches.iter().enumerate() {
        let batch: i64 = row.get(0);
        let copy = format!(
            "COPY (SELECT * FROM {table} WHERE flow_id >> 16 = {batch} ORDER BY flow_id) TO STDOUT (FORMAT binary)"
        );
        let rows: Vec<Bytes> = admin.copy_out(&copy).await?.try_collect().await?;
        let mut buffer = BytesMut::new();
        for row in rows {
            buffer.extend_from_slice(&row);
        }
        dealt[index % connections].push(buffer.freeze());
    }
    Ok(dealt)
}

/// Batches of every sensor, ready to be sent.
fn bodies(turn: usize, sensors: usize, each: usize) -> anyhow::Result<Vec<Vec<Bytes>>> {
    let epoch = |index: usize| (1 + turn * each + index) as u64;
    (0..sensors)
        .map(|sensor| {
            let mut traffic = Traffic::new((turn * sensors + sensor) as u64);
            (0..each)
                .map(|index| {
                    Ok(weir_wire::encode(&traffic.batch(epoch(index), now_ns(), MAX_RECORDS))?.into())
                })
                .collect()
        })
        .collect()
}

async fn raw_turn(connections: &[Client], buffers: Vec<Vec<Bytes>>) -> anyhow::Result<f64> {
    let started = Instant::now();
    let work = connections.iter().zip(buffers).map(|(client, buffers)| async move {
        for buffer in buffers {
            let copy = format!("COPY {} FROM STDIN (FORMAT binary)", partition());
            let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await?);
            for at in (0..buffer.len()).step_by(PIECE) {
                sink.send(buffer.slice(at..buffer.len().min(at + PIECE))).await?;
            }
            sink.finish().await?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(work).await?;
    Ok(started.elapsed().as_secs_f64())
}

async fn ingest_turn(bench: &Bench, tokens: &[String], bodies: Vec<Vec<Bytes>>) -> anyhow::Result<f64> {
    let started = Instant::now();
    let work = tokens.iter().zip(bodies).map(|(token, bodies)| async move {
        for body in bodies {
            bench.post(token, body).await?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(work).await?;
    Ok(started.elapsed().as_secs_f64())
}
