//! A sensor ends at each step of the protocol, and the next one goes on there.

use weir_sensor::kernel::{Datapath, KernelError, Opened};

use super::{
    ledger::{Ledger, attach, settings},
    modes,
    room::{Traffic, pinning, room, send},
};

#[test]
fn s8_a_sensor_that_ends_at_any_step_loses_and_doubles_nothing() {
    room(|| {
        let mut ledger = Ledger::default();
        let (settings, pinning) = (settings(), pinning());
        for modes in modes() {
            // Before anything is attached, and with nothing drained yet.
            drop(Datapath::open(&settings, Some(&pinning)).expect("it opens; this test needs root"));
            let datapath = ledger.take_over(&settings, &pinning, modes);
            send(100);
            let generation = datapath.generation();
            drop(datapath);
            send(100);

            // In the middle of an epoch.
            let mut datapath = ledger.take_over(&settings, &pinning, modes);
            assert_eq!(datapath.generation(), generation, "the same tables");
            send(100);
            ledger.drain(&mut datapath);
            send(100);

            // Drained, not spooled.
            let read = datapath.flip().expect("the epoch ends");
            drop(datapath);
            send(100);
            let Opened { mut datapath, adopted, .. } =
                Datapath::open(&settings, Some(&pinning)).expect("it opens");
            assert!(adopted);
            attach(&mut datapath, modes);
            let again = datapath.resume(ledger.spooled(generation)).expect("it is read").expect("it is held");
            let flows = |drained: &weir_sensor::kernel::Drained| {
                let mut flows: Vec<_> = drained
                    .flows
                    .iter()
                    .map(|flow| {
                        (flow.key, flow.point, flow.packets, flow.octets, flow.first_ns, flow.last_ns)
                    })
                    .collect();
                flows.sort_unstable();
                flows
            };
            assert_eq!(flows(&again), flows(&read), "reading a half twice gives the same");
            let window = |drained: &weir_sensor::kernel::Drained| {
                (drained.epoch, drained.window_start_ns, drained.window_end_ns)
            };
            assert_eq!(window(&again), window(&read));
            assert!(matches!(datapath.flip(), Err(KernelError::NotReleased { .. })), "it is not zeroed yet");

            // Drained and spooled, not released.
            ledger.commit(generation, &again);
            drop(datapath);
            send(100);
            let Opened { mut datapath, .. } = Datapath::open(&settings, Some(&pinning)).expect("it opens");
            attach(&mut datapath, modes);
            assert!(datapath.resume(ledger.spooled(generation)).expect("it is zeroed").is_none());
            ledger.drain(&mut datapath);
            datapath.leave();
            send(100);

            // Ended for good.
            let mut datapath = ledger.take_over(&settings, &pinning, modes);
            datapath.detach_all().expect("the hooks are taken off");
            ledger.drain(&mut datapath);
            ledger.settle();
            datapath.discard().expect("the pins are removed");
            assert!(!pinning.path().exists(), "the folder is gone");
        }
        assert_eq!(ledger.generations(), modes().len());
    });
}

#[test]
fn s8_traffic_that_never_stops_is_counted_once_across_restarts_upgrades_and_new_sizes() {
    for modes in modes() {
        room(move || {
            let mut ledger = Ledger::default();
            let pinning = pinning();
            let newer = weir_sensor::kernel::Pinning { build: Some(4711), ..pinning.clone() };
            let small = settings();
            let mut large = settings();
            large.tables.ipv4_slots = 1024;
            let first = ledger.take_over(&small, &pinning, modes);
            let generation = first.generation();
            drop(first);
            let traffic = Traffic::start();
            let rounds = [
                (&small, &pinning, true),
                (&small, &newer, true),
                (&large, &newer, false),
                (&large, &pinning, true),
                (&small, &pinning, false),
            ];
            let mut before = generation;
            for (settings, pinning, same) in rounds {
                let mut datapath = ledger.take_over(settings, pinning, modes);
                assert_eq!(datapath.generation() == before, same);
                before = datapath.generation();
                for _ in 0..5 {
                    ledger.drain(&mut datapath);
                }
                // One more that is drained and neither spooled nor released.
                datapath.flip().expect("the epoch ends");
            }
            let mut datapath = ledger.take_over(&small, &pinning, modes);
            traffic.stop();
            ledger.drain(&mut datapath);
            ledger.settle();
            assert_eq!(ledger.generations(), 3);
            datapath.discard().expect("the pins are removed");
        });
    }
}
