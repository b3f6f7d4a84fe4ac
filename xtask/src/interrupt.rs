//! Ctrl-C and SIGTERM. The first asks for an orderly end; a second one ends this process at once (the
//! kernel then ends its children, and the next run sweeps what they left).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

const POLL: Duration = Duration::from_millis(50);

/// Whether somebody asked us to end.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the flag is still down when the first signal passes the shutdown.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .context("listen for Ctrl-C and SIGTERM")?;
        }
        Ok(Self(flag))
    }

    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if it came.
    pub fn check(&self) -> Result<()> {
        if self.came() {
            bail!("interrupted; everything was cleaned up");
        }
        Ok(())
    }

    /// Sleeps, or until it comes.
    pub fn sleep(&self, period: Duration) {
        let end = Instant::now() + period;
        while !self.came() && Instant::now() < end {
            thread::sleep(POLL.min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// Sleeps until it comes.
    pub fn wait(&self) {
        while !self.came() {
            thread::sleep(POLL);
        }
    }
}
