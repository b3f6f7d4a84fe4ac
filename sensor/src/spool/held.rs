//! What is kept in memory while the disk cannot be written.
//!
//! One epoch is held, with the kernel's half behind it: it is safe once all its batches are acknowledged, or
//! once the disk is back. Until then no half is released, and the kernel's tables absorb: a crash loses
//! nothing, since the half is read again and yields the same batches under the same keys.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use weir_wire::DropReason;

use super::record::{Fate, Header};
use super::store::{Effects, Given};
use super::{Epoch, Settlement, tombstone};
use crate::ship::Packed;

/// Records of epochs that were delivered from memory, for when the disk is back: a day of them.
const MAX_UNRECORDED: usize = 17_280;

/// An epoch that is in no spool.
pub(super) struct Held {
    pub(super) epoch: Epoch,
    settled: Vec<bool>,
    safe: oneshot::Sender<()>,
}

impl Held {
    pub(super) fn new(epoch: Epoch, safe: oneshot::Sender<()>) -> Self {
        let settled = vec![false; epoch.batches.len()];
        Self { epoch, settled, safe }
    }

    /// The first batch of a number or more that is not settled.
    pub(super) fn first(&self, from: u64) -> Option<(u64, &Packed)> {
        let numbered = (self.epoch.first_number..).zip(&self.epoch.batches).zip(&self.settled);
        numbered
            .filter(|((number, _), settled)| *number >= from && !**settled)
            .map(|((number, batch), _)| (number, batch))
            .next()
    }

    pub(super) fn holds(&self, number: u64) -> bool {
        (self.epoch.first_number..).take(self.settled.len()).any(|held| held == number)
    }

    pub(super) fn waiting(&self) -> u64 {
        self.settled.iter().filter(|settled| !**settled).count() as u64
    }

    /// Notes what became of a batch. There is no disk for a quarantine: a refused batch becomes its own
    /// tombstone at once.
    pub(super) fn settle(&mut self, number: u64, settlement: &Settlement) -> Effects {
        let mut effects = Effects::default();
        let place = (number - self.epoch.first_number) as usize;
        let Some(batch) = self.epoch.batches.get_mut(place) else { return effects };
        let fate = match settlement {
            Settlement::Shipped => Fate::Shipped,
            Settlement::Duplicate => Fate::Duplicate,
            Settlement::Refused { .. } => {
                let header = header(batch);
                let given = Given::from(&header);
                let buried =
                    if batch.is_tombstone() { None } else { tombstone::of(&header, DropReason::Quarantine) };
                if let Some((tombstone, body)) = buried {
                    self.epoch.record.parts[place].dropped = tombstone.dropped();
                    *batch = Packed { husk: Box::new(tombstone.husk()), body: body.into(), ..batch.clone() };
                    effects.dropped.push((DropReason::Quarantine, given));
                    return effects;
                }
                effects.lost.push(given);
                Fate::Lost
            }
        };
        self.epoch.record.parts[place].fate = fate.into();
        self.settled[place] = true;
        effects
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.iter().all(|settled| *settled)
    }

    /// The epoch is safe: its record is all that is left to write.
    pub(super) fn release(self) -> Epoch {
        // A pipeline that has gone needs no answer.
        let _ = self.safe.send(());
        Epoch { batches: Vec::new(), ..self.epoch }
    }

    /// The epoch, to be written, and the rest, to be told.
    pub(super) fn into_parts(self) -> (Epoch, (Vec<bool>, oneshot::Sender<()>)) {
        (self.epoch, (self.settled, self.safe))
    }

    /// The inverse.
    pub(super) fn of_parts(epoch: Epoch, settled: Vec<bool>, safe: oneshot::Sender<()>) -> Self {
        Self { epoch, settled, safe }
    }

    /// What of it was settled already.
    pub(super) fn settlements(&self) -> Vec<(u64, Settlement)> {
        let fate = |place: usize| match self.epoch.record.parts[place].fate() {
            Fate::Duplicate => Settlement::Duplicate,
            _ => Settlement::Shipped,
        };
        (0..self.settled.len())
            .filter(|place| self.settled[*place])
            .map(|place| (self.epoch.first_number + place as u64, fate(place)))
            .collect()
    }
}

/// What the disk will be told when it is back.
#[derive(Default)]
pub(super) struct Unwritten {
    /// Batches in the file that were settled since.
    pub(super) settled: BTreeMap<u64, Settlement>,
    /// Epochs that were delivered from memory.
    pub(super) epochs: Vec<Epoch>,
    /// Of those, how many have no record for want of room.
    pub(super) unrecorded: u64,
}

impl Unwritten {
    pub(super) fn record(&mut self, epoch: Epoch) {
        if self.epochs.len() < MAX_UNRECORDED {
            self.epochs.push(epoch);
        } else {
            self.unrecorded += 1;
        }
    }
}

fn header(batch: &Packed) -> Header {
    Header {
        records: batch.records,
        packets: batch.packets,
        octets: batch.octets,
        bytes: batch.body.len() as u64,
        husk: Some((*batch.husk).clone()),
        ..Header::default()
    }
}
