//! What a damaged file still holds.
//!
//! The file's structure is not believed: its bytes are searched for sealed values. A batch whose body is
//! whole is kept; one whose header alone is whole becomes a tombstone; one of which neither is whole is a gap.
//! Space that the file had freed may still hold batches that were delivered long ago: they are sent again,
//! and the control plane knows them by their keys.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use prost::Message as _;
use weir_wire::DropReason;

use super::Settings;
use super::age::Clock;
use super::keeper::{Disk, Keeper, guarded};
use super::record::Header;
use super::seal::{Envelope, Kind, MAGIC, OVERHEAD};
use super::store::Effects;
use super::tombstone;

const CHUNK: usize = 1 << 20;
/// A header with a husk of 254 points is below.
const MAX_HEADER: usize = 256 << 10;

/// Damaged files that are kept for whoever looks into it.
const DAMAGED_KEPT: usize = 2;

impl Keeper {
    /// Puts a damaged file aside and begins a fresh one with what can be saved.
    pub(super) fn replace(&mut self, reason: &str) {
        self.metrics.spool_damaged.inc();
        self.close_file();
        let file = self.settings.file();
        let aside = match set_aside(&self.settings) {
            Ok(aside) => aside,
            Err(error) => return self.go_away(&error.into()),
        };
        tracing::error!(reason, file = %file.display(), aside = %aside.display(),
            "THE SPOOL'S FILE IS DAMAGED: it is put aside, and a fresh one begins with what can be saved of it");
        let mut store = match self.open_file() {
            Ok(store) => store,
            Err(error) => return self.go_away(&error),
        };
        store.next_number = store.next_number.max(self.next_number);
        let (mut batches, mut effects) = (0_u64, Effects::default());
        match Salvage::of(&aside) {
            Ok(salvage) => {
                for saved in salvage.saved() {
                    match guarded(|| store.adopt(saved.number, &saved.header, &saved.body)) {
                        Ok(()) => batches += 1,
                        Err(error) => {
                            self.metrics.spool_failures.inc();
                            tracing::error!(%error, "a batch of the damaged file cannot be written again");
                            continue;
                        }
                    }
                    if saved.corrupt {
                        effects.dropped.push((weir_wire::DropReason::Corrupt, (&saved.header).into()));
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the damaged file cannot be searched"),
        }
        self.count(&effects);
        self.next_number = self.next_number.max(store.next_number);
        tracing::warn!(
            batches,
            "batches of the damaged file are kept; what they counted before is missing from the local ledger"
        );
        self.disk = Disk::Open(store);
        let bounds = self.settings.bounds;
        self.write(|store| store.bound(&bounds, None));
    }
}

/// Renames the damaged file, and forgets older ones of its kind.
fn set_aside(settings: &Settings) -> std::io::Result<std::path::PathBuf> {
    let prefix = "spool.redb.damaged-";
    let mut known: Vec<_> = std::fs::read_dir(&settings.folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    known.sort();
    for old in known.iter().take(known.len().saturating_sub(DAMAGED_KEPT - 1)) {
        std::fs::remove_file(old)?;
    }
    let aside = settings.folder.join(format!("{prefix}{:020}", super::age::wall_ns()));
    std::fs::rename(settings.file(), &aside)?;
    Ok(aside)
}

/// Where a batch was found.
#[derive(Default)]
struct Found {
    header: Option<Header>,
    /// Offset and length.
    body: Option<(u64, usize)>,
}

/// The batches of a damaged file, by their numbers.
pub(super) struct Salvage {
    file: File,
    found: BTreeMap<u64, Found>,
    clock: Clock,
}

/// A batch that was saved, whole or as its tombstone.
pub(super) struct Saved {
    pub(super) number: u64,
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    /// What it counted cannot be read any more.
    pub(super) corrupt: bool,
}

impl Salvage {
    /// Searches the file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut salvage = Self { file, found: BTreeMap::new(), clock: Clock::new() };
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        loop {
            let read = read_up_to(&salvage.file, &mut chunk, at)?;
            for place in places(&chunk[..read]) {
                salvage.look(at + place as u64);
            }
            if read < CHUNK {
                return Ok(salvage);
            }
            // A magic word may lie across the border.
            at += (read - (MAGIC.len() - 1)) as u64;
        }
    }

    /// Believes what fits its checksum.
    fn look(&mut self, at: u64) {
        let mut envelope = [0; OVERHEAD];
        if self.file.read_exact_at(&mut envelope, at).is_err() {
            return;
        }
        let Some(envelope) = Envelope::read(&envelope) else { return };
        let most = match envelope.kind {
            Kind::Header => MAX_HEADER,
            Kind::Body => weir_wire::limits::MAX_COMPRESSED,
            // The ledger begins anew: what an old page says of an epoch may be long past.
            Kind::Epoch => return,
        };
        let Some(bytes) = self.read(at + OVERHEAD as u64, envelope.length.min(most)) else { return };
        if envelope.length > most || !envelope.fits(&bytes) {
            return;
        }
        let found = self.found.entry(envelope.number).or_default();
        match envelope.kind {
            Kind::Body => {
                // Of a batch and its tombstone, which have one number, the batch.
                if found.body.is_none_or(|(_, length)| length < bytes.len()) {
                    found.body = Some((at + OVERHEAD as u64, bytes.len()));
                }
            }
            _ => {
                if let Ok(header) = Header::decode(&bytes[..])
                    && found.header.as_ref().is_none_or(|known| known.dropped().is_some())
                {
                    found.header = Some(header);
                }
            }
        }
    }

    fn read(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }

    /// One after the other, so that memory holds one.
    pub(super) fn saved(self) -> impl Iterator<Item = Saved> {
        let Self { file, found, clock } = self;
        found.into_iter().filter_map(move |(number, Found { header, body })| {
            let stored = header.as_ref().and_then(|header| header.stored.clone());
            let whole = body.and_then(|(at, length)| {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, at).ok()?;
                Some((weir_wire::decode(&bytes).ok()?, bytes))
            });
            if let Some((batch, body)) = whole {
                let header = Header::of(batch, body.len(), stored.unwrap_or_else(|| clock.now()));
                return Some(Saved { number, header, body, corrupt: false });
            }
            let mut header = header?;
            let known = header.dropped().is_some();
            header.record = u64::MAX;
            header.refusal = None;
            let reason = header.dropped().map_or(DropReason::Corrupt, |dropped| dropped.reason());
            let (header, body) = tombstone::of(&header, reason)?;
            Some(Saved { number, header, body, corrupt: !known })
        })
    }
}

fn places(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let candidates = bytes.windows(MAGIC.len()).enumerate();
    candidates.filter(|(_, window)| *window == MAGIC).map(|(place, _)| place)
}

fn read_up_to(file: &File, chunk: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read_at(&mut chunk[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
