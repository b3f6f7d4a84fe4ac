//! The tables and their epochs: flip, drain, release.
//!
//! Contract: between a flip and its release the sensor alone touches the old half; the programs alone write
//! the other. A flip while a half is not released is refused, so no half is ever written before it was
//! zeroed.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData},
};
use weir_sensor_common::{
    self as layout, Control, Count, Counters, Flags, HalfControl, Key, Region, Slot4, Slot6,
};
use weir_wire::Totals;

use super::{
    DrainFigures, FlowKey, FlowObservation, Geometry, KernelError,
    clock::{Reading, WallClock},
    grace::Grace,
    memory::{MapMemory, Shared},
    object,
    settings::Steering,
};

/// A layout type that aya may carry in and out of maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Element<T>(T);

// SAFETY: plain numbers without padding, by the definition in `weir-sensor-common`.
unsafe impl Pod for Element<layout::LinkStack> {}
// SAFETY: as above.
unsafe impl Pod for Element<layout::FilterRule> {}

/// Everything that was in a half, addresses and times resolved, points still by number.
#[derive(Debug, Default)]
pub struct Half {
    pub flows: Vec<FlowObservation>,
    pub links: Vec<Vec<u32>>,
    pub figures: DrainFigures,
    pub sampling_interval: u32,
}

/// What a release must zero.
#[derive(Debug)]
struct Held {
    epoch: u64,
    /// The wall-clock instant at which it ended.
    turned: i64,
    /// Whether its counts were handed out: until then a flip that failed half-way is taken up again.
    delivered: bool,
    slots4: Vec<u32>,
    slots6: Vec<u32>,
    stacks: Vec<layout::LinkStack>,
}

/// The shared maps.
pub struct Tables {
    geometry: Geometry,
    epoch: u64,
    control: MapMemory<Control>,
    flows4: MapMemory<Slot4>,
    flows6: MapMemory<Slot6>,
    counters: MapMemory<Counters>,
    regions: MapMemory<Region>,
    links: HashMap<MapData, Element<layout::LinkStack>, u32>,
    rules: Array<MapData, Element<layout::FilterRule>>,
    wanted: Steering,
    /// What each half was last told.
    told: [Option<Steering>; 2],
    grace: Grace,
    held: Option<Held>,
}

impl Tables {
    /// Maps the memory of a freshly loaded object, and tells both halves what is wanted.
    pub fn new(object: &mut Ebpf, geometry: Geometry, steering: Steering) -> Result<Self, KernelError> {
        let mut tables = Self {
            geometry,
            epoch: 0,
            control: memory(object, "WEIR_CONTROL", 1)?,
            flows4: memory(object, "WEIR_FLOWS4", geometry.all_slots(geometry.slots4_bits) as usize)?,
            flows6: memory(object, "WEIR_FLOWS6", geometry.all_slots(geometry.slots6_bits) as usize)?,
            counters: memory(object, "WEIR_COUNTERS", (2 * geometry.cpus * geometry.points) as usize)?,
            regions: memory(object, "WEIR_REGIONS", (2 * geometry.cpus) as usize)?,
            links: HashMap::try_from(object::take(object, "WEIR_LINKS")?)
                .map_err(KernelError::map("WEIR_LINKS"))?,
            rules: Array::try_from(object::take(object, "WEIR_FILTER")?)
                .map_err(KernelError::map("WEIR_FILTER"))?,
            wanted: steering,
            told: [None, None],
            grace: Grace::find()?,
            held: None,
        };
        tables.tell(0)?;
        tables.tell(1)?;
        Ok(tables)
    }

    /// The epoch that programs write now.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the next epoch shall do.
    pub fn steer(&mut self, steering: Steering) {
        self.wanted = steering;
    }

    /// The clock of a replay.
    pub fn set_replay_clock(&mut self, now_ns: u64) {
        let control = self.control.element(0);
        // SAFETY: a word of the mapping; the program that reads it runs when we call it, not meanwhile.
        unsafe { (&raw mut (*control).replay_now_ns).write_volatile(now_ns) }
    }

    /// Whether some CPU uses a quarter of a table: up to there a flow that finds no slot is out of reach.
    pub fn is_quarter_full(&self) -> bool {
        (0..self.geometry.cpus).any(|cpu| {
            let region = self.regions.read(self.geometry.region(half(self.epoch), cpu));
            region.used4 >= 1 << (self.geometry.slots4_bits - 2)
                || region.used6 >= 1 << (self.geometry.slots6_bits - 2)
        })
    }

    /// What the clock program read last.
    pub fn reading(&self) -> Reading {
        let control = self.control.read(0);
        Reading { ticks: control.ticks, ns: control.ticks_ns }
    }

    /// Starts a new epoch and waits until no program writes the old one: that one's number and the
    /// wall-clock instant of its end. After an error here or in [`Self::read`], it may be called again and
    /// goes on where it stopped.
    pub fn flip(&mut self, clock: WallClock) -> Result<(u64, i64), KernelError> {
        if let Some(Held { epoch, turned, delivered, .. }) = self.held {
            if delivered {
                return Err(KernelError::NotReleased { epoch });
            }
            self.grace.wait()?;
            return Ok((epoch, turned));
        }
        let drained = self.epoch;
        self.tell(half(drained + 1))?;
        let turned = clock.now();
        self.epoch_word().store(drained + 1, Ordering::Release);
        self.epoch = drained + 1;
        self.held = Some(Held {
            epoch: drained,
            turned,
            delivered: false,
            slots4: Vec::new(),
            slots6: Vec::new(),
            stacks: Vec::new(),
        });
        self.grace.wait()?;
        Ok((drained, turned))
    }

    fn epoch_word(&self) -> &AtomicU64 {
        let control = self.control.element(0);
        // SAFETY: an aligned word of the mapping that lives as long as `self`; programs only read it.
        unsafe { AtomicU64::from_ptr(&raw mut (*control).epoch) }
    }

    /// Writes what is wanted into a half that no program reads.
    fn tell(&mut self, half: u32) -> Result<(), KernelError> {
        if self.told[half as usize].as_ref() == Some(&self.wanted) {
            return Ok(());
        }
        for (index, rule) in self.wanted.rules.iter().enumerate() {
            let slot = half * layout::filter::MAX_RULES + index as u32;
            self.rules.set(slot, Element(*rule), 0).map_err(KernelError::map("WEIR_FILTER"))?;
        }
        let settings = HalfControl {
            sampling_interval: self.wanted.sampling_interval,
            rules: self.wanted.rules.len() as u32,
            default_action: self.wanted.default_action,
            reserved: 0,
        };
        let control = self.control.element(0);
        // SAFETY: within the mapping; programs read this half's settings only after the next flip.
        unsafe { (&raw mut (*control).halves[half as usize]).write_volatile(settings) };
        self.told[half as usize] = Some(self.wanted.clone());
        Ok(())
    }

    /// Reads the half that the last flip closed. It may be read again until it is released.
    pub fn read(&mut self, clock: WallClock) -> Result<Half, KernelError> {
        let Some(held) = &mut self.held else { return Ok(Half::default()) };
        let started = Instant::now();
        let half = half(held.epoch);
        let geometry = self.geometry;
        let regions: Vec<Region> =
            (0..geometry.cpus).map(|cpu| self.regions.read(geometry.region(half, cpu))).collect();
        let used4 = regions.iter().map(|region| region.used4).sum::<u64>();
        let used6 = regions.iter().map(|region| region.used6).sum::<u64>();

        let mut links = Links::default();
        if regions.iter().any(|region| region.links != 0) {
            held.stacks = links.intern(&self.links, half)?;
        }
        let mut flows = Vec::with_capacity((used4 + used6) as usize);
        held.slots4 = Vec::with_capacity(used4 as usize);
        held.slots6 = Vec::with_capacity(used6 as usize);
        for (cpu, region) in (0..geometry.table_cpus).zip(&regions) {
            let range = geometry.slots(geometry.slots4_bits, half, cpu);
            used(
                &self.flows4,
                range,
                region.used4,
                |slot| slot.count,
                |index, slot| {
                    held.slots4.push(index);
                    flows.push(observation4(slot, clock, &mut links));
                },
            );
            let range = geometry.slots(geometry.slots6_bits, half, cpu);
            used(
                &self.flows6,
                range,
                region.used6,
                |slot| slot.count,
                |index, slot| {
                    held.slots6.push(index);
                    flows.push(observation6(slot, clock, &mut links));
                },
            );
        }
        held.delivered = true;
        Ok(Half {
            flows,
            links: links.stacks,
            figures: DrainFigures {
                grace: std::time::Duration::ZERO,
                read: started.elapsed(),
                slots_used: used4 + used6,
                slots: u64::from(geometry.table_cpus)
                    * ((1_u64 << geometry.slots4_bits) + (1_u64 << geometry.slots6_bits)),
            },
            sampling_interval: self.told[half as usize].as_ref().map_or(1, |told| told.sampling_interval),
        })
    }

    /// Counters of a point in the half of an epoch, over all CPUs. Flows are not among them: they are what
    /// the slots hold.
    pub fn counters(&self, epoch: u64, point: u8) -> Totals {
        let mut totals = Totals::default();
        for cpu in 0..self.geometry.cpus {
            let counted = self.counters.read(self.geometry.counters(half(epoch), cpu, u32::from(point)));
            totals.frames += counted.frames;
            totals.octets_l2 += counted.octets_l2;
            totals.overflow += counted.overflow;
            totals.overflow_octets += counted.overflow_octets;
            totals.non_ip += counted.non_ip;
            totals.malformed += counted.malformed;
            totals.filtered += counted.filtered;
            totals.unsampled += counted.unsampled;
        }
        totals
    }

    /// Zeroes the half that was read.
    pub fn release(&mut self, epoch: u64) -> Result<(), KernelError> {
        match self.held.take() {
            Some(held) if held.epoch == epoch => self.zero(held),
            other => {
                let drained = other.as_ref().map(|held| held.epoch);
                self.held = other;
                Err(KernelError::NothingToRelease { asked: epoch, drained })
            }
        }
    }

    fn zero(&mut self, held: Held) -> Result<(), KernelError> {
        let half = half(held.epoch);
        for index in held.slots4 {
            self.flows4.zero(index as usize);
        }
        for index in held.slots6 {
            self.flows6.zero(index as usize);
        }
        for cpu in 0..self.geometry.cpus {
            self.regions.zero(self.geometry.region(half, cpu));
            for point in 0..self.geometry.points {
                self.counters.zero(self.geometry.counters(half, cpu, point));
            }
        }
        for stack in held.stacks {
            self.links.remove(&Element(stack)).map_err(KernelError::map("WEIR_LINKS"))?;
        }
        Ok(())
    }
}

/// The half of an epoch.
const fn half(epoch: u64) -> u32 {
    (epoch & 1) as u32
}

fn memory<T: Shared>(object: &mut Ebpf, name: &'static str, len: usize) -> Result<MapMemory<T>, KernelError> {
    let map = object::array(object::take(object, name)?, name)?;
    MapMemory::new(name, map, len)
}

/// Visits the slots of a region that are in use; it stops at the last one.
fn used<T: Shared>(
    memory: &MapMemory<T>,
    range: std::ops::Range<usize>,
    used: u64,
    count: impl Fn(&T) -> u64,
    mut visit: impl FnMut(u32, &T),
) {
    let mut left = used;
    let start = range.start;
    for (offset, slot) in memory.quiet(range).iter().enumerate() {
        if left == 0 {
            break;
        }
        if count(slot) != 0 {
            left -= 1;
            visit((start + offset) as u32, slot);
        }
    }
}

/// Link numbers of a half, resolved.
#[derive(Default)]
struct Links {
    stacks: Vec<Vec<u32>>,
    /// Link number to index into `stacks`.
    known: std::collections::HashMap<u16, u32>,
}

impl Links {
    /// Takes over what the kernel interned; returns the map's keys.
    fn intern(
        &mut self,
        map: &HashMap<MapData, Element<layout::LinkStack>, u32>,
        half: u32,
    ) -> Result<Vec<layout::LinkStack>, KernelError> {
        let mut keys = Vec::new();
        for entry in map {
            let (Element(stack), number) = entry.map_err(KernelError::map("WEIR_LINKS"))?;
            if stack.half == half {
                let depth = (stack.depth as usize).min(layout::link::MAX_DEPTH);
                self.add(number as u16, stack.headers[..depth].to_vec());
                keys.push(stack);
            }
        }
        Ok(keys)
    }

    fn add(&mut self, number: u16, headers: Vec<u32>) -> u32 {
        let index = self.stacks.len() as u32;
        self.stacks.push(headers);
        self.known.insert(number, index);
        index
    }

    /// Index into `stacks` plus one; 0 is a bare frame.
    fn resolve(&mut self, number: u16) -> u32 {
        if number == layout::link::BARE {
            return 0;
        }
        let index = self.known.get(&number).copied();
        let index = index.unwrap_or_else(|| {
            // A number below the interned ones is a VLAN identifier; one that the map does not know
            // cannot be, because the programs insert before they use.
            let id = u32::from(number - layout::link::SINGLE_VLAN) & 0xfff;
            self.add(number, vec![layout::link::VLAN | id])
        });
        index + 1
    }
}

fn observation4(slot: &Slot4, clock: WallClock, links: &mut Links) -> FlowObservation {
    let address = |word: u64| Ipv4Addr::from((word as u32).to_ne_bytes()).into();
    let times = (slot.first_ns, slot.last);
    observation(
        (address(slot.addresses), address(slot.addresses >> 32)),
        slot.key,
        (Count(slot.count), slot.octets),
        times,
        slot.flags,
        clock,
        links,
    )
}

fn observation6(slot: &Slot6, clock: WallClock, links: &mut Links) -> FlowObservation {
    let address = |words: [u64; 2]| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
        Ipv6Addr::from(bytes).into()
    };
    let times = (slot.first_ns, slot.last);
    observation(
        (address(slot.src), address(slot.dst)),
        slot.key,
        (Count(slot.count), slot.octets),
        times,
        slot.flags,
        clock,
        links,
    )
}

fn observation(
    (src, dst): (std::net::IpAddr, std::net::IpAddr),
    key: u64,
    (count, octets): (Count, u64),
    (first_ns, last): (u64, u64),
    flags: u64,
    clock: WallClock,
    links: &mut Links,
) -> FlowObservation {
    let key = Key::unpack(key);
    let flags = Flags::unpack(flags | count.flags());
    FlowObservation {
        key: FlowKey { src, dst, protocol: key.protocol, src_port: key.src_port, dst_port: key.dst_port },
        point: key.point.into(),
        link: links.resolve(key.link),
        packets: count.packets(),
        octets,
        first_ns: clock.wall(first_ns),
        last_ns: clock.wall(clock.kernel_ns(last).max(first_ns)),
        tcp_flags: flags.tcp,
        first_tcp_flags: flags.first_tcp,
        fragments: flags.fragments,
        icmp_type: flags.icmp_type,
        icmp_code: flags.icmp_code,
    }
}
