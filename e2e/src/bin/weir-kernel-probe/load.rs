//! Drains while packets come: what goes in comes out, and what a full table cannot hold is counted.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_e2e::{Counted, Flows};
use weir_sensor::kernel::{Datapath, EgressMode, IngressMode, Settings, TableSizes, WakeReason};
use weir_wire::{Direction, Totals};

use crate::ground::{FAR, Ground, NEAR, Tally, counting};
use crate::wires::{await_frames, drain};

/// Captures in and captures out at once, and drains without a pause.
pub fn flips(ground: &Ground) -> Result<String> {
    let _wire = ground.wire()?;
    let mut datapath = Datapath::load(&counting())?;
    datapath.attach(NEAR, IngressMode::Auto, EgressMode::Auto)?;
    let mut directions = [Direction::Ingress, Direction::Egress].map(|way| (way, Tally::default()));
    let mut drains = 0;
    let mut take = |datapath: &mut Datapath| -> Result<u64> {
        let drained = drain(datapath)?;
        drains += 1;
        for (direction, tally) in &mut directions {
            tally.add(&drained, NEAR, *direction);
        }
        Ok(directions.iter().map(|(_, tally)| tally.totals.frames).sum())
    };
    thread::scope(|scope| -> Result<()> {
        let senders = [FAR, NEAR].map(|end| scope.spawn(move || ground.replay(end)));
        while senders.iter().any(|sender| !sender.is_finished()) {
            take(&mut datapath)?;
        }
        senders.into_iter().try_for_each(|sender| {
            sender.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a sending thread panicked")))
        })
    })?;
    // What is on its way still is counted soon.
    let deadline = crate::wires::deadline();
    while take(&mut datapath)? < 2 * ground.frames {
        ensure!(std::time::Instant::now() < deadline, "not all of 2 x {} frames came", ground.frames);
    }
    ensure!(drains > 2, "{drains} drains while packets came");
    for (direction, tally) in &directions {
        tally.check(&ground.truth, ground.frames).with_context(|| format!("{direction:?}"))?;
    }
    Ok(format!("{} frames, {drains} drains", 2 * ground.frames))
}

/// Sixteen slots a table: most flows find none, every packet is counted, and a drain is asked for.
pub fn full_tables(ground: &Ground) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _wire = ground.wire()?;
    let tables = TableSizes { ipv4_slots: 16, ipv6_slots: 16 };
    let mut datapath = Datapath::load(&Settings { tables, ..counting() })?;
    datapath.attach(NEAR, IngressMode::Auto, EgressMode::Auto)?;
    ground.replay(FAR)?;
    await_frames(&datapath, Direction::Ingress, ground.frames)?;
    datapath.detach_all()?;
    let drained = drain(&mut datapath)?;
    let mut tally = Tally::default();
    tally.add(&drained, NEAR, Direction::Ingress);
    let Totals { frames, overflow, overflow_octets, .. } = tally.totals;
    ensure!(tally.totals.accounted() == frames && frames == ground.frames, "{:?}", tally.totals);
    let sum = |flows: &Flows| {
        flows.values().fold(Counted::default(), |mut sum, flow| {
            sum += *flow;
            sum
        })
    };
    let (sent, found) = (sum(&ground.truth), sum(&tally.flows));
    ensure!(overflow > 0, "{} flows fitted into 16 slots", ground.truth.len());
    ensure!(
        (found.packets + overflow, found.octets + overflow_octets) == (sent.packets, sent.octets),
        "{found:?} and {overflow} packets of {overflow_octets} octets, of {sent:?}"
    );
    let reasons = runtime.block_on(async {
        let mut wakeups = datapath.take_wakeups().context("there is a ring of wake-ups")?;
        let mut reasons = Vec::new();
        while let Ok(Ok(wakeup)) = tokio::time::timeout(Duration::from_secs(1), wakeups.next()).await {
            reasons.push(wakeup.reason);
        }
        anyhow::Ok(reasons)
    })?;
    for reason in [WakeReason::Filling, WakeReason::Overflow] {
        ensure!(reasons.contains(&reason), "{reason:?} is not among the wake-ups {reasons:?}");
    }
    Ok(format!("{overflow} overflowed, drain asked"))
}
