//! The daemon: builds the stages from the configuration, supervises them, and ends them in order.
//!
//! Called by the command line. The order of the end: the drain task ends the last epoch, the merge task
//! puts it into the spool, the courier delivers what it can within the deadline; the rest waits on disk for
//! the next start.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_trace::Tracer;
use weir_wire::Direction;

use crate::config::Config;
use crate::control::{Heart, Pushed, Renewal, Report};
use crate::detect::Engine;
use crate::enrich::{Daily, Enricher, Places, Processes, SharedNames};
use crate::flow::{Limits, Merger};
use crate::health::{self, Health};
use crate::kernel::{Attachment, Datapath, Opened};
use crate::live::{self, Live, Shown};
use crate::metrics::Metrics;
use crate::pipeline::{
    self, CatchUp, Drain, DrainError, Kernel, Merge, MergeError, Onlooker, Pace, Proof, Pulse, Steps, Stop,
    Tuning, Witness,
};
use crate::ship::{Acknowledged, Client, Courier, Outbox, OutboxClosed, Pacing, Status};
use crate::spool::{Spool, socket};
use crate::steering::{self, Reload, Steering};
use crate::threat;

/// How long the spool's file may take to be closed; what was put into it is safe before that.
const CLOSING: Duration = Duration::from_secs(2);

/// Between two looks at settings that are on trial.
const LOOK: Duration = Duration::from_millis(250);

/// Runs the sensor until a signal stops it.
pub async fn run(config: Config, reload: Reload) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new().context("declare the metrics")?);
    let (config, book, on_trial) = steering::begin(config, &reload);
    metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    // All that can be wrong with the surroundings is found before a program is attached.
    let mut signals = Signals::new()?;
    let listener = health::bind(config.metrics.listen)
        .await
        .with_context(|| format!("listen on metrics.listen = {}", config.metrics.listen))?;
    let tracer = begin_traces(&config, &metrics)?;
    let client = config.control_plane.as_ref().map(|to| Client::new(to, tracer.clone())).transpose()?;
    let (known, onlooker) = onlooker(&config)?;
    // Before the kernel's tables: what they hold of earlier sensors is compared with what is safe already.
    let (spool, spooled) = match &client {
        Some(_) => open_spool(&config, &metrics)?,
        None => (None, HashMap::new()),
    };

    let pinning = config.pins.pinning();
    let Opened { mut datapath, predecessors, adopted } =
        Datapath::open(&config.kernel_settings(), pinning.as_ref())?;
    let attached = attach(&mut datapath, &config)?;
    for line in datapath.retire_unclaimed()? {
        tracing::info!("{line}: its programs are taken off");
    }
    // After attaching, which loads programs: a map that is taken out of the object cannot be linked to.
    if let Some(forwarder) = datapath.log_forwarder() {
        tokio::spawn(forwarder);
    }

    let (stop, stopping) = watch::channel(false);
    let (steer, steering) = mpsc::channel(1);
    let (pulse, pulses) = watch::channel(Pulse { last_drain: None, epoch: config.epoch.0 });
    let (epochs, handovers) = pipeline::channel();
    let generation = datapath.generation();
    tracing::info!(
        %generation, epoch = %config.epoch, adopted, predecessors = predecessors.len(),
        pinned = pinning.is_some(), "counting"
    );
    let threats = keep_lists(&mut datapath, &config, known, &metrics, &stopping)?;
    let names = SharedNames::new(config.events.names.limits());
    let witnesses: Vec<Box<dyn Witness>> = vec![Box::new(onlooker.clone())];
    let catch_up = read_events(&mut datapath, &config, &names, witnesses, &metrics)?;
    let wakes = datapath.take_wakeups();
    if wakes.is_none() {
        tracing::warn!("the kernel side offers no wake-ups: a full table is noticed when its epoch ends");
    }
    let (going, how) = watch::channel(Stop::Stay);
    let pace =
        Pace { epoch: config.epoch.0, steer: steering, stopping: stopping.clone(), stop: how, spooled };
    let proof = Proof::new(PathBuf::from("/sys/class/net"), attached);
    let source = Kernel::new(datapath, predecessors, pinning.is_some());
    let drain = Drain::new(source, wakes, pace, epochs, proof, Arc::clone(&metrics), pulse);
    let drain = tokio::spawn(drain.run());

    let processes = config.processes.enabled.then(|| Processes::new(config.processes, Arc::clone(&metrics)));
    if let Some(processes) = &processes {
        tokio::spawn(processes.clone().keep(stopping.clone()));
    }
    let tuning = steering::tuning(&config);
    let watched = catch_up.map(|catch_up| (catch_up, onlooker));
    let mut steps = steps(&config, tuning.limits, (names, watched), &metrics);
    steps.enricher = steps.enricher.with_processes(processes);
    let (retune, tuning) = watch::channel(Arc::new(tuning));
    let mut steering = Steering::new(config.clone(), reload, (steer, retune), (book, on_trial), &metrics);
    let (offer, mut offers) = mpsc::channel(1);
    let merging = Merging { steps, handovers, tuning };
    let exchange = (offer, steering.reports());
    let WayOut { courier, delivery, merge } =
        way_out(&config, client.zip(spool.as_ref()), merging, exchange, &metrics, &stopping)?;
    let health = Health {
        metrics: Arc::clone(&metrics),
        pulse: pulses,
        delivery,
        spool: spool.as_ref().map(Spool::watch),
        started: Instant::now(),
    };
    let mut server = tokio::spawn(health::serve(listener, health));

    let mut stages = Stages { drain, merge, courier };
    let outcome = loop {
        tokio::select! {
            event = signals.next() => match event {
                Event::Stop(name, how) => {
                    tracing::info!(signal = name, "stopping: one last drain");
                    going.send_replace(how);
                    break Ok(());
                }
                Event::Reload => steering.reread().await,
            },
            Some(pushed) = offers.recv() => steering.offered(pushed).await,
            () = tokio::time::sleep(LOOK) => steering.look().await,
            failure = stages.failed() => break Err(failure),
            served = &mut server => break Err(told(served).context("serve the metrics")),
        }
    };
    steering.leave(outcome.is_ok());
    stop.send_replace(true);
    if let Some(threats) = threats {
        // Before the last drain: nothing is dropped that a stopped sensor would answer for.
        let _ = tokio::time::timeout(CLOSING, threats).await;
    }
    let ended = stages.end(config.shipping.shutdown_deadline.0, spool.as_ref()).await;
    server.abort();
    close(spool, &tracer).await;
    outcome.and(ended)
}

/// A disk or a collector that hangs must not keep a stopped sensor alive.
async fn close(spool: Option<Spool>, tracer: &Tracer) {
    if let Some(spool) = spool {
        let _ = tokio::time::timeout(CLOSING, spool.close()).await;
    }
    tracer.finish(CLOSING).await;
}

/// Spans of what the sensor ships, where a collector is named.
fn begin_traces(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Tracer> {
    for outcome in weir_trace::Outcome::ALL {
        metrics.spans.with_label_values(&[outcome.name()]);
    }
    let metrics = Arc::clone(metrics);
    Ok(Tracer::start(&config.traces, "weir-sensor", move |outcome, spans| {
        metrics.spans.with_label_values(&[outcome.name()]).inc_by(spans);
    })?)
}

/// Who learns of the link, and where the keeper of the threat lists tells it what they say of names.
fn onlooker(config: &Config) -> anyhow::Result<(watch::Sender<Arc<threat::Known>>, Onlooker)> {
    let (known, listed) = watch::channel(Arc::default());
    let listed = (!config.threats.lists.is_empty()).then_some(listed);
    let onlooker = Onlooker::new(config, listed).context("read the registry of vendors")?;
    Ok((known, onlooker))
}

/// The spool, and the last epoch of every generation that it knows. Its socket is a convenience: without it
/// the sensor runs on.
fn open_spool(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Option<Spool>, HashMap<uuid::Uuid, u64>)> {
    let settings = config.spool.settings();
    let path = settings.socket();
    let (spool, spooled) = Spool::open(settings, Arc::clone(metrics))
        .with_context(|| format!("open the spool in spool.folder = {}", config.spool.folder.display()))?;
    match socket::bind(&path) {
        Ok(listener) => drop(tokio::spawn(socket::serve(listener, spool.clone()))),
        Err(error) => tracing::warn!(%error, path = %path.display(),
            "`weir-sensor spool` and `ledger` cannot ask this sensor"),
    }
    Ok((Some(spool), spooled))
}

/// The task that keeps the threat lists. Where there are none, those of an earlier sensor are taken out.
fn keep_lists(
    datapath: &mut Datapath,
    config: &Config,
    known: watch::Sender<Arc<threat::Known>>,
    metrics: &Arc<Metrics>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let mut lists = datapath.take_lists()?;
    let heart = lists.heart()?;
    let threats = &config.threats;
    if threats.lists.is_empty() {
        heart.enforce_for(Duration::ZERO);
        lists.install(&[])?;
        return Ok(None);
    }
    let names = threats.lists.iter().map(|list| list.name.clone()).collect();
    metrics.name_lists(names);
    let control_plane = config.control_plane.as_ref().and_then(|control_plane| {
        let url = reqwest::Url::parse(&control_plane.url).ok()?;
        Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
    });
    let keeper =
        threat::Keeper::new(threats.clone(), control_plane, (lists, heart), known, Arc::clone(metrics))
            .with_context(|| format!("open threats.folder = {}", threats.folder.display()))?;
    let (orders, ordered) = mpsc::channel(4);
    let path = threats.socket();
    match socket::bind(&path) {
        Ok(listener) => drop(tokio::spawn(threat::socket::serve(listener, orders))),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "`weir-sensor lists` cannot ask this sensor");
        }
    }
    Ok(Some(tokio::spawn(keeper.run(ordered, stopping.clone()))))
}

/// Begins to read what packets say, and shows it to all `witnesses`; `None` where nothing is to be read. The end of
/// it is an error in the log and no more: counts do not need it.
fn read_events(
    datapath: &mut Datapath,
    config: &Config,
    names: &SharedNames,
    witnesses: Vec<Box<dyn Witness>>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Option<CatchUp>> {
    if !config.events.enabled {
        return Ok(None);
    }
    let Some(events) = datapath.take_events() else {
        tracing::warn!("the kernel side offers no events: flows get no names");
        return Ok(None);
    };
    let (catch_up, reader) =
        pipeline::observe(events, &config.events, config.epoch.0, names.clone(), witnesses, metrics)
            .context("read the kernel's events")?;
    let metrics = Arc::clone(metrics);
    metrics.events_read.set(1);
    tokio::spawn(async move {
        if let Err(error) = reader.run().await {
            tracing::error!(%error, "events are not read any more: flows get no names; counts go on");
        }
        metrics.events_read.set(0);
    });
    Ok(Some(catch_up))
}

/// Attaches every interface; what the kernel side has to say of each goes to the log. The directions in
/// which a program sees packets now.
fn attach(datapath: &mut Datapath, config: &Config) -> anyhow::Result<HashSet<(String, Direction)>> {
    if config.interfaces.is_empty() {
        anyhow::bail!(
            "nothing to watch: name an interface with --interface, or as [[interfaces]] in the configuration"
        );
    }
    let mut observed = HashSet::new();
    for interface in &config.interfaces {
        let attached = datapath.attach(&interface.name, interface.ingress.into(), interface.egress.into())?;
        let Attachment { interface, ifindex, ingress, egress, warnings } = attached;
        for (hook, direction) in [(&ingress, Direction::Ingress), (&egress, Direction::Egress)] {
            if hook.is_some() {
                observed.insert((interface.clone(), direction));
            }
        }
        let hook = |hook: Option<String>| hook.unwrap_or_else(|| "off".to_owned());
        tracing::info!(interface, ifindex, ingress = hook(ingress), egress = hook(egress), "attached");
        for warning in warnings {
            tracing::warn!(interface, "{warning}");
        }
    }
    Ok(observed)
}

/// What an epoch goes through.
fn steps(
    config: &Config,
    limits: Limits,
    (names, events): (SharedNames, Option<(CatchUp, Onlooker)>),
    metrics: &Arc<Metrics>,
) -> Steps {
    let lists = config.threats.lists.iter().map(|list| list.name.clone()).collect();
    let (catch_up, onlooker) = events.unzip();
    let names = catch_up.is_some().then(|| (names, Daily::new(config.events.names.per_day as usize)));
    let places = Places::new(&config.places.databases);
    Steps {
        merger: Merger::new(limits),
        catch_up,
        onlooker,
        enricher: Enricher::new(places, Arc::clone(metrics)).with_names(names),
        engine: Engine::new(&config.detect).with_lists(&config.detect, lists),
    }
}

/// What the merge task is made of.
struct Merging {
    steps: Steps,
    handovers: mpsc::Receiver<pipeline::Handover>,
    tuning: watch::Receiver<Arc<Tuning>>,
}

/// The tasks behind the drain.
struct WayOut {
    courier: Option<JoinHandle<Result<(), OutboxClosed>>>,
    delivery: Option<watch::Receiver<Status>>,
    merge: JoinHandle<Result<(), MergeError>>,
}

/// Merge task, courier and heartbeat; without a control plane the first alone.
fn way_out(
    config: &Config,
    control_plane: Option<(Client, &Spool)>,
    merging: Merging,
    (offer, report): (mpsc::Sender<Pushed>, watch::Receiver<Report>),
    metrics: &Arc<Metrics>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<WayOut> {
    let live = Live::default();
    match live::socket::bind(&config.spool.folder) {
        Ok(listener) => drop(tokio::spawn(live::socket::serve(listener, live.clone()))),
        Err(error) => tracing::warn!(%error, folder = %config.spool.folder.display(),
            "`weir-sensor top` cannot watch this sensor"),
    }
    let (Some((client, spool)), Some(settings)) = (control_plane, &config.control_plane) else {
        tracing::info!("no control_plane is configured: counts go to the metrics alone");
        let merge = merging.spawn(Shown { outbox: Acknowledged(Arc::clone(metrics)), live }, metrics);
        return Ok(WayOut { courier: None, delivery: None, merge });
    };
    let renewal = Renewal::patient(config.credential.renew_at_percent);
    let (interval, standing) = (config.heartbeat.interval.0, spool.watch());
    let heart = Heart::new(settings, client.credential(), interval, renewal, standing, Arc::clone(metrics))?;
    tokio::spawn(heart.taking(offer, report).run(stopping.clone()));
    let (status, delivery) = watch::channel(Status::default());
    let (pacing, stopping) = (Pacing::from(&config.shipping), stopping.clone());
    let courier = Courier::new(spool.clone(), client, pacing, Arc::clone(metrics), status, stopping);
    let courier = Some(tokio::spawn(carry(courier)));
    Ok(WayOut {
        courier,
        delivery: Some(delivery),
        merge: merging.spawn(Shown { outbox: spool.intake(), live }, metrics),
    })
}

impl Merging {
    fn spawn<O: Outbox>(self, outbox: O, metrics: &Arc<Metrics>) -> JoinHandle<Result<(), MergeError>> {
        let Self { steps, handovers, tuning } = self;
        tokio::spawn(Merge::new(steps, handovers, outbox, Arc::clone(metrics)).tuned_by(tuning).run())
    }
}

async fn carry(mut courier: Courier) -> Result<(), OutboxClosed> {
    courier.run().await
}

/// The running tasks.
struct Stages {
    drain: JoinHandle<Result<(), DrainError>>,
    merge: JoinHandle<Result<(), MergeError>>,
    courier: Option<JoinHandle<Result<(), OutboxClosed>>>,
}

impl Stages {
    /// Resolves when a stage has ended though nobody stopped it. Cancelling it loses nothing.
    async fn failed(&mut self) -> anyhow::Error {
        let courier = async {
            match &mut self.courier {
                Some(courier) => told(courier.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut self.drain => told(ended).context("the drain stage has ended"),
            ended = &mut self.merge => told(ended).context("the merge stage has ended"),
            ended = courier => ended.context("the shipping stage has ended"),
        }
    }

    /// Waits for the last epoch and its delivery, up to the deadline. What is not delivered is told.
    async fn end(self, deadline: Duration, spool: Option<&Spool>) -> anyhow::Result<()> {
        let Self { drain, merge, courier } = self;
        let began = Instant::now();
        let left = || deadline.saturating_sub(began.elapsed());
        let drained = async {
            if !drain.is_finished() {
                drain.await.context("the last drain")?.context("the last drain")?;
            }
            if !merge.is_finished() {
                merge.await.context("merge the last epoch")?.context("merge the last epoch")?;
            }
            anyhow::Ok(())
        };
        // A final drain that hangs in a full queue must not outlive the deadline either.
        let drained = tokio::time::timeout(left(), drained).await.unwrap_or_else(|_| {
            tracing::error!(
                ?deadline,
                "the last epoch could not be made safe before shipping.shutdown_deadline; it stays in the \
                 kernel's tables for the next start, where these are pinned"
            );
            Ok(())
        });
        if let Some(courier) = courier {
            let abort = courier.abort_handle();
            if tokio::time::timeout(left(), courier).await.is_err() {
                abort.abort();
            }
        }
        if let Some(standing) = spool.map(Spool::standing).filter(|standing| standing.batches > 0) {
            tracing::warn!(
                batches = standing.batches,
                bytes = standing.bytes,
                "batches were not delivered; they are in the spool and will be at the next start"
            );
        }
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "stopped");
        drained
    }
}

/// Why a stage ended.
fn told<E: std::error::Error + Send + Sync + 'static>(
    ended: Result<Result<(), E>, tokio::task::JoinError>,
) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("it returned"),
        Ok(Err(error)) => anyhow::Error::new(error),
        Err(error) => anyhow::Error::new(error),
    }
}

/// The signals that a daemon lives with.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Event {
    Stop(&'static str, Stop),
    Reload,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop("SIGTERM", Stop::Stay),
            // A person at a terminal: nothing is to go on behind their back.
            _ = self.interrupt.recv() => Event::Stop("SIGINT", Stop::Leave),
            _ = self.hangup.recv() => Event::Reload,
        }
    }
}
