//! The disk cannot be written: what is done meanwhile, and how it comes back.
//!
//! What waits in the file can still be read and delivered; its settlement is remembered and written later.
//! The disk is tried again every few seconds, with a file beside the spool's own first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::Settings;
use super::error::StoreError;
use super::held::Held;
use super::keeper::{Disk, Keeper, guarded};
use super::store::Store;

/// The disk is tried again after this time, later less often.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A disk that stays away is logged again after this time.
const REMIND: Duration = Duration::from_mins(1);

/// A disk that cannot be written.
pub(super) struct Away {
    /// The file, where it can at least be read.
    pub(super) readable: Option<Store>,
    pub(super) reason: String,
    since: Instant,
    pub(super) retry_at: Instant,
    wait: Duration,
    /// When the log was told; not yet, if it was not.
    told: Option<Instant>,
}

impl Keeper {
    /// The disk cannot be written: degraded from here on.
    pub(super) fn go_away(&mut self, error: &StoreError) {
        self.metrics.spool_failures.inc();
        let mut away = Away::new(error.to_string());
        if let Disk::Away(before) = &self.disk {
            (away.since, away.told) = (before.since, before.told);
            away.wait = (before.wait * 2).min(RETRY_MAX);
            away.retry_at = Instant::now() + away.wait;
        }
        let folder = self.settings.folder.display();
        match away.told {
            None => tracing::error!(
                %error, %folder,
                "THE SPOOL CANNOT BE WRITTEN: an epoch is held in memory and the kernel tables absorb until it is \
                 delivered or the disk is back; free space, or make spool.folder writable"
            ),
            Some(told) if told.elapsed() >= REMIND => {
                let seconds = away.since.elapsed().as_secs();
                tracing::error!(%error, %folder, seconds, "the spool still cannot be written");
            }
            Some(_) => {}
        }
        if away.told.is_none_or(|told| told.elapsed() >= REMIND) {
            away.told = Some(Instant::now());
        }
        // Closed first: the file is locked.
        self.close_file();
        away.readable = self.open_to_read();
        self.disk = Disk::Away(away);
    }

    /// Closes the file, if there is one. redb may panic at that, too.
    pub(super) fn close_file(&mut self) {
        let disk = std::mem::replace(&mut self.disk, Disk::Away(Away::new(String::new())));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(disk)));
    }

    /// Tries whether the disk is back, if it is time.
    pub(super) fn try_disk(&mut self) {
        let Disk::Away(away) = &mut self.disk else { return };
        if Instant::now() < away.retry_at {
            return;
        }
        // A file that is opened and cannot be written must be repaired when it is opened next: before that,
        // something of the size that has to go in is tried beside it.
        let bytes = self.held.as_ref().map_or(0, |held| held.epoch.bytes()) + (1 << 20);
        if let Err(error) = probe(&self.settings, bytes) {
            return self.go_away(&error.into());
        }
        away.readable = None;
        let since = away.since;
        match self.open_file() {
            Ok(store) => self.come_back(store, since),
            Err(StoreError::Damaged(reason)) => self.replace(&reason),
            Err(error) => self.go_away(&error),
        }
    }

    /// Writes what had to wait.
    fn come_back(&mut self, mut store: Store, since: Instant) {
        let mut epochs = std::mem::take(&mut self.unwritten.epochs);
        let mut settled: Vec<_> =
            self.unwritten.settled.iter().map(|(number, settlement)| (*number, settlement.clone())).collect();
        let held = self.held.take();
        let recorded = epochs.len();
        let (mut kept, mut safe) = (None, None);
        if let Some(held) = held {
            settled.extend(held.settlements());
            let (epoch, parts) = held.into_parts();
            epochs.push(epoch);
            (kept, safe) = (Some(parts.0), Some(parts.1));
        }
        store.next_number = store.next_number.max(self.next_number);
        let bounds = self.settings.bounds;
        let written = guarded(|| store.put(&epochs, &settled, &bounds, None));
        match written {
            Ok(effects) => {
                self.unwritten.settled.clear();
                self.disk = Disk::Open(store);
                self.count(&effects);
                // First, so that whoever waited sees what it waited for.
                self.publish();
                if let Some(safe) = safe {
                    // A pipeline that has gone needs no answer.
                    let _ = safe.send(());
                }
                tracing::info!(
                    seconds = since.elapsed().as_secs_f64(),
                    epochs = recorded,
                    "the spool can be written again"
                );
            }
            Err(error) => {
                if let (Some(settled), Some(safe)) = (kept, safe)
                    && let Some(epoch) = epochs.pop()
                {
                    self.held = Some(Held::of_parts(epoch, settled, safe));
                }
                self.unwritten.epochs = epochs;
                let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
                self.failed(error);
            }
        }
    }
}

impl Away {
    pub(super) fn new(reason: String) -> Self {
        let now = Instant::now();
        Self { readable: None, reason, since: now, retry_at: now + RETRY, wait: RETRY, told: None }
    }
}

/// Whether so many bytes can be written.
fn probe(settings: &Settings, bytes: usize) -> std::io::Result<()> {
    use std::io::Write as _;
    std::fs::create_dir_all(&settings.folder)?;
    let path = settings.folder.join("spool.probe");
    let result = std::fs::File::create(&path).and_then(|mut file| {
        let block = [0x5a; 4 << 10];
        for _ in 0..bytes.div_ceil(block.len()) {
            file.write_all(&block)?;
        }
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    result.and(removed)
}
