//! The keeper with real files and a real HTTP server (I7): what a refresh may change, and what it may not.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream::{iter, unfold};
use tokio::sync::{mpsc, oneshot, watch};

use super::keeper::{Enforce, Keeper, Order, Trie};
use super::{Known, ListId, Prefix, Standing, stored};
use crate::config::{Bytes, List, ListAction, ListFormat, Period, Threats};
use crate::kernel::{Enforced, KernelError, ListedPrefix};
use crate::metrics::Metrics;

/// A kernel that remembers what it was given last.
#[derive(Clone, Default)]
struct Fake {
    installed: Arc<Mutex<Vec<ListedPrefix>>>,
    enforced: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
}

impl Trie for Fake {
    fn install(&mut self, prefixes: &[ListedPrefix]) -> Result<Duration, KernelError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(KernelError::MissingMap("no memory"));
        }
        *self.installed.lock().expect("nobody panicked") = prefixes.to_vec();
        Ok(Duration::ZERO)
    }

    fn enforced(&self, _: u8) -> Result<Enforced, KernelError> {
        Ok(Enforced::default())
    }
}

impl Enforce for Fake {
    fn enforce_for(&self, time: Duration) {
        self.enforced.store(!time.is_zero(), Ordering::Relaxed);
    }

    fn is_enforced(&self) -> bool {
        self.enforced.load(Ordering::Relaxed)
    }
}

impl Fake {
    /// What the kernel has, but for what is protected.
    fn shown(&self) -> String {
        let installed = self.installed.lock().expect("nobody panicked");
        let shown = installed.iter().map(|entry| {
            let prefix = Prefix { bits: entry.bits, length: entry.length };
            format!("{prefix}={}{}", entry.list, if entry.drops { "!" } else { "" })
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

struct Site {
    fake: Fake,
    orders: mpsc::Sender<Order>,
    stop: watch::Sender<bool>,
    known: watch::Receiver<Arc<Known>>,
    task: tokio::task::JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Site {
    fn start(threats: &Threats) -> Self {
        let fake = Fake::default();
        let metrics = Arc::new(Metrics::new().expect("every metric is declared once"));
        let (publish, known) = watch::channel(Arc::default());
        let sides = (fake.clone(), fake.clone());
        let keeper = Keeper::new(threats.clone(), None, sides, publish, Arc::clone(&metrics))
            .expect("the folder is made");
        let (orders, ordered) = mpsc::channel(4);
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(keeper.run(ordered, stopping));
        Self { fake, orders, stop, known, task, metrics }
    }

    async fn refresh(&self, name: Option<&str>, force: bool) -> Standing {
        let (done, standing) = oneshot::channel();
        let name = name.map(str::to_owned);
        self.orders.send(Order::Refresh { name, force, done }).await.expect("the keeper runs");
        standing.await.expect("it answers")
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("it ends");
        assert!(!self.fake.is_enforced(), "enforcement ends with the sensor");
    }
}

fn list(name: &str) -> List {
    List {
        name: name.to_owned(),
        file: None,
        url: None,
        format: ListFormat::Plain,
        column: None,
        action: ListAction::Observe,
        refresh: Period(Duration::from_hours(1)),
        max_bytes: Bytes(1 << 20),
        max_entries: 1000,
        timeout: Period(Duration::from_secs(30)),
    }
}

fn threats(folder: &Path, lists: Vec<List>) -> Threats {
    Threats { folder: folder.join("state"), lists, ..Threats::default() }
}

#[tokio::test]
async fn i7_a_refresh_that_fails_in_any_way_leaves_the_list_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("list.txt");
    let good = (0..40).map(|host| format!("192.0.2.{}\n", host * 2)).collect::<Vec<_>>().concat();
    fs::write(&file, &good).expect("it is written");
    let own = List { file: Some(file.clone()), ..list("own") };
    let site = Site::start(&threats(folder.path(), vec![own]));
    let first = site.refresh(None, false).await;
    assert_eq!((first.lists[0].prefixes, first.lists[0].error.clone()), (40, None));
    let before = site.fake.shown();
    assert!(before.contains("192.0.2.78/32=1"), "{before}");

    let tiny = "192.0.2.1\n".to_owned();
    let page = "<html>\n<body>503</body>\n</html>\n".to_owned();
    let many = (0..2000).map(|host| format!("10.0.{}.{}\n", host / 256, host % 256));
    let many = many.collect::<Vec<_>>().concat();
    for (bad, says) in [
        (Some(tiny.clone()), "shrunk"),
        (Some(String::new()), "shrunk"),
        (Some(page), "nothing in it"),
        (Some(many), "more than 1000"),
        (Some("x".repeat(2 << 20)), "larger than"),
        (None, "No such file"),
    ] {
        match bad {
            Some(text) => fs::write(&file, text).expect("it is written"),
            None => fs::remove_file(&file).expect("it is removed"),
        }
        let standing = site.refresh(Some("own"), false).await;
        let list = &standing.lists[0];
        let error = list.error.clone().unwrap_or_default();
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!((list.prefixes, &list.version), (40, &first.lists[0].version), "{says}");
        assert_eq!(site.fake.shown(), before, "{says}");
    }
    assert_eq!(site.metrics.list_refresh_failures.with_label_values(&["own"]).get(), 6);

    // The kernel refuses: what it has stays, and is tried again.
    fs::write(&file, good.replace("192.0.2.", "198.51.100.")).expect("it is written");
    site.fake.refuses.store(true, Ordering::Relaxed);
    let standing = site.refresh(None, false).await;
    assert!(standing.error.is_some_and(|error| error.contains("no memory")));
    assert_eq!(site.fake.shown(), before);
    site.fake.refuses.store(false, Ordering::Relaxed);
    fs::write(&file, &tiny).expect("it is written");
    let standing = site.refresh(Some("own"), true).await;
    assert_eq!((standing.lists[0].prefixes, standing.error), (1, None));
    assert_eq!(site.fake.shown(), "192.0.2.1/32=1");
    site.end().await;
}

#[tokio::test]
async fn i7_a_start_without_a_source_has_the_last_good_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("list.txt");
    fs::write(&file, "100.99.7.0/24\nbad.example.org\n").expect("it is written");
    let drops = List { file: Some(file.clone()), action: ListAction::Drop, ..list("drops") };
    let threats = Threats {
        enforce: true,
        allow: vec!["100.99.7.8".to_owned(), "good.example.org".to_owned()],
        ..threats(folder.path(), vec![list("none-yet"), drops])
    };
    let mut threats = threats;
    threats.lists[0].file = Some(folder.path().join("nothing.txt"));
    let site = Site::start(&threats);
    site.refresh(None, false).await;
    site.end().await;
    fs::remove_file(&file).expect("it is removed");

    let offline = stored(&threats);
    assert_eq!((offline.running, offline.lists[1].prefixes, offline.lists[1].domains), (false, 1, 1));
    assert!(offline.lists[0].error.is_some());

    let mut site = Site::start(&threats);
    site.known.changed().await.expect("lists are published");
    assert_eq!(site.fake.shown(), "100.99.7.0/24=2! 100.99.7.8/32=0");
    let known = site.known.borrow_and_update().clone();
    assert_eq!(known.listed("BAD.example.org."), Some(ListId(2)));
    assert_eq!(known.name(ListId(2)), Some("drops"));
    assert_eq!(known.listed("good.example.org"), None);
    let standing = site.refresh(None, false).await;
    assert!(standing.enforced && standing.lists[1].error.is_some(), "{standing:?}");
    assert_eq!(standing.lists[1].prefixes, 1);
    // An operator lifts enforcement: it stays so.
    let (done, lifted) = oneshot::channel();
    site.orders.send(Order::Lift(done)).await.expect("the keeper runs");
    assert!(!lifted.await.expect("it answers").enforced);
    assert!(!site.refresh(None, false).await.enforced);
    site.end().await;
}

/// What the server is asked to do with the next requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Good,
    Cut,
    Broken,
    Redirect,
    RedirectAway,
    Endless,
    Silent,
}

type Server = State<Arc<Mutex<(Mode, u32)>>>;

async fn feed(State(state): Server, headers: HeaderMap) -> Response {
    let mode = {
        let mut state = state.lock().expect("nobody panicked");
        if headers.contains_key(header::IF_NONE_MATCH) {
            state.1 += 1;
        }
        state.0
    };
    let text = "ip,score\n192.0.2.1,1\n192.0.2.3,2\n";
    match mode {
        Mode::Good if headers.get(header::IF_NONE_MATCH).is_some_and(|etag| etag == "\"v1\"") => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Mode::Good => ([(header::ETAG, "\"v1\"")], text).into_response(),
        Mode::Cut => {
            let body = unfold(0, |sent| async move {
                if sent == 0 {
                    return Some((Ok("ip,score\n192.0.2.1,1\n"), 1));
                }
                // So that the first part is on its way.
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((Err(std::io::Error::other("the line is cut")), 2))
            });
            axum::body::Body::from_stream(body).into_response()
        }
        Mode::Broken => (StatusCode::INTERNAL_SERVER_ERROR, text).into_response(),
        Mode::Redirect => {
            (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1/inside")]).into_response()
        }
        Mode::RedirectAway => {
            (StatusCode::FOUND, [(header::LOCATION, "http://169.254.169.254/latest")]).into_response()
        }
        Mode::Endless => {
            let body = axum::body::Body::from_stream(iter(std::iter::repeat_with(|| {
                Ok::<_, std::io::Error>("192.0.2.1,1\n")
            })));
            body.into_response()
        }
        Mode::Silent => std::future::pending().await,
    }
}

async fn server() -> (SocketAddr, Arc<Mutex<(Mode, u32)>>) {
    let state = Arc::new(Mutex::new((Mode::Good, 0)));
    let routes = Router::new().route("/feed", get(feed)).with_state(Arc::clone(&state));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, state)
}

#[tokio::test]
async fn i7_a_feed_is_asked_for_what_is_new_and_may_fail_as_servers_do() {
    let (address, state) = server().await;
    let folder = tempfile::tempdir().expect("a folder");
    let feed = List {
        url: Some(format!("http://{address}/feed?key=secret")),
        format: ListFormat::Csv,
        column: Some(crate::config::ListColumn::Name("ip".to_owned())),
        timeout: Period(Duration::from_secs(2)),
        max_bytes: Bytes(1 << 16),
        ..list("feed")
    };
    let site = Site::start(&threats(folder.path(), vec![feed]));
    let first = site.refresh(None, false).await;
    assert_eq!((first.lists[0].prefixes, first.lists[0].error.clone()), (2, None));
    assert!(!first.lists[0].source.contains("secret"), "{}", first.lists[0].source);
    let asked = state.lock().expect("nobody panicked").1;
    let again = site.refresh(None, false).await;
    assert_eq!(state.lock().expect("nobody panicked").1, asked + 1, "the ETag was sent");
    assert!(again.lists[0].checked_ns > first.lists[0].checked_ns);
    assert_eq!((again.lists[0].error.clone(), again.lists[0].fetched_ns), (None, first.lists[0].fetched_ns));
    let before = site.fake.shown();
    for (mode, says) in [
        (Mode::Cut, "ended early"),
        (Mode::Broken, "500"),
        (Mode::Redirect, "local address"),
        (Mode::RedirectAway, "local address"),
        (Mode::Endless, "larger than 65536"),
        (Mode::Silent, "within 2s"),
    ] {
        state.lock().expect("nobody panicked").0 = mode;
        let standing = site.refresh(None, false).await;
        let error = standing.lists[0].error.clone().unwrap_or_default();
        assert!(error.contains(says), "{mode:?}: {error}");
        assert!(!error.contains("secret"), "{error}");
        assert_eq!((standing.lists[0].prefixes, site.fake.shown()), (2, before.clone()), "{mode:?}");
    }
    site.end().await;
}
