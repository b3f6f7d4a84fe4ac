//! Frames run through the real programs with `BPF_PROG_TEST_RUN`: `weir-sensor pcap`, and the unit test of
//! the datapath.

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp},
};

use weir_sensor_common::pins::Began;

use super::{
    Drained, Event, EventClass, EventCounts, EventTally, Geometry, KernelError, ListedPrefix, Lists,
    PointTotals, Settings,
    attach::Programs,
    clock::WallClock,
    datapath::totals,
    event::{self, Names},
    object::{self, Clock, Features, Load, Maps},
    points::{Place, Points},
    settings::Steering,
    tables::{Half, Tables},
};

/// How the frames of a capture begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayLink {
    Ethernet,
    RawIp,
}

/// Which program sees the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayProgram {
    #[default]
    Xdp,
    TcEgress,
    TcIngress,
}

/// Frames that the kernel takes: an Ethernet header at least, and at most what an IP packet of 65,535 octets
/// needs.
const FRAME_OCTETS: std::ops::RangeInclusive<usize> = 14..=65_549;

/// A test run sees its frame on the loopback interface.
const LOOPBACK: u32 = 1;

/// What stands for an interface.
const CAPTURE: &str = "capture";

/// Frames between looks at how full the tables are.
const LOOK_EVERY: u32 = 256;

/// Tables and one program that no interface feeds.
pub struct Replay {
    object: Ebpf,
    program: &'static str,
    lists: Option<Lists>,
    tables: Tables,
    points: Points,
    /// What full tables were drained of on the way.
    drained: Half,
    totals: Vec<PointTotals>,
    until_look: u32,
    first_ns: Option<i64>,
    last_ns: i64,
    ring: RingBuf<MapData>,
    tally: EventTally,
    names: Names,
}

impl Replay {
    /// For frames that begin as `link` says, seen by XDP.
    pub fn load(settings: &Settings, link: ReplayLink) -> Result<Self, KernelError> {
        Self::through(ReplayProgram::Xdp, settings, link)
    }

    /// For any of the programs.
    pub fn through(
        program: ReplayProgram,
        settings: &Settings,
        link: ReplayLink,
    ) -> Result<Self, KernelError> {
        settings.validate()?;
        let features = Features::detect();
        let geometry = Geometry::new(settings)?;
        let steering = Steering::new(settings.sampling_interval, &settings.filter, settings.filter_default)?;
        let mut object = object::load(settings, Load::unpinned(geometry, Clock::Replay))?;
        let program = match program {
            ReplayProgram::Xdp => features.xdp_program(),
            ReplayProgram::TcEgress => "weir_tc_egress",
            ReplayProgram::TcIngress => "weir_tc_ingress",
        };
        Programs::unpinned(&mut object, features).load(program)?;
        let tables = Tables::unpinned(&mut object, geometry, steering)?;
        let mut points = Points::new(&mut object, settings.max_points)?;
        let layer3 = link == ReplayLink::RawIp;
        points.add(Place { interface: CAPTURE, ifindex: LOOPBACK, stack: LOOPBACK, layer3 }, 0)?;
        Ok(Self {
            ring: event::ring(&mut object)?,
            tally: EventTally::new(Maps::Object(&mut object))?,
            names: Names::from([(LOOPBACK, CAPTURE.into())]),
            object,
            program,
            lists: None,
            tables,
            points,
            drained: Half::default(),
            totals: Vec::new(),
            until_look: LOOK_EVERY,
            first_ns: None,
            last_ns: 0,
        })
    }

    /// Lists for the frames from here on. A replay drops nothing: it counts what would be dropped.
    pub fn install(&mut self, prefixes: &[ListedPrefix]) -> Result<&Lists, KernelError> {
        let mut lists = match self.lists.take() {
            Some(lists) => lists,
            None => Lists::take(&mut self.object)?,
        };
        lists.install(prefixes)?;
        Ok(self.lists.insert(lists))
    }

    /// Those that were installed.
    pub fn lists(&self) -> Option<&Lists> {
        self.lists.as_ref()
    }

    /// Runs one frame, padded to its length on the wire, at its capture time.
    pub fn frame(&mut self, bytes: &[u8], time_ns: i64) -> Result<(), KernelError> {
        if !FRAME_OCTETS.contains(&bytes.len()) {
            return Err(KernelError::FrameSize(bytes.len()));
        }
        self.tables.set_replay_clock(time_ns as u64);
        let mut options = TestRunOptions::new();
        options.data_in = Some(bytes);
        match self.object.program(self.program) {
            Some(Program::Xdp(program)) => Xdp::test_run(program, options),
            Some(Program::SchedClassifier(program)) => SchedClassifier::test_run(program, options),
            _ => return Err(KernelError::MissingMap(self.program)),
        }
        .map_err(|source| KernelError::Run { octets: bytes.len(), source: Box::new(source) })?;
        self.first_ns = Some(self.first_ns.map_or(time_ns, |first| first.min(time_ns)));
        self.last_ns = self.last_ns.max(time_ns);
        self.until_look -= 1;
        if self.until_look == 0 {
            self.until_look = LOOK_EVERY;
            if self.tables.is_quarter_full() {
                self.drain()?;
            }
        }
        Ok(())
    }

    /// The events since the last call, in the order of frames. They have no bound but the ring, so this is to be
    /// called after each frame.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.ring.next() {
            events.extend(event::parse(&item, WallClock::of_capture(), &self.names));
        }
        events
    }

    /// What became of a class's packets.
    pub fn event_counts(&self, class: EventClass) -> Result<EventCounts, KernelError> {
        self.tally.of(class)
    }

    /// Turns the epoch and keeps what it held.
    fn drain(&mut self) -> Result<(), KernelError> {
        let clock = WallClock::of_capture();
        let epoch = self.tables.flip(Began::default())?.epoch;
        let mut half = self.tables.read(clock)?;
        let drained = totals(&self.tables, &self.points, epoch, &half.flows);
        if self.totals.is_empty() {
            self.totals = drained;
        } else {
            for (kept, more) in self.totals.iter_mut().zip(drained) {
                kept.totals += more.totals;
            }
        }
        let known = self.drained.links.len() as u32;
        for flow in &mut half.flows {
            if flow.link != 0 {
                flow.link += known;
            }
        }
        self.drained.links.append(&mut half.links);
        self.drained.flows.append(&mut half.flows);
        self.drained.sampling_interval = half.sampling_interval;
        self.drained.figures = half.figures;
        self.tables.release(epoch)
    }

    /// What the capture held.
    pub fn finish(mut self) -> Result<Drained, KernelError> {
        self.drain()?;
        Ok(Drained {
            epoch: 0,
            window_start_ns: self.first_ns.unwrap_or(0),
            window_end_ns: self.last_ns,
            sampling_interval: self.drained.sampling_interval,
            points: self.totals,
            links: self.drained.links,
            flows: self.drained.flows,
            figures: self.drained.figures,
        })
    }
}
