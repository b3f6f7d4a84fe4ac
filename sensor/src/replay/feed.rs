//! Frames into programs: pseudo-headers off, short captures padded, one program for each kind of link.

use weir_wire::{Direction, Totals};

use super::{MAX_FRAME, MIN_FRAME, ReplayLists};
use crate::capture::{Carried, Frame};
use crate::kernel::{self, DrainFigures, Drained, Event, KernelError, ListedPrefix, PointTotals};

/// What a program reads its frames as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    RawIp,
}

/// Why a frame was not counted.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// This frame cannot be run; others can.
    #[error("the frame cannot be run")]
    Refused,
    #[error(transparent)]
    Failed(anyhow::Error),
}

/// A loaded kernel program that counts frames; a trait so that tests can stand in for the kernel.
pub trait Program: Sized {
    fn load(link: Link, settings: &kernel::Settings) -> anyhow::Result<Self>;
    /// Threat lists, before the first frame.
    fn install(&mut self, prefixes: &[ListedPrefix]) -> anyhow::Result<()>;
    fn frame(&mut self, bytes: &[u8], time_ns: i64) -> Result<(), FeedError>;
    /// What the last frame's bytes were wanted for.
    fn events(&mut self) -> Vec<Event>;
    fn finish(self) -> anyhow::Result<Drained>;
}

/// The real one.
pub struct KernelProgram(kernel::Replay);

impl Program for KernelProgram {
    fn load(link: Link, settings: &kernel::Settings) -> anyhow::Result<Self> {
        let link = match link {
            Link::Ethernet => kernel::ReplayLink::Ethernet,
            Link::RawIp => kernel::ReplayLink::RawIp,
        };
        Ok(Self(kernel::Replay::load(settings, link)?))
    }

    fn install(&mut self, prefixes: &[ListedPrefix]) -> anyhow::Result<()> {
        self.0.install(prefixes).map(drop).map_err(Into::into)
    }

    fn frame(&mut self, bytes: &[u8], time_ns: i64) -> Result<(), FeedError> {
        self.0.frame(bytes, time_ns).map_err(|error| match error {
            KernelError::FrameSize { .. } => FeedError::Refused,
            error => FeedError::Failed(error.into()),
        })
    }

    fn events(&mut self) -> Vec<Event> {
        self.0.events()
    }

    fn finish(self) -> anyhow::Result<Drained> {
        Ok(self.0.finish()?)
    }
}

/// Feeds one file's frames.
pub struct Feed<'a, P: Program> {
    settings: &'a kernel::Settings,
    lists: &'a ReplayLists,
    ethernet: Option<P>,
    raw_ip: Option<P>,
    /// A frame at its original length.
    padded: Vec<u8>,
    /// Frames of the capture so far.
    number: u64,
    /// Frames that no program could count.
    refused: u64,
    /// Frames whose pseudo-header says that they are not IP: counted here, as the program would.
    non_ip: Totals,
}

impl<'a, P: Program> Feed<'a, P> {
    #[must_use]
    pub fn new(settings: &'a kernel::Settings, lists: &'a ReplayLists) -> Self {
        Self {
            settings,
            lists,
            ethernet: None,
            raw_ip: None,
            padded: Vec::new(),
            number: 0,
            refused: 0,
            non_ip: Totals::default(),
        }
    }

    /// Counts one frame, and gives the events that it made, with its number in the capture.
    pub fn frame(&mut self, frame: &Frame<'_>) -> anyhow::Result<Vec<Event>> {
        self.number += 1;
        let wire_len = frame.original_len.saturating_sub(frame.link.pseudo_header());
        let (link, payload_type, bytes) = match frame.link.carried(frame.bytes) {
            Carried::Ethernet(bytes) => (Link::Ethernet, None, bytes),
            Carried::Ip(bytes) => (Link::RawIp, None, bytes),
            Carried::Payload(ether_type, bytes) => (Link::Ethernet, Some(ether_type), bytes),
            Carried::NonIp => {
                self.non_ip.frames += 1;
                self.non_ip.non_ip += 1;
                self.non_ip.octets_l2 += u64::from(wire_len);
                return Ok(Vec::new());
            }
        };
        self.padded.clear();
        if let Some(ether_type) = payload_type {
            self.padded.extend_from_slice(&[0; 12]);
            self.padded.extend_from_slice(&ether_type.to_be_bytes());
        }
        let full_len = u64::from(wire_len) + self.padded.len() as u64;
        if !(u64::from(MIN_FRAME)..=u64::from(MAX_FRAME)).contains(&full_len) {
            self.refused += 1;
            return Ok(Vec::new());
        }
        self.padded.extend_from_slice(bytes);
        self.padded.resize(full_len as usize, 0);
        let slot = match link {
            Link::Ethernet => &mut self.ethernet,
            Link::RawIp => &mut self.raw_ip,
        };
        let program = if let Some(program) = slot {
            program
        } else {
            let program = slot.insert(P::load(link, self.settings)?);
            if !self.lists.prefixes.is_empty() {
                program.install(&self.lists.prefixes)?;
            }
            program
        };
        match program.frame(&self.padded, frame.time_ns) {
            Ok(()) => {
                let mut events = program.events();
                for event in &mut events {
                    event.frame = self.number;
                }
                Ok(events)
            }
            Err(FeedError::Refused) => {
                self.refused += 1;
                Ok(Vec::new())
            }
            Err(FeedError::Failed(error)) => Err(error),
        }
    }

    /// Everything that was counted, as one drain, and the number of refused frames.
    pub fn finish(self) -> anyhow::Result<(Drained, u64)> {
        let mut whole = Drained {
            epoch: 0,
            window_start_ns: 0,
            window_end_ns: 0,
            sampling_interval: self.settings.sampling_interval,
            points: Vec::new(),
            links: Vec::new(),
            flows: Vec::new(),
            figures: DrainFigures::default(),
        };
        for program in [self.ethernet, self.raw_ip].into_iter().flatten() {
            join(&mut whole, program.finish()?);
        }
        if self.non_ip.frames > 0 || whole.points.is_empty() {
            let id = whole.points.len() as u16;
            whole.points.push(PointTotals {
                id,
                interface: "capture".to_owned(),
                ifindex: 0,
                direction: Direction::Ingress,
                stack: u32::from(id),
                totals: self.non_ip,
            });
        }
        Ok((whole, self.refused))
    }
}

/// Puts the drain of a second program beside that of the first: points and links are numbered anew.
fn join(whole: &mut Drained, drained: Drained) {
    let first_of_all = whole.points.is_empty();
    whole.window_start_ns = if first_of_all {
        drained.window_start_ns
    } else {
        whole.window_start_ns.min(drained.window_start_ns)
    };
    whole.window_end_ns =
        if first_of_all { drained.window_end_ns } else { whole.window_end_ns.max(drained.window_end_ns) };
    whole.sampling_interval = drained.sampling_interval;
    let links_before = whole.links.len() as u32;
    let points_before = whole.points.len() as u16;
    let mut numbers = std::collections::HashMap::new();
    for (number, mut point) in (points_before..).zip(drained.points) {
        numbers.insert(point.id, number);
        point.id = number;
        point.stack = u32::from(number);
        whole.points.push(point);
    }
    whole.links.extend(drained.links);
    whole.flows.extend(drained.flows.into_iter().map(|mut flow| {
        flow.point = numbers.get(&flow.point).copied().unwrap_or(flow.point);
        if flow.link != 0 {
            flow.link += links_before;
        }
        flow
    }));
}
