//! Packets that are chosen are delivered or refused, whoever reads and whoever does not (K3, K5, S3).

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use weir_sensor::kernel::{
    Datapath, EgressMode, Event, EventClass, EventCounts, EventSettings, Events, IngressMode, Opened,
    Settings,
};
use weir_wire::Direction;

use super::{
    ledger::settings,
    room::{ip, pinning, room},
};

/// Datagrams through the loopback interface, one at a time: each is seen going out and coming in.
fn send(port: u16, datagrams: u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("it binds");
    let server = UdpSocket::bind(("127.0.0.1", port)).expect("the room is ours");
    server.set_read_timeout(Some(Duration::from_secs(30))).expect("it has a deadline");
    for number in 0..datagrams {
        let sent = number.to_be_bytes();
        socket.send_to(&sent, ("127.0.0.1", port)).expect("it is sent");
        let mut came = [0; 8];
        assert_eq!(server.recv(&mut came).expect("it comes"), sent.len());
    }
}

fn watch(settings: &Settings) -> Datapath {
    ip(&["link", "set", "dev", "lo", "up"]);
    let Opened { mut datapath, .. } =
        Datapath::open(settings, Some(&pinning())).expect("it opens; needs root");
    datapath.attach("lo", IngressMode::Tc, EgressMode::Auto).expect("it attaches");
    datapath
}

/// Frames of both directions, counted so far in this epoch.
fn frames(datapath: &Datapath) -> u64 {
    datapath.totals().iter().map(|point| point.totals.frames).sum()
}

/// Reads until so many events have come.
fn read(runtime: &tokio::runtime::Runtime, events: &mut Events, due: u64) -> Vec<Event> {
    let mut read = Vec::new();
    runtime.block_on(async {
        while (read.len() as u64) < due {
            let reading = events.read(|event| read.push(event));
            let within = tokio::time::timeout(Duration::from_secs(30), reading).await;
            within.expect("events come").expect("the ring is read");
        }
    });
    assert_eq!(read.len() as u64, due, "no more than were delivered");
    read
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn counts(events: &Events, class: EventClass) -> EventCounts {
    let counts = events.counts(class).expect("the counts are read");
    assert_eq!(counts.selected, counts.delivered + counts.refused(), "{class:?}: {counts:?}");
    counts
}

#[test]
fn k5_a_budget_refuses_what_it_cannot_grant_and_leaves_other_classes_theirs() {
    const FLOOD: u64 = 5000;
    const BURST: u32 = 10;
    room(|| {
        let runtime = runtime();
        let _within = runtime.enter();
        // Next to nothing beside the burst.
        let events = EventSettings { per_second: 1, burst: BURST, ..EventSettings::default() };
        let began = Instant::now();
        let mut datapath = watch(&Settings { events, ..settings() });
        let mut events = datapath.take_events().expect("there is a ring");
        send(53, FLOOD);
        send(5355, 1);
        let dns = counts(&events, EventClass::Dns);
        let (selected, cpus) =
            (2 * FLOOD, std::thread::available_parallelism().map_or(1, usize::from) as u64);
        assert_eq!((dns.selected, dns.ring_full, dns.unreadable), (selected, 0, 0));
        let granted = cpus * (u64::from(BURST) + began.elapsed().as_secs() + 1);
        assert!((u64::from(BURST)..=granted).contains(&dns.delivered), "{dns:?}");
        let llmnr = counts(&events, EventClass::Llmnr);
        assert_eq!((llmnr.selected, llmnr.delivered), (2, 2), "a flood of DNS does not hide it");
        let read = read(&runtime, &mut events, dns.delivered + llmnr.delivered);
        assert!(read.iter().all(|event| &*event.interface == "lo"));
        for direction in [Direction::Ingress, Direction::Egress] {
            assert!(read.iter().any(|event| event.direction == direction), "{direction:?}");
        }
        assert_eq!(frames(&datapath), 2 * (FLOOD + 1), "K3: refusals change no count");
        datapath.discard().expect("the pins are removed");
    });
}

/// The programs stay when the sensor goes: then the ring fills, and the next sensor reads what it still holds.
#[test]
fn s8_programs_that_nobody_reads_go_on_counting_and_the_next_sensor_reads_on() {
    const WITHOUT: u64 = 8000;
    room(|| {
        let runtime = runtime();
        let _within = runtime.enter();
        let unbounded = EventSettings { per_second: 1_000_000, burst: 1_000_000, ..EventSettings::default() };
        let settings = Settings { events: unbounded, ..settings() };
        let mut datapath = watch(&settings);
        let mut events = datapath.take_events().expect("there is a ring");
        send(53, 3);
        assert_eq!(read(&runtime, &mut events, 6).len(), 6);
        drop(events);
        datapath.leave();

        send(53, WITHOUT);
        let mut datapath = watch(&settings);
        let mut events = datapath.take_events().expect("there is a ring");
        let dns = counts(&events, EventClass::Dns);
        assert_eq!((dns.selected, dns.over_budget, dns.unreadable), (2 * (WITHOUT + 3), 0, 0));
        assert!(dns.ring_full > 0, "a mebibyte does not hold {WITHOUT} datagrams twice: {dns:?}");
        assert_eq!(frames(&datapath), 2 * (WITHOUT + 3), "K3: nobody reads, all is counted");
        read(&runtime, &mut events, dns.delivered - 6);

        // There is room again.
        send(53, 2);
        assert_eq!(read(&runtime, &mut events, 4).len(), 4);
        assert_eq!(counts(&events, EventClass::Dns).ring_full, dns.ring_full);
        datapath.discard().expect("the pins are removed");
    });
}

/// Other settings are other programs: they replace those that run, and use the same ring.
#[test]
fn s12_events_that_are_turned_off_are_off_after_a_restart() {
    room(|| {
        let runtime = runtime();
        let _within = runtime.enter();
        let datapath = watch(&settings());
        datapath.leave();
        let mut datapath = watch(&Settings { events: EventSettings::none(), ..settings() });
        let events = datapath.take_events().expect("there is a ring");
        send(53, 3);
        assert_eq!((counts(&events, EventClass::Dns).selected, frames(&datapath)), (0, 6));
        datapath.discard().expect("the pins are removed");
    });
}
