//! The programs fed by hand, with `BPF_PROG_TEST_RUN`: whether the verifier takes them, and whether what
//! they count of the captures is right.

use std::fs::File;

use anyhow::{Context as _, Result, bail, ensure};
use weir_e2e::Flows;
use weir_e2e::differential::{self, Mutator, Way};
use weir_sensor::capture;
use weir_sensor::kernel::{
    self, FilterAction, FilterRule, KernelLog, Replay, ReplayLink, ReplayProgram, Settings, Verdict,
};
use weir_wire::Direction;

use crate::ground::{Ground, Tally, settings};

pub fn programs_load(_: &Ground) -> Result<String> {
    let findings = kernel::check();
    for finding in &findings {
        if finding.verdict == Verdict::Missing {
            bail!("{}: {}", finding.subject, finding.detail);
        }
    }
    let program = findings.iter().filter(|finding| finding.subject.ends_with("program")).count();
    ensure!(program >= 3, "only {program} programs were looked at");
    let frags = findings.iter().find(|finding| finding.subject == "frames in several buffers");
    let frags = frags.context("`check` says nothing of frames in several buffers")?;
    Ok(if frags.verdict == Verdict::Ok { "XDP with frags" } else { "XDP without frags" }.to_owned())
}

/// With the log off the verifier removes its code, with all of it on it must take it.
pub fn every_log_level(ground: &Ground) -> Result<String> {
    for level in [KernelLog::Off, KernelLog::Debug] {
        let settings = Settings { log_level: level, ..settings() };
        captures(ground, ReplayProgram::Xdp, &settings).with_context(|| format!("log {level:?}"))?;
    }
    Ok("counts the same".to_owned())
}

pub fn captures_by_xdp(ground: &Ground) -> Result<String> {
    captures(ground, ReplayProgram::Xdp, &settings())
}

pub fn captures_by_tc_egress(ground: &Ground) -> Result<String> {
    captures(ground, ReplayProgram::TcEgress, &settings())
}

pub fn captures_by_tc_ingress(ground: &Ground) -> Result<String> {
    captures(ground, ReplayProgram::TcIngress, &settings())
}

fn captures(ground: &Ground, program: ReplayProgram, settings: &Settings) -> Result<String> {
    let mut replay = Replay::through(program, settings, ReplayLink::Ethernet)?;
    each_frame(ground, |frame, time_ns| Ok(replay.frame(frame, time_ns)?))?;
    let tally = tally(replay, program)?;
    tally.check(&ground.truth, ground.frames)?;
    Ok(format!("{} frames exact", ground.frames))
}

/// The captures' bare IPv4 and IPv6 packets as a device without Ethernet has them.
pub fn raw_ip(ground: &Ground) -> Result<String> {
    const ETHERNET: usize = 14;
    let program = ReplayProgram::TcIngress;
    let mut replay = Replay::through(program, &settings(), ReplayLink::RawIp)?;
    let mut frames = 0;
    each_frame(ground, |frame, time_ns| {
        if matches!(frame[12..ETHERNET], [0x08, 0x00] | [0x86, 0xdd]) {
            replay.frame(&frame[ETHERNET..], time_ns)?;
            frames += 1;
        }
        Ok(())
    })?;
    let bare: Flows = ground.truth.iter().filter(|(key, _)| key.5.is_empty()).map(clone).collect();
    tally(replay, program)?.check(&bare, frames)?;
    Ok(format!("{frames} packets exact"))
}

fn clone<K: Clone, V: Copy>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), *value)
}

/// Everything but TCP and UDP is denied.
pub fn filter(ground: &Ground) -> Result<String> {
    let allow = |protocol| FilterRule {
        action: FilterAction::Allow,
        cidr: None,
        ports: None,
        protocol: Some(protocol),
    };
    let settings =
        Settings { filter: vec![allow(6), allow(17)], filter_default: FilterAction::Deny, ..settings() };
    let mut replay = Replay::through(ReplayProgram::Xdp, &settings, ReplayLink::Ethernet)?;
    each_frame(ground, |frame, time_ns| Ok(replay.frame(frame, time_ns)?))?;
    let tally = tally(replay, ReplayProgram::Xdp)?;
    let allowed: Flows = ground.truth.iter().filter(|(key, _)| matches!(key.2, 6 | 17)).map(clone).collect();
    tally.check(&allowed, ground.frames)?;
    let denied = packets(&ground.truth) - packets(&allowed);
    ensure!(tally.totals.filtered == denied, "{} filtered, {denied} denied", tally.totals.filtered);
    Ok(format!("{denied} packets denied"))
}

pub fn sampling(ground: &Ground) -> Result<String> {
    let settings = Settings { sampling_interval: 4, ..settings() };
    let mut replay = Replay::through(ReplayProgram::Xdp, &settings, ReplayLink::Ethernet)?;
    each_frame(ground, |frame, time_ns| Ok(replay.frame(frame, time_ns)?))?;
    let totals = tally(replay, ReplayProgram::Xdp)?.totals;
    ensure!(totals.accounted() == totals.frames && totals.frames == ground.frames, "{totals:?}");
    let (sent, counted) = (packets(&ground.truth), totals.flow_packets);
    ensure!(counted + totals.unsampled == sent, "{totals:?} of {sent} packets");
    // Of thousands of packets: a quarter that is below an eighth or above a half is none.
    ensure!(counted > sent / 8 && counted < sent / 2, "{counted} of {sent} at 1 in 4");
    Ok("1 in 4, accounted for".to_owned())
}

/// Frames that nobody would send: the program says of each what the host's build of its parser says.
pub fn mutated(_: &Ground) -> Result<String> {
    const SEED: u64 = 1;
    const EACH: usize = 2000;
    let mut mutator = Mutator::new(SEED, differential::seeds()?);
    let ways = [ReplayProgram::Xdp, ReplayProgram::TcEgress];
    for program in ways {
        let way = Way { program, link: ReplayLink::Ethernet };
        let frames = mutator.frames(EACH, way.link);
        if let Some(found) = differential::compare(way, &frames)? {
            bail!("the kernel and the host differ: {:?}", differential::shrink(found)?);
        }
    }
    Ok(format!("{} agree", ways.len() * EACH))
}

fn packets(flows: &Flows) -> u64 {
    flows.values().map(|counted| counted.packets).sum()
}

/// What a replay counted. It counts as the direction of its program.
fn tally(replay: Replay, program: ReplayProgram) -> Result<Tally> {
    let direction = match program {
        ReplayProgram::TcEgress => Direction::Egress,
        ReplayProgram::Xdp | ReplayProgram::TcIngress => Direction::Ingress,
    };
    let drained = replay.finish()?;
    let mut tally = Tally::default();
    tally.add(&drained, "capture", direction);
    Ok(tally)
}

/// Calls `f` with each frame of the captures, as it is on the wire.
pub fn each_frame(ground: &Ground, mut f: impl FnMut(&[u8], i64) -> Result<()>) -> Result<()> {
    for capture in &ground.captures {
        let file = File::open(&capture.pcap).with_context(|| format!("open {}", capture.pcap.display()))?;
        let mut frames = capture::Capture::open(file).with_context(|| capture.name.clone())?;
        while let Some(frame) = frames.next_frame()? {
            f(frame.bytes, frame.time_ns).with_context(|| capture.name.clone())?;
        }
    }
    Ok(())
}
