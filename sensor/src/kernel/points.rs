//! Observation points: one direction of one interface, by number.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData},
};
use weir_sensor_common::{DIRECT_IFINDEXES, PointEntry};
use weir_wire::Direction;

use super::{KernelError, object};

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
    /// The last epoch in which it may have counted, once it is detached.
    pub retired: Option<u64>,
}

/// The points of this generation, and what the programs know of them.
pub struct Points {
    max: u16,
    known: Vec<Point>,
    direct: Array<MapData, Entry>,
    hashed: HashMap<MapData, u32, Entry>,
}

impl Points {
    pub fn new(object: &mut Ebpf, max: u16) -> Result<Self, KernelError> {
        Ok(Self {
            max,
            known: Vec::new(),
            direct: Array::try_from(object::take(object, "WEIR_POINTS_DIRECT")?)
                .map_err(KernelError::map("WEIR_POINTS_DIRECT"))?,
            hashed: HashMap::try_from(object::take(object, "WEIR_POINTS_HASHED")?)
                .map_err(KernelError::map("WEIR_POINTS_HASHED"))?,
        })
    }

    /// All points that may have counted in the epoch that is drained.
    pub fn iter(&self) -> impl Iterator<Item = &Point> {
        self.known.iter()
    }

    /// Numbers both directions of an interface and tells the programs.
    pub fn add(
        &mut self,
        interface: &str,
        ifindex: u32,
        stack: u32,
        layer3: bool,
    ) -> Result<(), KernelError> {
        let number = |points: &mut Self, direction| {
            points
                .number(interface, ifindex, direction, stack)
                .ok_or_else(|| KernelError::NoPointLeft { interface: interface.to_owned(), max: points.max })
        };
        let ingress = number(self, Direction::Ingress)?;
        let egress = number(self, Direction::Egress)?;
        self.tell(ifindex, PointEntry { ingress, egress, layer3: layer3.into(), ..PointEntry::default() })
    }

    /// The point's old number if it had one, else the lowest free.
    fn number(&mut self, interface: &str, ifindex: u32, direction: Direction, stack: u32) -> Option<u8> {
        if let Some(known) =
            self.known.iter_mut().find(|point| point.interface == interface && point.direction == direction)
        {
            known.ifindex = ifindex;
            known.stack = stack;
            known.retired = None;
            return Some(known.id);
        }
        let id = (1..=self.max as u8).find(|id| self.known.iter().all(|point| point.id != *id))?;
        let interface = interface.to_owned();
        self.known.push(Point { id, interface, ifindex, direction, stack, retired: None });
        Some(id)
    }

    /// Tells the programs to count no more there. What they counted is still drained.
    pub fn retire(&mut self, ifindex: u32, epoch: u64) -> Result<(), KernelError> {
        for point in self.known.iter_mut().filter(|point| point.ifindex == ifindex) {
            point.retired = Some(epoch);
        }
        if ifindex < DIRECT_IFINDEXES {
            return self.tell(ifindex, PointEntry::default());
        }
        self.hashed.remove(&ifindex).map_err(KernelError::map("WEIR_POINTS_HASHED"))
    }

    /// Forgets points that cannot have counted after the epoch that was released.
    pub fn forget(&mut self, released: u64) {
        self.known.retain(|point| point.retired.is_none_or(|retired| retired > released));
    }

    fn tell(&mut self, ifindex: u32, entry: PointEntry) -> Result<(), KernelError> {
        if ifindex < DIRECT_IFINDEXES {
            self.direct.set(ifindex, Entry(entry), 0).map_err(KernelError::map("WEIR_POINTS_DIRECT"))
        } else {
            self.hashed.insert(ifindex, Entry(entry), 0).map_err(KernelError::map("WEIR_POINTS_HASHED"))
        }
    }
}
