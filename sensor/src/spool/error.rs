//! What can go wrong with the spool's file, by what can be done about it.

use std::io;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
use thiserror::Error;

/// Why an operation on the file failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk: full, read-only, failing. What is on it may be as it was; it is tried again.
    #[error("the disk: {0}")]
    Disk(#[source] io::Error),
    /// The file: its structure is not what it was. It is put aside and a fresh one begun.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// Another process has it open.
    #[error("another process has it open: is another sensor running with this spool.folder?")]
    InUse,
}

impl StoreError {
    pub(super) fn damaged(error: impl std::fmt::Display) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ResourceBusy => Self::InUse,
            // The file is shorter than its own headers say.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Self::damaged(error),
            _ => Self::Disk(error),
        }
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => error.into(),
            StorageError::PreviousIo => {
                Self::Disk(io::Error::other("an earlier write failed; the file must be opened again"))
            }
            other => Self::damaged(other),
        }
    }
}

macro_rules! through_storage {
    ($($error:ident),+) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                match error {
                    $error::Storage(error) => error.into(),
                    other => Self::damaged(other),
                }
            }
        })+
    };
}
through_storage!(DatabaseError, TransactionError, TableError, CommitError);
