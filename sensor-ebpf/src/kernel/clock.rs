//! Kernel time. Costs decide: the precise clock reads the time stamp counter (about 20 ns), the coarse one
//! reads what the last tick left in memory.

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use weir_sensor_common::Control;

use super::settings::{WEIR_COARSE_CLOCK, WEIR_REPLAY};

/// Nanoseconds, exact.
#[inline(always)]
pub fn precise(control: &Control) -> u64 {
    if WEIR_REPLAY.load() != 0 {
        return control.replay_now_ns;
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Nanoseconds, up to a tick behind; precise on kernels that have no coarse clock.
#[inline(always)]
pub fn coarse(control: &Control) -> u64 {
    if WEIR_REPLAY.load() != 0 || WEIR_COARSE_CLOCK.load() == 0 {
        return precise(control);
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}
