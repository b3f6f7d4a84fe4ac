//! The connection pool, and the one way to use it: a [`Lease`] is one transaction.
//!
//! A connection is clean only while no transaction is open on it. A lease marks it dirty when it begins
//! and clean again after a COMMIT or ROLLBACK that Postgres confirmed; whatever ends otherwise (an error
//! of the connection, a timeout, a request whose client went away and whose future was dropped) leaves
//! it dirty, and the pool closes a dirty connection instead of handing it on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bb8::{ManageConnection, PooledConnection, QueueStrategy, RunError};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{CancelToken, Client, NoTls, Socket};

use super::StoreError;
use super::statement::{Prepared, Session};
use crate::config::{Database, StatementTimeouts};
use crate::telemetry::Metrics;

/// Over a statement's own limit, for a server that does not keep it because it hangs.
const GRACE: Duration = Duration::from_secs(2);
/// A hung network shows within this long on an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What a transaction serves; decides how long its statements may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Ingest,
    Query,
    /// A question whose answer is streamed: its time is the receiver's, too.
    Export,
    Admin,
    Maintenance,
}

impl Class {
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Query, Self::Export, Self::Admin, Self::Maintenance];

    /// For metrics and the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Export => "export",
            Self::Admin => "admin",
            Self::Maintenance => "maintenance",
        }
    }

    /// What a transaction of this class sets beside its time limit.
    fn settings(self) -> &'static str {
        match self {
            // Rankings sort and hash some 10 MB; with the default of 4 MB that goes to disk. And the default
            // cost of a random page is a spinning disk's: it would read whole tables for one dimension.
            Self::Query => "; SET LOCAL work_mem = '32MB'; SET LOCAL random_page_cost = 1.1",
            Self::Maintenance => "; SET LOCAL work_mem = '32MB'",
            // Between two pages it is idle for as long as the receiver pauses; the whole has a limit on our side. And
            // all rows are wanted, not the first ones soon.
            Self::Export => {
                "; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL cursor_tuple_fraction = 1"
            }
            Self::Ingest | Self::Admin => "",
        }
    }
}

/// What a transaction may see and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Writes. Each statement sees what is committed when it begins, so that `ON CONFLICT` meets the rows
    /// of a concurrent writer instead of failing on them.
    ReadCommitted,
    /// Questions: all statements see one snapshot.
    Snapshot,
}

/// A pool of connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: bb8::Pool<Manager>,
    config: tokio_postgres::Config,
    timeouts: StatementTimeouts,
    /// A statement that takes this long is told of.
    slow: Duration,
    max: u32,
    metrics: Metrics,
}

/// Figures for metrics and readiness.
#[derive(Clone, Copy, Debug)]
pub struct PoolState {
    /// Connections that it may hold.
    pub max: u32,
    pub total: u32,
    pub idle: u32,
    pub waiting: u64,
    pub timeouts: u64,
    pub created: u64,
    pub closed_broken: u64,
    pub closed_invalid: u64,
}

impl Pool {
    /// Makes the pool; connects when first asked, so a server starts while its database is away.
    pub fn new(settings: &Database, url: &SecretString, metrics: Metrics) -> Result<Self, StoreError> {
        let mut config: tokio_postgres::Config = url.expose_secret().parse().map_err(|_| {
            // The parser's own message may quote the URL, password and all.
            StoreError::Unavailable("database.url is not a Postgres URL".to_owned())
        })?;
        config
            .application_name("weir-control-plane")
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .keepalives(true)
            .keepalives_idle(KEEPALIVE)
            .options(
                "-c timezone=UTC -c jit=off \
                 -c idle_in_transaction_session_timeout=120000 -c lock_timeout=15000",
            );
        let inner = bb8::Pool::builder()
            .max_size(settings.pool_size)
            .min_idle(Some(1))
            .connection_timeout(settings.acquire_timeout())
            .idle_timeout(Some(Duration::from_mins(10)))
            .max_lifetime(Some(Duration::from_hours(1)))
            .test_on_check_out(true)
            // The warmest connection first: its statements are prepared and its caches filled.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(Sink { metrics: metrics.clone() }))
            .build_unchecked(Manager { config: config.clone() });
        Ok(Self {
            inner,
            config,
            timeouts: settings.statement_timeouts_ms,
            slow: Duration::from_millis(settings.slow_statement_ms),
            max: settings.pool_size,
            metrics,
        })
    }

    /// Takes a connection and begins a transaction on it. `operation` names it in the metrics.
    pub async fn begin(
        &self,
        class: Class,
        isolation: Isolation,
        operation: &'static str,
    ) -> Result<Lease<'_>, StoreError> {
        let mut lease = self.lease(class, operation).await?;
        let mode = match isolation {
            Isolation::ReadCommitted => "ISOLATION LEVEL READ COMMITTED",
            Isolation::Snapshot => "ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        };
        let timeout = self.timeout_ms(class);
        let begin = format!("BEGIN {mode}; SET LOCAL statement_timeout = {timeout}{}", class.settings());
        lease.client().batch_execute(&begin).await?;
        lease.open = Some(isolation);
        Ok(lease)
    }

    /// Takes a connection without a transaction, for the few commands that refuse to run inside one.
    pub async fn lease(&self, class: Class, operation: &'static str) -> Result<Lease<'_>, StoreError> {
        let mut conn = self.inner.get().await.map_err(|error| match error {
            RunError::User(error) => StoreError::from(error),
            RunError::TimedOut => {
                StoreError::Unavailable("no connection came free within database.acquire_timeout_ms".into())
            }
        })?;
        conn.dirty = true;
        Ok(Lease {
            conn,
            metrics: self.metrics.clone(),
            class,
            operation,
            started: Instant::now(),
            slow: self.slow,
            open: None,
        })
    }

    /// Runs a whole transaction under its class's time limit, kept on our side too.
    pub async fn within<T>(
        &self,
        class: Class,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.timeout_ms(class);
        let result = match tokio::time::timeout(Duration::from_millis(limit) + GRACE, work).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Timeout(limit)),
        };
        let result = result.map_err(|error| match error {
            StoreError::Timeout(0) => StoreError::Timeout(limit),
            other => other,
        });
        if let Err(error) = &result {
            self.metrics.database_errors.with_label_values(&[error.kind()]).inc();
        }
        result
    }

    /// A connection of its own, beside the pool, for what is not asked but told.
    pub(super) async fn aside(
        &self,
    ) -> Result<(Client, tokio_postgres::Connection<Socket, NoTlsStream>), StoreError> {
        let mut config = self.config.clone();
        config.application_name("weir-control-plane listener");
        Ok(config.connect(NoTls).await?)
    }

    #[must_use]
    pub fn state(&self) -> PoolState {
        let state = self.inner.state();
        PoolState {
            max: self.max,
            total: state.connections,
            idle: state.idle_connections,
            waiting: state.statistics.pending_gets(),
            timeouts: state.statistics.get_timed_out,
            created: state.statistics.connections_created,
            closed_broken: state.statistics.connections_closed_broken,
            closed_invalid: state.statistics.connections_closed_invalid,
        }
    }

    fn timeout_ms(&self, class: Class) -> u64 {
        match class {
            Class::Ingest => self.timeouts.ingest,
            Class::Query => self.timeouts.query,
            Class::Export => self.timeouts.export,
            Class::Admin => self.timeouts.admin,
            Class::Maintenance => self.timeouts.maintenance,
        }
    }
}

/// One connection, held for one transaction.
pub struct Lease<'a> {
    conn: PooledConnection<'a, Manager>,
    metrics: Metrics,
    class: Class,
    operation: &'static str,
    started: Instant,
    slow: Duration,
    /// The transaction on it.
    open: Option<Isolation>,
}

impl Lease<'_> {
    /// To run statements with.
    #[must_use]
    pub fn client(&self) -> Session<'_> {
        Session {
            client: &self.conn.client,
            metrics: &self.metrics,
            class: self.class.name(),
            operation: self.operation,
            slow: self.slow,
        }
    }

    /// A statement that this connection prepares once.
    pub async fn prepared(&mut self, sql: &'static str) -> Result<Prepared, StoreError> {
        if let Some(prepared) = self.conn.statements.get(sql) {
            return Ok(prepared.clone());
        }
        let prepared = self.client().prepare(sql).await?;
        self.conn.statements.insert(sql, prepared.clone());
        Ok(prepared)
    }

    /// Commits on `Ok`, rolls back on `Err`, and gives the connection back if Postgres confirmed it.
    pub async fn finish<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = match result {
            Ok(value) if self.open.is_some() => {
                self.client().batch_execute("COMMIT").await.map_err(StoreError::from).map(|()| value)
            }
            other => other,
        };
        if outcome.is_ok() {
            self.conn.dirty = false;
        } else if self.open.take().is_some() {
            self.metrics.rollbacks.with_label_values(&[self.operation]).inc();
            // Also after a failed COMMIT: Postgres then has no transaction, and ROLLBACK only warns.
            self.conn.dirty = self.conn.client.batch_execute("ROLLBACK").await.is_err();
        }
        outcome
    }

    /// Rolls back what a rule refused: no error of the database, so none is counted.
    pub async fn undo(mut self) -> Result<(), StoreError> {
        self.conn.client.batch_execute("ROLLBACK").await?;
        self.conn.dirty = false;
        Ok(())
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let labels = [self.class.name(), self.operation];
        self.metrics.query_seconds.with_label_values(&labels).observe(self.started.elapsed().as_secs_f64());
        if self.conn.dirty && self.open == Some(Isolation::ReadCommitted) {
            // A question that nobody waits for any more did nothing.
            self.metrics.rollbacks.with_label_values(&[self.operation]).inc();
        }
        if self.conn.dirty && !self.conn.client.is_closed() {
            // Nobody waits for the statement any more: ask Postgres to stop it. The pool closes the
            // connection, which rolls back what it did.
            let token: CancelToken = self.conn.client.cancel_token();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    let _ = tokio::time::timeout(GRACE, token.cancel_query(NoTls)).await;
                });
            }
        }
    }
}

/// A connection as the pool keeps it.
pub struct Connection {
    client: Client,
    statements: HashMap<&'static str, Prepared>,
    /// In use, or left in a state that nobody vouches for.
    dirty: bool,
}

/// Opens, tests and judges connections for bb8.
#[derive(Debug)]
pub struct Manager {
    config: tokio_postgres::Config,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = tokio_postgres::Error;

    async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a Postgres connection ended");
            }
        });
        Ok(Connection { client, statements: HashMap::new(), dirty: false })
    }

    async fn is_valid(&self, conn: &mut Connection) -> Result<(), tokio_postgres::Error> {
        conn.dirty = true;
        conn.client.simple_query("").await?;
        conn.dirty = false;
        Ok(())
    }

    fn has_broken(&self, conn: &mut Connection) -> bool {
        conn.dirty || conn.client.is_closed()
    }
}

/// Where bb8 reports connections that could not be made or did not pass their test.
#[derive(Clone)]
struct Sink {
    metrics: Metrics,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl bb8::ErrorSink<tokio_postgres::Error> for Sink {
    fn sink(&self, error: tokio_postgres::Error) {
        self.metrics.pool_errors.inc();
        let error = StoreError::from(error);
        tracing::warn!(%error, "connect to Postgres");
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<tokio_postgres::Error>> {
        Box::new(self.clone())
    }
}
