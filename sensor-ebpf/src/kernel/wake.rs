//! Wake-ups: the programs ask for an early drain, at most twice for each CPU, half and reason.

use weir_sensor_common::Wakeup;

use super::maps::WEIR_WAKEUPS;

/// Asks; where the ring is full, somebody has asked already.
#[inline(never)]
pub fn ask(epoch: u64, cpu: u32, reason: u32) {
    let _ = WEIR_WAKEUPS.output::<Wakeup>(Wakeup { epoch, cpu, reason }, 0);
}
