//! What is fixed when the programs are loaded. Read-only to the verifier, which removes every branch that
//! a setting rules out; so a feature that is off costs nothing, and a helper that the kernel lacks may
//! stand in a branch that is off.

use aya_ebpf::Global;

/// CPUs that can ever run: regions of counters in each half.
#[unsafe(no_mangle)]
pub static WEIR_CPUS: Global<u32> = Global::new(1);
/// CPUs that ran when the tables were made: regions of flow slots in each half. What a CPU counts that
/// comes later is overflow, until the tables are made anew.
#[unsafe(no_mangle)]
pub static WEIR_TABLE_CPUS: Global<u32> = Global::new(1);
/// Observation points, including the unused point 0.
#[unsafe(no_mangle)]
pub static WEIR_POINTS: Global<u32> = Global::new(2);
/// Binary logarithm of the slots of a region.
#[unsafe(no_mangle)]
pub static WEIR_SLOT4_BITS: Global<u32> = Global::new(4);
#[unsafe(no_mangle)]
pub static WEIR_SLOT6_BITS: Global<u32> = Global::new(4);
/// Secret of this load; see `hash`.
#[unsafe(no_mangle)]
pub static WEIR_SEED: Global<u64> = Global::new(0);
/// 1 when capture time stands in for the clock.
#[unsafe(no_mangle)]
pub static WEIR_REPLAY: Global<u8> = Global::new(0);
/// Classes of events that are wanted, a bit for each; 0 where there are no events.
#[unsafe(no_mangle)]
pub static WEIR_EVENT_CLASSES: Global<u32> = Global::new(0);
/// The time in which the budget of a class grants one event, on each CPU; 0 is no bound.
#[unsafe(no_mangle)]
pub static WEIR_EVENT_COST_NS: Global<u64> = Global::new(0);
/// The most time that a class may save up.
#[unsafe(no_mangle)]
pub static WEIR_EVENT_BURST_NS: Global<u64> = Global::new(0);
/// Octets of a frame that go into an event, 1 to `MAX_SNAP`.
#[unsafe(no_mangle)]
pub static WEIR_EVENT_SNAP: Global<u32> = Global::new(1);
/// So many packets of a flow in one half are looked at for what their payload is.
#[unsafe(no_mangle)]
pub static WEIR_EVENT_PACKETS: Global<u64> = Global::new(0);
/// 1 where XDP has helpers for frames in several buffers (kernel 5.18).
#[unsafe(no_mangle)]
pub static WEIR_XDP_HELPERS: Global<u8> = Global::new(0);

/// Part of what tells one build from another. It stands in the object as it is written here, so that a copy of
/// the sensor in which these bytes are changed is another build: tests of upgrades make one that way.
#[unsafe(no_mangle)]
pub static WEIR_STAMP: [u8; 16] = *b"weir-build-stamp";
