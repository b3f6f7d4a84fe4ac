//! Observation points: one direction of one interface, by number.
//!
//! Each has a record in shared memory, so that a sensor which takes the tables over knows what the numbers in
//! the slots mean. A record is written before the programs hear of its number, and freed when no half can
//! hold it.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData},
};
use weir_sensor_common::{DIRECT_IFINDEXES, PointEntry, pins::PointRecord};
use weir_wire::Direction;

use super::{KernelError, error::is_missing, identity, memory::MapMemory, object::Maps};

/// The records' name among the pins.
pub const RECORDS: &str = "POINTS";

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Entry(PointEntry);

// SAFETY: plain numbers without padding, by the definition in `weir-sensor-common`.
unsafe impl Pod for Entry {}

/// A point and since when it is no longer observed.
#[derive(Clone, Debug)]
pub struct Point {
    pub id: u8,
    pub interface: String,
    pub ifindex: u32,
    pub direction: Direction,
    pub stack: u32,
    pub layer3: bool,
    /// The last epoch in which it may have counted, once it is detached.
    pub retired: Option<u64>,
    /// Fingerprint of the program on its hook; 0 where that is not known.
    pub program: u64,
}

/// The points of this generation, and what the programs know of them.
pub struct Points {
    max: u16,
    known: Vec<Point>,
    records: MapMemory<PointRecord>,
    direct: Array<MapData, Entry>,
    hashed: HashMap<MapData, u32, Entry>,
}

/// An interface whose directions are to be numbered.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub interface: &'a str,
    pub ifindex: u32,
    pub stack: u32,
    pub layer3: bool,
}

impl Points {
    /// Of an object whose maps are new.
    pub fn new(object: &mut Ebpf, max: u16) -> Result<Self, KernelError> {
        let records = identity::array(RECORDS, usize::from(max) + 1)?;
        Self::of(Maps::Object(object), records, max)
    }

    /// As the records say.
    pub fn adopt(maps: Maps<'_>, records: MapMemory<PointRecord>) -> Result<Self, KernelError> {
        let max = records.len().saturating_sub(1) as u16;
        let mut points = Self::of(maps, records, max)?;
        points.known = (1..=max as u8).filter_map(|id| point(id, &points.records.read(id.into()))).collect();
        // A sensor that was killed while it retired a point may not have told the programs.
        let retired = points.known.iter().filter(|point| point.retired.is_some()).map(|point| point.ifindex);
        for ifindex in retired.collect::<Vec<_>>() {
            points.silence(ifindex)?;
        }
        Ok(points)
    }

    fn of(mut maps: Maps<'_>, records: MapMemory<PointRecord>, max: u16) -> Result<Self, KernelError> {
        Ok(Self {
            max,
            known: Vec::new(),
            records,
            direct: Array::try_from(maps.map("WEIR_POINTS_DIRECT", Map::Array)?)
                .map_err(KernelError::map("WEIR_POINTS_DIRECT"))?,
            hashed: HashMap::try_from(maps.map("WEIR_POINTS_HASHED", Map::HashMap)?)
                .map_err(KernelError::map("WEIR_POINTS_HASHED"))?,
        })
    }

    pub fn records(&self) -> &MapMemory<PointRecord> {
        &self.records
    }

    /// All points that may have counted in the epoch that is drained.
    pub fn iter(&self) -> impl Iterator<Item = &Point> {
        self.known.iter()
    }

    /// Numbers both directions of an interface and tells the programs. `epoch` is the last in which its old
    /// points may have counted, where it had another name.
    pub fn add(&mut self, place: Place<'_>, epoch: u64) -> Result<(), KernelError> {
        let renamed = |point: &Point| {
            point.ifindex == place.ifindex && point.interface != place.interface && point.retired.is_none()
        };
        let old: Vec<Point> = self.known.iter().filter(|point| renamed(point)).cloned().collect();
        for point in &old {
            self.change(point.id, |point| point.retired = Some(epoch));
        }
        let before: Vec<u8> = self.known.iter().map(|point| point.id).collect();
        let numbers = self
            .number(place, Direction::Ingress)
            .and_then(|ingress| Ok((ingress, self.number(place, Direction::Egress)?)));
        let told = numbers.and_then(|(ingress, egress)| {
            let layer3 = place.layer3.into();
            self.tell(place.ifindex, PointEntry { ingress, egress, layer3, ..PointEntry::default() })
        });
        if told.is_err() {
            // Numbers that this call gave are free again.
            let given = self.known.iter().map(|point| point.id).filter(|id| !before.contains(id));
            for id in given.collect::<Vec<_>>() {
                self.free(id);
            }
        }
        // The hooks of an interface that was renamed are what they were.
        for Point { direction, program, .. } in old {
            if let Some(id) = self.find(place.ifindex, direction).map(|point| point.id) {
                self.set_program(id, program);
            }
        }
        told
    }

    /// The point's old number if it had one, else the lowest free.
    fn number(&mut self, place: Place<'_>, direction: Direction) -> Result<u8, KernelError> {
        let Place { interface, ifindex, stack, layer3 } = place;
        let known =
            self.known.iter().find(|point| point.interface == interface && point.direction == direction);
        if let Some(Point { id, ifindex: old, retired, .. }) = known.cloned() {
            self.change(id, |point| {
                point.ifindex = ifindex;
                point.stack = stack;
                point.layer3 = layer3;
                if retired.is_some() || old != ifindex {
                    point.program = 0;
                }
                point.retired = None;
            });
            if old != ifindex {
                self.silence(old)?;
            }
            return Ok(id);
        }
        let id = (1..=self.max as u8)
            .find(|id| self.known.iter().all(|point| point.id != *id))
            .ok_or_else(|| KernelError::NoPointLeft { interface: interface.to_owned(), max: self.max })?;
        let interface = interface.to_owned();
        let point = Point { id, interface, ifindex, direction, stack, layer3, retired: None, program: 0 };
        self.write(&point);
        self.known.push(point);
        Ok(id)
    }

    /// The number of a direction that is observed.
    pub fn find(&self, ifindex: u32, direction: Direction) -> Option<&Point> {
        self.known
            .iter()
            .find(|point| point.ifindex == ifindex && point.direction == direction && point.retired.is_none())
    }

    /// Notes which program is on a point's hook.
    pub fn set_program(&mut self, id: u8, program: u64) {
        self.change(id, |point| point.program = program);
    }

    /// Tells the programs to count no more there. What they counted is still drained.
    pub fn retire(&mut self, ifindex: u32, epoch: u64) -> Result<(), KernelError> {
        let ids = self.known.iter().filter(|point| point.ifindex == ifindex && point.retired.is_none());
        for id in ids.map(|point| point.id).collect::<Vec<_>>() {
            self.change(id, |point| point.retired = Some(epoch));
        }
        self.silence(ifindex)
    }

    /// Forgets points that cannot have counted after the epoch that was released.
    pub fn forget(&mut self, released: u64) {
        let over = |point: &Point| point.retired.is_some_and(|retired| retired <= released);
        for id in self.known.iter().filter(|point| over(point)).map(|point| point.id).collect::<Vec<_>>() {
            self.free(id);
        }
    }

    /// Nothing is counted at an interface index any more, unless another point has it.
    fn silence(&mut self, ifindex: u32) -> Result<(), KernelError> {
        if self.known.iter().any(|point| point.ifindex == ifindex && point.retired.is_none()) {
            return Ok(());
        }
        if ifindex < DIRECT_IFINDEXES {
            return self.tell(ifindex, PointEntry::default());
        }
        match self.hashed.remove(&ifindex) {
            Err(error) if !is_missing(&error) => Err(KernelError::map("WEIR_POINTS_HASHED")(error)),
            _ => Ok(()),
        }
    }

    /// An entry that says the same already is left alone: programs are reading it.
    fn tell(&mut self, ifindex: u32, entry: PointEntry) -> Result<(), KernelError> {
        let same = |old: &Entry| {
            let PointEntry { ingress, egress, layer3, .. } = old.0;
            (ingress, egress, layer3) == (entry.ingress, entry.egress, entry.layer3)
        };
        if ifindex < DIRECT_IFINDEXES {
            if self.direct.get(&ifindex, 0).is_ok_and(|old| same(&old)) {
                return Ok(());
            }
            self.direct.set(ifindex, Entry(entry), 0).map_err(KernelError::map("WEIR_POINTS_DIRECT"))
        } else {
            if self.hashed.get(&ifindex, 0).is_ok_and(|old| same(&old)) {
                return Ok(());
            }
            self.hashed.insert(ifindex, Entry(entry), 0).map_err(KernelError::map("WEIR_POINTS_HASHED"))
        }
    }

    fn change(&mut self, id: u8, change: impl FnOnce(&mut Point)) {
        let Some(place) = self.known.iter().position(|point| point.id == id) else { return };
        change(&mut self.known[place]);
        let point = self.known[place].clone();
        self.write(&point);
    }

    fn write(&self, point: &Point) {
        let mut interface = [0; 16];
        for (to, from) in interface.iter_mut().zip(point.interface.bytes().take(15)) {
            *to = from;
        }
        let record = PointRecord {
            used: 1,
            ifindex: point.ifindex,
            stack: point.stack,
            direction: u8::from(point.direction == Direction::Egress),
            layer3: point.layer3.into(),
            interface,
            retired: point.retired.map_or(0, |epoch| epoch + 1),
            program: point.program,
            ..PointRecord::default()
        };
        let element = self.records.element(usize::from(point.id));
        // SAFETY: within the mapping; only this process writes it. `used` goes last: a record that a kill left
        // half written is free, and the programs do not know its number yet.
        unsafe {
            let used = (&raw const (*element).used).read_volatile();
            element.write_volatile(PointRecord { used, ..record });
            std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
            (&raw mut (*element).used).write_volatile(1);
        }
    }

    fn free(&mut self, id: u8) {
        self.known.retain(|point| point.id != id);
        self.records.zero(usize::from(id));
    }
}

fn point(id: u8, record: &PointRecord) -> Option<Point> {
    if record.used == 0 {
        return None;
    }
    let name = record.interface.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Point {
        id,
        interface: String::from_utf8_lossy(name).into_owned(),
        ifindex: record.ifindex,
        direction: if record.direction == 0 { Direction::Ingress } else { Direction::Egress },
        stack: record.stack,
        layer3: record.layer3 != 0,
        retired: record.retired.checked_sub(1),
        program: record.program,
    })
}
