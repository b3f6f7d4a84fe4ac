//! Numbers for link stacks.

use aya_ebpf::bindings::BPF_NOEXIST;
use weir_sensor_common::link::{self, LinkStack};

use super::{
    maps::{WEIR_LINK_SCRATCH, WEIR_LINKS, WEIR_REGIONS},
    packed::NO_NUMBER,
    settings::WEIR_CPUS,
};

/// Where the stack of the frame at hand is put together.
#[inline(always)]
pub fn scratch() -> Option<&'static mut LinkStack> {
    // SAFETY: this CPU's own value; bottom halves are off, so it works at one frame at a time.
    WEIR_LINK_SCRATCH.get_ptr_mut(0).map(|stack| unsafe { &mut *stack })
}

/// The number of a stack in this half; `None` when the half has no more numbers. CPUs number in turn
/// (`cpu`, `cpu + cpus`, ...), so that none waits for another.
#[inline(always)]
pub fn intern(stack: &mut LinkStack, half: u32, cpu: u32) -> Option<u16> {
    stack.half = half;
    // SAFETY: values are plain numbers that never change once they are there.
    if let Some(number) = unsafe { WEIR_LINKS.get(&*stack) } {
        return Some(*number as u16);
    }
    let region = WEIR_REGIONS.get_ptr_mut(half * WEIR_CPUS.load() + cpu)?;
    // SAFETY: a map value of this CPU's own region.
    let given = unsafe { &mut (*region).links };
    let number = link::FIRST_INTERNED as u64 + *given * WEIR_CPUS.load() as u64 + cpu as u64;
    if number >= NO_NUMBER as u64 {
        return None;
    }
    *given += 1;
    let _ = WEIR_LINKS.insert(&*stack, number as u32, BPF_NOEXIST as u64);
    // Another CPU may have been first: what the map holds now is the number.
    // SAFETY: as above.
    unsafe { WEIR_LINKS.get(&*stack) }.map(|number| *number as u16)
}
