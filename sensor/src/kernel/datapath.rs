//! The datapath of a running sensor: programs on interfaces, tables behind them.
//!
//! With pins, an earlier sensor's tables are taken over where they have the same layout and sizes: epochs and
//! generation go on. Tables of other sizes get a successor, and are drained to their end when every hook has
//! been switched: see [`Predecessor`]. The order is `open`, `attach` for each interface, `retire_unclaimed`,
//! the predecessors, `resume`, and then flips.

use std::{
    future::Future,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Instant,
};

use aya::{Ebpf, maps::RingBuf};
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};
use uuid::Uuid;
use weir_sensor_common::MAX_POINTS;
use weir_wire::{Direction, Totals};

use super::{
    Attachment, Drained, EgressMode, EventTally, Events, FilterAction, FilterRule, FlowObservation, Geometry,
    IngressMode, KernelError, Lists, Pinning, PointTotals, Settings, Wakeups,
    attach::{Hook, Programs, TC_EGRESS, TC_INGRESS, filter_handle},
    clock::{Clocks, WallClock},
    event,
    identity::{Birth, IDENTITY, Identity, map_memory},
    interface::{Framing, Interface},
    object::{self, Clock, Features, Load, Maps},
    pins::{self, Folder, Generation, Hooks, PinnedHook},
    points::{Place, Point, Points, RECORDS},
    predecessor::Predecessor,
    settings::Steering,
    sys,
    tables::Tables,
};

/// The program that reads the clocks.
const CLOCK: &str = "weir_clock";

/// Programs and tables. Dropping it detaches the programs, unless they are pinned.
pub struct Datapath {
    object: Ebpf,
    features: Features,
    tables: Tables,
    points: Points,
    clocks: Clocks,
    attached: Vec<Attached>,
    generation: Uuid,
    pins: Option<Pins>,
    /// Fingerprint of the programs.
    build: u64,
}

/// Where all of it outlives the sensor.
struct Pins {
    folder: Folder,
    hooks: Hooks,
    generation: PathBuf,
}

struct Attached {
    interface: String,
    ifindex: u32,
    hooks: Vec<Hook>,
}

/// What [`Datapath::open`] finds.
pub struct Opened {
    pub datapath: Datapath,
    /// Older tables with what is left in them, the oldest first. Until every interface is attached, programs
    /// may still count there: they are drained after that.
    pub predecessors: Vec<Predecessor>,
    /// Whether the tables are those of an earlier sensor.
    pub adopted: bool,
}

impl Datapath {
    /// Loads the object and makes the tables, of this process alone; nothing is attached yet.
    pub fn load(settings: &Settings) -> Result<Self, KernelError> {
        Self::open(settings, None).map(|opened| opened.datapath)
    }

    /// Loads the object, and takes over the tables of an earlier sensor or makes new ones; no program of this
    /// sensor is attached yet, while those of an earlier one count on.
    pub fn open(settings: &Settings, pinning: Option<&Pinning>) -> Result<Opened, KernelError> {
        settings.validate()?;
        let geometry = Geometry::new(settings)?;
        let features = Features::detect();
        let build = pinning
            .and_then(|pinning| pinning.build)
            .unwrap_or_else(|| object::fingerprint(settings, features));
        let opening = Opening { settings, geometry, features, build };
        let Some(pinning) = pinning else {
            let datapath = opening.fresh(None, 0)?;
            return Ok(Opened { datapath, predecessors: Vec::new(), adopted: false });
        };
        let folder = Folder::lock(pinning)?;
        let mut generations = folder.generations()?;
        if generations.iter().any(Generation::is_elsewhere) {
            // Interfaces that are gone keep nobody from moving.
            for hook in folder.hooks().list()? {
                if hook.is_alive()? {
                    return Err(KernelError::OtherNamespace(folder.path().to_owned()));
                }
            }
        }
        let next = generations.last().map_or(1, |last| last.identity.read().sequence + 1);
        let current = generations.pop_if(|last| last.suits(geometry));
        let adopted = current.is_some();
        let datapath = match current {
            Some(current) => opening.adopt(folder, current)?,
            None => opening.fresh(Some(folder), next)?,
        };
        let predecessors = generations
            .into_iter()
            .map(|generation| Predecessor::open(generation, datapath.clocks.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Opened { datapath, predecessors, adopted })
    }

    /// Identity of the tables: counts of different generations never meet.
    pub fn generation(&self) -> Uuid {
        self.generation
    }

    /// Starts to count on an interface, or goes on where an earlier sensor did.
    pub fn attach(
        &mut self,
        interface: &str,
        ingress: IngressMode,
        egress: EgressMode,
    ) -> Result<Attachment, KernelError> {
        let found = Interface::find(interface)?;
        // By its index: an interface may have been renamed since.
        if self.attached.iter().any(|attached| attached.ifindex == found.index) {
            return Err(KernelError::AttachedTwice(interface.to_owned()));
        }
        if let Framing::Other(kind) = found.framing {
            return Err(KernelError::System {
                what: "attach to an interface",
                source: std::io::Error::other(format!(
                    "`{interface}` has link type {kind}: neither Ethernet nor IP; leave it out"
                )),
            });
        }
        let ifindex = found.index;
        // The points are known before the first packet comes: nothing is seen and not counted.
        let (stack, layer3) = (found.stack(), found.framing == Framing::Layer3);
        // A program that took a point before may count into the next epoch still.
        let last_epoch = self.tables.epoch() + 1;
        self.points.add(Place { interface, ifindex, stack, layer3 }, last_epoch)?;
        let left = match &self.pins {
            Some(pins) => pins.hooks.list()?.into_iter().any(|hook| hook.ifindex == ifindex),
            None => false,
        };
        let mut warnings = Vec::new();
        let mut hooks = Vec::new();
        let attached = self
            .hook(&found, Direction::Ingress, &mut hooks, |programs, running| {
                programs.ingress(&found, ingress, running, &mut warnings)
            })
            .and_then(|ingress| {
                let egress = self.hook(&found, Direction::Egress, &mut hooks, |programs, running| {
                    programs.egress(&found, egress, running, &mut warnings)
                })?;
                Ok((ingress, egress))
            });
        self.attached.push(Attached { interface: interface.to_owned(), ifindex, hooks });
        match attached {
            Ok((ingress, egress)) => {
                Ok(Attachment { interface: interface.to_owned(), ifindex, ingress, egress, warnings })
            }
            // What an earlier sensor counts on counts on: the operator mends the configuration meanwhile.
            Err(error) if left => {
                self.attached.pop();
                Err(error)
            }
            Err(error) => {
                self.detach(interface)?;
                Err(error)
            }
        }
    }

    /// Hooks one direction, and notes which program is there.
    fn hook(
        &mut self,
        interface: &Interface,
        direction: Direction,
        hooks: &mut Vec<Hook>,
        hook: impl FnOnce(&mut Programs<'_>, u64) -> Result<Option<(Hook, String)>, KernelError>,
    ) -> Result<Option<String>, KernelError> {
        let point = self.points.find(interface.index, direction).map(|point| (point.id, point.program));
        let (id, running) = point.unwrap_or_default();
        if running != self.build {
            self.points.set_program(id, 0);
        }
        let hooked = hook(&mut self.programs(), running)?;
        self.points.set_program(id, if hooked.is_some() { self.build } else { 0 });
        Ok(hooked.map(|(hook, name)| {
            hooks.push(hook);
            name
        }))
    }

    fn programs(&mut self) -> Programs<'_> {
        let Self { object, features, pins, build, .. } = self;
        Programs {
            object,
            features: *features,
            hooks: pins.as_ref().map(|pins| &pins.hooks),
            build: *build,
            handle: filter_handle(pins.as_ref().map(|pins| pins.folder.path())),
        }
    }

    /// After the last `attach`: takes programs off the interfaces that an earlier sensor watched and this one
    /// does not, or that are gone. What they counted is drained with the epoch. A line for each.
    pub fn retire_unclaimed(&mut self) -> Result<Vec<String>, KernelError> {
        let Some(pins) = &self.pins else { return Ok(Vec::new()) };
        let claimed = |hook: &PinnedHook| {
            let hooks = self.attached.iter().flat_map(|attached| &attached.hooks);
            hooks.into_iter().any(|claimed| matches!(claimed, Hook::Pinned(claimed) if claimed == hook))
        };
        let unclaimed: Vec<PinnedHook> =
            pins.hooks.list()?.into_iter().filter(|hook| !claimed(hook)).collect();
        let mut retired = Vec::new();
        for hook in unclaimed {
            let way = if hook.direction == Direction::Ingress { "ingress" } else { "egress" };
            let gone = if hook.is_alive()? { "not watched any more" } else { "gone" };
            retired.push(format!("interface {}, {way}, {}: {gone}", hook.ifindex, hook.kind.shown()));
            self.programs().detach(Hook::Pinned(hook))?;
        }
        let epoch = self.tables.epoch() + 1;
        let watched: Vec<u32> = self.attached.iter().map(|attached| attached.ifindex).collect();
        let ifindexes = self.points.iter().map(|point| point.ifindex);
        for ifindex in ifindexes.filter(|ifindex| !watched.contains(ifindex)).collect::<Vec<_>>() {
            self.points.retire(ifindex, epoch)?;
        }
        Ok(retired)
    }

    /// Stops to count on an interface; what was counted is drained with the epoch.
    pub fn detach(&mut self, interface: &str) -> Result<(), KernelError> {
        let place = self
            .attached
            .iter()
            .position(|attached| attached.interface == interface)
            .ok_or_else(|| KernelError::NotAttached(interface.to_owned()))?;
        let attached = self.attached.swap_remove(place);
        let mut programs = self.programs();
        // An interface that is gone took its programs with it: its points must be retired all the same.
        let detached = attached.hooks.into_iter().map(|hook| programs.detach(hook)).fold(Ok(()), Result::and);
        // A program that took the point before may count into the next epoch still.
        self.points.retire(attached.ifindex, self.tables.epoch() + 1)?;
        detached
    }

    /// Stops to count anywhere: the next flip drains the last of it. The first error is returned, the rest
    /// is detached all the same.
    pub fn detach_all(&mut self) -> Result<(), KernelError> {
        let interfaces: Vec<String> =
            self.attached.iter().map(|attached| attached.interface.clone()).collect();
        interfaces.iter().map(|interface| self.detach(interface)).fold(Ok(()), Result::and)
    }

    /// Ends, and leaves everything that is pinned: the programs count on until the next sensor.
    pub fn leave(self) {}

    /// Ends for good: detaches what is attached and removes the pins, with all that is not drained.
    pub fn discard(mut self) -> Result<(), KernelError> {
        self.detach_all()?;
        self.retire_unclaimed()?;
        let Some(pins) = self.pins.take() else { return Ok(()) };
        pins::discard(&pins.generation)?;
        // With a predecessor that nobody drained, the folder stays.
        if pins.folder.generations()?.is_empty() {
            pins.folder.remove()?;
        }
        Ok(())
    }

    /// The half that an earlier sensor had drained and not released, before the first flip. `spooled` is the
    /// last epoch of this generation that is safe elsewhere: then the half is zeroed, else it is given, to be
    /// made safe and released. It may be asked for twice and is the same.
    pub fn resume(&mut self, spooled: Option<u64>) -> Result<Option<Drained>, KernelError> {
        if self.tables.resume(spooled)? {
            return self.flip().map(Some);
        }
        // What was zeroed now was released by nobody.
        let released = self.tables.epoch();
        if let Some(last) = released.checked_sub(1) {
            self.points.forget(last);
        }
        Ok(None)
    }

    /// Ends the epoch and reads what was counted in it. Blocks for an RCU grace period, 1 to 50 ms.
    /// [`Self::release`] must follow before the next flip.
    pub fn flip(&mut self) -> Result<Drained, KernelError> {
        flip(&mut self.tables, &self.points, &self.clocks)
    }

    /// Zeroes the drained half: only when its counts are safe elsewhere.
    pub fn release(&mut self, epoch: u64) -> Result<(), KernelError> {
        self.tables.release(epoch)?;
        self.points.forget(epoch);
        Ok(())
    }

    /// New sampling and filter rules, from the next epoch on.
    pub fn update(
        &mut self,
        sampling_interval: u32,
        rules: &[FilterRule],
        default: FilterAction,
    ) -> Result<(), KernelError> {
        self.tables.steer(Steering::new(sampling_interval, rules, default)?);
        Ok(())
    }

    /// Totals of the epoch that is being written, as they are now. What is in flows is not read but follows
    /// from the rest; a drain counts it.
    pub fn totals(&self) -> Vec<PointTotals> {
        let mut running = totals(&self.tables, &self.points, self.tables.epoch(), &[]);
        for PointTotals { totals, .. } in &mut running {
            totals.flow_packets = totals.frames.saturating_sub(totals.accounted());
        }
        running
    }

    /// The ring of wake-ups; `None` the second time. Must be called within a tokio runtime.
    pub fn take_wakeups(&mut self) -> Option<Wakeups> {
        let ring = RingBuf::try_from(self.object.take_map("WEIR_WAKEUPS")?).ok()?;
        Wakeups::new(ring).ok()
    }

    /// The maps of threat lists; an error the second time.
    pub fn take_lists(&mut self) -> Result<Lists, KernelError> {
        Lists::take(&mut self.object)
    }

    /// The ring of events, and what did not get into it; `None` the second time. After the last `attach`, which
    /// tells the names of interfaces. Must be called within a tokio runtime.
    pub fn take_events(&mut self) -> Option<Events> {
        let points = self.points.iter();
        let names = points.map(|point| (point.ifindex, point.interface.as_str().into())).collect();
        let ring = event::ring(&mut self.object).ok()?;
        let tally = EventTally::new(Maps::Object(&mut self.object)).ok()?;
        Events::new(ring, tally, names).ok()
    }

    /// A task that carries the programs' own messages into the log; `None` the second time. Must be called
    /// within a tokio runtime.
    pub fn log_forwarder(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let logger = EbpfLogger::init(&mut self.object).ok()?;
        // SAFETY: the logger owns its ring's descriptor and keeps it open.
        let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }.ok()?;
        Some(async move {
            while let Ok(mut guard) = logger.readable_mut().await {
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
        })
    }
}

/// What opening has to go by.
struct Opening<'a> {
    settings: &'a Settings,
    geometry: Geometry,
    features: Features,
    build: u64,
}

impl Opening<'_> {
    fn steering(&self) -> Result<Steering, KernelError> {
        let Settings { sampling_interval, filter, filter_default, .. } = self.settings;
        Steering::new(*sampling_interval, filter, *filter_default)
    }

    /// The object, with all programs in the kernel.
    fn load(&self, seed: u64, pins: Option<&Path>) -> Result<Ebpf, KernelError> {
        let load = Load { geometry: self.geometry, clock: Clock::Kernel, seed, pins };
        let mut object = object::load(self.settings, load)?;
        // All at once: a map that is taken out of the object and closed would be missing to a later load.
        let mut programs = Programs::unpinned(&mut object, self.features);
        for program in [self.features.xdp_program(), TC_EGRESS, TC_INGRESS, CLOCK] {
            programs.load(program)?;
        }
        Ok(object)
    }

    /// New tables; pinned, if there is a folder.
    fn fresh(&self, folder: Option<Folder>, sequence: u64) -> Result<Datapath, KernelError> {
        let seed = rand::random();
        let making = folder.as_ref().map(Folder::begin).transpose()?;
        let mut object = self.load(seed, making.as_deref())?;
        let identity = Identity::new(Birth { geometry: self.geometry, seed, build: self.build, sequence })?;
        let tables = Tables::fresh(&mut object, identity, self.steering()?)?;
        let points = Points::new(&mut object, self.settings.max_points)?;
        let clocks = clocks(&object, &tables)?;
        // A flip needs to know when its epoch began, also that of a sensor which is killed before its first.
        tables.begin(WallClock::measure().begin(0, clocks.read()?));
        let mut pins = None;
        if let Some((folder, making)) = folder.zip(making) {
            tables.identity().pin(&making.join(IDENTITY))?;
            let records = making.join(RECORDS);
            sys::pin(points.records().fd(), &records)
                .map_err(KernelError::pins("pin the records of points", &records))?;
            let generation = folder.finish(tables.identity().generation())?;
            pins = Some(Pins { hooks: folder.hooks(), folder, generation });
        }
        Ok(self.datapath(object, tables, points, clocks, pins))
    }

    /// The tables of an earlier sensor.
    fn adopt(&self, folder: Folder, current: Generation) -> Result<Datapath, KernelError> {
        let Generation { path, identity } = current;
        let mut object = self.load(identity.read().seed, Some(&path))?;
        let (tables, points) = adopt_tables(Maps::Object(&mut object), &path, identity, self.steering()?)?;
        tables.identity().move_here();
        tables.identity().set_build(self.build);
        let clocks = clocks(&object, &tables)?;
        let pins = Some(Pins { hooks: folder.hooks(), folder, generation: path });
        Ok(self.datapath(object, tables, points, clocks, pins))
    }

    fn datapath(
        &self,
        object: Ebpf,
        tables: Tables,
        points: Points,
        clocks: Clocks,
        pins: Option<Pins>,
    ) -> Datapath {
        Datapath {
            object,
            features: self.features,
            generation: tables.identity().generation(),
            tables,
            points,
            clocks,
            attached: Vec::new(),
            pins,
            build: self.build,
        }
    }
}

/// The tables and points of a generation that is pinned at `path`.
pub(super) fn adopt_tables(
    mut maps: Maps<'_>,
    path: &Path,
    identity: Identity,
    steering: Steering,
) -> Result<(Tables, Points), KernelError> {
    let records = path.join(RECORDS);
    let fd = sys::pinned(&records).map_err(KernelError::pins("open the records of points", &records))?;
    let records = map_memory(RECORDS, fd, identity.geometry().points as usize)?;
    let points = Points::adopt(maps.again(), records)?;
    Ok((Tables::adopt(maps, identity, steering)?, points))
}

fn clocks(object: &Ebpf, tables: &Tables) -> Result<Clocks, KernelError> {
    let program = object
        .program(CLOCK)
        .ok_or(KernelError::MissingMap(CLOCK))?
        .fd()
        .and_then(|fd| fd.as_fd().try_clone_to_owned().map_err(Into::into))
        .map_err(KernelError::program(CLOCK))?;
    Ok(Clocks::new(program, tables.control()?))
}

/// Ends an epoch, or takes up the one that was ended, and reads it.
pub(super) fn flip(tables: &mut Tables, points: &Points, clocks: &Clocks) -> Result<Drained, KernelError> {
    let clock = WallClock::measure();
    let now = clock.begin(0, clocks.read()?);
    let started = Instant::now();
    let closed = tables.flip(now)?;
    let grace = started.elapsed();
    let mut half = tables.read(WallClock::of_epoch(closed.from, closed.to))?;
    half.figures.grace = grace;
    half.figures.clock_step_ns = WallClock::step(closed.from, closed.to);
    let window_start_ns = closed.from.wall_ns;
    Ok(Drained {
        epoch: closed.epoch,
        window_start_ns,
        // A clock that was set back must not end the window before it began.
        window_end_ns: closed.to.wall_ns.max(window_start_ns),
        sampling_interval: half.sampling_interval,
        points: totals(tables, points, closed.epoch, &half.flows),
        links: half.links,
        flows: half.flows,
        figures: half.figures,
    })
}

/// Totals of all points in an epoch: the programs' counters, and the sum of the slots.
pub(super) fn totals(
    tables: &Tables,
    points: &Points,
    epoch: u64,
    flows: &[FlowObservation],
) -> Vec<PointTotals> {
    let mut in_flows = [(0, 0); MAX_POINTS as usize + 1];
    for flow in flows {
        if let Some((packets, octets)) = in_flows.get_mut(usize::from(flow.point)) {
            *packets += flow.packets;
            *octets += flow.octets;
        }
    }
    points
        .iter()
        .map(|Point { id, interface, ifindex, direction, stack, .. }| PointTotals {
            id: (*id).into(),
            interface: interface.clone(),
            ifindex: *ifindex,
            direction: *direction,
            stack: *stack,
            totals: {
                let (flow_packets, flow_octets) = in_flows[usize::from(*id)];
                Totals { flow_packets, flow_octets, ..tables.counters(epoch, *id) }
            },
        })
        .collect()
}
