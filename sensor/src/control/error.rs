//! Why the control plane cannot be talked to, or did not do what was asked.

use std::path::PathBuf;

use thiserror::Error;

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("control_plane.url `{url}` cannot be used: {reason}")]
    Url { url: String, reason: String },
    #[error("read control_plane.{key} {path}: {source}", path = path.display())]
    File { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("control_plane.token_file {path} holds no token: one line of printable characters is expected", path = .0.display())]
    Token(PathBuf),
    #[error("control_plane.ca_file {path} holds no certificate in PEM: {reason}", path = path.display())]
    Certificates { path: PathBuf, reason: String },
    #[error("no control_plane.token and no control_plane.token_file")]
    NoToken,
    #[error("make the HTTPS client: {0}")]
    Build(#[source] reqwest::Error),
}

/// Why something was not done.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("reach the control plane: {0}")]
    Away(String),
    #[error("the control plane refuses ({status}): {detail}")]
    Refused {
        status: u16,
        /// `type` of the problem document.
        problem: String,
        detail: String,
    },
    #[error("the control plane's answer is not understood: {0}")]
    Strange(String),
    #[error("make a key: {0}")]
    Key(String),
    #[error("write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(
        "control_plane.token is in the configuration or the environment, where it cannot be replaced; use control_plane.token_file"
    )]
    NoFile,
    #[error("{} is there already: this host is enrolled; say --replace to enrol it anew", .0.display())]
    Enrolled(PathBuf),
    #[error(
        "the server's certificate has the SHA-256 fingerprint {found}, not the one that was given: this is another server, or somebody stands between"
    )]
    Fingerprint { found: String },
    #[error("the server showed no certificate; the fingerprint needs an https:// address")]
    NoCertificate,
}
