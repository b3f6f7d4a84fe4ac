//! Where things stand in the shared maps. The formulas are those of `weir-sensor-common`.

use aya::util::{nr_cpus, online_cpus};

use super::{KernelError, Settings};

/// Sizes that are fixed when the tables are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// CPUs that can ever run; each has counters.
    pub cpus: u32,
    /// CPUs that have flow slots.
    pub table_cpus: u32,
    /// Observation points, with the unused point 0.
    pub points: u32,
    pub slots4_bits: u32,
    pub slots6_bits: u32,
}

impl Geometry {
    pub fn new(settings: &Settings) -> Result<Self, KernelError> {
        let cpus = nr_cpus()
            .map_err(|(_, source)| KernelError::System { what: "read the possible CPUs", source })?;
        let online = online_cpus()
            .map_err(|(_, source)| KernelError::System { what: "read the online CPUs", source })?;
        Ok(Self {
            cpus: cpus as u32,
            table_cpus: online.into_iter().max().map_or(1, |highest| highest + 1),
            points: u32::from(settings.max_points) + 1,
            slots4_bits: settings.tables.ipv4_slots.trailing_zeros(),
            slots6_bits: settings.tables.ipv6_slots.trailing_zeros(),
        })
    }

    /// Flow slots of one CPU in one half: the first and how many.
    pub fn slots(self, bits: u32, half: u32, cpu: u32) -> std::ops::Range<usize> {
        let region = (half * self.table_cpus + cpu) as usize;
        region << bits..(region + 1) << bits
    }

    /// Slots of one table in both halves.
    pub fn all_slots(self, bits: u32) -> u32 {
        (2 * self.table_cpus) << bits
    }

    /// Index of the counters of a CPU at a point.
    pub fn counters(self, half: u32, cpu: u32, point: u32) -> usize {
        ((half * self.cpus + cpu) * self.points + point) as usize
    }

    /// Index of a region.
    pub fn region(self, half: u32, cpu: u32) -> usize {
        (half * self.cpus + cpu) as usize
    }
}
