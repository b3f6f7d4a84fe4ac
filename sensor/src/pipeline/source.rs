//! What the drain task needs of the kernel side; traits so that tests can stand in for it.

use std::future::Future;
use std::io;

use uuid::Uuid;

use crate::kernel::{self, Drained, FilterAction, FilterRule, KernelError, Wakeup, Wakeups};

/// Tables that are drained by epochs. All calls may block.
pub trait Source: Send + 'static {
    type Error: std::error::Error + Send + Sync + 'static;

    /// Ends the epoch and reads its half.
    fn flip(&mut self) -> Result<Drained, Self::Error>;
    /// Zeroes the drained half; must come before the next flip.
    fn release(&mut self, epoch: u64) -> Result<(), Self::Error>;
    /// Takes effect with the next epoch.
    fn update(
        &mut self,
        sampling_interval: u32,
        rules: &[FilterRule],
        default: FilterAction,
    ) -> Result<(), Self::Error>;
    fn generation(&self) -> Uuid;
    /// Counts nothing more: the next flip is the last that finds anything.
    fn quiesce(&mut self) -> Result<(), Self::Error>;
}

impl Source for kernel::Datapath {
    type Error = KernelError;

    fn flip(&mut self) -> Result<Drained, KernelError> {
        Self::flip(self)
    }

    fn release(&mut self, epoch: u64) -> Result<(), KernelError> {
        Self::release(self, epoch)
    }

    fn update(
        &mut self,
        sampling_interval: u32,
        rules: &[FilterRule],
        default: FilterAction,
    ) -> Result<(), KernelError> {
        Self::update(self, sampling_interval, rules, default)
    }

    fn generation(&self) -> Uuid {
        Self::generation(self)
    }

    fn quiesce(&mut self) -> Result<(), KernelError> {
        self.detach_all()
    }
}

/// Calls for an early drain.
pub trait Wakes: Send + 'static {
    /// The next call; cancelling it loses none.
    fn next(&mut self) -> impl Future<Output = io::Result<Wakeup>> + Send;
}

impl Wakes for Wakeups {
    fn next(&mut self) -> impl Future<Output = io::Result<Wakeup>> + Send {
        Self::next(self)
    }
}

/// Where the kernel side offers none.
pub struct NoWakes;

impl Wakes for NoWakes {
    fn next(&mut self) -> impl Future<Output = io::Result<Wakeup>> + Send {
        std::future::pending()
    }
}

impl<W: Wakes> Wakes for Option<W> {
    async fn next(&mut self) -> io::Result<Wakeup> {
        match self {
            Some(wakes) => wakes.next().await,
            None => std::future::pending().await,
        }
    }
}
