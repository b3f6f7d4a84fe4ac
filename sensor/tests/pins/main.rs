//! Counting outlives the sensor (K8, S8, S10): what is pinned is taken over exactly, whatever the sensor
//! before was doing when it ended. Needs root; each test makes namespaces and a bpffs of its own.
#![deny(unsafe_code)]

mod events;
mod hooks;
mod kill;
mod ledger;
mod lists;
mod room;
mod stale;
mod takeover;

use aya::util::KernelVersion;
use weir_sensor::kernel::{EgressMode, IngressMode};

use ledger::Modes;

/// The hooks that a kernel of today offers, and what stands in for them on older ones.
fn modes() -> Vec<Modes> {
    let mut modes = vec![Modes { ingress: IngressMode::Generic, egress: EgressMode::Clsact }];
    let current = KernelVersion::current().expect("the kernel tells its version");
    if current >= KernelVersion::new(6, 6, 0) {
        modes.push(Modes { ingress: IngressMode::Native, egress: EgressMode::Tcx });
        modes.push(Modes { ingress: IngressMode::Tc, egress: EgressMode::Tcx });
    } else {
        modes.push(Modes { ingress: IngressMode::Native, egress: EgressMode::Auto });
    }
    modes
}
