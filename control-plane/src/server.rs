//! The parts put together: pool, schema, jobs, HTTP; and their end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use weir_trace::Tracer;

use crate::alerts::Alerts;
use crate::api::{self, AppState};
use crate::auth::Auth;
use crate::authority::Authority;
use crate::config::Config;
use crate::ingest::{Admission, Ingest};
use crate::jobs::{Jobs, Maintenance, Presence};
use crate::limits::Limits;
use crate::listener::{self, Listener, Tls};
use crate::naming::Services;
use crate::outbound::Outbound;
use crate::store::partitions::Known;
use crate::store::{Pool, migrations, users};
use crate::stream::Stream;
use crate::telemetry::{Metrics, Registered};

/// How long the end waits for a collector to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// A server that takes requests.
pub struct Server {
    /// Where it listens, the port that the system chose included.
    pub address: SocketAddr,
    pub state: AppState,
    /// For whoever wants a round of them now.
    pub jobs: Jobs,
    /// `None` where the listener speaks plain HTTP.
    pub tls: Option<Tls>,
    stop: watch::Sender<bool>,
    http: JoinHandle<()>,
    certificates: JoinHandle<()>,
    trust: JoinHandle<()>,
    rounds: JoinHandle<()>,
    identity: JoinHandle<()>,
    live: JoinHandle<()>,
    deadline: Duration,
}

/// A pool to the configured database.
pub fn connect(config: &Config, metrics: &Metrics) -> anyhow::Result<Pool> {
    let url = config.database.connection_url()?;
    Ok(Pool::new(&config.database, &url, Arc::clone(metrics))?)
}

/// Brings the schema up to date, makes today's partitions, and puts together what requests need. Nothing runs yet.
pub async fn assemble(config: &Config) -> anyhow::Result<AppState> {
    let admin_token = config.auth.admin_token()?;
    let metrics = Registered::new();
    let tracer = {
        let metrics = Arc::clone(&metrics);
        Tracer::start(&config.traces, "weir-control-plane", move |outcome, spans| {
            metrics.spans.with_label_values(&[outcome.name()]).inc_by(spans);
        })?
    };
    let pool = connect(config, &metrics)?;
    migrations::migrate(&pool, migrations::latest(), false).await.context("bring the schema up to date")?;
    let known = Known::default();
    let upkeep = Maintenance {
        pool: pool.clone(),
        known: known.clone(),
        retention: config.retention.clone(),
        rollup_keys: config.ingest.rollup_keys,
        metrics: Arc::clone(&metrics),
    };
    upkeep.make_ahead(jiff::Timestamp::now()).await.context("make the first partitions")?;
    let outbound = Outbound::new(&config.outbound)?;
    let services = Arc::new(Services::new(&config.services.0));
    let alerts = Alerts::new(
        pool.clone(),
        outbound.clone(),
        config.alerts.clone(),
        Arc::clone(&services),
        Arc::clone(&metrics),
    );
    let presence =
        Presence { pool: pool.clone(), settings: config.sensors.clone(), metrics: Arc::clone(&metrics) };
    presence.begin().await.context("begin to listen for sensors")?;
    let shared = [upkeep.jobs(), alerts.jobs(), vec![presence.job()]].concat();
    let own = vec![upkeep.gauges(), presence.gauges()];
    let jobs = Jobs::new(pool.clone(), Arc::clone(&metrics), config.jobs.clone(), shared, own)
        .await
        .context("put the jobs on the board")?;

    tell_of_lanes(config);
    let retention = Arc::new(config.retention.clone());
    let auth = Auth::start(&pool, admin_token.as_ref(), &config.auth, Arc::clone(&metrics))
        .await
        .context("read the keys that sign tokens")?;
    if admin_token.is_none() && !users::any(&pool).await? {
        tell_of_nobody();
    }
    let authority = Authority::start(&pool, &config.tls, Arc::clone(&metrics))
        .await
        .context("read the authority of sensors' certificates")?;
    let stream = Stream::start(pool.clone(), config.stream.clone(), Arc::clone(&metrics)).await?;
    Ok(AppState {
        pool: pool.clone(),
        auth,
        authority,
        ingest: Ingest::new(
            pool.clone(),
            known,
            config.ingest.clone(),
            Arc::clone(&retention),
            stream.clone(),
            Arc::clone(&metrics),
        ),
        limits: Limits::new(config, Arc::clone(&metrics))?,
        admission: Admission::new(&config.ingest, Arc::clone(&metrics)),
        metrics,
        settings: Arc::new(config.api.clone()),
        sensors: Arc::new(config.sensors.clone()),
        services,
        retention,
        jobs,
        answers: api::Answers::new(config.api.cache_bytes),
        stream,
        outbound,
        exports: Arc::new(Semaphore::new(config.api.max_exports)),
        tracer,
    })
}

/// [`assemble`]s the server and begins to listen.
pub async fn start(config: &Config) -> anyhow::Result<Server> {
    let state = assemble(config).await?;
    let tls = Tls::open(config, state.authority.verifier(), &state.metrics).context("make TLS ready")?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let address = listener.local_addr().context("read the address that was bound")?;
    let (stop, stopped) = watch::channel(false);
    if tls.is_none() && !address.ip().is_loopback() {
        tell_of_clear_text(address);
    }
    let listener = Listener {
        socket: listener,
        tls: tls.clone(),
        header_timeout: Duration::from_millis(config.api.header_timeout_ms),
        max_connections: config.api.max_connections,
        metrics: Arc::clone(&state.metrics),
    };
    let router = listener::with_transport_security(api::router(state.clone()), &config.tls);
    let http = tokio::spawn(listener.serve(router, stopped.clone()));
    let certificates = tokio::spawn(Tls::watch(tls.clone(), stopped.clone()));
    let jobs = state.jobs.clone();
    let (authority, pool) = (state.authority.clone(), state.pool.clone());
    let trust = tokio::spawn(authority.run(pool.clone(), tls.clone(), stopped.clone()));
    let identity = tokio::spawn(state.auth.clone().run(pool, stopped.clone()));
    let live = tokio::spawn(state.stream.clone().run(stopped.clone()));
    let rounds = tokio::spawn(jobs.clone().run(stopped));
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!(%address, scheme, version = env!("CARGO_PKG_VERSION"), "listening");
    let deadline = Duration::from_millis(config.shutdown_deadline_ms);
    Ok(Server {
        address,
        state,
        jobs,
        tls,
        stop,
        http,
        certificates,
        trust,
        rounds,
        identity,
        live,
        deadline,
    })
}

fn tell_of_lanes(config: &Config) {
    let lanes = config.ingest.max_concurrent + config.api.max_concurrent;
    if lanes >= config.database.pool_size as usize {
        tracing::warn!(
            lanes,
            pool_size = config.database.pool_size,
            "full lanes take every connection: raise database.pool_size above ingest.max_concurrent + \
             api.max_concurrent"
        );
    }
}

fn tell_of_nobody() {
    tracing::warn!(
        "nobody can log in: there is no user and no admin token; \
         `weir-control-plane user add NAME --role admin` makes the first admin"
    );
}

fn tell_of_clear_text(address: SocketAddr) {
    tracing::warn!(
        %address,
        "tokens and passwords travel in the clear unless a proxy in front ends TLS: set tls.certificate and \
         tls.key, or --tls-self-signed for a first try"
    );
}

impl Server {
    /// Takes no new requests, lets those in flight end until the deadline, and returns.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.certificates.abort();
        self.trust.abort();
        let tasks = [&self.http, &self.rounds, &self.identity, &self.live].map(JoinHandle::abort_handle);
        let ended = tokio::time::timeout(self.deadline, async {
            let _ = self.http.await;
            let _ = self.rounds.await;
            let _ = self.identity.await;
            let _ = self.live.await;
        });
        if ended.await.is_err() {
            tracing::warn!("requests were cut off: shutdown_deadline_ms is over");
            tasks.iter().for_each(tokio::task::AbortHandle::abort);
        }
        self.state.tracer.finish(LAST_SPANS).await;
        tracing::info!("stopped");
    }
}
