//! The witness thread: reads what packets say, and shows it to everybody who learns from it.
//!
//! A thread of its own, so that no decryption and no lookup takes the workers' time from the drain. It owns the
//! [`Observer`]; [`Names`] are shared with the merge, which names flows by them. Whoever else learns from observations
//! is a [`Witness`]: what it tells the rest of the sensor it shares in the same way, or sends. What must stay true:
//! bytes that make a part of this panic end nothing but that part's memory, and are counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use weir_wire::Direction;

use super::events::{CatchUp, EventsError, Message, Queued, Reader, queue};
use crate::config;
use crate::enrich::SharedNames;
use crate::enrich::names::{Exchange, Outcome};
use crate::kernel::{Event, Events};
use crate::metrics::{Metrics, unix_seconds};
use crate::observe::{Frame, Framing, Observation, Observer};

/// How often what is due by time is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An observation, and where it was made.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    pub observation: &'a Observation,
    pub interface: &'a Arc<str>,
    pub ifindex: u32,
    /// A frame that the host forwards is seen where it enters and where it leaves: twice.
    pub direction: Direction,
    /// The DNS exchange that this ended.
    pub exchange: Option<&'a Exchange>,
}

/// Learns from observations. Called on one thread, in the order of the ring, each soon after its frame.
///
/// It must not wait for anything but a short lock: events queue up behind it, and what does not fit is refused.
/// Its memory must be bounded whatever strangers send.
pub trait Witness: Send {
    /// A fixed word by which its panics are counted.
    fn name(&self) -> &'static str;

    fn observe(&mut self, sighting: &Sighting<'_>);

    /// A question that nobody answered in time.
    fn unanswered(&mut self, _exchange: &Exchange) {}

    /// It panicked: what it holds may be half done, and it goes on after this.
    fn begin_anew(&mut self);
}

/// Begins to read events: the task's future, which ends with the [`CatchUp`], and the thread ends with the task.
/// `epoch` bounds how long a merge may wait.
pub fn observe(
    events: Events,
    settings: &config::Events,
    epoch: Duration,
    names: SharedNames,
    witnesses: Vec<Box<dyn Witness>>,
    metrics: &Arc<Metrics>,
) -> Result<(CatchUp, Reader), EventsError> {
    const MOST: Duration = Duration::from_millis(250);
    let (queue, queued) = queue(usize::try_from(settings.queue.0).unwrap_or(usize::MAX));
    let (catch_up, asked) = CatchUp::new(MOST.min(epoch / 2), Arc::clone(metrics));
    let reader = Reader::new(events, queue, asked, Arc::clone(metrics))?;
    let witnessing = Witnessing::new(queued, names, witnesses, Arc::clone(metrics));
    std::thread::Builder::new()
        .name("weir-witness".to_owned())
        .spawn(move || witnessing.run())
        .map_err(EventsError::Thread)?;
    Ok((catch_up, reader))
}

/// The thread.
pub(super) struct Witnessing {
    queued: Queued,
    observer: Observer,
    /// What observers before this one have forgotten: a panic begins a new one.
    forgotten_before: u64,
    names: SharedNames,
    witnesses: Vec<Box<dyn Witness>>,
    metrics: Arc<Metrics>,
}

impl Witnessing {
    pub(super) fn new(
        queued: Queued,
        names: SharedNames,
        witnesses: Vec<Box<dyn Witness>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { queued, observer: Observer::default(), forgotten_before: 0, names, witnesses, metrics }
    }

    /// Runs until the reader has gone and all that it queued is looked at.
    pub(super) fn run(mut self) {
        let mut looked = Instant::now();
        loop {
            match self.queued.receiver.recv_timeout(LOOK_EVERY) {
                Ok(Message::Event(event)) => {
                    self.queued.taken(&event);
                    self.event(&event);
                }
                Ok(Message::UpToHere(done)) => {
                    // Who asked may have lost patience.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look((unix_seconds() * 1e9) as i64);
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let frame = Frame {
            framing: if event.layer3 { Framing::Ip } else { Framing::Ethernet },
            bytes: &event.bytes,
            wire_octets: event.octets,
            offloaded_vlan: event.offloaded_vlan,
        };
        let Self { observer, metrics, .. } = self;
        let read = guarded("parser", metrics, || {
            let mut found = SmallVec::<[Observation; 2]>::new();
            observer.frame(&frame, event.time_ns, |observation| found.push(observation));
            found
        });
        let Some(found) = read else {
            self.forgotten_before += self.observer.forgotten();
            self.observer = Observer::default();
            return;
        };
        for observation in found {
            self.observed(event, &observation);
        }
    }

    fn observed(&mut self, event: &Event, observation: &Observation) {
        let Self { names, witnesses, metrics, .. } = self;
        metrics.observations.with_label_values(&[observation.seen.word()]).inc();
        let exchange = guarded("names", metrics, || names.lock().observe(observation)).flatten();
        if let Some(exchange) = &exchange {
            metrics.exchange(&exchange.outcome);
        }
        let sighting = Sighting {
            observation,
            interface: &event.interface,
            ifindex: event.ifindex,
            direction: event.direction,
            exchange: exchange.as_ref(),
        };
        for witness in witnesses {
            show(witness, metrics, |witness| witness.observe(&sighting));
        }
    }

    /// What is due by time.
    fn look(&mut self, now_ns: i64) {
        let Self { observer, names, witnesses, metrics, .. } = self;
        let due = guarded("names", metrics, || {
            let mut names = names.lock();
            metrics.named(names.octets(), names.forgotten());
            names.timed_out(now_ns)
        });
        for exchange in due.unwrap_or_default() {
            metrics.exchange(&Outcome::TimedOut);
            for witness in &mut *witnesses {
                show(witness, metrics, |witness| witness.unanswered(&exchange));
            }
        }
        metrics.observing(observer.octets_held(), self.forgotten_before + observer.forgotten());
    }
}

/// Shows a witness something; one that panics begins anew, and one that cannot even do that is left as it is.
fn show(witness: &mut Box<dyn Witness>, metrics: &Metrics, shown: impl FnOnce(&mut dyn Witness)) {
    let name = witness.name();
    if guarded(name, metrics, || shown(witness.as_mut())).is_none() {
        let _ = guarded(name, metrics, || witness.begin_anew());
    }
}

/// Calls what reads strangers' bytes. `None` where it panicked, which is counted and told.
fn guarded<T>(part: &'static str, metrics: &Metrics, call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call))
        .inspect_err(|_| {
            metrics.observe_panics.with_label_values(&[part]).inc();
            tracing::error!(part, "what a packet says made this part panic; its memory begins anew");
        })
        .ok()
}

#[cfg(test)]
mod tests;
