//! The tables and their epochs: flip, drain, release; and what a sensor finds that takes tables over.
//!
//! Contract: between a flip and its release the sensor alone touches the old half; the programs alone write
//! the other. A flip while a half is not released is refused, so no half is ever written before it was
//! zeroed.
//!
//! All that a successor must know stands in shared memory: the epoch E in the control element, and in the
//! identity the released epochs R (all below are zeroed), the epochs Z whose zeroing has begun, and the clocks
//! at which each half's epoch began. A sensor can be killed between any two of these steps:
//!
//! | step of epoch E | state after it | what the next sensor does |
//! | --- | --- | --- |
//! | settings into half E+1 | R = Z = E | its own flip writes them again |
//! | clocks into half E+1 | R = Z = E | its own flip writes them again; until then nobody reads them |
//! | epoch E+1 | R = Z = E, E+1 written | E is held: waits for a grace period, reads it |
//! | grace period | the same | the same; a second wait does no harm |
//! | read, merge | the same | reads it again, and finds the same: nobody writes it |
//! | spool commit of E | the same; the spool says E | does not read it: zeroes it |
//! | Z = E+1 | the half is as read | zeroes all of the half, whatever is zero already |
//! | slots, counters, stacks zeroed | some of it | the same |
//! | R = E+1 | R = Z = E+1 | nothing: the step after is the next flip |
//!
//! So an epoch is zeroed only when it is spooled or its caller has said so, and read only if it is not: each
//! once. Programs are not part of it; they count in every state, and in which half is one word.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData},
};
use weir_sensor_common::{self as layout, Control, Counters, HalfControl, Region, Slot4, Slot6, pins::Began};
use weir_wire::Totals;

use super::{
    DrainFigures, FlowObservation, Geometry, KernelError,
    clock::WallClock,
    error::is_missing,
    grace::Grace,
    identity::{Birth, Identity},
    memory::{MapMemory, Shared},
    object::Maps,
    observation::{Links, observation4, observation6},
    settings::Steering,
};

/// A layout type that aya may carry in and out of maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Element<T>(pub T);

// SAFETY: plain numbers without padding, by the definition in `weir-sensor-common`.
unsafe impl Pod for Element<layout::LinkStack> {}
// SAFETY: as above.
unsafe impl Pod for Element<layout::FilterRule> {}
// SAFETY: as above.
unsafe impl Pod for Element<layout::EventState> {}

/// Everything that was in a half, addresses and times resolved, points still by number.
#[derive(Debug, Default)]
pub struct Half {
    pub flows: Vec<FlowObservation>,
    pub links: Vec<Vec<u32>>,
    pub figures: DrainFigures,
    pub sampling_interval: u32,
}

/// A half that is drained and not zeroed.
#[derive(Debug, Default)]
struct Held {
    epoch: u64,
    /// Whether its counts were handed out: until then a flip that failed half-way is taken up again.
    delivered: bool,
    /// What a release must zero: all that is in use.
    slots4: Vec<u32>,
    slots6: Vec<u32>,
    stacks: Vec<layout::LinkStack>,
}

/// An epoch that has ended: the clocks at both ends.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    pub epoch: u64,
    pub from: Began,
    pub to: Began,
}

/// The shared maps.
pub struct Tables {
    geometry: Geometry,
    epoch: u64,
    identity: Identity,
    control: MapMemory<Control>,
    flows4: MapMemory<Slot4>,
    flows6: MapMemory<Slot6>,
    counters: MapMemory<Counters>,
    regions: MapMemory<Region>,
    links: HashMap<MapData, Element<layout::LinkStack>, u32>,
    rules: Array<MapData, Element<layout::FilterRule>>,
    wanted: Steering,
    /// What this sensor has told each half.
    told: [Option<Steering>; 2],
    grace: Grace,
    held: Option<Held>,
}

impl Tables {
    /// Of an object that was just loaded, for this process alone.
    pub fn unpinned(object: &mut Ebpf, geometry: Geometry, steering: Steering) -> Result<Self, KernelError> {
        let identity = Identity::new(Birth { geometry, seed: 0, build: 0, sequence: 0 })?;
        Self::fresh(object, identity, steering)
    }

    /// Of an object whose maps are new: tells both halves what is wanted.
    pub fn fresh(object: &mut Ebpf, identity: Identity, steering: Steering) -> Result<Self, KernelError> {
        let mut tables = Self::map(Maps::Object(object), identity, steering)?;
        tables.tell(0)?;
        tables.tell(1)?;
        Ok(tables)
    }

    /// Of maps that somebody has counted into. What is wanted holds from the next epoch on.
    pub fn adopt(maps: Maps<'_>, identity: Identity, steering: Steering) -> Result<Self, KernelError> {
        let mut tables = Self::map(maps, identity, steering)?;
        tables.epoch = tables.epoch_word().load(Ordering::Acquire);
        let (epoch, released) = (tables.epoch, tables.identity.released());
        if epoch == released + 1 {
            tables.held = Some(Held { epoch: released, ..Held::default() });
            // Nobody will read it: a flip must not find it half zeroed.
            if tables.identity.zeroing() > released {
                tables.zero_all()?;
            }
        } else if epoch != released {
            return Err(KernelError::System {
                what: "take over the pinned tables",
                source: std::io::Error::other(format!(
                    "epoch {epoch} is written and {released} are released, which no sensor leaves behind; \
                     `weir-sensor detach` removes the tables"
                )),
            });
        }
        Ok(tables)
    }

    fn map(mut maps: Maps<'_>, identity: Identity, steering: Steering) -> Result<Self, KernelError> {
        let geometry = identity.geometry();
        let slots = |bits| geometry.all_slots(bits).map(|slots| slots as usize);
        let counters = (2 * geometry.cpus * geometry.points) as usize;
        Ok(Self {
            epoch: 0,
            control: memory(&mut maps, "WEIR_CONTROL", 1)?,
            flows4: memory(&mut maps, "WEIR_FLOWS4", slots(geometry.slots4_bits)?)?,
            flows6: memory(&mut maps, "WEIR_FLOWS6", slots(geometry.slots6_bits)?)?,
            counters: memory(&mut maps, "WEIR_COUNTERS", counters)?,
            regions: memory(&mut maps, "WEIR_REGIONS", (2 * geometry.cpus) as usize)?,
            links: HashMap::try_from(maps.map("WEIR_LINKS", Map::HashMap)?)
                .map_err(KernelError::map("WEIR_LINKS"))?,
            rules: Array::try_from(maps.map("WEIR_FILTER", Map::Array)?)
                .map_err(KernelError::map("WEIR_FILTER"))?,
            geometry,
            identity,
            wanted: steering,
            told: [None, None],
            grace: Grace::find()?,
            held: None,
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The control element, for the program that reads the clocks.
    pub fn control(&self) -> Result<MapMemory<Control>, KernelError> {
        self.control.share("WEIR_CONTROL")
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

    /// Notes when the epoch that is written began: at once after the tables were made.
    pub fn begin(&self, began: Began) {
        self.identity.set_began(half(self.epoch), Began { epoch: self.epoch, ..began });
    }

    /// Starts a new epoch and waits until no program writes the old one. `now` is read before: a stamp of the
    /// new epoch is never taken for one of the old. After an error here or in [`Self::read`], it may be called
    /// again and goes on where it stopped; it does the same with a half that a killed sensor left.
    pub fn flip(&mut self, now: Began) -> Result<Closed, KernelError> {
        if let Some(Held { epoch, delivered, .. }) = self.held {
            if delivered {
                return Err(KernelError::NotReleased { epoch });
            }
        } else {
            let next = self.epoch + 1;
            self.tell(half(next))?;
            self.identity.set_began(half(next), Began { epoch: next, ..now });
            self.epoch_word().store(next, Ordering::Release);
            self.held = Some(Held { epoch: self.epoch, ..Held::default() });
            self.epoch = next;
        }
        self.grace.wait()?;
        let began = |epoch| self.identity.began(half(epoch));
        Ok(Closed { epoch: self.epoch - 1, from: began(self.epoch - 1), to: began(self.epoch) })
    }

    /// The half that a killed sensor left unreleased; it is zeroed, not given, where the spool holds it.
    pub fn resume(&mut self, spooled: Option<u64>) -> Result<bool, KernelError> {
        let Some(Held { epoch, delivered: false, .. }) = self.held else { return Ok(false) };
        if spooled.is_some_and(|spooled| spooled >= epoch) {
            self.zero_all()?;
            return Ok(false);
        }
        Ok(true)
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
        let sampling_interval = self.control.read(0).halves[half as usize].sampling_interval;
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
                clock_step_ns: 0,
            },
            sampling_interval: sampling_interval.max(1),
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

    /// Frames that were counted and are in no released epoch.
    pub fn undrained_frames(&self) -> u64 {
        let (released, zeroing) = (self.identity.released(), self.identity.zeroing());
        let epochs = released.max(zeroing)..=self.epoch;
        let frames = |epoch, point| self.counters(epoch, point).frames;
        let points = 1..self.geometry.points as u8;
        epochs.map(|epoch| points.clone().map(|point| frames(epoch, point)).sum::<u64>()).sum()
    }

    /// Zeroes the half that was read. After an error it may be called again.
    pub fn release(&mut self, epoch: u64) -> Result<(), KernelError> {
        match &self.held {
            Some(held) if held.epoch == epoch => {}
            other => {
                let drained = other.as_ref().map(|held| held.epoch);
                return Err(KernelError::NothingToRelease { asked: epoch, drained });
            }
        }
        self.identity.set_zeroing(epoch + 1);
        if let Some(held) = &self.held {
            for &index in &held.slots4 {
                self.flows4.zero(index as usize);
            }
            for &index in &held.slots6 {
                self.flows6.zero(index as usize);
            }
        }
        self.zero_counters(half(epoch));
        let stacks = self.held.as_mut().map(|held| std::mem::take(&mut held.stacks)).unwrap_or_default();
        self.forget(&stacks)?;
        self.released(epoch);
        Ok(())
    }

    /// Zeroes the half that is held, without a list of what is in use: a killed sensor took it along.
    fn zero_all(&mut self) -> Result<(), KernelError> {
        let Some(epoch) = self.held.as_ref().map(|held| held.epoch) else { return Ok(()) };
        let half = half(epoch);
        // A program that a killed sensor's flip did not wait for may still write.
        self.grace.wait()?;
        self.identity.set_zeroing(epoch + 1);
        for cpu in 0..self.geometry.table_cpus {
            self.flows4.zero_range(self.geometry.slots(self.geometry.slots4_bits, half, cpu));
            self.flows6.zero_range(self.geometry.slots(self.geometry.slots6_bits, half, cpu));
        }
        self.zero_counters(half);
        let stacks = Links::default().intern(&self.links, half)?;
        self.forget(&stacks)?;
        self.released(epoch);
        Ok(())
    }

    fn zero_counters(&mut self, half: u32) {
        for cpu in 0..self.geometry.cpus {
            self.regions.zero(self.geometry.region(half, cpu));
            for point in 0..self.geometry.points {
                self.counters.zero(self.geometry.counters(half, cpu, point));
            }
        }
    }

    /// Takes the half's link stacks out of the map. One that is not there was taken out before an error.
    fn forget(&mut self, stacks: &[layout::LinkStack]) -> Result<(), KernelError> {
        for (index, stack) in stacks.iter().enumerate() {
            match self.links.remove(&Element(*stack)) {
                Err(error) if !is_missing(&error) => {
                    if let Some(held) = &mut self.held {
                        held.stacks = stacks[index..].to_vec();
                    }
                    return Err(KernelError::map("WEIR_LINKS")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn released(&mut self, epoch: u64) {
        self.identity.set_released(epoch + 1);
        self.held = None;
    }
}

/// The half of an epoch.
const fn half(epoch: u64) -> u32 {
    (epoch & 1) as u32
}

fn memory<T: Shared>(
    maps: &mut Maps<'_>,
    name: &'static str,
    len: usize,
) -> Result<MapMemory<T>, KernelError> {
    MapMemory::new(name, maps.array(name)?, len)
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
