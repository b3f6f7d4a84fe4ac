//! What Weir's tests, benches and demo stand on: real things, made for one run and gone after it.
//!
//! * [`capture`] – real captures with their truth;
//! * `collector` – takes traces as a collector does (feature `collector`);
//! * [`netns`] – network namespaces, veth pairs and what the kernel counted on them;
//! * [`traffic`] – replays, checked;
//! * [`proxy`] – a proxy that misbehaves on request;
//! * [`mount`] – small disks and a bpffs of one's own;
//! * [`faketime`] – a wall clock for one program;
//! * [`usage`] – what a process holds;
//! * [`http`] – a blocking client for the API;
//! * [`postgres`] – a private Postgres server on a free port;
//! * [`redis`] – a private Redis server on a free port;
//! * [`process`] – child processes that never outlive the one that started them;
//! * [`prometheus`] – a real Prometheus and its tools;
//! * [`weir`] – both of Weir's programs, run as an operator would;
//! * [`scratch`] – folders that are removed on drop, or by the next run after a kill.
//!
//! Everything here fails with an error that says what is missing and how to get it. Nothing is skipped:
//! a test that needs root and has none must fail.
#![forbid(unsafe_code)]

pub mod capture;
#[cfg(feature = "collector")]
pub mod collector;
mod error;
pub mod faketime;
pub mod http;
pub mod mount;
pub mod netns;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod scratch;
pub mod traffic;
pub mod usage;
pub mod weir;

pub use error::{Error, Result, require_root};
