//! What is read of payloads, and the names that come of it.
//!
//! Any frames, one after the other, give observations that show nothing hostile; what waits to be whole stays
//! within its bound, and so does the cache of names; a sensor that sees the frames again says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_sensor::enrich::names::{Limits, Names};
use weir_sensor::observe::text::is_hostile;
use weir_sensor::observe::{Frame, Framing, MAX_HELD, Observation, Observer};

const SECOND_NS: i64 = 1_000_000_000;
/// Octets of names: few enough that the bound is met.
const NAME_OCTETS: usize = 4 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((mode, frames)) = input.split_first() else { return };
    let framing = if mode & 1 == 0 { Framing::Ethernet } else { Framing::Ip };
    let vlan = (mode & 2 != 0).then_some(0x2005);
    let found = observe(frames, framing, vlan);
    assert_eq!(observe(frames, framing, vlan), found, "the same frames say the same");
    let mut names = Names::new(Limits { octets: NAME_OCTETS, ..Limits::default() });
    for observation in &found {
        let shown = serde_json::to_string(&observation.seen).expect("an observation is JSON");
        assert!(!shown.chars().any(is_hostile), "{shown}");
        names.observe(observation);
        let flow = observation.origin.flow;
        if let Some(name) = flow.and_then(|flow| names.name(&flow, observation.time_ns)) {
            assert!(!name.text.chars().any(is_hostile));
        }
        names.timed_out(observation.time_ns);
    }
});

/// Reads frames that stand behind their lengths.
fn observe(mut input: &[u8], framing: Framing, offloaded_vlan: Option<u16>) -> Vec<Observation> {
    let mut observer = Observer::default();
    let mut found = Vec::new();
    let mut time_ns = 0;
    while let Some(([high, low], rest)) = input.split_first_chunk() {
        let octets = (usize::from(*high) << 8 | usize::from(*low)).min(rest.len());
        let (bytes, rest) = rest.split_at(octets);
        input = rest;
        // On the heap with nothing behind it: a read past the end is seen.
        let bytes = bytes.to_vec().into_boxed_slice();
        let frame = Frame {
            framing,
            bytes: &bytes,
            wire_octets: octets as u32 + u32::from(*low & 1),
            offloaded_vlan,
        };
        time_ns += SECOND_NS;
        observer.frame(&frame, time_ns, |observation| found.push(observation));
        assert!(observer.octets_held() <= MAX_HELD);
    }
    found
}
