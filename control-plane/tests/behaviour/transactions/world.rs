//! A control plane whose way to Postgres can be cut, and in which nothing happens by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::core::Collector as _;
use reqwest::{Client, Method, RequestBuilder};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use weir_control_plane::api::{self, AppState};
use weir_control_plane::config::{ClientAuth, Config, Database};
use weir_control_plane::listener::Listener;
use weir_control_plane::server;
use weir_control_plane::store::{Class, Pool};
use weir_control_plane::telemetry::Registered;

use crate::people::PASSWORD;
use crate::support::{ADMIN_TOKEN, database, shared};
use crate::tap::Tap;

/// What each table and partition has, as a hash.
type Contents = BTreeMap<String, String>;

/// A database behind a tap, with nobody else in it.
pub struct World {
    database: String,
    pub state: AppState,
    /// Past the tap.
    outside: Pool,
    tap: Tap,
    http: Client,
    address: SocketAddr,
    /// Transactions that were cut.
    cut: Mutex<BTreeSet<String>>,
    _token_file: tempfile::NamedTempFile,
    /// The listener ends with it.
    _stop: watch::Sender<bool>,
}

impl World {
    pub async fn new() -> Self {
        let database = database(shared());
        let url = shared().database_url(&database);
        let tap = Tap::start(SocketAddr::from((Ipv4Addr::LOCALHOST, shared().port()))).await;
        let token_file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(token_file.path(), ADMIN_TOKEN).expect("it can be written");
        let mut config = Config::default();
        let through = format!("postgres://postgres@{}/{database}", tap.address);
        config.database.url = Some(SecretString::from(through));
        config.database.pool_size = 4;
        config.tls.client_auth = ClientAuth::Optional;
        config.auth.admin_token_file = Some(token_file.path().to_owned());
        let state = server::assemble(&config).await.expect("the parts are put together");

        let settings = Database { pool_size: 2, ..Database::default() };
        let outside = Pool::new(&settings, &SecretString::from(url), Registered::new()).expect("a pool");
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let listener = Listener {
            socket,
            tls: None,
            header_timeout: Duration::from_mins(1),
            max_connections: 16,
            metrics: Arc::clone(&state.metrics),
        };
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(listener.serve(api::router(state.clone()), stopped));
        let http = Client::builder().no_proxy().build().expect("a client");
        let world = Self {
            database,
            state,
            outside,
            tap,
            http,
            address,
            cut: Mutex::default(),
            _token_file: token_file,
            _stop: stop,
        };
        // What has no block has no row; most partitions are such.
        world.sql(
            "CREATE FUNCTION contents() RETURNS TABLE (name text, hash text) LANGUAGE plpgsql AS $$
             DECLARE relation oid;
             BEGIN
                 FOR relation, name IN SELECT oid, relname FROM pg_class
                                       WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
                     hash := '';
                     IF pg_relation_size(relation) > 0 THEN
                         EXECUTE format('SELECT coalesce(md5(string_agg(t::text, E''\\n'' ORDER BY t::text)), '''') FROM %I AS t', name) INTO hash;
                     END IF;
                     RETURN NEXT;
                 END LOOP;
             END $$",
        );
        world
    }

    pub fn pool(&self) -> &Pool {
        &self.state.pool
    }

    pub fn sql(&self, sql: &str) -> String {
        shared().sql(&self.database, sql).expect("the SQL runs").trim().to_owned()
    }

    /// Of all tables, as whoever looks from outside sees them.
    async fn contents(&self) -> Contents {
        let lease = self.outside.lease(Class::Admin, "test").await.expect("a connection");
        let rows = lease.client().query("SELECT name, hash FROM contents()", &[]).await;
        let rows = rows.expect("they are readable");
        lease.finish(Ok(())).await.expect("the connection is given back");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Tables that have something else now.
    async fn changed(&self, before: &Contents) -> Vec<String> {
        differing(before, &self.contents().await)
    }

    fn rollbacks(&self) -> BTreeMap<String, u64> {
        let families = self.state.metrics.rollbacks.collect();
        let counters = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        counters
            .map(|counter| {
                (counter.get_label()[0].value().to_owned(), counter.get_counter().get_value() as u64)
            })
            .collect()
    }

    /// The transaction that was rolled back since: one, once.
    fn rolled_back(&self, before: &BTreeMap<String, u64>, what: &str) -> String {
        let after = self.rollbacks();
        let more = after.iter().filter_map(|(name, count)| {
            let more = count - before.get(name).copied().unwrap_or_default();
            (more > 0).then_some((name.clone(), more))
        });
        let more: Vec<(String, u64)> = more.collect();
        let [(name, 1)] = &more[..] else { panic!("{what}: rollbacks: {more:?}") };
        self.cut.lock().expect("no panic").insert(name.clone());
        name.clone()
    }

    /// Transactions that were cut.
    pub fn cut(&self) -> BTreeSet<String> {
        self.cut.lock().expect("no panic").clone()
    }

    /// Cuts a write at each of its statements, then lets it through. It may be several transactions, of which each goes
    /// on where the one before ended.
    pub async fn walk<T, E: Debug>(&self, names: &[&str], write: impl AsyncFn() -> Result<T, E>) -> T {
        let (mut statements, mut cuts) = (0, 0);
        let mut before = self.contents().await;
        loop {
            let rollbacks = self.rollbacks();
            self.tap.cut_after(statements);
            let mut call = Box::pin(write());
            tokio::select! {
                result = &mut call => {
                    self.tap.cut_nothing();
                    assert!(cuts >= 2, "{names:?}: a statement and a COMMIT at least, not {cuts}");
                    return result.unwrap_or_else(|error| panic!("{names:?}: {error:?}"));
                }
                () = self.tap.struck() => {}
            };
            let what = format!("{names:?}, cut after {statements} statements");
            // What was committed before the transaction that is open now.
            let during = self.contents().await;
            self.tap.cut_nothing();
            self.tap.release();
            assert!(call.await.is_err(), "{what}: it says that it succeeded");
            let left = self.changed(&during).await;
            assert!(left.is_empty(), "{what}: something was left behind in {left:?}");
            let name = self.rolled_back(&rollbacks, &what);
            assert!(names.contains(&name.as_str()), "{what}: it was {name}");
            cuts += 1;
            statements = if during == before { statements + 1 } else { 0 };
            before = during;
        }
    }

    /// Cuts what a request does at each of its statements, then lets it through; gives the answer. A request's write
    /// is one transaction: what is committed before it lies in the tables `apart`. `prepare` is done before each try.
    pub async fn walk_request(
        &self,
        route: &str,
        apart: &[&str],
        prepare: &str,
        request: impl Fn(&Client, &str) -> RequestBuilder,
    ) -> Value {
        let base = format!("http://{}", self.address);
        let (mut statements, mut cuts) = (0, 0);
        let mut before = self.contents().await;
        loop {
            if !prepare.is_empty() {
                let lease = self.outside.lease(Class::Admin, "test").await.expect("a connection");
                lease.client().batch_execute(prepare).await.expect("it is prepared");
                lease.finish(Ok(())).await.expect("the connection is given back");
                before = self.contents().await;
            }
            let rollbacks = self.rollbacks();
            self.tap.cut_after(statements);
            let mut call = Box::pin(request(&self.http, &base).send());
            tokio::select! {
                answer = &mut call => {
                    self.tap.cut_nothing();
                    assert!(cuts >= 2, "{route}: a statement and a COMMIT at least, not {cuts}");
                    let answer = answer.expect("an answer");
                    let status = answer.status();
                    let body = answer.bytes().await.expect("a body");
                    assert!(status.is_success(), "{route}: {status} {}", String::from_utf8_lossy(&body));
                    return serde_json::from_slice(&body).unwrap_or_default();
                }
                () = self.tap.struck() => {}
            };
            let what = format!("{route}, cut after {statements} statements");
            let during = if apart.is_empty() { before.clone() } else { self.contents().await };
            self.tap.cut_nothing();
            self.tap.release();
            let answer = call.await.expect("an answer");
            let status = answer.status().as_u16();
            let problem: Value = answer.json().await.expect("a problem");
            assert_eq!((status, &problem["category"]), (503, &Value::from("database")), "{what}: {problem}");
            let left = self.changed(&during).await;
            assert!(left.is_empty(), "{what}: something was left behind in {left:?}");
            self.rolled_back(&rollbacks, &what);
            let changed = differing(&before, &during);
            let apart = |name: &String| apart.contains(&name.as_str());
            assert!(changed.iter().all(apart), "{what}: committed before: {changed:?}");
            cuts += 1;
            // What was committed before stays, unless it is prepared away: the write is cut from its beginning.
            statements = if changed.is_empty() || !prepare.is_empty() { statements + 1 } else { 0 };
            before = during;
        }
    }

    /// A session of a user, uncut; gives the answer.
    pub async fn log_in(&self, name: &str) -> Value {
        let request = self.http.post(format!("http://{}/api/v1/auth/login", self.address));
        let request = request.json(&json!({"name": name, "password": PASSWORD}));
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    pub fn method(route: &str) -> (Method, &str) {
        let (method, path) = route.split_once(' ').expect("a method and a path");
        (Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method"), path)
    }
}

fn differing(before: &Contents, after: &Contents) -> Vec<String> {
    after
        .iter()
        .filter(|(name, hash)| before.get(*name) != Some(hash))
        .map(|(name, _)| name.clone())
        .collect()
}
