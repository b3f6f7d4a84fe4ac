//! Weir's kernel programs: XDP on ingress, TC on egress (and on ingress where a device begins with IP).
//!
//! They watch and do not decide: `XDP_PASS` and `TCX_NEXT`, but for a packet that a list drops, where an
//! operator says so (`kernel::listed`). Each program is a few lines; the way of a frame is
//! `frame -> parse -> table`, and what is counted where is in `kernel::account`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(clippy::inline_always, reason = "the kernel programs must inline what they call per packet")]

mod kernel;

use aya_ebpf::{
    bindings::xdp_action,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use kernel::{
    account::{self, Direction, outcome},
    clock,
    frame::Frame,
    maps, outline,
};

/// Lets the next program of the chain see the packet, in TCX and in a clsact `direct-action` filter alike.
const TC_NEXT: i32 = -1;
/// Ends the packet, there and here.
const TC_SHOT: i32 = 2;

#[inline(always)]
const fn xdp(outcome: u32) -> u32 {
    if outcome == outcome::DROP { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

#[inline(always)]
const fn tc(outcome: u32) -> i32 {
    if outcome == outcome::DROP { TC_SHOT } else { TC_NEXT }
}

/// XDP for kernels from 5.18 on: takes frames that lie in several buffers.
#[xdp(frags)]
pub fn weir_xdp_frags(context: XdpContext) -> u32 {
    xdp(account::frame(&Frame::xdp_frags(&context), &context))
}

/// XDP for kernels before 5.18.
#[xdp]
pub fn weir_xdp(context: XdpContext) -> u32 {
    xdp(account::frame(&Frame::xdp_linear(&context), &context))
}

/// TC on egress.
#[classifier]
pub fn weir_tc_egress(context: TcContext) -> i32 {
    tc(outline::tc(&context, Direction::Egress))
}

/// TC on ingress: for devices without an Ethernet header, and where an operator prefers it to XDP.
#[classifier]
pub fn weir_tc_ingress(context: TcContext) -> i32 {
    tc(outline::tc(&context, Direction::Ingress))
}

/// Reads both kernel clocks into the control element. It is attached nowhere: the sensor runs it. A TC program,
/// because each test run of an XDP program has the kernel patch its XDP dispatcher, on all CPUs.
#[classifier]
pub fn weir_clock(_: TcContext) -> i32 {
    if let Some(control) = maps::WEIR_CONTROL.get_ptr_mut(0) {
        // SAFETY: a map value; only this program writes the two words.
        clock::read_both(unsafe { &mut *control });
    }
    TC_NEXT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program that could come here, and nothing that is linked can.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
