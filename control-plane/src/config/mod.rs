//! The server's settings: one typed struct per part, their defaults, and the rules between them.
//!
//! Built by [`load`] from a TOML file, the environment and flags, in that order, the later one winning.
//! A [`Config`] that exists has passed [`Config::validate`]; nothing else checks settings again.

mod alerts;
mod jobs;
mod limits;
mod load;
mod sensors;
mod services;
mod stream;
mod tls;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

pub use alerts::{Alerts, Outbound};
pub use jobs::Jobs;
pub use limits::{Limits, Rate, Redis};
pub use load::{ENV_PREFIX, Overrides, load};
pub use sensors::Sensors;
pub use services::Services;
pub use stream::Stream;
pub use tls::{ClientAuth, Tls};
pub use weir_trace::Traces;

/// Shortest admin token that is accepted: 24 characters of base64 are 144 bits.
const MIN_ADMIN_TOKEN: usize = 24;
/// 24 characters of randomness have some 20 different ones; `changemechangemechangeme` has 7.
const MIN_DISTINCT: usize = 8;

/// Everything the server can be told.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the HTTP server; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long requests in flight may go on after SIGTERM.
    pub shutdown_deadline_ms: u64,
    pub tls: Tls,
    pub api: Api,
    pub database: Database,
    pub auth: Auth,
    pub sensors: Sensors,
    pub services: Services,
    pub ingest: Ingest,
    pub retention: Retention,
    pub jobs: Jobs,
    pub alerts: Alerts,
    pub outbound: Outbound,
    pub limits: Limits,
    pub redis: Redis,
    pub stream: Stream,
    pub traces: Traces,
    pub log: Log,
}

/// The HTTP side.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// A request, its body included, ends after this long.
    pub request_timeout_ms: u64,
    /// A connection that has not sent a request's whole head for so long is closed, an idle one too.
    pub header_timeout_ms: u64,
    /// Connections at once, upgraded ones apart: who comes beyond them is let go at once.
    pub max_connections: usize,
    /// Questions in work at once, batches apart: fewer than the pool has connections.
    pub max_concurrent: usize,
    /// How long one waits for its turn before it is answered 503.
    pub queue_timeout_ms: u64,
    /// Origins whose pages may call the API from a browser, as `https://host[:port]`.
    pub cors_origins: Vec<String>,
    /// Exports at once; each holds a connection to Postgres for as long as it takes.
    pub max_exports: usize,
    /// Answers of expensive questions that are kept until their flows change; 0 keeps none.
    pub cache_bytes: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
}

/// Where and how to reach Postgres.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `postgres://user:password@host:port/database`.
    #[serde(serialize_with = "hidden")]
    pub url: Option<SecretString>,
    /// File that holds the URL, instead of `url`.
    pub url_file: Option<PathBuf>,
    pub pool_size: u32,
    pub acquire_timeout_ms: u64,
    pub connect_timeout_ms: u64,
    /// A statement that takes this long is logged and counted.
    pub slow_statement_ms: u64,
    pub statement_timeouts_ms: StatementTimeouts,
}

/// How long one statement may run, by what it serves.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatementTimeouts {
    pub ingest: u64,
    pub query: u64,
    pub export: u64,
    pub admin: u64,
    pub maintenance: u64,
}

/// Who may call.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// File that holds a token with the role of an admin, for set-up, recovery and machines of old.
    pub admin_token_file: Option<PathBuf>,
    /// How long an access token lasts.
    pub access_token_s: u32,
    /// A session that is not refreshed for so long is over.
    pub refresh_token_hours: u32,
    /// A session is over after so long, whatever happens.
    pub session_days: u32,
    /// A key signs access tokens for so long.
    pub key_rotation_days: u32,
}

/// Bounds of the write path. What a single batch may hold is fixed by [`weir_wire::limits`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Batches in work at once; each may hold some 60 MB while it is.
    pub max_concurrent: usize,
    /// Batches of one sensor in work at once.
    pub max_concurrent_per_sensor: usize,
    /// How long a batch waits for its turn before it is answered 503.
    pub queue_timeout_ms: u64,
    /// Oldest window that is stored where its sensor says.
    pub max_past_days: u32,
    /// How far ahead of our clock a window may lie and still be believed.
    pub max_future_hours: u32,
    /// Keys that one batch may name in each dimension of the rollups.
    pub rollup_keys: usize,
}

/// How long things are kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    pub flows_days: u32,
    pub rollup_1m_days: u32,
    pub rollup_1h_days: u32,
    /// Batch keys and kernel totals. A batch that comes again after this long is `expired` by its age.
    pub ledger_days: u32,
    /// Events that can be read again: for so long, and no more than so many.
    pub events_days: u32,
    pub events_max: u64,
    /// Detections that were seen no more for so long.
    pub detections_days: u32,
    /// Devices that were not seen for so long, and of which no operator said anything, are forgotten.
    pub devices_days: u32,
    /// Time between two runs of each job of upkeep.
    pub interval_s: u64,
}

/// The server's own log, on standard error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or directives as of `RUST_LOG`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080)),
            shutdown_deadline_ms: 20_000,
            tls: Tls::default(),
            api: Api::default(),
            database: Database::default(),
            auth: Auth::default(),
            sensors: Sensors::default(),
            services: Services::default(),
            ingest: Ingest::default(),
            retention: Retention::default(),
            jobs: Jobs::default(),
            alerts: Alerts::default(),
            outbound: Outbound::default(),
            limits: Limits::default(),
            redis: Redis::default(),
            stream: Stream::default(),
            traces: Traces::default(),
            log: Log::default(),
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            request_timeout_ms: 60_000,
            header_timeout_ms: 30_000,
            max_connections: 4_096,
            max_concurrent: 6,
            queue_timeout_ms: 1_000,
            cors_origins: Vec::new(),
            max_exports: 2,
            cache_bytes: 32 << 20,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            pool_size: 24,
            acquire_timeout_ms: 5_000,
            connect_timeout_ms: 5_000,
            slow_statement_ms: 1_000,
            statement_timeouts_ms: StatementTimeouts::default(),
        }
    }
}

impl Default for StatementTimeouts {
    fn default() -> Self {
        Self { ingest: 30_000, query: 10_000, export: 1_800_000, admin: 5_000, maintenance: 600_000 }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            admin_token_file: None,
            access_token_s: 300,
            refresh_token_hours: 168,
            session_days: 30,
            key_rotation_days: 30,
        }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            max_concurrent: batches_at_once(),
            max_concurrent_per_sensor: 8,
            queue_timeout_ms: 2_000,
            max_past_days: 30,
            max_future_hours: 24,
            rollup_keys: 200,
        }
    }
}

/// Twice the cores: more at once store some more rows a second, and questions wait the longer for it
/// (`docs/decisions/0012-limits.md`).
fn batches_at_once() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| cores.get().saturating_mul(2).clamp(4, 16))
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            flows_days: 30,
            rollup_1m_days: 90,
            rollup_1h_days: 730,
            ledger_days: 400,
            events_days: 7,
            events_max: 5_000_000,
            detections_days: 180,
            devices_days: 365,
            interval_s: 60,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Json }
    }
}

impl Config {
    /// Every rule that a value breaks, each line naming its key.
    fn validate(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut within = |key: &str, value: u64, low: u64, high: u64| {
            if value < low || value > high {
                broken.push(format!("{key}: {value} is not between {low} and {high}"));
            }
        };
        within("shutdown_deadline_ms", self.shutdown_deadline_ms, 100, 600_000);
        within("api.request_timeout_ms", self.api.request_timeout_ms, 100, 600_000);
        within("api.header_timeout_ms", self.api.header_timeout_ms, 100, 600_000);
        within("api.max_connections", self.api.max_connections as u64, 16, 1_000_000);
        within("api.max_exports", self.api.max_exports as u64, 1, 100);
        within("api.cache_bytes", self.api.cache_bytes as u64, 0, 16 << 30);
        within("api.max_concurrent", self.api.max_concurrent as u64, 1, 500);
        within("api.queue_timeout_ms", self.api.queue_timeout_ms, 0, 60_000);
        self.limits.validate(&mut within);
        self.stream.validate(&mut within);
        self.tls.within(&mut within);
        self.jobs.validate(&mut within);
        self.sensors.within(&mut within);
        self.alerts.validate(&mut within);
        self.outbound.validate(&mut within);
        within("redis.timeout_ms", self.redis.timeout_ms, 1, 10_000);
        let database = &self.database;
        within("database.pool_size", u64::from(database.pool_size), 2, 500);
        within("database.acquire_timeout_ms", database.acquire_timeout_ms, 10, 60_000);
        within("database.connect_timeout_ms", database.connect_timeout_ms, 10, 60_000);
        within("database.slow_statement_ms", database.slow_statement_ms, 1, 600_000);
        let timeouts = &database.statement_timeouts_ms;
        within("database.statement_timeouts_ms.ingest", timeouts.ingest, 100, 600_000);
        within("database.statement_timeouts_ms.query", timeouts.query, 100, 600_000);
        within("database.statement_timeouts_ms.export", timeouts.export, 100, 86_400_000);
        within("database.statement_timeouts_ms.admin", timeouts.admin, 100, 600_000);
        within("database.statement_timeouts_ms.maintenance", timeouts.maintenance, 100, 86_400_000);
        let auth = &self.auth;
        within("auth.access_token_s", u64::from(auth.access_token_s), 10, 3_600);
        within("auth.refresh_token_hours", u64::from(auth.refresh_token_hours), 1, 2_160);
        within("auth.session_days", u64::from(auth.session_days), 1, 365);
        within("auth.key_rotation_days", u64::from(auth.key_rotation_days), 1, 366);
        let ingest = &self.ingest;
        within("ingest.max_concurrent", ingest.max_concurrent as u64, 1, 256);
        within("ingest.max_concurrent_per_sensor", ingest.max_concurrent_per_sensor as u64, 1, 256);
        within("ingest.queue_timeout_ms", ingest.queue_timeout_ms, 0, 60_000);
        within("ingest.max_past_days", u64::from(ingest.max_past_days), 1, 366);
        within("ingest.max_future_hours", u64::from(ingest.max_future_hours), 1, 168);
        within("ingest.rollup_keys", ingest.rollup_keys as u64, 1, 10_000);
        let retention = &self.retention;
        within("retention.flows_days", u64::from(retention.flows_days), 1, 3_660);
        within("retention.rollup_1m_days", u64::from(retention.rollup_1m_days), 1, 3_660);
        within("retention.rollup_1h_days", u64::from(retention.rollup_1h_days), 1, 36_600);
        within("retention.ledger_days", u64::from(retention.ledger_days), 1, 36_600);
        within("retention.interval_s", retention.interval_s, 1, 86_400);
        within("retention.events_days", u64::from(retention.events_days), 1, 3_660);
        within("retention.detections_days", u64::from(retention.detections_days), 1, 36_600);
        within("retention.devices_days", u64::from(retention.devices_days), 1, 36_600);
        within("retention.events_max", retention.events_max, 1_000, 1_000_000_000);

        let mut at_least = |key: &str, value: u32, other_key: &str, other: u32| {
            if value < other {
                broken.push(format!("{key}: {value} is less than {other_key} ({other})"));
            }
        };
        let past = ("ingest.max_past_days", ingest.max_past_days);
        at_least("retention.flows_days", retention.flows_days, past.0, past.1);
        at_least("retention.rollup_1m_days", retention.rollup_1m_days, past.0, past.1);
        let minutes = ("retention.rollup_1m_days", retention.rollup_1m_days);
        at_least("retention.rollup_1h_days", retention.rollup_1h_days, minutes.0, minutes.1);
        // Else a replay of a batch whose key was forgotten would be stored again.
        at_least("retention.ledger_days", retention.ledger_days, past.0, past.1.saturating_add(1));
        let flows = ("retention.flows_days", retention.flows_days);
        at_least("retention.ledger_days", retention.ledger_days, flows.0, flows.1);

        broken.extend(self.traces.check().err().map(|error| error.to_string()));
        self.tls.validate(&mut broken);
        self.services.validate(&mut broken);
        broken.extend(self.outbound.faults());
        for origin in &self.api.cors_origins {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let plain = rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ']));
            if !plain || axum::http::HeaderValue::from_str(origin).is_err() {
                broken.push(format!("api.cors_origins: `{origin}` is not of the form https://host[:port]"));
            }
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            broken.push(format!("log.level: `{}`: {error}", self.log.level));
        }
        if database.url.is_some() && database.url_file.is_some() {
            broken.push("database.url_file: database.url is set too; keep one of them".to_owned());
        }
        if self.redis.url.is_some() && self.redis.url_file.is_some() {
            broken.push("redis.url_file: redis.url is set too; keep one of them".to_owned());
        }
        broken
    }
}

impl Database {
    /// The URL, from wherever it is kept.
    pub fn connection_url(&self) -> Result<SecretString, ConfigError> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let Some(path) = &self.url_file else {
            return Err(ConfigError::one("database.url: not set, and no database.url_file either"));
        };
        match std::fs::read_to_string(path) {
            Ok(url) => Ok(SecretString::from(url.trim().to_owned())),
            Err(error) => {
                Err(ConfigError::one(format!("database.url_file: read {}: {error}", path.display())))
            }
        }
    }

    #[must_use]
    pub fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }
}

impl Auth {
    /// The admin token, where one is configured; an unreadable, short or simple one is an error.
    pub fn admin_token(&self) -> Result<Option<SecretString>, ConfigError> {
        let Some(path) = &self.admin_token_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::one(format!("auth.admin_token_file: read {}: {error}", path.display()))
        })?;
        let token = text.trim();
        let weakness = if token.len() < MIN_ADMIN_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            format!("must hold one token of at least {MIN_ADMIN_TOKEN} printable characters")
        } else if distinct(token) < MIN_DISTINCT {
            format!("holds a token with fewer than {MIN_DISTINCT} different characters, which can be guessed")
        } else {
            return Ok(Some(SecretString::from(token.to_owned())));
        };
        Err(ConfigError::one(format!(
            "auth.admin_token_file: {} {weakness}; make one with `openssl rand -base64 32 > FILE`",
            path.display()
        )))
    }

    #[must_use]
    pub fn access_token(&self) -> Duration {
        Duration::from_secs(u64::from(self.access_token_s))
    }

    #[must_use]
    pub fn key_rotation(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.key_rotation_days))
    }
}

fn distinct(text: &str) -> usize {
    let mut bytes = text.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    bytes.len()
}

/// What is wrong with the settings, a line for each key.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    pub(crate) fn one(line: impl Into<String>) -> Self {
        Self(vec![line.into()])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not usable:")?;
        for line in &self.0 {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

/// Secrets appear in `--print-config` as being there, and no more.
// serde passes the field as it is.
#[allow(clippy::ref_option)]
fn hidden<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) if !secret.expose_secret().is_empty() => serializer.serialize_some("(hidden)"),
        _ => serializer.serialize_none(),
    }
}
