//! Looking into the file: the next batch for delivery, and what the command line lists.

use std::time::Duration;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableDatabase as _, ReadableTable as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Offer;
use super::error::StoreError;
use super::record::Header;
use super::seal::{self, Kind};
use super::store::{BODIES, QUARANTINE, Sealed, Store, WAITING, header};
use crate::ship::Packed;

/// A batch in the spool, without its flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Names the batch within this spool.
    pub number: u64,
    pub state: State,
    pub generation: Uuid,
    pub epoch: u64,
    pub part: u32,
    pub parts: u32,
    pub window_start_ns: i64,
    pub window_end_ns: i64,
    pub records: u64,
    pub packets: u64,
    pub octets: u64,
    /// Compressed.
    pub bytes: u64,
    pub age_seconds: f64,
    /// Why its flows were given up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<String>,
    /// What the control plane said, in the quarantine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<Refused>,
}

/// The answer that sent a batch into the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub status: u32,
    pub detail: String,
    /// Nanoseconds since the Unix epoch.
    pub at_ns: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    /// The batch's flows were given up; this stands for them and waits.
    Tombstone,
    Quarantined,
    /// Its header is not what was stored.
    Damaged,
}

/// The first batch of a number or more that is not to be skipped; without it where it is not what was stored.
pub(super) fn first(
    store: &Store,
    from: u64,
    skip: impl Fn(u64) -> bool,
) -> Result<Option<(u64, Option<Offer>)>, StoreError> {
    let read = store.database.begin_read()?;
    let waiting = read.open_table(WAITING)?;
    for entry in waiting.range(from..)? {
        let (number, sealed) = entry?;
        let number = number.value();
        if skip(number) {
            continue;
        }
        let Some(Header { records, packets, octets, husk: Some(husk), .. }) = header(number, sealed.value())
        else {
            return Ok(Some((number, None)));
        };
        let Some(body) = opened(&read, number)? else { return Ok(Some((number, None))) };
        let dropped = husk.dropped.is_some();
        let batch = Packed {
            generation: Uuid::from_slice(&husk.generation).unwrap_or_default(),
            epoch: husk.epoch,
            part: husk.part,
            records: if dropped { 0 } else { records },
            packets: if dropped { 0 } else { packets },
            octets: if dropped { 0 } else { octets },
            husk: Box::new(husk),
            body: Bytes::from(body),
        };
        return Ok(Some((number, Some(Offer { number, batch }))));
    }
    Ok(None)
}

fn opened(read: &ReadTransaction, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let bodies = read.open_table(BODIES)?;
    let sealed = bodies.get(number)?;
    Ok(sealed.and_then(|sealed| seal::open(Kind::Body, number, sealed.value()).map(<[u8]>::to_vec)))
}

/// A batch's body, compressed as it is sent.
pub(super) fn body(store: &Store, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
    opened(&store.database.begin_read()?, number)
}

/// Age of the oldest batch that waits.
pub(super) fn oldest(store: &Store) -> Result<Option<Duration>, StoreError> {
    let read = store.database.begin_read()?;
    let waiting = read.open_table(WAITING)?;
    let Some((number, sealed)) = waiting.first()? else { return Ok(None) };
    let header = header(number.value(), sealed.value());
    Ok(header.and_then(|header| Some(store.clock.age(header.stored.as_ref()?))))
}

/// Batches from a number on: those that wait, then the quarantine; at most so many.
pub(super) fn list(store: &Store, from: u64, limit: usize) -> Result<Vec<Listed>, StoreError> {
    let read = store.database.begin_read()?;
    let mut listed = listed(store, &read, WAITING, from, limit)?;
    listed.extend(self::listed(store, &read, QUARANTINE, from, limit)?);
    listed.sort_by_key(|batch| batch.number);
    listed.truncate(limit);
    Ok(listed)
}

fn listed(
    store: &Store,
    read: &ReadTransaction,
    table: Sealed,
    from: u64,
    limit: usize,
) -> Result<Vec<Listed>, StoreError> {
    let table = read.open_table(table)?;
    let mut listed = Vec::new();
    for entry in table.range(from..)?.take(limit) {
        let (number, sealed) = entry?;
        listed.push(entry_of(store, number.value(), header(number.value(), sealed.value())));
    }
    Ok(listed)
}

fn entry_of(store: &Store, number: u64, header: Option<Header>) -> Listed {
    let state = match &header {
        None => State::Damaged,
        Some(header) if header.refusal.is_some() => State::Quarantined,
        Some(header) if header.dropped().is_some() => State::Tombstone,
        Some(_) => State::Waiting,
    };
    let header = header.unwrap_or_default();
    let husk = header.husk();
    let (generation, epoch, part) = header.key();
    Listed {
        number,
        state,
        generation,
        epoch,
        part,
        parts: husk.parts,
        window_start_ns: husk.window_start_ns,
        window_end_ns: husk.window_end_ns,
        records: header.records,
        packets: header.packets,
        octets: header.octets,
        bytes: header.bytes,
        age_seconds: header.stored.as_ref().map_or(0.0, |stored| store.clock.age(stored).as_secs_f64()),
        dropped: header.dropped().map(|dropped| dropped.reason().word().to_owned()),
        refused: header.refusal.map(|refusal| Refused {
            status: refusal.status,
            detail: refusal.detail,
            at_ns: refusal.wall_ns,
        }),
    }
}

/// All numbers of the quarantine.
pub(super) fn quarantined(store: &Store) -> Result<Vec<u64>, StoreError> {
    let read = store.database.begin_read()?;
    let quarantine = read.open_table(QUARANTINE)?;
    quarantine.iter()?.map(|entry| Ok(entry?.0.value())).collect()
}
