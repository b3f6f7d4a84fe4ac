//! What can go wrong between us and Postgres, by what the caller can do about it.

use tokio_postgres::error::SqlState;

/// Why a transaction did not happen. None of it was stored, except where [`StoreError::Unavailable`]
/// hit a commit, whose outcome is then unknown; writes are therefore safe to repeat.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it was lost: worth another try soon.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A statement or transaction ran into its time limit.
    #[error("the database did not answer within {0} ms")]
    Timeout(u64),
    /// Postgres ended the transaction in favour of another one.
    #[error("the transaction gave way to another: {0}")]
    Conflict(tokio_postgres::Error),
    /// A sum left the range of a 64-bit integer.
    #[error("a count is out of range: {0}")]
    OutOfRange(tokio_postgres::Error),
    /// A partition was dropped between the look and the write.
    #[error("a partition is missing: {0}")]
    MissingPartition(tokio_postgres::Error),
    /// Who makes the change, or what it is of, is being erased.
    #[error("who makes the change, or what it is of, is being erased")]
    Erased,
    /// Anything else that Postgres refuses.
    #[error("{}", detail(.0))]
    Database(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // No SQLSTATE: the connection failed, or a value did not fit its column's type, which the
            // types at the border rule out.
            return Self::Unavailable(with_sources(&error));
        };
        match *state {
            SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Self::Timeout(0),
            SqlState::T_R_DEADLOCK_DETECTED | SqlState::T_R_SERIALIZATION_FAILURE => Self::Conflict(error),
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE => Self::OutOfRange(error),
            // A row for which no partition exists is a "check violation".
            SqlState::UNDEFINED_TABLE | SqlState::CHECK_VIOLATION => Self::MissingPartition(error),
            // 08 connection, 53 resources (disk, memory, connections), 57 operator, 58 system.
            _ if ["08", "53", "57", "58"].iter().any(|class| state.code().starts_with(class)) => {
                Self::Unavailable(detail(&error))
            }
            _ => Self::Database(error),
        }
    }
}

impl StoreError {
    /// A short name for metrics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Conflict(_) => "conflict",
            Self::OutOfRange(_) => "out_of_range",
            Self::MissingPartition(_) => "missing_partition",
            Self::Erased => "erased",
            Self::Database(_) => "database",
        }
    }
}

/// Postgres' own words; its driver's `Display` only says "db error".
fn detail(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => with_sources(error),
    }
}

fn with_sources(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
