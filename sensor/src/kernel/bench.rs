//! Costs of the datapath, measured with `BPF_PROG_TEST_RUN`: nanoseconds a packet above an empty program,
//! and what a drain takes. `cargo xtask bench kernel` and `bench drain` call it.

use std::{path::Path, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray},
    programs::{Program, ProgramFd, TestRun, TestRunOptions},
};

use super::{
    Drained, Geometry, KernelError, Settings, TableSizes,
    attach::Programs,
    clock::WallClock,
    object::{self, Clock, Features},
    points::Points,
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
    foreign: Option<(Ebpf, String)>,
}

impl Rig {
    /// With tables of `slots` for the version that is measured; `settings` gives the rest.
    pub fn new(hook: Hook, ip: Ip, slots: u32, settings: &Settings) -> Result<Self, KernelError> {
        let tables = match ip {
            Ip::V4 => TableSizes { ipv4_slots: slots, ipv6_slots: 16 },
            Ip::V6 => TableSizes { ipv4_slots: 16, ipv6_slots: slots },
        };
        let settings = Settings { tables, ..settings.clone() };
        settings.validate()?;
        let features = Features::detect();
        let geometry = Geometry::new(&settings)?;
        let steering = Steering::new(settings.sampling_interval, &settings.filter, settings.filter_default)?;
        let mut weir = object::load(&settings, geometry, Clock::Kernel)?;
        let weir_program = match hook {
            Hook::Xdp => features.xdp_program(),
            Hook::Tc => "weir_tc_egress",
        };
        Programs { object: &mut weir, features }.load(weir_program)?;
        let tables = Tables::new(&mut weir, geometry, steering)?;
        Points::new(&mut weir, settings.max_points)?.add("bench", 1, 1, false)?;
        let mut bench = EbpfLoader::new().load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))?;
        load_all(&mut bench, hook, features)?;
        Ok(Self { hook, frame: frame(ip), bench, weir, weir_program, features, tables, foreign: None })
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

    /// Nanoseconds a packet over `packets` packets of `flows` flows, chosen at random for each packet:
    /// the subject's and the empty program's of the same kind, generator included in both.
    pub fn measure(&mut self, subject: Subject, flows: u32, packets: u32) -> Result<(u64, u64), KernelError> {
        let with_frags = match subject {
            Subject::Weir => self.hook == Hook::Xdp && self.features.xdp_frags,
            _ => false,
        };
        let (generator, empty) = match (self.hook, with_frags) {
            (Hook::Xdp, true) => ("generate_xdp_frags", "empty_xdp_frags"),
            (Hook::Xdp, false) => ("generate_xdp", "empty_xdp"),
            (Hook::Tc, _) => ("generate_tc", "empty_tc"),
        };
        self.set_flows(flows)?;
        let array = if with_frags { "WEIR_BENCH_NEXT_FRAGS" } else { "WEIR_BENCH_NEXT" };
        self.call(array, &fd(&self.bench, empty)?)?;
        let empty_ns = self.run(generator, packets)?;
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
        Ok((self.run(generator, packets)?, empty_ns))
    }

    /// Drains what was counted; the time that reading took is in its figures, the time to zero beside it.
    pub fn drain(&mut self) -> Result<(Drained, Duration), KernelError> {
        let clock = WallClock::measure();
        let epoch = self.tables.epoch();
        let started = std::time::Instant::now();
        let turned = self.tables.flip(clock)?;
        let grace = started.elapsed();
        let half = self.tables.read(clock)?;
        let started = std::time::Instant::now();
        self.tables.release(epoch)?;
        let release = started.elapsed();
        let mut figures = half.figures;
        figures.grace = grace;
        let drained = Drained {
            epoch,
            window_start_ns: turned,
            window_end_ns: turned,
            sampling_interval: half.sampling_interval,
            points: Vec::new(),
            links: half.links,
            flows: half.flows,
            figures,
        };
        Ok((drained, release))
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

    fn run(&self, generator: &'static str, packets: u32) -> Result<u64, KernelError> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(&self.frame);
        options.repeat = packets;
        let result = match self.bench.program(generator) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => return Err(KernelError::MissingMap(generator)),
        };
        let result = result
            .map_err(|source| KernelError::Run { octets: self.frame.len(), source: Box::new(source) })?;
        Ok(result.duration.as_nanos() as u64)
    }
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

/// A TCP segment with nothing but an ACK, padded to 64 octets as it is on the wire; IPv6 needs 74.
fn frame(ip: Ip) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    match ip {
        Ip::V4 => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend([10, 0, 0, 1, 192, 0, 2, 1]);
        }
        Ip::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        }
    }
    frame.extend([0xc3, 0x50, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len().max(64), 0);
    frame
}
