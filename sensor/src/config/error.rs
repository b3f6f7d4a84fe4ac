//! What can be wrong with a configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// One wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As in the file: `sampling.interval`, `interfaces[1].name`.
    pub key: String,
    /// What it is and what is allowed.
    pub message: String,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read configuration {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("configuration {path} is not TOML: {message}", path = path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("the configuration has {}", list(.0))]
    Problems(Vec<Problem>),
    #[error("cannot print the configuration: {0}")]
    Print(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    let mut text =
        if problems.len() == 1 { "a problem:".to_owned() } else { format!("{} problems:", problems.len()) };
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}
