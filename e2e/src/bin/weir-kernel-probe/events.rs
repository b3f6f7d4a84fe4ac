//! Events: each program hands over the same packets, whole, and says of every other what became of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use weir_sensor::kernel::{
    Datapath, EgressMode, EventClass, EventSettings, Events, IngressMode, Replay, ReplayLink, ReplayProgram,
    Settings,
};
use weir_wire::Direction;

use crate::ground::{FAR, Ground, NEAR, settings};
use crate::replayed::each_frame;
use crate::wires::await_frames;

/// Packets that were chosen, by class.
type Chosen = BTreeMap<EventClass, u64>;

/// With no bound but the ring.
fn unbounded() -> Settings {
    let most = 1_000_000;
    let events = EventSettings { per_second: most, burst: most, packets: most, ..EventSettings::default() };
    Settings { events, ..settings() }
}

pub fn by_test_runs(ground: &Ground) -> Result<String> {
    let xdp = replayed(ground, ReplayProgram::Xdp)?;
    for program in [ReplayProgram::TcEgress, ReplayProgram::TcIngress] {
        let other = replayed(ground, program)?;
        ensure!(other == xdp, "{program:?} chose {other:?}, XDP {xdp:?}");
    }
    for class in [EventClass::Arp, EventClass::Dns, EventClass::TlsClient, EventClass::Http, EventClass::Ndp]
    {
        ensure!(xdp.contains_key(&class), "no {} among {xdp:?}", class.name());
    }
    Ok(format!("{} events, {} classes", xdp.values().sum::<u64>(), xdp.len()))
}

/// Every event has the bytes of its frame, and none is refused.
fn replayed(ground: &Ground, program: ReplayProgram) -> Result<Chosen> {
    let settings = unbounded();
    let mut replay = Replay::through(program, &settings, ReplayLink::Ethernet)?;
    let mut chosen = Chosen::new();
    each_frame(ground, |frame, time_ns| {
        replay.frame(frame, time_ns)?;
        for event in replay.events() {
            let most = settings.events.snap_octets as usize;
            let whole = event.bytes == frame[..frame.len().min(most)] && event.octets as usize == frame.len();
            ensure!(whole && event.time_ns == time_ns, "not the frame that was run: {event:?}");
            *chosen.entry(event.class).or_default() += 1;
        }
        Ok(())
    })?;
    for class in EventClass::ALL {
        let counts = replay.event_counts(class)?;
        let taken = chosen.get(&class).copied().unwrap_or(0);
        ensure!(counts.selected == taken && counts.delivered == taken, "{}: {counts:?}", class.name());
    }
    Ok(chosen)
}

/// The same packets are chosen on an interface; and each is delivered, or counted as refused.
pub fn on_a_wire(ground: &Ground) -> Result<String> {
    let expected = replayed(ground, ReplayProgram::Xdp)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _within = runtime.enter();
    let _wire = ground.wire()?;
    let mut datapath = Datapath::load(&unbounded())?;
    datapath.attach(NEAR, IngressMode::Auto, EgressMode::Auto)?;
    let mut events = datapath.take_events().context("there is a ring of events")?;
    let (mut due, mut all) = (0, 0);
    for (times, sender, direction) in [(1, FAR, Direction::Ingress), (2, NEAR, Direction::Egress)] {
        ground.replay(sender)?;
        await_frames(&datapath, direction, ground.frames)?;
        let delivered = delivered(&events, &expected, times)?;
        // Until now nobody has read: the ring holds what it could.
        let mut read = Vec::new();
        while (read.len() as u64) < delivered - due {
            runtime.block_on(events.read(|event| read.push(event))).context("read the ring")?;
        }
        let right = read.iter().filter(|event| &*event.interface == NEAR && event.direction == direction);
        ensure!(read.len() == right.count(), "not all are of {NEAR}, {direction:?}");
        ensure!(!read.is_empty() && read.len() as u64 == delivered - due, "{} events", read.len());
        (due, all) = (delivered, all + read.len());
    }
    Ok(format!("{all} read"))
}

/// How many were delivered, when everything has been sent so many times.
fn delivered(events: &Events, expected: &Chosen, times: u64) -> Result<u64> {
    let mut delivered = 0;
    for class in EventClass::ALL {
        let (counts, expected) = (events.counts(class)?, expected.get(&class).copied().unwrap_or(0));
        let accounted = counts.delivered + counts.refused();
        ensure!(
            counts.selected == times * expected && counts.selected == accounted && counts.unreadable == 0,
            "{}: {counts:?} of {times} x {expected}",
            class.name()
        );
        delivered += counts.delivered;
    }
    Ok(delivered)
}
