//! Threat lists beside pinned tables: they hold while sensors come and go, and tables that know none are taken
//! over.

use std::{fs, time::Duration};

use weir_sensor::kernel::{EgressMode, IngressMode, ListedPrefix, address_bits};

use super::{
    ledger::{Ledger, Modes, settings},
    room::{pinning, room, send, statistic},
};

const MODES: Modes = Modes { ingress: IngressMode::Auto, egress: EgressMode::Auto };

/// Where a room's packets go.
fn destination() -> [ListedPrefix; 1] {
    let bits = address_bits("10.77.0.99".parse().expect("an address"));
    [ListedPrefix { bits, length: 128, list: 1, drops: true }]
}

#[test]
fn k10_lists_hold_while_no_sensor_runs_and_what_they_drop_is_counted_once() {
    room(|| {
        let mut ledger = Ledger::default();
        let mut datapath = ledger.take_over(&settings(), &pinning(), MODES);
        let mut lists = datapath.take_lists().expect("the maps are there");
        lists.install(&destination()).expect("the trie is filled");
        lists.heart().expect("the guard is shared").enforce_for(Duration::from_hours(1));
        drop(lists);
        datapath.leave();
        // Dropped before it leaves.
        let before = statistic("tx_packets");
        send(400);
        assert_eq!(statistic("tx_packets"), before);

        let mut datapath = ledger.take_over(&settings(), &pinning(), MODES);
        let lists = datapath.take_lists().expect("the maps are there");
        let heart = lists.heart().expect("the guard is shared");
        assert!(heart.is_enforced());
        let counts = lists.enforced(1).expect("counts are read");
        assert_eq!((counts.dropped, counts.spared), (400, 0));
        let drained = datapath.flip().expect("the epoch ends");
        let flows: u64 = drained.flows.iter().map(|flow| flow.packets).sum();
        assert_eq!(flows, 400, "K3: what is dropped is counted in its flow");
        assert!(drained.flows.iter().all(|flow| flow.listed.drops && flow.listed.dst == 1));
        ledger.commit(datapath.generation(), &drained);
        datapath.release(drained.epoch).expect("it is zeroed");

        // Lifted: the same packets pass, seen on both ends.
        heart.enforce_for(Duration::ZERO);
        send(400);
        assert_eq!(statistic("tx_packets"), before + 400);
        let counts = lists.enforced(1).expect("counts are read");
        // Once where they leave and once where they arrive.
        assert_eq!((counts.dropped, counts.spared), (400, 800));
        datapath.discard().expect("the pins are removed");
    });
}

#[test]
fn s8_tables_of_a_build_without_lists_are_taken_over() {
    room(|| {
        let mut ledger = Ledger::default();
        let datapath = ledger.take_over(&settings(), &pinning(), MODES);
        let generation = datapath.generation();
        datapath.leave();
        send(100);
        // As such a build leaves them.
        let folder = pinning().path().join(generation.simple().to_string());
        let pins: Vec<_> = fs::read_dir(&folder)
            .expect("the generation is there")
            .map(|pin| pin.expect("a pin").path())
            .filter(|pin| {
                let name = pin.file_name().unwrap_or_default().to_string_lossy();
                name.contains("LIST") || name.contains("GUARD")
            })
            .collect();
        assert_eq!(pins.len(), 4, "{pins:?}");
        for pin in pins {
            fs::remove_file(pin).expect("the pin is removed");
        }
        let other = weir_sensor::kernel::Pinning { build: Some(4711), ..pinning() };
        let mut datapath = ledger.take_over(&settings(), &other, MODES);
        assert_eq!(datapath.generation(), generation, "the same tables go on");
        let mut lists = datapath.take_lists().expect("the maps are made");
        lists.install(&destination()).expect("the trie is filled");
        send(100);
        assert_eq!(lists.enforced(1).expect("counts are read").spared, 200);
        ledger.drain(&mut datapath);
        ledger.settle();
        datapath.discard().expect("the pins are removed");
    });
}
