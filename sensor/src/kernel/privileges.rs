//! What the process may do: after this, only what the kernel side needs.
//!
//! Capabilities belong to threads. A thread inherits those of the one that starts it, so this is called once,
//! before the runtime makes its own.

use std::fs;

use caps::{CapSet, Capability};
use nix::sys::prctl;

use super::KernelError;

/// For programs and maps; for hooks, and the programs that read the clocks; for the verifier's freedom with
/// pointers and loops.
const KEPT: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Gives up every capability of this thread but the three above (and, where `processes` asks for it, the one to
/// see which file any process runs), for good: also those that an executed file would bring (`no_new_privs`, and
/// the bounding set). An error if other threads run already: they would keep
/// theirs.
pub fn drop_privileges(processes: bool) -> Result<(), KernelError> {
    let keeps = |capability: &Capability| {
        KEPT.contains(capability) || (processes && *capability == Capability::CAP_SYS_PTRACE)
    };
    let threads = fs::read_dir("/proc/self/task").map(Iterator::count);
    if threads.map_err(KernelError::system("count the threads"))? > 1 {
        return Err(KernelError::Privileges("other threads run already and would keep theirs".to_owned()));
    }
    // Before 5.11, maps are charged to this limit, and only now may it be raised.
    super::sys::unlimit_locked_memory();
    prctl::set_no_new_privs()
        .map_err(|errno| KernelError::System { what: "set no_new_privs", source: errno.into() })?;
    let refused = |error: caps::errors::CapsError| KernelError::Privileges(error.to_string());
    caps::clear(None, CapSet::Ambient).map_err(refused)?;
    // Without CAP_SETPCAP the bounding set cannot be changed; without it, it matters little: no_new_privs.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(refused)? {
        for capability in caps::read(None, CapSet::Bounding).map_err(refused)? {
            if !keeps(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(refused)?;
            }
        }
    }
    let kept: caps::CapsHashSet =
        caps::read(None, CapSet::Permitted).map_err(refused)?.into_iter().filter(keeps).collect();
    caps::clear(None, CapSet::Inheritable).map_err(refused)?;
    caps::set(None, CapSet::Effective, &kept).map_err(refused)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(refused)
}
