//! Costs of the datapath, measured with `BPF_PROG_TEST_RUN`: nanoseconds a packet above an empty program,
//! and what a drain takes. `cargo xtask bench kernel` and `bench drain` call it.

use std::{path::Path, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray, RingBuf},
    programs::{Program, ProgramFd, TestRun, TestRunOptions},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    Drained, Geometry, KernelError, ListedPrefix, Lists, Settings, TableSizes, Wakeup,
    attach::Programs,
    clock::{Reading, WallClock},
    object::{self, Clock, Features, Load},
    points::{Place, Points},
    settings::Steering,
    tables::Tables,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-kernel-bench"));

/// Which hook is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Xdp,
    Tc,
}

/// IP version of the generated packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
}

/// A program that can stand under the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Weir,
    /// LRU per-CPU hash, as most peers count.
    LruPerCpuHash,
    PerCpuHash,
    /// The program of [`Rig::foreign`].
    Foreign,
}

/// A generator, the programs it can call, and their tables.
pub struct Rig {
    hook: Hook,
    frame: Vec<u8>,
    bench: Ebpf,
    weir: Ebpf,
    weir_program: &'static str,
    features: Features,
    tables: Tables,
    lists: Option<Lists>,
    foreign: Option<(Ebpf, String)>,
}

impl Rig {
    /// With tables of `slots` for the version that is measured; `settings` gives the rest.
    pub fn new(hook: Hook, ip: Ip, slots: u32, settings: &Settings) -> Result<Self, KernelError> {
        Self::with_payload(hook, ip, slots, 0, settings)
    }

    /// The same with packets that carry `payload` octets.
    pub fn with_payload(
        hook: Hook,
        ip: Ip,
        slots: u32,
        payload: u16,
        settings: &Settings,
    ) -> Result<Self, KernelError> {
        let tables = match ip {
            Ip::V4 => TableSizes { ipv4_slots: slots, ipv6_slots: 16 },
            Ip::V6 => TableSizes { ipv4_slots: 16, ipv6_slots: slots },
        };
        let settings = Settings { tables, ..settings.clone() };
        settings.validate()?;
        let features = Features::detect();
        let geometry = Geometry::new(&settings)?;
        let steering = Steering::new(settings.sampling_interval, &settings.filter, settings.filter_default)?;
        let mut weir = object::load(&settings, Load::unpinned(geometry, Clock::Kernel))?;
        let weir_program = match hook {
            Hook::Xdp => features.xdp_program(),
            Hook::Tc => "weir_tc_egress",
        };
        Programs::unpinned(&mut weir, features).load(weir_program)?;
        let tables = Tables::unpinned(&mut weir, geometry, steering)?;
        let place = Place { interface: "bench", ifindex: 1, stack: 1, layer3: false };
        Points::new(&mut weir, settings.max_points)?.add(place, 0)?;
        let mut bench = EbpfLoader::new().load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))?;
        load_all(&mut bench, hook, features)?;
        Ok(Self {
            hook,
            frame: frame(ip, payload),
            bench,
            weir,
            weir_program,
            features,
            tables,
            lists: None,
            foreign: None,
        })
    }

    /// Puts a program of another object under the generator.
    pub fn foreign(&mut self, object: &Path, program: &str) -> Result<(), KernelError> {
        let mut loaded =
            EbpfLoader::new().load_file(object).map_err(|error| KernelError::Load(Box::new(error)))?;
        match loaded.program_mut(program) {
            Some(Program::Xdp(found)) if self.hook == Hook::Xdp => found.load(),
            Some(Program::SchedClassifier(found)) if self.hook == Hook::Tc => found.load(),
            _ => {
                return Err(KernelError::System {
                    what: "find the foreign program",
                    source: std::io::Error::other(format!(
                        "{} has no {:?} program `{program}`",
                        object.display(),
                        self.hook
                    )),
                });
            }
        }
        .map_err(KernelError::program("foreign"))?;
        self.foreign = Some((loaded, program.to_owned()));
        Ok(())
    }

    /// Puts lists into the kernel; how long that took.
    pub fn install(&mut self, prefixes: &[ListedPrefix]) -> Result<Duration, KernelError> {
        let mut lists = match self.lists.take() {
            Some(lists) => lists,
            None => Lists::take(&mut self.weir)?,
        };
        let took = lists.install(prefixes)?;
        self.lists = Some(lists);
        Ok(took)
    }

    /// Lets packets be dropped for so long; after [`Self::install`].
    pub fn enforce_for(&self, time: Duration) -> Result<(), KernelError> {
        let lists = self.lists.as_ref().ok_or(KernelError::MissingMap("the lists"))?;
        lists.heart()?.enforce_for(time);
        Ok(())
    }

    /// Nanoseconds a packet over `packets` packets of `flows` flows, chosen at random for each packet:
    /// the subject's and the empty program's of the same kind, generator included in both.
    pub fn measure(&mut self, subject: Subject, flows: u32, packets: u32) -> Result<(u64, u64), KernelError> {
        let with_frags = self.with_frags(subject);
        let (generator, empty) = self.programs(subject);
        self.set_flows(flows)?;
        let array = if with_frags { "WEIR_BENCH_NEXT_FRAGS" } else { "WEIR_BENCH_NEXT" };
        self.call(array, &fd(&self.bench, empty)?)?;
        let empty_ns = run(&self.bench, &self.frame, generator, packets)?;
        let subject = match (subject, self.hook) {
            (Subject::Weir, _) => fd(&self.weir, self.weir_program)?,
            (Subject::LruPerCpuHash, Hook::Xdp) => fd(&self.bench, "lru_xdp")?,
            (Subject::LruPerCpuHash, Hook::Tc) => fd(&self.bench, "lru_tc")?,
            (Subject::PerCpuHash, Hook::Xdp) => fd(&self.bench, "hash_xdp")?,
            (Subject::PerCpuHash, Hook::Tc) => fd(&self.bench, "hash_tc")?,
            (Subject::Foreign, _) => {
                let Some((object, program)) = &self.foreign else {
                    return Err(KernelError::MissingMap("the foreign program"));
                };
                fd(object, program)?
            }
        };
        self.call(array, &subject)?;
        Ok((run(&self.bench, &self.frame, generator, packets)?, empty_ns))
    }

    /// Drains what was counted; the time that reading took is in its figures, the time to zero beside it.
    pub fn drain(&mut self) -> Result<(Drained, Duration), KernelError> {
        let clock = WallClock::measure();
        let started = std::time::Instant::now();
        let epoch = self.tables.flip(clock.begin(0, Reading::default()))?.epoch;
        let grace = started.elapsed();
        let half = self.tables.read(clock)?;
        let started = std::time::Instant::now();
        self.tables.release(epoch)?;
        let release = started.elapsed();
        let mut figures = half.figures;
        figures.grace = grace;
        let drained = Drained {
            epoch,
            window_start_ns: clock.now(),
            window_end_ns: clock.now(),
            sampling_interval: half.sampling_interval,
            points: Vec::new(),
            links: half.links,
            flows: half.flows,
            figures,
        };
        Ok((drained, release))
    }

    /// Counts `packets` packets on each of `cpus` while this thread drains without a pause: what came in and
    /// what came out. Flows are chosen at random among `flows`.
    pub fn drain_under_load(
        &mut self,
        cpus: &[usize],
        flows: u32,
        packets: u32,
    ) -> Result<UnderLoad, KernelError> {
        self.set_flows(flows)?;
        let array = if self.with_frags(Subject::Weir) { "WEIR_BENCH_NEXT_FRAGS" } else { "WEIR_BENCH_NEXT" };
        self.call(array, &fd(&self.weir, self.weir_program)?)?;
        let (generator, _) = self.programs(Subject::Weir);
        let mut counted = UnderLoad::default();
        let (bench, frame, tables) = (&self.bench, &self.frame, &mut self.tables);
        std::thread::scope(|scope| {
            let feeders: Vec<_> = cpus
                .iter()
                .map(|cpu| {
                    scope.spawn(move || {
                        pin(*cpu)?;
                        run(bench, frame, generator, packets)
                    })
                })
                .collect();
            while feeders.iter().any(|feeder| !feeder.is_finished()) {
                counted.drain(tables)?;
            }
            for feeder in feeders {
                feeder.join().map_err(|_| KernelError::MissingMap("a feeding thread"))??;
                counted.sent += u64::from(packets);
            }
            // What was counted after the last flip.
            counted.drain(tables)
        })?;
        Ok(counted)
    }

    /// Wake-ups that the programs have sent; they can be taken once.
    pub fn wakeups(&mut self) -> Result<Vec<Wakeup>, KernelError> {
        const MAP: &str = "WEIR_WAKEUPS";
        let mut ring =
            RingBuf::try_from(object::take(&mut self.weir, MAP)?).map_err(KernelError::map(MAP))?;
        let mut wakeups = Vec::new();
        while let Some(item) = ring.next() {
            wakeups.extend(super::wakeups::parse(&item));
        }
        Ok(wakeups)
    }

    fn with_frags(&self, subject: Subject) -> bool {
        subject == Subject::Weir && self.hook == Hook::Xdp && self.features.xdp_frags
    }

    /// Generator and empty program that go with a subject.
    fn programs(&self, subject: Subject) -> (&'static str, &'static str) {
        match (self.hook, self.with_frags(subject)) {
            (Hook::Xdp, true) => ("generate_xdp_frags", "empty_xdp_frags"),
            (Hook::Xdp, false) => ("generate_xdp", "empty_xdp"),
            (Hook::Tc, _) => ("generate_tc", "empty_tc"),
        }
    }

    fn set_flows(&mut self, flows: u32) -> Result<(), KernelError> {
        const MAP: &str = "WEIR_BENCH_MASK";
        let map = self.bench.map_mut(MAP).ok_or(KernelError::MissingMap(MAP))?;
        let mut mask: Array<_, u32> = Array::try_from(map).map_err(KernelError::map(MAP))?;
        mask.set(0, flows.next_power_of_two() - 1, 0).map_err(KernelError::map(MAP))
    }

    fn call(&mut self, array: &'static str, program: &ProgramFd) -> Result<(), KernelError> {
        let map = self.bench.map_mut(array).ok_or(KernelError::MissingMap(array))?;
        let mut next = ProgramArray::try_from(map).map_err(KernelError::map(array))?;
        next.set(0, program, 0).map_err(KernelError::map(array))
    }
}

/// What went into the tables and what came out of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderLoad {
    /// Packets that the generator sent.
    pub sent: u64,
    /// Frames by the programs' own count, packets in drained slots, packets that found no slot.
    pub frames: u64,
    pub in_flows: u64,
    pub overflow: u64,
    pub drains: u64,
}

impl UnderLoad {
    fn drain(&mut self, tables: &mut Tables) -> Result<(), KernelError> {
        const POINTS: [u8; 2] = [1, 2];
        let clock = WallClock::measure();
        let epoch = tables.flip(clock.begin(0, Reading::default()))?.epoch;
        let half = tables.read(clock)?;
        self.in_flows += half.flows.iter().map(|flow| flow.packets).sum::<u64>();
        for point in POINTS {
            let counters = tables.counters(epoch, point);
            self.frames += counters.frames;
            self.overflow += counters.overflow;
        }
        tables.release(epoch)?;
        self.drains += 1;
        Ok(())
    }
}

fn pin(cpu: usize) -> Result<(), KernelError> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .map_err(|errno| KernelError::System { what: "stay on one CPU", source: errno.into() })
}

fn run(bench: &Ebpf, frame: &[u8], generator: &'static str, packets: u32) -> Result<u64, KernelError> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.repeat = packets;
    let result = match bench.program(generator) {
        Some(Program::Xdp(program)) => program.test_run(options),
        Some(Program::SchedClassifier(program)) => program.test_run(options),
        _ => return Err(KernelError::MissingMap(generator)),
    };
    let result =
        result.map_err(|source| KernelError::Run { octets: frame.len(), source: Box::new(source) })?;
    Ok(result.duration.as_nanos() as u64)
}

fn fd(object: &Ebpf, program: &str) -> Result<ProgramFd, KernelError> {
    object
        .program(program)
        .ok_or(KernelError::MissingMap("a program of the bench"))?
        .fd()
        .and_then(|fd| fd.try_clone().map_err(Into::into))
        .map_err(KernelError::program("a program of the bench"))
}

/// Loads what this hook and kernel can run.
fn load_all(bench: &mut Ebpf, hook: Hook, features: Features) -> Result<(), KernelError> {
    for (name, program) in bench.programs_mut() {
        let wanted = features.xdp_frags || !name.ends_with("_frags");
        match program {
            Program::Xdp(program) if hook == Hook::Xdp && wanted => program.load(),
            Program::SchedClassifier(program) if hook == Hook::Tc => program.load(),
            _ => Ok(()),
        }
        .map_err(KernelError::program("a program of the bench"))?;
    }
    Ok(())
}

/// A TCP segment with nothing but an ACK and `payload` octets of no protocol that is known, padded to 64 octets as
/// it is on the wire; IPv6 needs 74.
fn frame(ip: Ip, payload: u16) -> Vec<u8> {
    const TCP: u16 = 20;
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    match ip {
        Ip::V4 => {
            let [high, low] = (20 + TCP + payload).to_be_bytes();
            frame.extend([0x08, 0x00, 0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend([10, 0, 0, 1, 192, 0, 2, 1]);
        }
        Ip::V6 => {
            let [high, low] = (TCP + payload).to_be_bytes();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, 6, 64]);
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        }
    }
    frame.extend([0xc3, 0x50, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len() + usize::from(payload), 0x5a);
    frame.resize(frame.len().max(64), 0);
    frame
}
