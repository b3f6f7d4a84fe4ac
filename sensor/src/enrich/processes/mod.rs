//! Processes of local flows (S5).
//!
//! Two sources. Programs at the root of the control groups tell of each socket as it first sends
//! ([`crate::kernel::Sockets`]), so that a process that lives for a moment is known too. A look through /proc,
//! now and then, finds the sockets that were there before, and is all there is on hosts that do not take the
//! programs. Called by [`super::Enricher`] with each record, and by a task that keeps the ring empty between.
//!
//! A flow's process is the one that made the socket. Addresses of other network namespaces may be the same:
//! then the latest is told.

mod group;
mod inspect;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::sync::watch;
use weir_wire::Process;

use crate::config;
use crate::flow::Record;
use crate::kernel::{self, FlowKey, Owner, Readable, Sockets};
use crate::metrics::Metrics;

/// A process is looked at again after so long: it may run another file by then.
const FRESH: Duration = Duration::from_secs(1);
/// Joins that are taken before others may ask.
const AT_ONCE: usize = 512;
/// Times that as many are taken before work goes on: the ring's whole content, and not what comes meanwhile.
const ROUNDS: usize = 8;
/// Records that are described before others may ask.
const RECORDS: usize = 1_024;
/// Processes that are remembered: a host has some thousands.
const PROCESSES: NonZeroUsize = NonZeroUsize::new(8_192).expect("it is not zero");

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The processes of this host's sockets. Clones share what they know.
#[derive(Clone)]
pub struct Processes {
    known: Arc<Mutex<Known>>,
    settings: config::Processes,
    metrics: Arc<Metrics>,
}

struct Known {
    sockets: Option<Sockets>,
    /// By the flow from the socket to its peer.
    flows: LruCache<FlowKey, Arc<Process>>,
    listeners: HashMap<(u8, u16), Vec<Listener>>,
    /// Addresses of this host: a listener answers for these alone.
    local: HashSet<IpAddr>,
    inspected: LruCache<u32, Inspected>,
    /// Joins lost, as the programs counted them at the last look.
    untold: u64,
}

/// A socket that takes what comes.
struct Listener {
    address: IpAddr,
    process: Arc<Process>,
}

struct Inspected {
    at: Instant,
    name: [u8; 16],
    process: Arc<Process>,
}

impl Processes {
    /// Attaches the programs; where this host does not take them, /proc alone is read, and the log says why.
    #[must_use]
    pub fn new(settings: config::Processes, metrics: Arc<Metrics>) -> Self {
        let sockets = match Sockets::attach(settings.remembered.get() as u32) {
            Ok(sockets) => Some(sockets),
            Err(error) => {
                tracing::warn!(
                    "processes of short-lived sockets are not known, only those that a look into /proc finds: {error}"
                );
                None
            }
        };
        metrics.process_programs.set(i64::from(sockets.is_some()));
        let known = Known {
            sockets,
            flows: LruCache::new(settings.remembered),
            listeners: HashMap::new(),
            local: HashSet::new(),
            inspected: LruCache::new(PROCESSES),
            untold: 0,
        };
        Self { known: Arc::new(Mutex::new(known)), settings, metrics }
    }

    /// Keeps the ring empty and looks through /proc, until told to stop.
    pub async fn keep(self, mut stopping: watch::Receiver<bool>) {
        let ring = self.ring();
        let mut look = tokio::time::interval(self.settings.look_interval.0);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => return,
                _ = look.tick() => {
                    let this = self.clone();
                    // A look that panics is a look less.
                    let _ = tokio::task::spawn_blocking(move || this.look()).await;
                }
                () = readable(ring.as_ref()) => {
                    let this = self.clone();
                    let _ = tokio::task::spawn_blocking(move || this.read()).await;
                }
            }
        }
    }

    /// Adds whose the two ends of each flow are, where they are of this host.
    pub fn describe(&self, records: &mut [Record]) {
        for records in records.chunks_mut(RECORDS) {
            let mut known = self.lock();
            for record in records {
                known.describe(record);
            }
        }
    }

    /// Takes what the programs have told.
    pub fn read(&self) {
        for _ in 0..ROUNDS {
            if self.lock().read(&self.metrics) < AT_ONCE {
                return;
            }
        }
    }

    /// Finds the sockets that are there.
    fn look(&self) {
        let (found, local) = (inspect::sockets(), kernel::host_addresses().into_iter().collect());
        let mut processes = HashMap::new();
        let mut listeners: HashMap<_, Vec<Listener>> = HashMap::new();
        let mut connected = Vec::new();
        for inspect::Found { pid, protocol, local, remote } in found {
            let process = processes.entry(pid).or_insert_with(|| Arc::new(inspect::process(pid, None)));
            let process = Arc::clone(process);
            if remote.port() == 0 {
                let listener = Listener { address: local.ip(), process };
                listeners.entry((protocol, local.port())).or_default().push(listener);
            } else {
                let (src, dst) = (local.ip(), remote.ip());
                let key = FlowKey { src, dst, protocol, src_port: local.port(), dst_port: remote.port() };
                connected.push((key, process));
            }
        }
        let mut known = self.lock();
        (known.listeners, known.local) = (listeners, local);
        for (key, process) in connected {
            // What the programs told was told by the process itself.
            if !known.flows.contains(&key) {
                known.flows.push(key, process);
            }
        }
        self.metrics.process_flows.set(known.flows.len() as i64);
    }

    /// The ring, for whoever waits for it.
    fn ring(&self) -> Option<Readable> {
        let readable = self.lock().sockets.as_ref()?.readable();
        readable
            .inspect_err(|error| tracing::warn!(%error, "processes are told at the end of an epoch only"))
            .ok()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn describe(&mut self, record: &mut Record) {
        let key = record.key;
        if !matches!(key.protocol, TCP | UDP) {
            return;
        }
        let (src, dst) = (self.sender(&key), self.sender(&reversed(&key)));
        if src.is_some() || dst.is_some() {
            let context = record.context.get_or_insert_default();
            (context.src_process, context.dst_process) = (src, dst);
        }
    }

    fn sender(&mut self, key: &FlowKey) -> Option<Arc<Process>> {
        if let Some(process) = self.flows.get(key) {
            return Some(Arc::clone(process));
        }
        if !self.local.contains(&key.src) {
            return None;
        }
        let listeners = self.listeners.get(&(key.protocol, key.src_port))?;
        // The one that is bound to the very address goes before the one that takes all.
        let exact = listeners.iter().find(|listener| listener.address == key.src);
        let any = || listeners.iter().find(|listener| listener.address.is_unspecified());
        exact.or_else(any).map(|listener| Arc::clone(&listener.process))
    }

    fn read(&mut self, metrics: &Metrics) -> usize {
        let Self { sockets: Some(sockets), flows, inspected, untold, .. } = self else { return 0 };
        let read = sockets.read(AT_ONCE, |key, owner| {
            flows.push(key, inspect(inspected, &owner));
        });
        metrics.process_joins.inc_by(read as u64);
        if let Ok(now) = sockets.untold() {
            metrics.process_joins_lost.inc_by(now.saturating_sub(*untold));
            *untold = now;
        }
        metrics.process_flows.set(flows.len() as i64);
        read
    }
}

/// The process, looked at now if it was not just before.
fn inspect(inspected: &mut LruCache<u32, Inspected>, owner: &Owner) -> Arc<Process> {
    let fresh = |seen: &&Inspected| seen.name == owner.name && seen.at.elapsed() < FRESH;
    if let Some(seen) = inspected.get(&owner.pid).filter(fresh) {
        return Arc::clone(&seen.process);
    }
    let process = Arc::new(inspect::process(owner.pid, Some(&owner.name)));
    let seen = Inspected { at: Instant::now(), name: owner.name, process: Arc::clone(&process) };
    inspected.push(owner.pid, seen);
    process
}

/// Waits until there is something to read; for ever where there is nothing to wait for.
async fn readable(ring: Option<&Readable>) {
    let Some(ring) = ring else { return std::future::pending().await };
    if ring.ready().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sensor that has gone needs no processes either.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn reversed(key: &FlowKey) -> FlowKey {
    let FlowKey { src, dst, protocol, src_port, dst_port } = *key;
    FlowKey { src: dst, dst: src, protocol, src_port: dst_port, dst_port: src_port }
}
