//! Buckets in Redis, shared by all instances: one atomic script, Redis' own clock.
//!
//! A request never waits for a connection: while there is none, it is decided locally. Connecting is a
//! task's own business, twice a second until it works.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use secrecy::{ExposeSecret as _, SecretString};

use super::gcra::{Rate, Verdict};
use crate::telemetry::Metrics;

/// Time between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(500);
/// For a connection and its first answer.
const CONNECT: Duration = Duration::from_secs(1);

/// The algorithm of [`super::gcra`]. Numbers are doubles in Lua: microseconds since 1970 are exact in them until
/// the year 2255, but have to be written without an exponent.
const GCRA: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = now + interval * burst
local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
if tat < now then tat = now end
if tat > full then tat = full end
local next = tat + interval
if next > full then return {0, 0, next - full, tat - now} end
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000))
return {1, math.floor((full - next) / interval), 0, next - now}
";

/// A Redis server that may come and go.
pub struct Shared {
    client: Client,
    script: Script,
    /// What a request may wait for an answer.
    patience: Duration,
    connection: Mutex<Option<MultiplexedConnection>>,
    metrics: Metrics,
}

impl Shared {
    /// Begins to connect.
    pub fn start(url: &SecretString, patience: Duration, metrics: Metrics) -> Result<Arc<Self>, RedisError> {
        let client = Client::open(url.expose_secret())?;
        let shared = Arc::new(Self {
            client,
            script: Script::new(GCRA),
            patience,
            connection: Mutex::default(),
            metrics,
        });
        tokio::spawn(keep_connected(Arc::downgrade(&shared)));
        Ok(shared)
    }

    /// Decides in Redis; `None` while it is away.
    pub async fn decide(&self, key: &str, rate: Rate) -> Option<Verdict> {
        let mut connection = self.connection()?;
        let mut call = self.script.prepare_invoke();
        call.key(key).arg(rate.interval_us).arg(rate.burst);
        let answer = tokio::time::timeout(self.patience, call.invoke_async(&mut connection)).await;
        match answer {
            Ok(Ok((allowed, remaining, retry_after_us, reset_us))) => {
                let (allowed, remaining): (u8, u64) = (allowed, remaining);
                Some(Verdict {
                    allowed: allowed == 1,
                    remaining,
                    retry_after: Duration::from_micros(retry_after_us),
                    reset: Duration::from_micros(reset_us),
                })
            }
            Ok(Err(error)) => {
                self.lost(&error.to_string());
                None
            }
            Err(_) => {
                self.lost("no answer within redis.timeout_ms");
                None
            }
        }
    }

    /// Asks whether it is there; gives how long that took.
    pub async fn ping(&self) -> Option<Duration> {
        let mut connection = self.connection()?;
        let started = Instant::now();
        redis::cmd("PING").query_async::<()>(&mut connection).await.ok()?;
        Some(started.elapsed())
    }

    fn connection(&self) -> Option<MultiplexedConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Said once, by whoever finds out first.
    fn lost(&self, cause: &str) {
        if self.connection.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.metrics.limits.redis_up.set(0);
            self.metrics.limits.redis_lost.inc();
            tracing::warn!(cause, "Redis is away: each instance limits by itself until it is back");
        }
    }

    async fn connect(&self) -> Result<(), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        // A server that accepts and says nothing is not back.
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        self.metrics.limits.redis_up.set(1);
        tracing::info!("Redis is there: limits are shared by all instances");
        Ok(())
    }
}

/// As long as somebody holds the server.
async fn keep_connected(shared: Weak<Shared>) {
    let mut told = false;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        if shared.connection().is_none() {
            match shared.connect().await {
                Ok(()) => told = false,
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(%error, "connect to Redis; tried again until it works");
                }
                Err(_) => {}
            }
        }
        drop(shared);
        tokio::time::sleep(AGAIN).await;
    }
}
