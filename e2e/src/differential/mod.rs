//! Frames that nobody would send, through the verified kernel program and through the host's build of the
//! same parser: both must say the same of each.
//!
//! Frames run in batches, and what a batch counts is compared: flows with their packets, octets, flags and
//! link stacks, and the totals. Where a batch differs it is halved until one frame is left, and that frame
//! is shortened and plainer made as long as it still differs.

mod host;
mod mutate;

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::{Context as _, Result, ensure};
use weir_sensor::capture;
use weir_sensor::kernel::{
    Drained, FlowKey, KernelError, Replay, ReplayLink, ReplayProgram, Settings, TableSizes,
};
use weir_testbed::capture::Capture;
use weir_wire::Totals;

pub use mutate::Mutator;

/// Which program a frame goes through, and how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub program: ReplayProgram,
    pub link: ReplayLink,
}

/// All of them.
pub const WAYS: [Way; 5] = [
    Way { program: ReplayProgram::Xdp, link: ReplayLink::Ethernet },
    Way { program: ReplayProgram::TcEgress, link: ReplayLink::Ethernet },
    Way { program: ReplayProgram::TcIngress, link: ReplayLink::Ethernet },
    Way { program: ReplayProgram::Xdp, link: ReplayLink::RawIp },
    Way { program: ReplayProgram::TcIngress, link: ReplayLink::RawIp },
];

/// Octets that a test run takes on every kernel: it wants an Ethernet header and, for TC, something behind
/// it; before 5.18 XDP's frames must fit into a page.
pub const FRAME_OCTETS: std::ops::RangeInclusive<usize> = 15..=1500;

/// What was counted of some frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub flows: BTreeMap<Key, Flow>,
    pub totals: Totals,
}

/// A flow, and the link stack it came behind, outermost header first.
pub type Key = (FlowKey, Vec<u32>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub packets: u64,
    pub octets: u64,
    pub tcp_flags: u8,
    pub fragments: u8,
}

impl Counted {
    fn add(&mut self, key: Key, more: Flow) {
        let flow = self.flows.entry(key).or_default();
        flow.packets += more.packets;
        flow.octets += more.octets;
        flow.tcp_flags |= more.tcp_flags;
        flow.fragments |= more.fragments;
    }
}

/// A frame of which the two differ, as small as it was found.
#[derive(Clone, Debug)]
pub struct Difference {
    pub way: Way,
    pub frames: Vec<Vec<u8>>,
    pub kernel: Counted,
    pub host: Counted,
}

/// Frames of every capture, as seeds.
pub fn seeds() -> Result<Vec<Vec<u8>>> {
    /// Of one capture: most frames of one are alike.
    const EACH: usize = 400;
    let mut seeds = Vec::new();
    for Capture { name, pcap, .. } in Capture::all()? {
        let file = File::open(&pcap).with_context(|| format!("open {}", pcap.display()))?;
        let mut frames = capture::Capture::open(file).with_context(|| name.clone())?;
        let mut taken = 0;
        while let Ok(Some(frame)) = frames.next_frame() {
            if frame.link == capture::LinkType::Ethernet && taken < EACH {
                seeds.push(frame.bytes[..frame.bytes.len().min(*FRAME_OCTETS.end())].to_vec());
                taken += 1;
            }
        }
    }
    ensure!(!seeds.is_empty(), "the captures hold no frame");
    Ok(seeds)
}

/// Runs the frames both ways; `None` where both say the same.
pub fn compare(way: Way, frames: &[Vec<u8>]) -> Result<Option<Difference>> {
    let (kernel, ran) = by_kernel(way, frames)?;
    let host = host::count(way, &ran);
    let differs = kernel != host;
    Ok(differs.then(|| Difference { way, frames: frames.to_vec(), kernel, host }))
}

/// Makes a difference small: one frame if one does it, and that frame short and plain.
pub fn shrink(found: Difference) -> Result<Difference> {
    shrink_by(found, compare)
}

fn shrink_by(
    mut found: Difference,
    differs: impl Fn(Way, &[Vec<u8>]) -> Result<Option<Difference>>,
) -> Result<Difference> {
    let way = found.way;
    while found.frames.len() > 1 {
        let (left, right) = found.frames.split_at(found.frames.len() / 2);
        let half = match differs(way, left)? {
            Some(half) => Some(half),
            None => differs(way, right)?,
        };
        // Neither half alone does it.
        let Some(half) = half else { return Ok(found) };
        found = half;
    }
    let mut frame = found.frames.first().cloned().unwrap_or_default();
    let tried = |frame: &[u8], found: &mut Difference| -> Result<bool> {
        let smaller = differs(way, &[frame.to_vec()])?;
        Ok(smaller.map(|smaller| *found = smaller).is_some())
    };
    for cut in [512, 128, 32, 8, 1] {
        while frame.len() >= FRAME_OCTETS.start() + cut && tried(&frame[..frame.len() - cut], &mut found)? {
            frame.truncate(frame.len() - cut);
        }
    }
    // Zeros are plainer than anything; the front says most, and each try loads a program.
    for at in 0..frame.len().min(96) {
        let was = std::mem::take(&mut frame[at]);
        if was != 0 && !tried(&frame, &mut found)? {
            frame[at] = was;
        }
    }
    Ok(found)
}

/// Newer kernels refuse to make an skb of a frame that ends within the IP header that its type promises.
const SHORTEST_SKB: usize = 54;

/// What the program counts, and the frames that it was run with.
fn by_kernel(way: Way, frames: &[Vec<u8>]) -> Result<(Counted, Vec<&[u8]>)> {
    let tables = TableSizes { ipv4_slots: 1 << 14, ipv6_slots: 1 << 13 };
    let settings = Settings { tables, max_points: 4, ..Settings::default() };
    let mut replay = Replay::through(way.program, &settings, way.link)?;
    let mut ran = Vec::with_capacity(frames.len());
    for (place, frame) in frames.iter().enumerate() {
        match replay.frame(frame, place as i64) {
            Ok(()) => ran.push(frame.as_slice()),
            Err(KernelError::Run { .. })
                if way.program != ReplayProgram::Xdp && frame.len() < SHORTEST_SKB => {}
            Err(error) => return Err(error).with_context(|| format!("run the frame {frame:02x?}")),
        }
    }
    let Drained { points, links, flows, .. } = replay.finish()?;
    let mut counted = Counted::default();
    for point in points {
        counted.totals += point.totals;
    }
    for flow in flows {
        let stack = (flow.link as usize).checked_sub(1).and_then(|index| links.get(index));
        counted.add(
            (flow.key, stack.cloned().unwrap_or_default()),
            Flow {
                packets: flow.packets,
                octets: flow.octets,
                tcp_flags: flow.tcp_flags,
                fragments: flow.fragments,
            },
        );
    }
    Ok((counted, ran))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shrinks_to_the_bytes_that_make_it() {
        let (first, last) = (7, 99);
        let way = WAYS[0];
        let differs = |way, frames: &[Vec<u8>]| {
            let odd = frames.iter().any(|frame| frame[3] == first && frame.get(20) == Some(&last));
            let (kernel, host) = (Counted::default(), Counted::default());
            Ok(odd.then(|| Difference { way, frames: frames.to_vec(), kernel, host }))
        };
        let mut frames = vec![vec![1; 200]; 50];
        frames[31][3] = first;
        frames[31][20] = last;
        let found = differs(way, &frames).expect("it can be compared").expect("one frame is odd");
        let small = shrink_by(found, differs).expect("it can be compared");
        let mut odd = vec![0; 21];
        (odd[3], odd[20]) = (first, last);
        assert_eq!(small.frames, [odd]);
    }

    #[test]
    fn the_same_seed_makes_the_same_frames() {
        let seeds = vec![vec![0x45; 60], vec![0x86; 90]];
        let frames = |seed| Mutator::new(seed, seeds.clone()).frames(200, ReplayLink::Ethernet);
        assert_eq!(frames(7), frames(7));
        assert_ne!(frames(7), frames(8));
        assert!(frames(7).iter().all(|frame| FRAME_OCTETS.contains(&frame.len())));
    }
}
