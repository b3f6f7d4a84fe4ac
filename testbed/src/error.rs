//! Why something could not be set up. Every message says what was tried and what to do.

use std::io;
use std::time::Duration;

use thiserror::Error as ThisError;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, ThisError)]
pub enum Error {
    /// A program that `cargo xtask setup` installs is not there.
    #[error("{program} is not installed (looked in {looked_in}); run `cargo xtask setup`")]
    Missing { program: String, looked_in: String },
    #[error(
        "{what} needs root: run it as root (sudo), or in a container that has CAP_SYS_ADMIN and CAP_NET_ADMIN"
    )]
    NotRoot { what: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// A command ran and failed; `output` is what it printed.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command { command: String, status: String, output: String },
    #[error("{what} did not happen within {within:?}; its log ends with:\n{log}")]
    Deadline { what: String, within: Duration, log: String },
    #[error("{what} ended too early ({status}); its log ends with:\n{log}")]
    Ended { what: String, status: String, log: String },
    /// What was read is not what it should be.
    #[error("{what}: {problem}")]
    Malformed { what: String, problem: String },
}

impl Error {
    /// For `map_err`: an I/O error with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub fn malformed(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), problem: problem.into() }
    }
}

/// Fails, with what to do, unless this process is root.
pub fn require_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot { what: what.to_owned() }) }
}
