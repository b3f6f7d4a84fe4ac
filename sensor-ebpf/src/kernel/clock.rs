//! Kernel time. Costs decide: on the machine this was measured on, the precise clock takes some 25 ns a
//! packet, the kernel's coarse clock 15, and the tick counter nothing that shows, because the verifier turns
//! the helper into a load. So a packet that finds its flow is stamped with ticks, and the sensor, which reads
//! both clocks at each end of an epoch, makes times of them.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_ns};
use weir_sensor_common::{Control, TICKS};

use super::settings::WEIR_REPLAY;

/// Nanoseconds, exact.
#[inline(always)]
pub fn precise(control: &Control) -> u64 {
    if WEIR_REPLAY.load() != 0 {
        return control.replay_now_ns;
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Ticks, marked as such; up to a tick behind.
#[inline(always)]
pub fn coarse(control: &Control) -> u64 {
    if WEIR_REPLAY.load() != 0 {
        return control.replay_now_ns;
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() | TICKS }
}

/// Both clocks at once.
#[inline(always)]
pub fn read_both(control: &mut Control) {
    // SAFETY: helpers without arguments.
    unsafe {
        control.ticks = bpf_jiffies64();
        control.ticks_ns = bpf_ktime_get_ns();
    }
}
