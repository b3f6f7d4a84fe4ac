//! A private Redis server: its own folder, a free port on 127.0.0.1, nothing kept, gone on drop.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::postgres::free_port;
use crate::process::{Launch, Process, Signal};
use crate::scratch::Scratch;
use crate::{Error, Result};

const PROGRAM: &str = "redis-server";
const START_WITHIN: Duration = Duration::from_mins(1);
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// A free port may be taken between the look and the bind.
const PORT_TRIES: u32 = 5;

/// A running server. All methods take `&self`.
#[derive(Debug)]
pub struct Redis {
    // Declared before the folder: the server ends before its files go.
    server: Mutex<Option<Process>>,
    port: u16,
    folder: Scratch,
}

impl Redis {
    pub fn start() -> Result<Self> {
        let mut redis = Self { server: Mutex::new(None), port: 0, folder: Scratch::new("redis")? };
        let mut tries = 1;
        loop {
            redis.port = free_port()?;
            match redis.start_again() {
                Err(Error::Ended { log, .. })
                    if tries < PORT_TRIES && log.contains("Address already in use") =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(redis),
            }
        }
    }

    /// `redis://127.0.0.1:PORT/0`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Ends the server; what it held is gone. Fine if it is stopped already.
    pub fn stop(&self) -> Result<()> {
        if let Some(mut server) = self.server().take() {
            // One that is paused takes no other signal.
            server.signal(Signal::SIGCONT)?;
            server.signal(Signal::SIGTERM)?;
            server.wait(STOP_WITHIN)?;
        }
        Ok(())
    }

    /// The server hangs: its connections stay, and nothing is answered.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Starts a stopped server on the port that it had, empty, and waits until it answers.
    pub fn start_again(&self) -> Result<()> {
        let mut server = self.server();
        if server.is_some() {
            return Ok(());
        }
        let launch = Launch::new(PROGRAM)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .current_dir(self.folder.path());
        let log = self.folder.path().join(format!("server-{}.log", crate::scratch::serial()));
        let mut process = launch.spawn("redis", log)?;
        process.wait_until("it answers", START_WITHIN, || self.answers())?;
        *server = Some(process);
        Ok(())
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG\r\n")
        };
        ask().unwrap_or(false)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server().as_mut().map_or(Ok(()), |server| server.signal(signal))
    }

    fn server(&self) -> MutexGuard<'_, Option<Process>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("stop redis: {error}");
        }
    }
}
