//! The events task: takes packets whose bytes are wanted out of the kernel's ring, and queues them for the witness
//! thread.
//!
//! This is observation, not counting: where the thread does not keep up, events are refused here by the queue's
//! bound or in the kernel by a full ring, and each refusal is counted. Nothing waits for it, and no count depends
//! on it; the merge asks it to catch up ([`CatchUp`]), and waits no longer than it chooses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{self, sleep_until};

use crate::kernel::{Event, EventClass, EventCounts, Events, KernelError};
use crate::metrics::{EventRefusal, Metrics};

/// How often the programs' own counts are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the ring gathers once it was empty: to be woken for each event costs more than to read it. In so short a
/// time no ring fills.
const REST: Duration = Duration::from_millis(2);

/// Why the task has ended.
#[derive(Debug, Error)]
pub enum EventsError {
    #[error("read the ring of events: {0}")]
    Ring(#[from] std::io::Error),
    #[error("start the thread that reads events: {0}")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What goes to the witness thread.
pub(super) enum Message {
    Event(Event),
    /// All that came before has been looked at.
    UpToHere(thread::Sender<()>),
}

/// The way to the witness thread, bounded in octets.
pub(super) struct Queue {
    sender: thread::Sender<Message>,
    waiting: Arc<AtomicUsize>,
    bound: usize,
}

/// The thread's end of it.
pub(super) struct Queued {
    pub(super) receiver: thread::Receiver<Message>,
    waiting: Arc<AtomicUsize>,
}

/// Octets that an event takes while it waits.
fn octets(event: &Event) -> usize {
    size_of::<Message>() + event.bytes.len()
}

/// A queue of at most `bound` octets.
pub(super) fn queue(bound: usize) -> (Queue, Queued) {
    let (sender, receiver) = thread::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Queue { sender, waiting: Arc::clone(&waiting), bound }, Queued { receiver, waiting })
}

impl Queue {
    /// Whether there was room.
    pub(super) fn offer(&self, event: Event) -> bool {
        let octets = octets(&event);
        // One task alone adds: what was read here is at most too much.
        if self.waiting.load(Ordering::Relaxed) + octets > self.bound {
            return false;
        }
        self.waiting.fetch_add(octets, Ordering::Relaxed);
        self.sender.send(Message::Event(event)).is_ok()
    }

    /// Past the bound: for what takes no room.
    pub(super) fn send(&self, message: Message) {
        // A thread that has gone does not answer, and a wait for it ends by that.
        let _ = self.sender.send(message);
    }
}

impl Queued {
    /// An event has left the queue.
    pub(super) fn taken(&self, event: &Event) {
        self.waiting.fetch_sub(octets(event), Ordering::Relaxed);
    }
}

/// Asks that all which was seen up to now be looked at.
pub struct CatchUp {
    asks: mpsc::Sender<thread::Sender<()>>,
    patience: Duration,
    metrics: Arc<Metrics>,
}

/// An answer that is on its way.
pub struct Asked<'a>(Option<thread::Receiver<()>>, &'a CatchUp);

impl CatchUp {
    /// `patience` bounds how long a wait takes.
    pub(super) fn new(
        patience: Duration,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<thread::Sender<()>>) {
        let (asks, asked) = mpsc::channel(1);
        (Self { asks, patience, metrics }, asked)
    }

    /// Does not wait.
    #[must_use]
    pub fn ask(&self) -> Asked<'_> {
        let (done, answer) = thread::channel();
        Asked(self.asks.try_send(done).is_ok().then_some(answer), self)
    }
}

impl Asked<'_> {
    /// Waits for the answer, on a thread that may block. What is not looked at by then names later flows only.
    pub fn wait(self) {
        let Self(answer, CatchUp { patience, metrics, .. }) = self;
        let began = Instant::now();
        if answer.is_none_or(|answer| answer.recv_timeout(*patience).is_err()) {
            metrics.events_late.inc();
        }
        metrics.event_wait.observe(began.elapsed().as_secs_f64());
    }
}

/// The task.
pub struct Reader {
    events: Events,
    queue: Queue,
    asked: mpsc::Receiver<thread::Sender<()>>,
    metrics: Arc<Metrics>,
    /// What the metrics have of the programs' counts.
    told: Vec<(EventClass, EventCounts)>,
}

impl Reader {
    /// The programs' counts go on across restarts: what was counted before is not this sensor's.
    pub(super) fn new(
        events: Events,
        queue: Queue,
        asked: mpsc::Receiver<thread::Sender<()>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, EventsError> {
        let told = EventClass::ALL
            .into_iter()
            .map(|class| Ok((class, events.counts(class)?)))
            .collect::<Result<_, KernelError>>()?;
        Ok(Self { events, queue, asked, metrics, told })
    }

    /// Runs until nobody can ask any more, which is when the merge task has ended.
    pub async fn run(mut self) -> Result<(), EventsError> {
        let mut look = time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut rests = None;
        loop {
            let Self { events, queue, metrics, asked, .. } = &mut self;
            tokio::select! {
                () = sleep_until(rests.unwrap_or_else(time::Instant::now)), if rests.is_some() => rests = None,
                read = events.read(|event| hand_over(event, queue, metrics)), if rests.is_none() => {
                    rests = (read? < Events::AT_ONCE).then(|| time::Instant::now() + REST);
                }
                _ = look.tick() => self.look()?,
                done = asked.recv() => match done {
                    Some(done) => self.catch_up(done).await?,
                    None => return Ok(()),
                },
            }
            // A flood keeps the ring readable: other tasks of this worker have their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Empties the ring. What is added meanwhile is not owed, so a flood ends it as well.
    async fn catch_up(&mut self, done: thread::Sender<()>) -> Result<(), EventsError> {
        /// More records than the ring can hold of the smallest frames, in turns.
        const TURNS: usize = 64;
        let Self { events, queue, metrics, .. } = self;
        for _ in 0..TURNS {
            if events.read_now(|event| hand_over(event, queue, metrics)) < Events::AT_ONCE {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.look()?;
        self.queue.send(Message::UpToHere(done));
        Ok(())
    }

    /// Takes over what the programs have counted since.
    fn look(&mut self) -> Result<(), EventsError> {
        for (class, told) in &mut self.told {
            let now = self.events.counts(*class)?;
            for (reason, refused, before) in [
                (EventRefusal::Budget, now.over_budget, told.over_budget),
                (EventRefusal::RingFull, now.ring_full, told.ring_full),
                (EventRefusal::Unreadable, now.unreadable, told.unreadable),
            ] {
                self.metrics.event_refused(*class, reason, refused.saturating_sub(before));
            }
            let name = class.name();
            self.metrics.events_cut.with_label_values(&[name]).inc_by(now.cut.saturating_sub(told.cut));
            self.metrics
                .events_chosen
                .with_label_values(&[name])
                .inc_by(now.selected.saturating_sub(told.selected));
            *told = now;
        }
        Ok(())
    }
}

fn hand_over(event: Event, queue: &Queue, metrics: &Metrics) {
    let (class, octets) = (event.class, event.bytes.len() as u64);
    if queue.offer(event) {
        metrics.events.with_label_values(&[class.name()]).inc();
        metrics.event_octets.with_label_values(&[class.name()]).inc_by(octets);
    } else {
        metrics.event_refused(class, EventRefusal::QueueFull, 1);
    }
}
