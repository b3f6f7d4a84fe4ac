//! Postgres: every SQL statement of the server, typed at its border. No HTTP in here.
//!
//! A function of these modules takes a [`Pool`], runs one transaction on it and gives back values or a
//! [`StoreError`]. Transactions are READ COMMITTED for writes and REPEATABLE READ, READ ONLY for
//! questions (see `docs/decisions/0003-exactly-once-ingest.md`).

pub mod activity;
pub mod alerts;
pub mod audit;
pub mod authority;
pub mod batches;
pub mod compaction;
pub mod configuration;
mod copy;
pub mod credentials;
pub mod detections;
pub mod devices;
pub mod dictionary;
pub mod domains;
pub mod enrollments;
pub mod erasure;
mod error;
pub mod events;
pub mod export;
mod expression;
pub mod filter;
pub mod flows;
pub mod jobs;
mod labels;
pub mod ledger;
mod locks;
pub mod maintenance;
pub mod migrations;
pub mod names;
pub mod networks;
pub mod notices;
mod owners;
pub mod partitions;
mod pool;
pub mod presence;
pub mod processes;
mod reference;
mod refusal;
pub mod resolution;
pub mod rollups;
pub mod search;
pub mod sensors;
pub mod sessions;
pub mod signing;
pub mod standing;
mod statement;
pub mod throttle;
pub mod tickets;
pub mod timeseries;
pub mod tokens;
pub mod top;
pub mod users;
pub mod version;

pub use error::StoreError;
pub use pool::{Class, Isolation, Lease, Pool, PoolState};
pub use reference::Reference;
