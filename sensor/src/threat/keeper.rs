//! The task that keeps the lists: refreshes each when it is due, puts all of them into the kernel when one has
//! changed, keeps enforcement alive, and answers for how they stand.
//!
//! What a refresh brings is read, judged and kept on disk before anything else changes; then all lists are built
//! anew from disk. So a start without a network and a refresh are the same way.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::compile::{Source, compile};
use super::domains::Domains;
use super::entry::{Domain, Entry, Prefix};
use super::fetch::{Bounds, FetchError, Fetched, Place, fetch, now_ns};
use super::parse::{Parsed, Shape, parse};
use super::protected::protected;
use super::standing::{ListStanding, Standing, names};
use super::store::{Origin, Store, checksum};
use super::{Known, ListId};
use crate::config::{List, ListAction, Threats};
use crate::kernel::{Enforced, Heart, KernelError, ListedPrefix, Lists};
use crate::metrics::Metrics;

/// How often enforcement is renewed and counts are read.
const BEAT: Duration = Duration::from_secs(1);
/// How often the addresses that are never dropped are looked at.
const PROTECT_EVERY: Duration = Duration::from_mins(1);
/// The wait after a failure, doubled with each further one up to the list's refresh.
const RETRY: Duration = Duration::from_secs(30);
/// Lists that are new within this time are built once.
const SETTLE: Duration = Duration::from_millis(500);
/// A list that had so many entries may not lose more than half of them at once.
const SHRINKS_FROM: u64 = 20;
/// Refreshes that may be missed before a list is stale.
const STALE_AFTER: u32 = 3;

/// The kernel's side of the lists; a trait so that tests can stand in for it.
pub trait Trie: Send + 'static {
    fn install(&mut self, prefixes: &[ListedPrefix]) -> Result<Duration, KernelError>;
    fn enforced(&self, list: u8) -> Result<Enforced, KernelError>;
}

/// What lets packets be dropped for a while.
pub trait Enforce: Send + 'static {
    fn enforce_for(&self, time: Duration);
    fn is_enforced(&self) -> bool;
}

impl Trie for Lists {
    fn install(&mut self, prefixes: &[ListedPrefix]) -> Result<Duration, KernelError> {
        Self::install(self, prefixes)
    }

    fn enforced(&self, list: u8) -> Result<Enforced, KernelError> {
        Self::enforced(self, list)
    }
}

impl Enforce for Heart {
    fn enforce_for(&self, time: Duration) {
        Self::enforce_for(self, time);
    }

    fn is_enforced(&self) -> bool {
        Self::is_enforced(self)
    }
}

/// What an operator asks of the task.
pub enum Order {
    Standing(oneshot::Sender<Standing>),
    /// Fetches one list now, or all; how they stand then. `force` takes one that has shrunk.
    Refresh {
        name: Option<String>,
        force: bool,
        done: oneshot::Sender<Standing>,
    },
    /// Drops nothing more until the sensor is started again.
    Lift(oneshot::Sender<Standing>),
}

/// A list and how its refreshes go.
struct Kept {
    config: List,
    place: Place,
    standing: ListStanding,
    origin: Option<Origin>,
    due: Instant,
    fetching: bool,
}

/// Resolves when the sensor stops, or when nobody is left who could stop it.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The guard that comes with the answer must not be held across an await.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// What a refresh brought: the origin of what stands on disk now.
type Refreshed = Result<(Origin, Option<Box<Parsed>>), String>;

/// The task.
pub struct Keeper<T, E> {
    config: Threats,
    control_plane: Option<(String, u16)>,
    control_plane_addresses: Vec<IpAddr>,
    store: Store,
    /// Away while a trie is filled.
    trie: Option<T>,
    heart: E,
    lifted: bool,
    kept: Vec<Kept>,
    protected: Vec<Prefix>,
    installed: Standing,
    known: watch::Sender<Arc<Known>>,
    metrics: Arc<Metrics>,
}

/// All lists together.
struct Built {
    prefixes: Vec<ListedPrefix>,
    domains: Domains,
    version: String,
}

impl<T: Trie, E: Enforce> Keeper<T, E> {
    /// `control_plane` is the name and port that is never dropped.
    pub fn new(
        config: Threats,
        control_plane: Option<(String, u16)>,
        (trie, heart): (T, E),
        known: watch::Sender<Arc<Known>>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let store = Store::open(&config.folder)?;
        let kept = config.lists.iter().map(|list| Kept::load(list, &store)).collect();
        let installed = Standing { running: true, enforce: config.enforce, ..Standing::default() };
        Ok(Self {
            config,
            control_plane,
            control_plane_addresses: Vec::new(),
            store,
            trie: Some(trie),
            heart,
            lifted: false,
            kept,
            protected: Vec::new(),
            installed,
            known,
            metrics,
        })
    }

    /// Runs until `stopping` turns true; enforcement is lifted then.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>, mut stopping: watch::Receiver<bool>) {
        self.protect().await;
        self.install().await;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(PROTECT_EVERY);
        look.tick().await;
        let mut fetches: JoinSet<(usize, Refreshed)> = JoinSet::new();
        let mut waiting: Vec<oneshot::Sender<Standing>> = Vec::new();
        let mut ordered = true;
        let mut build_at: Option<Instant> = None;
        loop {
            let due = self.kept.iter().filter(|kept| !kept.fetching).map(|kept| kept.due).min();
            tokio::select! {
                () = stopped(&mut stopping) => break,
                _ = beat.tick() => self.beat(),
                _ = look.tick() => {
                    if self.protect().await {
                        self.install().await;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.fetch_due(&mut fetches, false);
                }
                Some(done) = fetches.join_next(), if !fetches.is_empty() => {
                    if let Ok((place, refreshed)) = done
                        && self.refreshed(place, refreshed)
                    {
                        build_at.get_or_insert(Instant::now() + SETTLE);
                    }
                    if !self.is_fetching() {
                        build_at = build_at.map(|_| Instant::now());
                    }
                }
                () = sleep_until(build_at.unwrap_or_else(Instant::now)), if build_at.is_some() => {
                    build_at = None;
                    self.install().await;
                }
                order = orders.recv(), if ordered => match order {
                    None => ordered = false,
                    Some(Order::Standing(done)) => drop(done.send(self.standing())),
                    Some(Order::Lift(done)) => {
                        self.lifted = true;
                        self.beat();
                        tracing::warn!("enforcement of threat lists is lifted until the sensor starts again");
                        let _ = done.send(self.standing());
                    }
                    Some(Order::Refresh { name, force, done }) => {
                        for kept in &mut self.kept {
                            if name.as_ref().is_none_or(|name| *name == kept.config.name) {
                                kept.due = Instant::now();
                            }
                        }
                        self.fetch_due(&mut fetches, force);
                        waiting.push(done);
                    }
                },
            }
            if !self.is_fetching() && build_at.is_none() {
                for done in waiting.drain(..) {
                    let _ = done.send(self.standing());
                }
            }
        }
        self.heart.enforce_for(Duration::ZERO);
    }

    fn is_fetching(&self) -> bool {
        self.kept.iter().any(|kept| kept.fetching)
    }

    /// Starts every refresh that is due.
    fn fetch_due(&mut self, fetches: &mut JoinSet<(usize, Refreshed)>, force: bool) {
        let now = Instant::now();
        for (place, kept) in self.kept.iter_mut().enumerate().filter(|(_, kept)| kept.due <= now) {
            if kept.fetching {
                continue;
            }
            kept.fetching = true;
            let (list, at, store) = (kept.config.clone(), kept.place.clone(), self.store.clone());
            let origin = kept.origin.clone();
            let before = if force { 0 } else { kept.standing.prefixes + kept.standing.domains };
            fetches.spawn(async move { (place, refresh(list, at, store, origin, before).await) });
        }
    }

    /// Notes what a refresh brought; whether the list has changed.
    fn refreshed(&mut self, place: usize, refreshed: Refreshed) -> bool {
        let Some(kept) = self.kept.get_mut(place) else { return false };
        kept.fetching = false;
        let name = kept.config.name.clone();
        let name = name.as_str();
        let (origin, parsed) = match refreshed {
            Ok(refreshed) => refreshed,
            Err(reason) => {
                kept.standing.failures += 1;
                let wait = RETRY.saturating_mul(1 << (kept.standing.failures - 1).min(16));
                kept.due = Instant::now() + wait.min(kept.config.refresh.0);
                self.metrics.list_refresh_failures.with_label_values(&[name]).inc();
                let has = if kept.origin.is_some() { "the one at hand stays" } else { "there is none" };
                tracing::warn!(list = name, reason, "a threat list was not refreshed; {has}");
                kept.standing.error = Some(reason);
                return false;
            }
        };
        kept.due = Instant::now() + kept.config.refresh.0;
        kept.standing.failures = 0;
        kept.standing.error = None;
        kept.standing.checked_ns = now_ns();
        self.metrics.list_refreshed.with_label_values(&[name]).set(crate::metrics::unix_seconds());
        kept.origin = Some(origin);
        let Some(parsed) = parsed else { return false };
        kept.take_in(&parsed);
        tracing::info!(
            list = name,
            prefixes = kept.standing.prefixes,
            domains = kept.standing.domains,
            unread_lines = kept.standing.errors.count,
            version = short(&kept.standing.version),
            "a threat list is new"
        );
        true
    }

    /// Builds all lists from disk and puts them in the place of those before.
    async fn install(&mut self) {
        let Some(mut trie) = self.trie.take() else { return };
        let (config, store, protected) = (self.config.clone(), self.store.clone(), self.protected.clone());
        let work = tokio::task::spawn_blocking(move || {
            let Built { prefixes, domains, version } = build(&config, &store, &protected);
            let took = trie.install(&prefixes);
            (trie, took, prefixes.len() as u64, domains, version)
        });
        tokio::pin!(work);
        let mut beat = interval(BEAT);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                // It may take seconds: enforcement goes on meanwhile.
                _ = beat.tick() => self.renew(),
            }
        };
        let Ok((trie, took, prefixes, domains, version)) = done else {
            self.installed.error = Some("building the lists failed".to_owned());
            return;
        };
        self.trie = Some(trie);
        match took {
            Ok(took) => {
                tracing::info!(
                    prefixes,
                    domains = domains.len(),
                    version = short(&version),
                    ?took,
                    "threat lists are in force"
                );
                self.installed.version.clone_from(&version);
                self.installed.installed_ns = now_ns();
                self.installed.prefixes = prefixes;
                self.installed.domains = domains.len() as u64;
                self.installed.error = None;
                self.metrics.listed_prefixes.set(prefixes as i64);
                self.known.send_replace(Arc::new(Known { names: names(&self.config), version, domains }));
            }
            Err(error) => {
                tracing::error!(%error, "the kernel did not take the threat lists; the ones before stay");
                self.installed.error = Some(error.to_string());
            }
        }
        self.beat();
    }

    /// Looks at what must not be dropped; whether it is something else than before.
    async fn protect(&mut self) -> bool {
        if let Some((host, port)) = &self.control_plane {
            // Enforcement waits for this, so not for long; while nobody answers, what was known stays protected.
            let looked_up = tokio::time::timeout(BEAT, tokio::net::lookup_host((host.as_str(), *port))).await;
            if let Ok(Ok(addresses)) = looked_up {
                self.control_plane_addresses = addresses.map(|address| address.ip()).collect();
            }
        }
        let found = protected(&self.control_plane_addresses);
        let changed = found != self.protected;
        self.protected = found;
        changed
    }

    fn renew(&self) {
        let enforces = self.config.enforce && !self.lifted;
        self.heart.enforce_for(if enforces { self.config.dead_man.0 } else { Duration::ZERO });
    }

    /// Renews enforcement and reads what was done.
    fn beat(&mut self) {
        self.renew();
        self.metrics.lists_enforced.set(i64::from(self.heart.is_enforced()));
        let now = now_ns();
        for (list, kept) in (1..).zip(&mut self.kept) {
            let name = [kept.config.name.as_str()];
            let standing = &mut kept.standing;
            if let Some(Ok(counts)) = self.trie.as_ref().map(|trie| trie.enforced(list)) {
                self.metrics
                    .list_dropped
                    .with_label_values(&name)
                    .inc_by(counts.dropped - standing.dropped.min(counts.dropped));
                self.metrics
                    .list_spared
                    .with_label_values(&name)
                    .inc_by(counts.spared - standing.would_drop.min(counts.spared));
                standing.dropped = counts.dropped;
                standing.would_drop = counts.spared;
            }
            standing.hits = self.metrics.list_hits.with_label_values(&name).get();
            let most = kept.config.refresh.0.saturating_mul(STALE_AFTER).as_nanos() as i64;
            standing.stale = standing.checked_ns == 0 || now.saturating_sub(standing.checked_ns) > most;
            self.metrics.list_stale.with_label_values(&name).set(i64::from(standing.stale));
            let entries = standing.prefixes + standing.domains;
            self.metrics.list_entries.with_label_values(&name).set(entries as i64);
            self.metrics.list_errors.with_label_values(&name).set(standing.errors.count as i64);
        }
    }

    fn standing(&mut self) -> Standing {
        self.beat();
        Standing {
            enforced: self.heart.is_enforced(),
            lists: self.kept.iter().map(|kept| kept.standing.clone()).collect(),
            ..self.installed.clone()
        }
    }
}

impl Kept {
    /// With what is at hand on disk. It is due at once.
    fn load(list: &List, store: &Store) -> Self {
        let place = match (&list.file, &list.url) {
            (Some(file), _) => Place::File(file.clone()),
            // The configuration was validated: what is no URL has no file that could be read either.
            (None, url) => url
                .as_deref()
                .and_then(|url| reqwest::Url::parse(url).ok())
                .map_or_else(|| Place::File(std::path::PathBuf::new()), Place::Url),
        };
        let mut kept = Self {
            config: list.clone(),
            place,
            standing: ListStanding::of(list),
            origin: None,
            due: Instant::now(),
            fetching: false,
        };
        if let Some((origin, parsed)) = load(list, store) {
            kept.standing.checked_ns = origin.fetched_ns;
            kept.origin = Some(origin);
            kept.take_in(&parsed);
        }
        kept
    }

    fn take_in(&mut self, parsed: &Parsed) {
        self.standing.prefixes = parsed.prefixes.len() as u64;
        self.standing.domains = parsed.domains.len() as u64;
        self.standing.errors.clone_from(&parsed.errors);
        if let Some(origin) = &self.origin {
            self.standing.version.clone_from(&origin.sha256);
            self.standing.fetched_ns = origin.fetched_ns;
        }
    }
}

/// The last good copy of a list, if it is this list's and can be read.
fn load(list: &List, store: &Store) -> Option<(Origin, Parsed)> {
    let (origin, bytes) = store.load(&list.name)?;
    if origin.source != list.source() {
        return None;
    }
    parse(&bytes, &Shape::of(list)).ok().map(|parsed| (origin, parsed))
}

/// One refresh: fetched, read, judged and kept on disk, or nothing has changed. `before` is how many entries the
/// list has.
async fn refresh(list: List, place: Place, store: Store, known: Option<Origin>, before: u64) -> Refreshed {
    let bounds = Bounds { bytes: list.max_bytes.0, time: list.timeout.0 };
    let told = |error: FetchError| error.to_string();
    let (bytes, etag, last_modified) = match fetch(&place, bounds, known.as_ref()).await.map_err(told)? {
        Fetched::Unchanged => {
            return known.map(|known| (known, None)).ok_or_else(|| "the server answers 304".to_owned());
        }
        Fetched::Bytes { bytes, etag, last_modified } => (bytes, etag, last_modified),
    };
    let work = tokio::task::spawn_blocking(move || {
        let sha256 = checksum(&bytes);
        let origin = Origin { sha256, fetched_ns: now_ns(), source: list.source(), etag, last_modified };
        if let Some(known) = known.filter(|known| known.sha256 == origin.sha256) {
            return Ok((Origin { fetched_ns: known.fetched_ns, ..origin }, None));
        }
        let parsed = parse(&bytes, &Shape::of(&list)).map_err(|error| error.to_string())?;
        let entries = (parsed.prefixes.len() + parsed.domains.len()) as u64;
        if before >= SHRINKS_FROM && entries < before / 2 || before > 0 && entries == 0 {
            return Err(format!(
                "it has shrunk from {before} entries to {entries}; if that is right: \
                 `weir-sensor lists refresh {} --force`",
                list.name
            ));
        }
        store.keep(&list.name, &origin, &bytes).map_err(|error| format!("keep it on disk: {error}"))?;
        Ok((origin, Some(Box::new(parsed))))
    });
    work.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// All lists as they stand on disk.
fn build(config: &Threats, store: &Store, protected: &[Prefix]) -> Built {
    let mut lists: HashMap<u8, (bool, Parsed)> = HashMap::new();
    let mut versions = String::new();
    for (number, list) in (1_u8..).zip(&config.lists) {
        if let Some((origin, parsed)) = load(list, store) {
            // Writing to a string cannot fail.
            let _ = writeln!(versions, "{number} {:?} {}", list.action, origin.sha256);
            lists.insert(number, (list.action == ListAction::Drop, parsed));
        }
    }
    let (mut allowed, mut allowed_domains): (Vec<Prefix>, Vec<Domain>) = (Vec::new(), Vec::new());
    for entry in &config.allow {
        versions.push_str(entry);
        match Entry::parse(entry) {
            Ok(Entry::Network(prefix)) => allowed.push(prefix),
            Ok(Entry::Domain(domain)) => allowed_domains.push(domain),
            // The configuration was validated.
            Ok(Entry::Range(..)) | Err(_) => {}
        }
    }
    let numbers = 1..=config.lists.len() as u8;
    let there = || numbers.clone().filter_map(|number| Some((number, lists.get(&number)?)));
    let sources: Vec<Source<'_>> = there()
        .map(|(number, (drops, parsed))| Source {
            list: ListId(number),
            drops: *drops,
            prefixes: &parsed.prefixes,
        })
        .collect();
    let domains: Vec<(ListId, &[Domain])> =
        there().map(|(number, (_, parsed))| (ListId(number), parsed.domains.as_slice())).collect();
    Built {
        prefixes: compile(&sources, &allowed, protected),
        domains: Domains::new(&domains, &allowed_domains),
        version: checksum(versions.as_bytes()),
    }
}

/// Enough of a version to tell it from others.
fn short(version: &str) -> &str {
    version.get(..12).unwrap_or(version)
}
