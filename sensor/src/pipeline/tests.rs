//! The stages together, over a source that counts like the kernel: two halves, one flip at a time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_wire::{Direction, Totals};

use super::*;
use crate::detect::Engine;
use crate::enrich::{Enricher, Places};
use crate::flow::{Limits, Merger};
use crate::kernel::{
    DrainFigures, FilterAction, FilterRule, FlowKey, FlowObservation, Listed, PointTotals, WakeReason, Wakeup,
};
use crate::metrics::Metrics;
use crate::ship::{Outbox, OutboxClosed, Packed};

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
    /// A half that an earlier sensor had drained, if it was not released: its epoch and packets.
    unreleased: Option<(u64, u64)>,
    /// Tables of earlier sensors: their generation, and halves that hold something.
    past: Vec<(Uuid, Vec<(u64, u64)>)>,
    /// What happened to them.
    log: Vec<String>,
    stopped: Option<Stop>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Tables>>);

impl Fake {
    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0.lock().expect("no test panics while it looks")
    }
}

/// An epoch with one flow.
fn counted(epoch: u64, packets: u64) -> Drained {
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
        listed: Listed::default(),
    };
    Drained {
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
        Ok(counted(epoch, packets))
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

    fn predecessors(&mut self) -> Vec<Box<dyn Past>> {
        let past = std::mem::take(&mut self.tables().past);
        past.into_iter()
            .map(|(generation, halves)| {
                Box::new(Gone { generation, halves, log: self.clone() }) as Box<dyn Past>
            })
            .collect()
    }

    fn resume(&mut self, spooled: Option<u64>) -> io::Result<Option<Drained>> {
        let mut tables = self.tables();
        let Some((epoch, packets)) = tables.unreleased.take() else { return Ok(None) };
        tables.epoch = epoch + 1;
        if spooled.is_some_and(|spooled| spooled >= epoch) {
            tables.log.push(format!("own {epoch} was safe"));
            return Ok(None);
        }
        tables.drained = Some(epoch);
        Ok(Some(counted(epoch, packets)))
    }

    fn stop(&mut self, stop: Stop) -> Result<(), Self::Error> {
        self.tables().stopped = Some(stop);
        Ok(())
    }
}

/// Tables of an earlier sensor.
struct Gone {
    generation: Uuid,
    halves: Vec<(u64, u64)>,
    log: Fake,
}

impl Past for Gone {
    fn generation(&self) -> Uuid {
        self.generation
    }

    fn next(&mut self, spooled: Option<u64>) -> Result<Option<Drained>, PastError> {
        self.halves.retain(|(epoch, _)| spooled.is_none_or(|spooled| *epoch > spooled));
        Ok(self.halves.first().map(|&(epoch, packets)| counted(epoch, packets)))
    }

    fn release(&mut self, epoch: u64) -> Result<(), PastError> {
        assert_eq!(self.halves.remove(0).0, epoch);
        self.log.tables().log.push(format!("{} released {epoch}", self.generation.as_u128()));
        Ok(())
    }

    fn discard(self: Box<Self>) -> Result<(), PastError> {
        assert!(self.halves.is_empty(), "nothing is thrown away that is not drained");
        self.log.tables().log.push(format!("{} discarded", self.generation.as_u128()));
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
    going: watch::Sender<Stop>,
    pulse: watch::Receiver<Pulse>,
    drain: JoinHandle<Result<(), DrainError>>,
    merge: JoinHandle<Result<(), MergeError>>,
    metrics: Arc<Metrics>,
}

fn start(epoch: Duration, outbox: impl Outbox) -> Running {
    start_over(Fake::default(), HashMap::new(), epoch, outbox)
}

fn start_over(fake: Fake, spooled: HashMap<Uuid, u64>, epoch: Duration, outbox: impl Outbox) -> Running {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let (wake, wakes) = mpsc::channel(8);
    let (steer, steering) = mpsc::channel(1);
    let (stop, stopping) = watch::channel(false);
    let (pulse_sender, pulse) = watch::channel(Pulse { last_drain: None, epoch });
    let (epochs, handovers) = channel();
    let (going, how) = watch::channel(Stop::Stay);
    let pace = Pace { epoch, steer: steering, stopping, stop: how, spooled };
    let proof = Proof::new("/nonexistent".into(), std::collections::HashSet::new());
    let drain =
        Drain::new(fake.clone(), Calls(wakes), pace, epochs, proof, Arc::clone(&metrics), pulse_sender);
    let limits = Limits {
        connections: 100,
        idle_timeout: Duration::from_mins(1),
        closed_timeout: Duration::from_secs(1),
    };
    let steps = Steps {
        merger: Merger::new(limits),
        catch_up: None,
        onlooker: None,
        enricher: Enricher::new(Places::new(&[]), Arc::clone(&metrics)),
        engine: Engine::new(&crate::config::Detect::default()),
    };
    let merge = Merge::new(steps, handovers, outbox, Arc::clone(&metrics));
    Running {
        fake,
        wake,
        steer,
        stop,
        going,
        pulse,
        drain: tokio::spawn(drain.run()),
        merge: tokio::spawn(merge.run()),
        metrics,
    }
}

const LONG: Duration = Duration::from_secs(30);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("it takes milliseconds")
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

/// Makes epochs safe when the test says so.
struct Slow(mpsc::Receiver<()>, Kept);

impl Outbox for Slow {
    async fn put(&mut self, epoch: Vec<Packed>) -> Result<(), OutboxClosed> {
        self.0.recv().await.ok_or(OutboxClosed)?;
        self.1.put(epoch).await
    }
}

/// Nothing is dropped in a channel: the drain waits, and the tables absorb.
#[tokio::test]
async fn an_epoch_that_is_not_safe_makes_the_drain_wait() {
    let (allow, allowed) = mpsc::channel(8);
    let kept = Kept::default();
    let running = start(Duration::from_millis(10), Slow(allowed, kept.clone()));
    allow.send(()).await.expect("the stage listens");
    until(|| running.fake.tables().flips.len() == 2).await;
    running.fake.tables().packets = 5;
    tokio::time::sleep(Duration::from_millis(100)).await;
    {
        let tables = running.fake.tables();
        assert_eq!((tables.flips.len(), tables.drained), (2, Some(1)));
    }
    for _ in 0..2 {
        allow.send(()).await.expect("the stage listens");
    }
    until(|| kept.sums().1 == 5).await;
    assert_eq!(kept.sums().0, [0, 1, 2], "what was counted meanwhile came with the next epoch");
}

/// S8: what earlier sensors left is drained first, under its own generation, and gone only then; an epoch
/// that is safe is not read again.
#[tokio::test]
async fn what_earlier_sensors_left_comes_first() {
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let fake = Fake::default();
    {
        let mut tables = fake.tables();
        tables.past = vec![(one, vec![(4, 40), (5, 50)]), (two, vec![(8, 80), (9, 90)])];
        tables.unreleased = Some((2, 20));
    }
    let kept = Kept::default();
    let spooled = HashMap::from([(two, 8), (fake.generation(), 1)]);
    let running = start_over(fake, spooled, LONG, kept.clone());
    until(|| kept.sums().0.len() == 4).await;
    until(|| running.fake.tables().drained.is_none()).await;
    let batches: Vec<_> = kept
        .0
        .lock()
        .expect("no panic")
        .iter()
        .map(|batch| (batch.generation.as_u128(), batch.epoch, batch.packets))
        .collect();
    assert_eq!(batches, [(1, 4, 40), (1, 5, 50), (2, 9, 90), (7, 2, 20)]);
    assert_eq!(
        running.fake.tables().log,
        ["1 released 4", "1 released 5", "1 discarded", "2 released 9", "2 discarded"]
    );
}

/// S8: the batch was written and the kernel's half not released when the sensor was killed.
#[tokio::test]
async fn an_epoch_that_is_safe_is_not_read_again() {
    let fake = Fake::default();
    fake.tables().unreleased = Some((3, 30));
    let kept = Kept::default();
    let running = start_over(
        fake.clone(),
        HashMap::from([(fake.generation(), 3)]),
        Duration::from_millis(10),
        kept.clone(),
    );
    until(|| !kept.sums().0.is_empty()).await;
    assert_eq!(running.fake.tables().log, ["own 3 was safe"]);
    assert_eq!(kept.0.lock().expect("no panic")[0].epoch, 4);
}

/// S9: SIGTERM stays, SIGINT leaves; the kernel side is told which before the last flip.
#[tokio::test]
async fn the_kernel_side_is_told_how_the_sensor_goes() {
    for stop in [Stop::Stay, Stop::Leave] {
        let running = start(LONG, Kept::default());
        running.going.send_replace(stop);
        running.stop.send_replace(true);
        within(running.drain).await.expect("no panic").expect("a clean end");
        assert_eq!(running.fake.tables().stopped, Some(stop));
    }
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
        taken: None,
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
