//! S7, S8: what is put in comes out once, whatever happens in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;
use weir_wire::{Batch, Direction, DropReason, Flow, Point, Totals};

use super::list::State;
use super::*;
use crate::metrics::Metrics;
use crate::ship::Outbox as _;

pub(super) fn bounds() -> Bounds {
    Bounds {
        bytes: 1 << 30,
        age: Duration::from_hours(1),
        quarantine_bytes: 1 << 20,
        quarantine_batches: 1_000,
        epochs: 1_000,
        tombstones: 1_000,
    }
}

/// An epoch of so many parts. Each has its own sums; one packet crosses in each.
pub(super) fn epoch(generation: u128, epoch: u64, parts: u32) -> Vec<Packed> {
    wide_epoch(generation, epoch, parts, 1)
}

/// The same with more flows, of which the first has all packets.
fn wide_epoch(generation: u128, epoch: u64, parts: u32, flows: u64) -> Vec<Packed> {
    let packets = |part: u32| epoch * 100 + u64::from(part) + 1;
    let total: u64 = (0..parts).map(|part| packets(part) + 1).sum();
    (0..parts)
        .map(|part| {
            let totals = Totals { frames: total + 1, flow_packets: total, non_ip: 1, ..Totals::default() };
            Packed::new(Batch {
                version: weir_wire::VERSION,
                generation: Uuid::from_u128(generation).as_bytes().to_vec(),
                epoch,
                part,
                parts,
                window_start_ns: epoch as i64 * 5,
                window_end_ns: epoch as i64 * 5 + 5,
                sampling_interval: 1,
                points: vec![Point {
                    id: 1,
                    interface: "eth0".to_owned(),
                    ifindex: 2,
                    direction: Direction::Ingress.into(),
                    totals: (part == 0).then_some(totals),
                }],
                flows: (0..flows)
                    .map(|number| Flow {
                        ip_version: 6,
                        src_low: (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ epoch),
                        packets: if number == 0 { packets(part) } else { 0 },
                        octets: if number == 0 { 60 } else { 0 },
                        ..Flow::default()
                    })
                    .collect(),
                crossing_packets: 1,
                crossing_octets: 60,
                ..Batch::default()
            })
            .expect("it encodes")
        })
        .collect()
}

pub(super) struct Opened {
    pub(super) spool: Spool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) spooled: BTreeMap<u128, u64>,
}

pub(super) fn open(folder: &std::path::Path, bounds: Bounds) -> Opened {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let settings = Settings { folder: folder.to_owned(), bounds };
    let (spool, spooled) = Spool::open(settings, Arc::clone(&metrics)).expect("it opens");
    let spooled = spooled.into_iter().map(|(generation, epoch)| (generation.as_u128(), epoch)).collect();
    Opened { spool, metrics, spooled }
}

/// Takes everything out; the batches as the control plane would see them.
pub(super) async fn drain(spool: &Spool) -> Vec<Batch> {
    let mut batches = Vec::new();
    while let Some(offer) = spool.first(0).await.expect("the thread runs") {
        let batch = weir_wire::decode(&offer.batch.body).expect("what is offered decodes");
        assert_eq!((batch.epoch, batch.part), (offer.batch.epoch, offer.batch.part));
        batches.push(batch);
        spool.settle(offer.number, Settlement::Shipped).await.expect("the thread runs");
    }
    batches
}

fn keys(batches: &[Batch]) -> Vec<(u64, u32)> {
    batches.iter().map(|batch| (batch.epoch, batch.part)).collect()
}

fn reason(batch: &Batch) -> Option<DropReason> {
    batch.dropped.map(|dropped| dropped.reason())
}

/// `committed + crossing + dropped == flow_packets`, over all parts of all epochs.
fn adds_up(batches: &[Batch]) -> bool {
    let flows: u64 = batches.iter().flat_map(|batch| &batch.flows).map(|flow| flow.packets).sum();
    let crossing: u64 = batches.iter().map(|batch| batch.crossing_packets).sum();
    let dropped: u64 = batches.iter().filter_map(|batch| batch.dropped).map(|dropped| dropped.packets).sum();
    let totals = batches.iter().flat_map(|batch| &batch.points).filter_map(|point| point.totals);
    flows + crossing + dropped == totals.map(|totals| totals.flow_packets).sum::<u64>()
}

#[tokio::test]
async fn batches_come_out_as_they_went_in_also_after_a_restart() {
    let folder = TempDir::new().expect("a folder");
    let Opened { spool, spooled, .. } = open(folder.path(), bounds());
    assert!(spooled.is_empty());
    let mut intake = spool.intake();
    for number in 0..3 {
        intake.put(epoch(7, number, 2)).await.expect("safe");
    }
    intake.put(epoch(8, 5, 1)).await.expect("safe");
    // A second time, as a crash between the write and the release would have it.
    intake.put(epoch(7, 2, 2)).await.expect("safe");
    assert_eq!(spool.standing().batches, 7);
    spool.close().await;

    let Opened { spool, spooled, metrics } = open(folder.path(), bounds());
    assert_eq!(spooled, BTreeMap::from([(7, 2), (8, 5)]));
    assert_eq!(metrics.spool_batches.get(), 7);
    let batches = drain(&spool).await;
    assert_eq!(keys(&batches), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (5, 0)]);
    let expected: Vec<Batch> = [epoch(7, 0, 2), epoch(7, 1, 2), epoch(7, 2, 2), epoch(8, 5, 1)]
        .into_iter()
        .flatten()
        .map(|packed| weir_wire::decode(&packed.body).expect("it decodes"))
        .collect();
    assert_eq!(batches, expected);
    let ledger = spool.ledger(Range::default()).await.expect("it reads");
    let total = 1 + 2 + 2 + 101 + 102 + 2 + 201 + 202 + 2 + 501 + 1;
    assert_eq!((ledger.epochs, ledger.in_flows, ledger.non_ip), (4, total, 4));
    assert_eq!((ledger.crossing, ledger.spooled, ledger.shipped), (7, total - 7, total - 7));
    assert!(ledger.adds_up, "{ledger:?}");
    assert_eq!(spool.standing().batches, 0);
    spool.close().await;
    assert_eq!(open(folder.path(), bounds()).metrics.spool_batches.get(), 0);
}

#[tokio::test]
async fn only_one_process_has_the_file() {
    let folder = TempDir::new().expect("a folder");
    let first = open(folder.path(), bounds());
    let settings = Settings { folder: folder.path().to_owned(), bounds: bounds() };
    let second = Spool::open(settings, Arc::clone(&first.metrics));
    assert!(matches!(second, Err(StoreError::InUse)));
}

/// Over the bound the oldest become tombstones: their counts have a name and a reason.
#[tokio::test]
async fn over_the_bound_the_oldest_leave_tombstones() {
    let folder = TempDir::new().expect("a folder");
    // A batch of this test takes some 4 kB, its tombstone 300 bytes.
    let Opened { spool, metrics, .. } = open(folder.path(), Bounds { bytes: 60_000, ..bounds() });
    let mut intake = spool.intake();
    for number in 0..20 {
        intake.put(wide_epoch(7, number, 2, 400)).await.expect("safe");
    }
    assert!(spool.standing().bytes <= 60_000, "{:?}", spool.standing());
    let ledger = spool.ledger(Range::default()).await.expect("it reads");
    assert!(ledger.adds_up, "{ledger:?}");
    let batches = drain(&spool).await;
    assert_eq!(batches.len(), 40);
    let tombstones = batches.iter().filter(|batch| batch.dropped.is_some()).count();
    assert!((20..40).contains(&tombstones), "{tombstones} tombstones");
    // The oldest, without exception.
    assert!(batches[..tombstones].iter().all(|batch| reason(batch) == Some(DropReason::SpoolBytes)));
    assert!(batches[..tombstones].iter().all(|batch| batch.flows.is_empty()));
    assert!(batches[tombstones..].iter().all(|batch| batch.flows.len() == 400));
    assert!(adds_up(&batches));
    let dropped: u64 = batches.iter().filter_map(|batch| batch.dropped).map(|dropped| dropped.packets).sum();
    assert_eq!(ledger.dropped, BTreeMap::from([("spool_bytes".to_owned(), dropped)]));
    assert_eq!(metrics.spool_dropped_packets.with_label_values(&["spool_bytes"]).get(), dropped);
    assert_eq!(metrics.spool_lost_batches.get(), 0);
}

#[tokio::test]
async fn batches_that_are_too_old_leave_tombstones_and_tombstones_are_bounded() {
    let folder = TempDir::new().expect("a folder");
    let Opened { spool, .. } = open(folder.path(), bounds());
    let mut intake = spool.intake();
    for number in 0..10 {
        intake.put(epoch(7, number, 1)).await.expect("safe");
    }
    spool.close().await;
    let old = Bounds { age: Duration::ZERO, tombstones: 6, ..bounds() };
    let Opened { spool, metrics, .. } = open(folder.path(), old);
    let batches = drain(&spool).await;
    assert_eq!(keys(&batches), (4..10).map(|epoch| (epoch, 0)).collect::<Vec<_>>());
    assert!(batches.iter().all(|batch| reason(batch) == Some(DropReason::SpoolAge)));
    assert!(adds_up(&batches));
    assert_eq!(metrics.spool_lost_batches.get(), 4);
    let ledger = spool.ledger(Range::default()).await.expect("it reads");
    assert_eq!(ledger.lost, 1 + 101 + 201 + 301);
    assert!(!ledger.adds_up, "what has no name does not add up");
}

/// Permanent refusals are kept, listed, sent again when asked, and bounded.
#[tokio::test]
async fn refused_batches_are_in_quarantine_until_they_are_sent_again() {
    let folder = TempDir::new().expect("a folder");
    let Opened { spool, .. } = open(folder.path(), bounds());
    let mut intake = spool.intake();
    for number in 0..3 {
        intake.put(epoch(7, number, 1)).await.expect("safe");
    }
    let refused = |status| Settlement::Refused { status, detail: "no such world".to_owned() };
    for _ in 0..3 {
        let offer = spool.first(0).await.expect("it runs").expect("a batch");
        spool.settle(offer.number, refused(422)).await.expect("it runs");
    }
    assert!(spool.first(0).await.expect("it runs").is_none());
    spool.close().await;

    let Opened { spool, .. } = open(folder.path(), bounds());
    assert_eq!(spool.standing().quarantined_batches, 3);
    assert_eq!(spool.standing().quarantined_packets, 1 + 101 + 201);
    let listed = spool.list(0, 10).await.expect("it reads");
    assert!(listed.iter().all(|batch| batch.state == State::Quarantined));
    let said = listed[0].refused.clone().expect("the answer is kept");
    assert_eq!((said.status, said.detail.as_str()), (422, "no such world"));
    let ledger = spool.ledger(Range::default()).await.expect("it reads");
    assert_eq!((ledger.quarantined, ledger.adds_up), (303, true));

    assert_eq!(spool.retry(Some(vec![listed[1].number, 99])).await.expect("it writes"), 1);
    assert_eq!(keys(&drain(&spool).await), [(1, 0)]);
    spool.close().await;
    // Its bound: the oldest leaves a tombstone, which is shipped like any batch.
    let small = Bounds { quarantine_batches: 1, ..bounds() };
    let Opened { spool, metrics, .. } = open(folder.path(), small);
    let batches = drain(&spool).await;
    assert_eq!((keys(&batches), reason(&batches[0])), (vec![(0, 0)], Some(DropReason::Quarantine)));
    assert_eq!(metrics.spool_dropped_packets.with_label_values(&["quarantine"]).get(), 1);
    assert_eq!(spool.retry(None).await.expect("it writes"), 1);
    let batches = drain(&spool).await;
    assert_eq!((keys(&batches), reason(&batches[0])), (vec![(2, 0)], None));
}

#[tokio::test]
async fn a_missing_epoch_is_a_gap() {
    let folder = TempDir::new().expect("a folder");
    let Opened { spool, .. } = open(folder.path(), Bounds { epochs: 4, ..bounds() });
    let mut intake = spool.intake();
    for (generation, number) in [(1, 0), (1, 1), (2, 0), (1, 4), (2, 1)] {
        intake.put(epoch(generation, number, 1)).await.expect("safe");
    }
    let ledger = spool.ledger(Range::default()).await.expect("it reads");
    assert_eq!((ledger.epochs, ledger.missing_epochs, ledger.adds_up), (4, 2, false));
    let gap = Gap { generation: Uuid::from_u128(1), first: 2, last: 3 };
    assert_eq!(ledger.gaps, [gap]);
    let early = Range { to_ns: Some(10), ..Range::default() };
    let ledger = spool.ledger(early).await.expect("it reads");
    assert_eq!((ledger.epochs, ledger.missing_epochs, ledger.adds_up), (3, 0, true));
}
