//! The stages together, over a source that counts like the kernel: two halves, one flip at a time.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_wire::{Direction, Totals};

use super::*;
use crate::flow::{Limits, Merger};
use crate::kernel::{
    DrainFigures, FilterAction, FilterRule, FlowKey, FlowObservation, PointTotals, WakeReason, Wakeup,
};
use crate::metrics::Metrics;
use crate::ship::{Deliveries as _, MemoryDeliveries, MemoryOutbox, Outbox, OutboxClosed, Packed, memory};

/// What the fake kernel holds; the test looks in from outside.
#[derive(Default)]
struct Tables {
    epoch: u64,
    drained: Option<u64>,
    /// Packets counted in the epoch that is written.
    packets: u64,
    failures: u32,
    updates: Vec<u32>,
    flips: Vec<std::time::Instant>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Tables>>);

impl Fake {
    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0.lock().expect("no test panics while it looks")
    }
}

impl Source for Fake {
    type Error = io::Error;

    fn flip(&mut self) -> io::Result<Drained> {
        let mut tables = self.tables();
        if tables.failures > 0 {
            tables.failures -= 1;
            return Err(io::Error::other("the kernel said no"));
        }
        assert_eq!(tables.drained, None, "a half is flipped into before it was released");
        let (epoch, packets) = (tables.epoch, std::mem::take(&mut tables.packets));
        tables.drained = Some(epoch);
        tables.epoch += 1;
        tables.flips.push(std::time::Instant::now());
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let flow = FlowObservation {
            key: FlowKey { src: address(1), dst: address(2), protocol: 17, src_port: 9, dst_port: 53 },
            point: 1,
            link: 0,
            packets,
            octets: packets * 100,
            first_ns: 0,
            last_ns: 1,
            tcp_flags: 0,
            first_tcp_flags: 0,
            fragments: 0,
            icmp_type: 0,
            icmp_code: 0,
        };
        Ok(Drained {
            epoch,
            window_start_ns: 0,
            window_end_ns: 1,
            sampling_interval: 1,
            points: vec![PointTotals {
                id: 1,
                interface: "eth0".to_owned(),
                ifindex: 2,
                direction: Direction::Ingress,
                stack: 2,
                totals: Totals { frames: packets, flow_packets: packets, ..Totals::default() },
            }],
            links: Vec::new(),
            flows: if packets > 0 { vec![flow] } else { Vec::new() },
            figures: DrainFigures::default(),
        })
    }

    fn release(&mut self, epoch: u64) -> io::Result<()> {
        let drained = self.tables().drained.take();
        assert_eq!(drained, Some(epoch), "only the drained half is released");
        Ok(())
    }

    fn update(&mut self, interval: u32, _: &[FilterRule], _: FilterAction) -> io::Result<()> {
        if interval == 13 {
            return Err(io::Error::other("unlucky"));
        }
        self.tables().updates.push(interval);
        Ok(())
    }

    fn generation(&self) -> Uuid {
        Uuid::from_u128(7)
    }

    fn quiesce(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

struct Calls(mpsc::Receiver<Wakeup>);

impl Wakes for Calls {
    async fn next(&mut self) -> io::Result<Wakeup> {
        match self.0.recv().await {
            Some(wakeup) => Ok(wakeup),
            None => std::future::pending().await,
        }
    }
}

/// An outbox that keeps what it gets.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<VecDeque<Packed>>>);

impl Outbox for Kept {
    async fn put(&mut self, epoch: Vec<Packed>) -> Result<(), OutboxClosed> {
        self.0.lock().expect("no panic").extend(epoch);
        Ok(())
    }
}

impl Kept {
    /// Epochs and packets so far.
    fn sums(&self) -> (Vec<u64>, u64) {
        let kept = self.0.lock().expect("no panic");
        (kept.iter().map(|batch| batch.epoch).collect(), kept.iter().map(|batch| batch.packets).sum())
    }
}

struct Running {
    fake: Fake,
    wake: mpsc::Sender<Wakeup>,
    steer: mpsc::Sender<Steer>,
    stop: watch::Sender<bool>,
    pulse: watch::Receiver<Pulse>,
    drain: JoinHandle<Result<(), DrainError>>,
    merge: JoinHandle<Result<(), MergeError>>,
    metrics: Arc<Metrics>,
}

fn start(epoch: Duration, outbox: impl Outbox) -> Running {
    let fake = Fake::default();
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let (wake, wakes) = mpsc::channel(8);
    let (steer, steering) = mpsc::channel(1);
    let (stop, stopping) = watch::channel(false);
    let (pulse_sender, pulse) = watch::channel(Pulse { last_drain: None, epoch });
    let (epochs, handovers) = channel();
    let pace = Pace { epoch, steer: steering, stopping };
    let proof = Proof::new("/nonexistent".into(), std::collections::HashSet::new());
    let drain =
        Drain::new(fake.clone(), Calls(wakes), pace, epochs, proof, Arc::clone(&metrics), pulse_sender);
    let limits = Limits {
        connections: 100,
        idle_timeout: Duration::from_mins(1),
        closed_timeout: Duration::from_secs(1),
    };
    let merge = Merge::new(Merger::new(limits), fake.generation(), handovers, outbox, Arc::clone(&metrics));
    Running {
        fake,
        wake,
        steer,
        stop,
        pulse,
        drain: tokio::spawn(drain.run()),
        merge: tokio::spawn(merge.run()),
        metrics,
    }
}

const LONG: Duration = Duration::from_secs(30);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it takes milliseconds")
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// S9: the last epoch is drained and safe before the stages end.
#[tokio::test]
async fn stopping_drains_once_more() {
    let kept = Kept::default();
    let running = start(LONG, kept.clone());
    running.fake.tables().packets = 42;
    running.stop.send_replace(true);
    within(running.drain).await.expect("no panic").expect("a clean end");
    within(running.merge).await.expect("no panic").expect("a clean end");
    assert_eq!(kept.sums(), (vec![0], 42));
    assert_eq!(running.fake.tables().drained, None, "the last half was released");
    assert!(running.pulse.borrow().last_drain.is_some());
}

#[tokio::test]
async fn epochs_end_by_time_without_a_gap() {
    let kept = Kept::default();
    let running = start(Duration::from_millis(50), kept.clone());
    for _ in 0..100 {
        running.fake.tables().packets += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    running.stop.send_replace(true);
    within(running.drain).await.expect("no panic").expect("a clean end");
    within(running.merge).await.expect("no panic").expect("a clean end");
    let (epochs, packets) = kept.sums();
    assert_eq!(packets, 100);
    assert!(epochs.len() >= 5, "{epochs:?}");
    assert_eq!(epochs, (0..epochs.len() as u64).collect::<Vec<_>>());
    assert_eq!(running.metrics.unmerged_packets.get(), 0);
}

/// K5: a filling table is drained before its time; a call for an epoch that is behind is none.
#[tokio::test]
async fn a_wake_up_drains_early_unless_it_is_stale() {
    let kept = Kept::default();
    let running = start(LONG, kept.clone());
    let call = |epoch, reason| Wakeup { epoch, cpu: 0, reason };
    running.wake.send(call(0, WakeReason::Filling)).await.expect("the task listens");
    until(|| kept.sums().0 == [0]).await;
    running.wake.send(call(0, WakeReason::Overflow)).await.expect("the task listens");
    running.wake.send(call(1, WakeReason::Overflow)).await.expect("the task listens");
    until(|| kept.sums().0 == [0, 1]).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(running.fake.tables().flips.len(), 2);
    let early = |reason| running.metrics.early_drains.with_label_values(&[reason]).get();
    assert_eq!((early("filling"), early("overflow")), (1, 1));
}

/// Nothing is dropped in a channel: the drain waits, and the tables absorb.
#[tokio::test]
async fn a_full_outbox_makes_the_drain_wait() {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let (outbox, mut deliveries): (MemoryOutbox, MemoryDeliveries) = memory(1, metrics);
    let running = start(Duration::from_millis(10), outbox);
    // The first epoch goes in alone; the second waits in the merge stage and is not released.
    until(|| running.fake.tables().flips.len() == 2).await;
    running.fake.tables().packets = 5;
    tokio::time::sleep(Duration::from_millis(100)).await;
    {
        let tables = running.fake.tables();
        assert_eq!((tables.flips.len(), tables.drained), (2, Some(1)));
    }
    let mut packets = 0;
    for _ in 0..3 {
        packets += within(deliveries.next()).await.expect("a batch").packets;
        deliveries.settle();
    }
    assert_eq!(packets, 5, "what was counted meanwhile came with the next epoch");
}

#[tokio::test]
async fn new_settings_apply_and_refused_ones_do_not() {
    let kept = Kept::default();
    let running = start(LONG, kept.clone());
    let steer = |epoch, sampling_interval| Steer {
        epoch,
        sampling_interval,
        rules: Vec::new(),
        default: FilterAction::Allow,
    };
    running.steer.send(steer(Duration::from_millis(1), 13)).await.expect("the task listens");
    running.steer.send(steer(Duration::from_millis(20), 4)).await.expect("the task listens");
    until(|| kept.sums().0.len() >= 3).await;
    assert_eq!(running.fake.tables().updates, [4]);
    assert_eq!(running.pulse.borrow().epoch, Duration::from_millis(20));
    let reloads = |result| running.metrics.reloads.with_label_values(&[result]).get();
    assert_eq!((reloads("applied"), reloads("refused")), (1, 1));
}

#[tokio::test]
async fn a_failed_flip_is_tried_again_and_loses_nothing() {
    let kept = Kept::default();
    let running = start(Duration::from_millis(10), kept.clone());
    {
        let mut tables = running.fake.tables();
        tables.failures = 3;
        tables.packets = 9;
    }
    until(|| kept.sums().1 == 9).await;
    assert_eq!(running.metrics.drain_failures.get(), 3);

    running.fake.tables().failures = u32::MAX;
    let error = within(running.drain).await.expect("no panic").expect_err("it gives up").to_string();
    assert!(error.contains("10 attempts") && error.contains("the kernel said no"), "{error}");
    within(running.merge).await.expect("no panic").expect("the merge stage ends with it");
}

#[tokio::test]
async fn without_a_merge_stage_nothing_is_released() {
    let running = start(Duration::from_millis(10), Kept::default());
    running.merge.abort();
    let error = within(running.drain).await.expect("no panic").expect_err("there is nobody to hand on to");
    assert!(matches!(error, DrainError::Merge));
}
