//! Wake-ups from the programs: drain early.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use weir_sensor_common::{Wakeup as Raw, wake};

use super::KernelError;

/// Why an early drain is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// A region of slots has passed three quarters.
    Filling,
    /// A packet has found no slot.
    Overflow,
}

/// One wake-up. It is stale when its epoch has been drained meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    pub epoch: u64,
    pub cpu: u32,
    pub reason: WakeReason,
}

/// The sensor's end of the ring.
pub struct Wakeups(AsyncFd<RingBuf<MapData>>);

impl Wakeups {
    /// Must be called within a tokio runtime.
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: the ring owns its descriptor and keeps it open.
        unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map(Self)
            .map_err(|error| KernelError::system("watch the ring buffer of wake-ups")(error.into()))
    }

    /// The next wake-up.
    pub async fn next(&mut self) -> io::Result<Wakeup> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            let ring = guard.get_inner_mut();
            while let Some(item) = ring.next() {
                if let Some(wakeup) = parse(&item) {
                    return Ok(wakeup);
                }
            }
            guard.clear_ready();
        }
    }
}

pub(super) fn parse(bytes: &[u8]) -> Option<Wakeup> {
    if bytes.len() < size_of::<Raw>() {
        return None;
    }
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let epoch = bytes.get(..8)?.try_into().ok().map(u64::from_ne_bytes)?;
    let reason = match word(12)? {
        wake::FILLING => WakeReason::Filling,
        wake::OVERFLOW => WakeReason::Overflow,
        _ => return None,
    };
    Some(Wakeup { epoch, cpu: word(8)?, reason })
}
