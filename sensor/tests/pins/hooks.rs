//! Interfaces and hooks that change between two sensors.

use weir_sensor::kernel::{Datapath, EgressMode, IngressMode, KernelError, Opened, Pinning, Settings};

use super::{
    ledger::{Ledger, Modes, settings},
    room::{ip, pinning, room, run, send, until_up, wire},
};

const OFF: (IngressMode, EgressMode) = (IngressMode::Off, EgressMode::Off);

/// Programs on an interface's hooks: XDP, and filters of both directions.
fn programs(interface: &str) -> (bool, usize) {
    let xdp = ip(&["-details", "link", "show", "dev", interface]).contains("prog/xdp");
    let filters = ["ingress", "egress"].map(|way| {
        // An error without a clsact qdisc, on some versions: then there is none.
        let output =
            std::process::Command::new("tc").args(["filter", "show", "dev", interface, way]).output();
        let text = String::from_utf8_lossy(&output.expect("iproute2 is installed").stdout).into_owned();
        text.lines().filter(|line| line.contains("weir_tc")).count()
    });
    (xdp, filters.iter().sum())
}

/// The names of the pinned hooks.
fn pinned() -> Vec<String> {
    let links = pinning().path().join("links");
    let mut names: Vec<String> = std::fs::read_dir(links)
        .expect("the folder is there")
        .map(|entry| entry.expect("it is listed").file_name().into_string().expect("ASCII"))
        .collect();
    names.sort();
    names
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect("it is there")
}

#[test]
fn s8_a_second_sensor_is_refused_and_a_foreign_program_is_left_alone() {
    room(|| {
        let (settings, pinning) = (settings(), pinning());
        let mut first = Datapath::open(&settings, Some(&pinning)).expect("it opens").datapath;
        first.attach("rx", IngressMode::Native, EgressMode::Off).expect("it is attached");
        let Err(refused) = Datapath::open(&settings, Some(&pinning)) else {
            panic!("two sensors, one folder")
        };
        let text = refused.to_string();
        let pid = format!("(pid {})", std::process::id());
        assert!(text.contains(&pid) && text.contains("pins.name"), "{text}");

        // Under a name of its own it runs, but not on the same hook.
        let other = Pinning { name: "other".to_owned(), ..pinning.clone() };
        let mut second = Datapath::open(&settings, Some(&other)).expect("it opens").datapath;
        let taken = second.attach("rx", IngressMode::Auto, EgressMode::Off).expect_err("rx is taken");
        assert!(matches!(taken, KernelError::XdpTaken { .. }), "{taken}");
        assert_eq!(programs("rx"), (true, 0));
        second.discard().expect("its pins are removed");

        // Also while the one that holds it is away.
        first.leave();
        let mut foreign = Datapath::load(&settings).expect("it loads");
        let taken = foreign.attach("rx", IngressMode::Auto, EgressMode::Off).expect_err("rx is taken");
        assert!(matches!(taken, KernelError::XdpTaken { .. }), "{taken}");
        assert!(taken.to_string().contains("weir-sensor detach"), "{taken}");
    });
}

#[test]
fn s8_interfaces_that_come_go_and_are_renamed_between_two_sensors() {
    room(|| {
        let mut ledger = Ledger::default();
        let (settings, pinning) = (settings(), pinning());
        wire("old", "older");
        let modes = Modes { ingress: IngressMode::Native, egress: EgressMode::Clsact };
        let mut datapath = ledger.take_over(&settings, &pinning, modes);
        datapath.attach("old", IngressMode::Generic, EgressMode::Auto).expect("it is attached");
        datapath.attach("older", IngressMode::Off, EgressMode::Clsact).expect("it is attached");
        send(100);
        drop(datapath);
        let gone = [index("old"), index("older")];
        ip(&["link", "delete", "old"]);
        ip(&["link", "set", "dev", "rx", "down"]);
        ip(&["link", "set", "dev", "rx", "name", "renamed"]);
        ip(&["link", "set", "dev", "renamed", "up"]);
        until_up("tx");
        wire("new", "newer");
        send(100);

        let Opened { mut datapath, .. } = Datapath::open(&settings, Some(&pinning)).expect("it opens");
        let attached = datapath.attach("renamed", modes.ingress, EgressMode::Off).expect("it is attached");
        assert_eq!(attached.ingress.as_deref(), Some("xdp native, taken over"));
        datapath.attach("new", IngressMode::Auto, EgressMode::Auto).expect("it is attached");
        // `tx` is not configured any more.
        let retired = datapath.retire_unclaimed().expect("unclaimed hooks go").join("\n");
        for (ifindex, what) in [(gone[0], "gone"), (gone[1], "gone"), (index("tx"), "not watched")] {
            let line = retired.lines().find(|line| line.contains(&format!("interface {ifindex},")));
            assert!(line.is_some_and(|line| line.contains(what)), "{ifindex} {what}: {retired}");
        }
        assert_eq!(programs("tx"), (false, 0), "nothing is left there");
        let mut expected = vec![format!("{}-ingress-native", index("renamed"))];
        expected.push(format!("{}-ingress-native", index("new")));
        expected.push(format!("{}-egress-tcx", index("new")));
        expected.sort();
        if pinned().iter().all(|name| !name.ends_with("tcx")) {
            // Before kernel 6.6.
            for name in &mut expected {
                *name = name.replace("tcx", "clsact");
            }
        }
        assert_eq!(pinned(), expected);
        // What the old points have counted is under their old names; then they are forgotten.
        let generation = datapath.generation();
        let drained = datapath.flip().expect("the epoch ends");
        let frames = |name: &str| -> u64 {
            drained
                .points
                .iter()
                .filter(|point| point.interface == name)
                .map(|point| point.totals.frames)
                .sum()
        };
        assert_eq!((frames("rx") + frames("renamed"), frames("tx")), (200, 200));
        ledger.commit(generation, &drained);
        datapath.release(drained.epoch).expect("it is zeroed");
        ledger.drain(&mut datapath);
        let last = datapath.flip().expect("the epoch ends");
        let mut names: Vec<_> = last.points.into_iter().map(|point| point.interface).collect();
        names.sort();
        names.dedup();
        assert_eq!(names, ["new", "renamed"]);
        datapath.discard().expect("the pins are removed");
        assert_eq!((programs("renamed"), programs("new")), ((false, 0), (false, 0)));
    });
}

#[test]
fn s8_another_kind_of_hook_takes_the_old_one_s_place() {
    room(|| {
        let (settings, pinning) = (settings(), pinning());
        let index = index("rx");
        let steps = [
            (IngressMode::Native, vec!["ingress-native"]),
            (IngressMode::Auto, vec!["ingress-native"]),
            (IngressMode::Generic, vec!["ingress-generic"]),
            (IngressMode::Auto, vec!["ingress-generic"]),
            (IngressMode::Off, vec![]),
        ];
        for (mode, expected) in steps {
            let mut datapath = Datapath::open(&settings, Some(&pinning)).expect("it opens").datapath;
            datapath.attach("rx", mode, EgressMode::Off).expect("it is attached");
            let expected: Vec<String> = expected.into_iter().map(|hook| format!("{index}-{hook}")).collect();
            assert_eq!(pinned(), expected, "{mode:?}");
            assert_eq!(programs("rx").0, !expected.is_empty(), "{mode:?}");
            datapath.attach("tx", OFF.0, OFF.1).expect("it has no hook, but may be named");
        }
    });
}

#[test]
fn s8_an_interface_that_finds_no_number_leaves_none_behind() {
    room(|| {
        let settings = Settings { max_points: 3, ..settings() };
        let mut datapath = Datapath::open(&settings, Some(&pinning())).expect("it opens").datapath;
        datapath.attach("rx", IngressMode::Native, EgressMode::Off).expect("it is attached");
        let error =
            datapath.attach("tx", IngressMode::Off, EgressMode::Auto).expect_err("one number is left");
        assert!(matches!(error, KernelError::NoPointLeft { .. }), "{error}");
        send(10);
        let drained = datapath.flip().expect("the epoch ends");
        let points: Vec<_> =
            drained.points.iter().map(|point| (point.interface.as_str(), point.totals.frames)).collect();
        assert_eq!(points, [("rx", 10), ("rx", 0)], "both directions of rx, nothing of tx");
        assert_eq!(pinned(), [format!("{}-ingress-native", index("rx"))]);
    });
}

#[test]
fn s8_a_clsact_filter_that_a_killed_sensor_left_is_replaced_and_not_stacked() {
    room(|| {
        let settings = settings();
        for _ in 0..3 {
            let mut datapath = Datapath::load(&settings).expect("it loads; this test needs root");
            datapath.attach("tx", IngressMode::Off, EgressMode::Clsact).expect("egress is attached");
            send(10);
            let drained = datapath.flip().expect("the epoch ends");
            assert_eq!(drained.points.iter().map(|point| point.totals.frames).sum::<u64>(), 10);
            assert_eq!(programs("tx"), (false, 1));
            // A kill closes descriptors and removes no filter.
            std::mem::forget(datapath);
        }
        // Pinned, it stays; taken out by somebody else, it comes back.
        let pinning = pinning();
        run("tc", &["qdisc", "delete", "dev", "tx", "clsact"]);
        for _ in 0..2 {
            let mut datapath = Datapath::open(&settings, Some(&pinning)).expect("it opens").datapath;
            datapath.attach("tx", IngressMode::Off, EgressMode::Clsact).expect("egress is attached");
            assert_eq!(programs("tx"), (false, 1));
            drop(datapath);
            assert_eq!(programs("tx"), (false, 1));
            run("tc", &["qdisc", "delete", "dev", "tx", "clsact"]);
        }
    });
}
