//! What Weir's tests, benches and demo stand on: real things, made for one run and gone after it.
//!
//! * [`postgres`] – a private Postgres server on a free port;
//! * [`process`] – child processes that never outlive the one that started them;
//! * [`scratch`] – folders that are removed on drop, or by the next run after a kill.
//!
//! Everything here fails with an error that says what is missing and how to get it. Nothing is skipped:
//! a test that needs root and has none must fail.
#![forbid(unsafe_code)]

mod error;
pub mod postgres;
pub mod process;
pub mod scratch;

pub use error::{Error, Result, require_root};
