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
        let geometry = Self {
            cpus: cpus as u32,
            table_cpus: online.into_iter().max().map_or(1, |highest| highest + 1),
            points: u32::from(settings.max_points) + 1,
            slots4_bits: settings.tables.ipv4_slots.trailing_zeros(),
            slots6_bits: settings.tables.ipv6_slots.trailing_zeros(),
        };
        geometry.all_slots(geometry.slots4_bits)?;
        geometry.all_slots(geometry.slots6_bits)?;
        Ok(geometry)
    }

    /// Flow slots of one CPU in one half: the first and how many.
    pub fn slots(self, bits: u32, half: u32, cpu: u32) -> std::ops::Range<usize> {
        let region = (half * self.table_cpus + cpu) as usize;
        region << bits..(region + 1) << bits
    }

    /// Slots of one table in both halves. An error where that is more than a kernel map can have: the largest
    /// tables are for hosts with less than 128 CPUs.
    pub fn all_slots(self, bits: u32) -> Result<u32, KernelError> {
        let slots = u64::from(2 * self.table_cpus) << bits;
        u32::try_from(slots).map_err(|_| KernelError::Setting {
            key: "tables",
            value: format!("{} slots on each of {} CPUs, twice", 1_u64 << bits, self.table_cpus),
            allowed: "4294967295 slots in all; set a smaller tables.ipv4_slots or tables.ipv6_slots",
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_no_map_can_hold_are_refused_by_their_key() {
        let geometry =
            |table_cpus| Geometry { cpus: 256, table_cpus, points: 3, slots4_bits: 24, slots6_bits: 4 };
        assert_eq!(geometry(127).all_slots(24).expect("it fits"), 254 << 24);
        let error = geometry(128).all_slots(24).expect_err("2^32 slots").to_string();
        assert!(error.contains("16777216 slots on each of 128 CPUs"), "{error}");
    }
}
