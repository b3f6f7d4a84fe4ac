//! Threat lists: every flow of the captures has the mark of its addresses, and what is dropped on a wire is
//! counted.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_sensor::kernel::{
    Datapath, EgressMode, IngressMode, ListedPrefix, Replay, ReplayLink, ReplayProgram, address_bits,
};
use weir_wire::Direction;

use crate::ground::{FAR, Ground, NEAR, Tally, counting, settings};
use crate::replayed::each_frame;
use crate::wires::{await_frames, drain};

/// Enough that kernels which take a prefix at a time show it.
const MANY: u32 = 20_000;

const fn prefix(bits: u128, length: u8, list: u8, drops: bool) -> ListedPrefix {
    ListedPrefix { bits, length, list, drops }
}

const V4: u128 = 0xffff << 32;

/// Half of IPv4 on one list, some of it on another that drops, most of IPv6 on a third.
const WIDE: [ListedPrefix; 3] =
    [prefix(V4, 97, 1, false), prefix(V4 | 0xc0a8_0000, 112, 2, true), prefix(0x2000 << 112, 3, 3, false)];

/// Those, and many elsewhere: in 240.0.0.0/8.
fn prefixes() -> Vec<ListedPrefix> {
    let many = (0..MANY).map(|place| prefix(V4 | u128::from(0xf000_0000 | place << 1), 128, 4, true));
    WIDE.into_iter().chain(many).collect()
}

/// What the longest of the wide ones says of an address.
fn expected(address: IpAddr) -> (u8, bool) {
    let bits = address_bits(address);
    let holds = |prefix: &&ListedPrefix| (bits ^ prefix.bits) >> (128 - u32::from(prefix.length)) == 0;
    let longest = WIDE.iter().filter(holds).max_by_key(|prefix| prefix.length);
    longest.map_or((0, false), |prefix| (prefix.list, prefix.drops))
}

/// By each program. A replay drops nothing and says what would be.
pub fn marks(ground: &Ground) -> Result<String> {
    let mut listed = 0;
    for program in [ReplayProgram::Xdp, ReplayProgram::TcEgress] {
        let mut replay = Replay::through(program, &settings(), ReplayLink::Ethernet)?;
        replay.install(&prefixes())?;
        each_frame(ground, |frame, time_ns| Ok(replay.frame(frame, time_ns)?))?;
        let spared = replay.lists().context("lists are installed")?.enforced(2)?;
        let drained = replay.finish()?;
        let mut would_drop = 0;
        listed = 0;
        for flow in &drained.flows {
            let (src, dst) = (expected(flow.key.src), expected(flow.key.dst));
            let marks = (flow.listed.src, flow.listed.dst, flow.listed.drops);
            ensure!(marks == (src.0, dst.0, src.1 || dst.1), "{:?} has {marks:?}", flow.key);
            listed += u64::from(flow.listed.is_listed());
            if flow.listed.drops {
                would_drop += flow.packets;
            }
        }
        ensure!(would_drop > 0 && spared.spared == would_drop, "{spared:?}, {would_drop} in flows");
        ensure!(spared.dropped == 0, "a replay drops nothing: {spared:?}");
    }
    Ok(format!("{listed} flows, {MANY} prefixes"))
}

/// On a wire, by XDP and by TC: what is dropped is counted in its flow, and beside it.
pub fn drops(ground: &Ground) -> Result<String> {
    let mut dropped = 0;
    for ingress in [IngressMode::Auto, IngressMode::Tc] {
        let _wire = ground.wire()?;
        let mut datapath = Datapath::load(&counting())?;
        datapath.attach(NEAR, ingress, EgressMode::Auto)?;
        let mut lists = datapath.take_lists()?;
        lists.install(&prefixes())?;
        let heart = lists.heart()?;
        heart.enforce_for(Duration::from_hours(1));
        ground.replay(FAR)?;
        await_frames(&datapath, Direction::Ingress, ground.frames)?;
        // When it returns, every frame has its verdict.
        let first = drain(&mut datapath)?;
        // Lifted: the same packets pass.
        heart.enforce_for(Duration::ZERO);
        ground.replay(FAR)?;
        await_frames(&datapath, Direction::Ingress, ground.frames)?;
        datapath.detach_all()?;
        let drains = [first, drain(&mut datapath)?];
        let mut tally = Tally::default();
        for drained in &drains {
            tally.add(drained, NEAR, Direction::Ingress);
        }
        tally.check_times(&ground.truth, ground.frames, 2)?;
        let flows = drains.iter().flat_map(|drained| &drained.flows);
        let guarded: u64 = flows.filter(|flow| flow.listed.drops).map(|flow| flow.packets).sum();
        let counts = lists.enforced(2)?;
        ensure!(counts.dropped == counts.spared && counts.dropped * 2 == guarded, "{counts:?}, {guarded}");
        dropped = counts.dropped;
    }
    ensure!(dropped > 0, "the captures have none of the addresses");
    Ok(format!("{dropped} dropped, {dropped} lifted"))
}
