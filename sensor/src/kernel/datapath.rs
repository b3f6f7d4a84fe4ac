//! The datapath of a running sensor: programs on interfaces, tables behind them.

use std::{future::Future, time::Instant};

use aya::{
    Ebpf,
    maps::RingBuf,
    programs::{Program, TestRun as _, TestRunOptions},
};
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};
use uuid::Uuid;
use weir_sensor_common::MAX_POINTS;
use weir_wire::Totals;

use super::{
    Attachment, Drained, EgressMode, FilterAction, FilterRule, FlowObservation, Geometry, IngressMode,
    KernelError, PointTotals, Settings, Wakeups,
    attach::{Hook, Programs, TC_EGRESS, TC_INGRESS},
    clock::{Reading, WallClock},
    interface::{Framing, Interface},
    object::{self, Clock, Features},
    points::{Point, Points},
    settings::Steering,
    tables::Tables,
};

/// The program that reads the clocks.
const CLOCK: &str = "weir_clock";

/// Programs and tables. Dropping it detaches the programs.
pub struct Datapath {
    object: Ebpf,
    features: Features,
    tables: Tables,
    points: Points,
    attached: Vec<Attached>,
    generation: Uuid,
    window_start_ns: i64,
    /// Both kernel clocks when the epoch began.
    began: Reading,
}

struct Attached {
    interface: String,
    ifindex: u32,
    hooks: Vec<Hook>,
}

impl Datapath {
    /// Loads the object and makes the tables; nothing is attached yet.
    pub fn load(settings: &Settings) -> Result<Self, KernelError> {
        settings.validate()?;
        let features = Features::detect();
        let geometry = Geometry::new(settings)?;
        let steering = Steering::new(settings.sampling_interval, &settings.filter, settings.filter_default)?;
        let mut object = object::load(settings, geometry, Clock::Kernel)?;
        // All at once: a map that is taken out of the object and closed would be missing to a later load.
        let mut programs = Programs { object: &mut object, features };
        for program in [features.xdp_program(), TC_EGRESS, TC_INGRESS, CLOCK] {
            programs.load(program)?;
        }
        let mut datapath = Self {
            tables: Tables::new(&mut object, geometry, steering)?,
            points: Points::new(&mut object, settings.max_points)?,
            object,
            features,
            attached: Vec::new(),
            generation: Uuid::new_v4(),
            window_start_ns: WallClock::measure().now(),
            began: Reading::default(),
        };
        datapath.began = datapath.read_clocks()?;
        Ok(datapath)
    }

    /// Identity of the tables: counts of different generations never meet.
    pub fn generation(&self) -> Uuid {
        self.generation
    }

    /// Starts to count on an interface.
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
        // The points are known before the first packet comes: nothing is seen and not counted.
        self.points.add(interface, found.index, found.stack(), found.framing == Framing::Layer3)?;
        let mut warnings = Vec::new();
        let mut hooks = Vec::new();
        let mut programs = Programs { object: &mut self.object, features: self.features };
        let attached = programs.ingress(&found, ingress, &mut warnings).and_then(|ingress| {
            let ingress = ingress.map(|(hook, name)| {
                hooks.push(hook);
                name
            });
            let egress = programs.egress(&found, egress)?.map(|(hook, name)| {
                hooks.push(hook);
                name
            });
            Ok((ingress, egress))
        });
        let ifindex = found.index;
        self.attached.push(Attached { interface: interface.to_owned(), ifindex, hooks });
        match attached {
            Ok((ingress, egress)) => {
                Ok(Attachment { interface: interface.to_owned(), ifindex, ingress, egress, warnings })
            }
            Err(error) => {
                self.detach(interface)?;
                Err(error)
            }
        }
    }

    /// Stops to count on an interface; what was counted is drained with the epoch.
    pub fn detach(&mut self, interface: &str) -> Result<(), KernelError> {
        let place = self
            .attached
            .iter()
            .position(|attached| attached.interface == interface)
            .ok_or_else(|| KernelError::NotAttached(interface.to_owned()))?;
        let attached = self.attached.swap_remove(place);
        let mut programs = Programs { object: &mut self.object, features: self.features };
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

    /// Ends the epoch and reads what was counted in it. Blocks for an RCU grace period, 1 to 50 ms.
    /// [`Self::release`] must follow before the next flip.
    pub fn flip(&mut self) -> Result<Drained, KernelError> {
        let clock = WallClock::measure();
        // Before the turn: a stamp of the new epoch is never taken for one of the old.
        let ended = self.read_clocks()?;
        let started = Instant::now();
        let (epoch, turned) = self.tables.flip(clock)?;
        let grace = started.elapsed();
        let mut half = self.tables.read(clock.between(self.began, ended))?;
        self.began = ended;
        half.figures.grace = grace;
        let window_start_ns = std::mem::replace(&mut self.window_start_ns, turned);
        Ok(Drained {
            epoch,
            window_start_ns,
            window_end_ns: turned,
            sampling_interval: half.sampling_interval,
            points: totals(&self.tables, &self.points, epoch, &half.flows),
            links: half.links,
            flows: half.flows,
            figures: half.figures,
        })
    }

    /// Runs the program that reads tick counter and precise clock at one instant.
    fn read_clocks(&self) -> Result<Reading, KernelError> {
        let Some(Program::Xdp(program)) = self.object.program(CLOCK) else {
            return Err(KernelError::MissingMap(CLOCK));
        };
        let mut options = TestRunOptions::new();
        options.data_in = Some(&[0; 14]);
        program
            .test_run(options)
            .map_err(|source| KernelError::Run { octets: 14, source: Box::new(source) })?;
        Ok(self.tables.reading())
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
