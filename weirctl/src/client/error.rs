//! Why there is no answer, and what a script learns of that.

use std::fmt;
use std::path::PathBuf;

use super::shapes::Problem;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    Refused(Refused),
    #[error("{url} cannot be reached: {error}")]
    Unreachable { url: String, error: String },
    #[error("{url} answered {status} without a problem document: is it a control plane?")]
    Stranger { url: String, status: u16 },
    #[error("{url} answered what is not in its document: {error}")]
    Unexpected { url: String, error: String },
    #[error("`{0}` is not an address such as https://weir.example")]
    Url(String),
    #[error("{0}")]
    Usage(String),
    #[error("not logged in: `weirctl login URL NAME`, or give --url and --token-file")]
    NoSession,
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}", .path.display())]
    Content { path: PathBuf, error: String },
    #[error(
        "the server's certificate has the SHA-256 fingerprint {0}, not the one that was given: this is another server, or somebody stands between"
    )]
    Fingerprint(String),
    #[error("write: {0}")]
    Write(std::io::Error),
}

/// A problem document, for people.
#[derive(Clone, Debug)]
pub struct Refused(pub Box<Problem>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = &self.0;
        write!(f, "{}: {}", problem.title, problem.detail)?;
        for fault in problem.errors.iter().flatten() {
            write!(f, "\n  {}: {}", fault.field, fault.message)?;
        }
        write!(f, "\n  request {}", problem.request_id)
    }
}

impl ClientError {
    /// As the help says.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Url(_) => 2,
            Self::NoSession | Self::Fingerprint(_) => 3,
            Self::Unreachable { .. } => 7,
            Self::Refused(Refused(problem)) => match problem.status {
                401 | 403 => 3,
                404 | 410 => 4,
                409 => 5,
                429 | 503 => 6,
                400..=499 => 2,
                _ => 1,
            },
            _ => 1,
        }
    }

    /// Whether the same may go well a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(Refused(problem)) => matches!(problem.status, 408 | 429 | 500..=599),
            Self::Stranger { status, .. } => *status >= 500,
            _ => false,
        }
    }

    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(Refused(problem)) => Some(problem.status),
            _ => None,
        }
    }
}
