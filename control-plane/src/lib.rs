//! The Weir control plane: takes the sensors' batches, keeps each once in Postgres, answers for them.
//!
//! ```text
//! sensor -> api -> ingest -> store -> Postgres        operator -> api -> store -> Postgres
//!                                        ^-- jobs (partitions, retention)
//! ```
//!
//! [`expression`] is the language in which operators choose flows, [`naming`] what addresses are called. [`api`] speaks HTTP and knows no SQL,
//! [`store`] speaks SQL and knows no HTTP; [`ingest`] is the write path between them, [`stream`] tells what
//! happened to whoever follows it. [`listener`] takes the connections; [`server`] puts the parts together.
// A flow's example in the document has more fields than the macro's default depth takes.
#![recursion_limit = "256"]
#![forbid(unsafe_code)]

pub mod alerts;
pub mod api;
pub mod auth;
pub mod authority;
pub mod backoff;
pub mod config;
pub mod expression;
pub mod ingest;
pub mod jobs;
pub mod limits;
pub mod listener;
pub mod naming;
pub mod outbound;
pub mod server;
pub mod store;
pub mod stream;
pub mod telemetry;
