//! A proxy between a sensor and its control plane that misbehaves on request, as networks do.
//!
//! It speaks enough HTTP/1.1 to know where a request and an answer end, so that it can cut either of them,
//! deliver a request twice or late, and keep what went through for another delivery.

mod exchange;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::netns::enter;
use crate::{Error, Result};

/// Requests that are remembered for [`Proxy::repeat`].
const REMEMBERED: usize = 256;
/// When what was held, or repeated, must have been taken; a control plane that restarts is back long before.
const TAKEN_WITHIN: Duration = Duration::from_mins(2);
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What happens to each request from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mischief {
    #[default]
    None,
    /// The request is not read, and nobody answers, until the mischief ends.
    StallRequest,
    /// The request is delivered, but its answer stays here until the mischief ends; then it is dropped.
    StallAnswer,
    /// The connection is reset before the request is delivered.
    ResetRequest,
    /// The request is delivered; the connection is reset instead of an answer.
    ResetAnswer,
    /// Only so many thousandths of the request are delivered; then both connections end.
    TruncateRequest(u16),
    /// Only so many thousandths of the answer come back; then the connection ends.
    TruncateAnswer(u16),
    /// Both ways take longer.
    Delay(Duration),
    /// The request is delivered twice, at the same time; the first answer is passed on.
    Twice,
    /// The request is acknowledged here and delivered by [`Proxy::release`], the last one first.
    Hold,
}

/// A running proxy; dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
    namespace: PathBuf,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    /// Exchanges to which a mischief was done.
    touched: AtomicU64,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    mischief: Mischief,
    remembered: VecDeque<Vec<u8>>,
    held: Vec<Vec<u8>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Held for a few instructions; a panic cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mischief(&self) -> Mischief {
        self.state().mischief
    }

    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns when this mischief has ended.
    fn outlast(&self, mischief: Mischief) {
        while self.mischief() == mischief && !self.ended.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Proxy {
    /// Listens on a free port of `upstream`'s address, inside the namespace.
    pub fn start(namespace: PathBuf, upstream: SocketAddr) -> Result<Self> {
        let state = Mutex::default();
        let (touched, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { upstream, state, touched, ended });
        // A thread that is started inside stays inside, and so do the threads that it starts.
        let started = enter(&namespace, || -> io::Result<_> {
            let listener = TcpListener::bind((upstream.ip(), 0))?;
            let address = listener.local_addr()?;
            let shared = Arc::clone(&shared);
            Ok((address, thread::spawn(move || accept(&listener, &shared))))
        })?;
        let (address, acceptor) = started.map_err(Error::io("start a proxy"))?;
        Ok(Self { shared, address, acceptor: Some(acceptor), namespace })
    }

    /// `http://ADDRESS:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens from now on, also to the requests that are on their way.
    pub fn set(&self, mischief: Mischief) {
        self.shared.state().mischief = mischief;
    }

    /// How many exchanges were disturbed so far.
    #[must_use]
    pub fn touched(&self) -> u64 {
        self.shared.touched.load(Ordering::Relaxed)
    }

    /// Delivers what was held, the last one first, each until it is taken. How many there were.
    pub fn release(&self) -> Result<usize> {
        let held = std::mem::take(&mut self.shared.state().held);
        held.iter().rev().try_for_each(|request| self.deliver(request))?;
        Ok(held.len())
    }

    /// Delivers again what went through lately, in the order that `order` gives it. How many there were.
    pub fn repeat(&self, order: impl FnOnce(&mut Vec<Vec<u8>>)) -> Result<usize> {
        let mut requests: Vec<_> = self.shared.state().remembered.iter().cloned().collect();
        order(&mut requests);
        requests.iter().try_for_each(|request| self.deliver(request))?;
        Ok(requests.len())
    }

    /// Until the control plane takes it: it may be down at this moment.
    fn deliver(&self, request: &[u8]) -> Result<()> {
        let deadline = Instant::now() + TAKEN_WITHIN;
        loop {
            let answer = enter(&self.namespace, || exchange::ask(self.shared.upstream, request))?;
            let status = answer.as_ref().ok().and_then(|answer| exchange::status(answer));
            if status == Some(200) {
                return Ok(());
            }
            // Busy, or away: what a sensor would try again.
            let again = status.is_none_or(|status| matches!(status, 408 | 429 | 500..));
            if !again || Instant::now() >= deadline {
                let answer = answer.map(|answer| String::from_utf8_lossy(&answer).into_owned());
                return Err(Error::malformed(
                    "a request that was delivered once more",
                    format!("{answer:?}"),
                ));
            }
            thread::sleep(AGAIN_AFTER);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // The acceptor looks up when somebody connects.
        let _ = enter(&self.namespace, || TcpStream::connect(self.address).map(drop));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// One thread for each connection: a sensor has one or two.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(client) = client else { continue };
        let shared = Arc::clone(shared);
        // An error is the end of a connection, which either side sees for itself.
        thread::spawn(move || exchange::serve(client, &shared));
    }
}

#[cfg(test)]
mod tests;
