//! The thread that owns the spool: the file while it can be written, and what is held while it cannot.
//!
//! A thread of its own, because the disk blocks, and because redb may panic on a file that lies: such a panic
//! ends here and not in the pipeline.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::degraded::Away;
use super::error::StoreError;
use super::held::{Held, Unwritten};
use super::list::{self, Listed};
use super::standing::Standing;
use super::store::{Effects, Store};
use super::{Epoch, Ledger, Offer, Range, Settings, Settlement};
use crate::metrics::Metrics;

/// What the pipeline, the courier and the command line ask for.
pub(super) enum Request {
    /// Answered when the epoch is safe.
    Put(Box<Epoch>, oneshot::Sender<()>),
    /// The first batch of a number or more; it counts as being sent until it is settled or another is asked
    /// for.
    First(u64, oneshot::Sender<Option<Offer>>),
    Settle(u64, Settlement, oneshot::Sender<()>),
    /// Nothing more will be put.
    Complete,
    List {
        from: u64,
        limit: usize,
        answer: oneshot::Sender<Result<Vec<Listed>, StoreError>>,
    },
    Body(u64, oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>),
    Ledger(Range, oneshot::Sender<Result<Ledger, StoreError>>),
    /// These, or all of the quarantine.
    Retry(Option<Vec<u64>>, oneshot::Sender<Result<u64, StoreError>>),
    Close(oneshot::Sender<()>),
}

/// Bounds are looked after so often even when nothing moves.
const TICK: Duration = Duration::from_secs(5);
/// The live lane begins so many epochs ago.
const RECENT: usize = 4;

pub(super) enum Disk {
    Open(Store),
    Away(Away),
}

pub(super) struct Keeper {
    pub(super) settings: Settings,
    pub(super) metrics: Arc<Metrics>,
    standing: watch::Sender<Standing>,
    pub(super) disk: Disk,
    pub(super) held: Option<Held>,
    pub(super) unwritten: Unwritten,
    in_flight: Option<u64>,
    recent: VecDeque<u64>,
    pub(super) next_number: u64,
    complete: bool,
}

impl Keeper {
    /// Opens the file; where that fails, the spool begins degraded. Another process that has the file is an
    /// error.
    pub(super) fn open(
        settings: Settings,
        metrics: Arc<Metrics>,
        standing: watch::Sender<Standing>,
    ) -> Result<Self, StoreError> {
        metrics.spool_capacity.set(settings.bounds.bytes as i64);
        let disk = Disk::Away(Away::new("it is not open yet".to_owned()));
        let mut keeper = Self {
            settings,
            metrics,
            standing,
            disk,
            held: None,
            unwritten: Unwritten::default(),
            in_flight: None,
            recent: VecDeque::new(),
            next_number: 0,
            complete: false,
        };
        match keeper.open_file() {
            Ok(store) => keeper.disk = Disk::Open(store),
            Err(StoreError::InUse) => return Err(StoreError::InUse),
            Err(StoreError::Damaged(reason)) => keeper.replace(&reason),
            Err(error @ StoreError::Disk(_)) => keeper.go_away(&error),
        }
        keeper.next_number = keeper.store().map_or(0, |store| store.next_number);
        keeper.recent.push_back(keeper.next_number);
        keeper.look_after();
        keeper.publish();
        Ok(keeper)
    }

    /// The last drained epoch of every generation.
    pub(super) fn drained(&mut self) -> Vec<(uuid::Uuid, u64)> {
        self.store().and_then(|store| guarded(|| store.drained()).ok()).unwrap_or_default()
    }

    /// Serves until it is closed, or until nobody is left who could ask.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        let mut looked_after = Instant::now();
        loop {
            let wait = match &self.disk {
                Disk::Open(_) => TICK,
                Disk::Away(away) => away.retry_at.saturating_duration_since(Instant::now()).min(TICK),
            };
            match requests.recv_timeout(wait) {
                Ok(Request::Close(done)) => {
                    drop(self.disk);
                    let _ = done.send(());
                    return;
                }
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked_after.elapsed() >= TICK {
                looked_after = Instant::now();
                self.look_after();
            }
            self.try_disk();
            self.publish();
        }
    }

    /// Whoever asked may have gone: then nobody needs the answer.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Put(epoch, safe) => self.put(*epoch, safe),
            Request::First(from, answer) => {
                let offer = self.first(from);
                self.in_flight = offer.as_ref().map(|offer| offer.number);
                drop(answer.send(offer));
            }
            Request::Settle(number, settlement, done) => {
                self.settle(number, settlement);
                self.publish();
                let _ = done.send(());
            }
            Request::Complete => self.complete = true,
            Request::List { from, limit, answer } => {
                drop(answer.send(self.read(|store| list::list(store, from, limit))));
            }
            Request::Body(number, answer) => drop(answer.send(self.read(|store| list::body(store, number)))),
            Request::Ledger(range, answer) => {
                drop(answer.send(self.read(|store| Ledger::of(store, range))));
            }
            Request::Retry(numbers, answer) => drop(answer.send(self.retry(numbers))),
            Request::Close(_) => {}
        }
    }

    fn put(&mut self, mut epoch: Epoch, safe: oneshot::Sender<()>) {
        epoch.first_number = self.next_number;
        self.next_number += epoch.batches.len() as u64;
        self.recent.push_back(epoch.first_number);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let epochs = [epoch];
        if let Disk::Open(_) = self.disk {
            let (bounds, in_flight) = (self.settings.bounds, self.in_flight);
            let started = Instant::now();
            if self.write(|store| store.put(&epochs, &[], &bounds, in_flight)) {
                self.metrics.spool_write_seconds.observe(started.elapsed().as_secs_f64());
                // First, so that whoever waited sees what it waited for.
                self.publish();
                let _ = safe.send(());
                return;
            }
        }
        let [epoch] = epochs;
        self.held = Some(Held::new(epoch, safe));
    }

    fn first(&mut self, from: u64) -> Option<Offer> {
        let mut at = from;
        loop {
            let settled = &self.unwritten.settled;
            let found = match &mut self.disk {
                Disk::Open(store) | Disk::Away(Away { readable: Some(store), .. }) => {
                    guarded(|| list::first(store, at, |number| settled.contains_key(&number)))
                }
                Disk::Away(_) => Ok(None),
            };
            match found {
                Ok(Some((_, Some(offer)))) => return Some(offer),
                // Not what was stored.
                Ok(Some((number, None))) => {
                    at = if self.write(|store| store.corrupt(number)) { number } else { number + 1 };
                }
                Ok(None) => break,
                Err(error) => {
                    if !self.failed(error) {
                        break;
                    }
                }
            }
        }
        let (number, batch) = self.held.as_ref()?.first(from)?;
        Some(Offer { number, batch: batch.clone() })
    }

    fn settle(&mut self, number: u64, settlement: Settlement) {
        self.in_flight = None;
        if let Some(held) = self.held.as_mut().filter(|held| held.holds(number)) {
            let effects = held.settle(number, &settlement);
            self.count(&effects);
            if let Some(held) = self.held.take_if(|held| held.is_settled()) {
                self.unwritten.record(held.release());
            }
            return;
        }
        let bounds = self.settings.bounds;
        let settled = [(number, settlement)];
        if !matches!(self.disk, Disk::Open(_)) || !self.write(|store| store.settle(&settled, &bounds)) {
            self.unwritten.settled.extend(settled);
        }
    }

    fn retry(&mut self, numbers: Option<Vec<u64>>) -> Result<u64, StoreError> {
        let Disk::Open(store) = &mut self.disk else {
            return Err(StoreError::Disk(std::io::Error::other("it cannot be written now")));
        };
        let numbers = match numbers {
            Some(numbers) => numbers,
            None => guarded(|| list::quarantined(store))?,
        };
        guarded(|| store.retry(&numbers))
    }

    fn store(&mut self) -> Option<&mut Store> {
        match &mut self.disk {
            Disk::Open(store) => Some(store),
            Disk::Away(away) => away.readable.as_mut(),
        }
    }

    fn read<T>(&mut self, read: impl FnOnce(&Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.store() {
            Some(store) => guarded(|| read(store)),
            None => Err(StoreError::Disk(std::io::Error::other("the spool's file cannot be read now"))),
        }
    }

    /// Changes the file; whether that has worked. A damaged file is replaced, and the change made there.
    pub(super) fn write(&mut self, change: impl Fn(&mut Store) -> Result<Effects, StoreError>) -> bool {
        for _ in 0..2 {
            let Disk::Open(store) = &mut self.disk else { return false };
            match guarded(|| change(store)) {
                Ok(effects) => {
                    self.count(&effects);
                    return true;
                }
                Err(error) => {
                    if !self.failed(error) {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// What to do about a failure; whether the file can be used again.
    pub(super) fn failed(&mut self, error: StoreError) -> bool {
        match error {
            StoreError::Damaged(reason) => self.replace(&reason),
            error => self.go_away(&error),
        }
        matches!(self.disk, Disk::Open(_))
    }

    fn look_after(&mut self) {
        let (bounds, in_flight) = (self.settings.bounds, self.in_flight);
        self.write(|store| store.bound(&bounds, in_flight));
    }

    pub(super) fn open_file(&self) -> Result<Store, StoreError> {
        std::fs::create_dir_all(&self.settings.folder)?;
        guarded(|| Store::open(&self.settings.file()))
    }

    pub(super) fn open_to_read(&self) -> Option<Store> {
        guarded(|| Store::open_to_read(&self.settings.file())).ok()
    }

    pub(super) fn count(&self, effects: &Effects) {
        for (reason, given) in &effects.dropped {
            let reason = reason.word();
            self.metrics.spool_dropped_batches.with_label_values(&[reason]).inc();
            self.metrics.spool_dropped_records.with_label_values(&[reason]).inc_by(given.records);
            self.metrics.spool_dropped_packets.with_label_values(&[reason]).inc_by(given.packets);
            tracing::error!(reason, generation = %given.generation, epoch = given.epoch, part = given.part,
                records = given.records, packets = given.packets,
                "the flows of a batch were given up; a tombstone stands for them");
        }
        for given in &effects.lost {
            self.metrics.spool_lost_batches.inc();
            tracing::error!(generation = %given.generation, epoch = given.epoch, part = given.part,
                packets = given.packets, "a batch is lost: it will be missing from the control plane's ledger");
        }
    }

    pub(super) fn publish(&mut self) {
        let oldest = match self.store() {
            Some(store) => guarded(|| list::oldest(store)).ok().flatten().unwrap_or_default(),
            None => Duration::ZERO,
        };
        let sums = self.store().map(|store| store.sums).unwrap_or_default();
        let held = self.held.as_ref().map_or(0, Held::waiting);
        let standing = Standing {
            batches: (sums.batches + held).saturating_sub(self.unwritten.settled.len() as u64),
            bytes: sums.bytes + self.held.as_ref().map_or(0, |held| held.epoch.bytes() as u64),
            capacity_bytes: self.settings.bounds.bytes,
            tombstones: sums.tombstones,
            oldest_age: oldest,
            quarantined_batches: sums.quarantined_batches,
            quarantined_packets: sums.quarantined_packets,
            quarantined_bytes: sums.quarantined_bytes,
            epochs: sums.epochs,
            degraded: match &self.disk {
                Disk::Open(_) => None,
                Disk::Away(away) => Some(away.reason.clone()),
            },
            held_batches: held,
            newest: self.recent.back().copied().unwrap_or_default(),
            recent: self.recent.front().copied().unwrap_or_default(),
            next_number: self.next_number,
            complete: self.complete,
        };
        self.metrics.spooled(&standing);
        self.standing.send_if_modified(|published| {
            let differs = *published != standing;
            *published = standing;
            differs
        });
    }
}

/// A call into redb: its panics are the file's damage.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("without a word");
        Err(StoreError::Damaged(format!("reading it ended in a panic: {said}")))
    })
}
