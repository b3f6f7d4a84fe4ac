//! Filter rules: asked once for each flow, half and CPU, when no slot has the flow yet. A flow that a rule
//! denies gets no slot, so its packets ask each time.

use weir_sensor_common::{FilterRule, HalfControl, Key, filter};

use super::maps::{WEIR_FILTER, WEIR_FILTER_SCRATCH};

/// A packet as the rules see it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Subject {
    /// As in [`FilterRule::network`].
    pub src: [u64; 2],
    pub dst: [u64; 2],
    /// A packed [`Key`].
    pub key: u64,
    pub ip_version: u32,
}

/// Whether the flow may be counted.
#[inline(always)]
pub fn allows(settings: &HalfControl, half: u32, subject: Subject) -> bool {
    let Some(scratch) = WEIR_FILTER_SCRATCH.get_ptr_mut(0) else { return true };
    // SAFETY: this CPU's own value; bottom halves are off, so it works at one frame at a time.
    unsafe { *scratch = subject };
    weir_first_match(half, settings.rules, settings.default_action) == filter::ALLOW
}

/// The action of the first rule that matches the packet in the scratch. Followed by the verifier on its own,
/// like the functions of `outline`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_first_match(half: u32, rules: u32, default_action: u32) -> u32 {
    let Some(scratch) = WEIR_FILTER_SCRATCH.get_ptr(0) else { return default_action };
    // SAFETY: as in `allows`.
    let subject = unsafe { &*scratch };
    let key = Key::unpack(subject.key);
    for index in 0..filter::MAX_RULES {
        if index >= rules {
            break;
        }
        let Some(rule) = WEIR_FILTER.get(half * filter::MAX_RULES + index) else { break };
        if matches(rule, subject, key) {
            return rule.action;
        }
    }
    default_action
}

#[inline(always)]
fn matches(rule: &FilterRule, subject: &Subject, key: Key) -> bool {
    let protocol = rule.protocol == filter::ANY_PROTOCOL || rule.protocol == key.protocol as u32;
    let port = within(rule, key.src_port) || within(rule, key.dst_port);
    let network = rule.ip_version == 0
        || (rule.ip_version == subject.ip_version
            && (inside(rule, subject.src) || inside(rule, subject.dst)));
    protocol && port && network
}

#[inline(always)]
fn within(rule: &FilterRule, port: u16) -> bool {
    rule.port_low <= port && port <= rule.port_high
}

#[inline(always)]
fn inside(rule: &FilterRule, address: [u64; 2]) -> bool {
    address[0] & rule.mask[0] == rule.network[0] && address[1] & rule.mask[1] == rule.network[1]
}
