//! What the control plane does, one file per behaviour, over real HTTP and a real Postgres.
//!
//! One Postgres server serves all tests that leave it alone, each in a database of its own; a test that
//! stops or restarts a server starts its own.

// A flow has more fields than the default depth of `json!` takes.
#![recursion_limit = "256"]

mod follow;
mod mailbox;
mod people;
mod support;
mod tap;

mod access;
mod access_matrix;
mod alert_deliveries;
mod alert_email;
mod alerts;
mod api_tokens;
mod audit;
mod client_certificates;
mod command_line;
mod configuration;
mod connections;
mod credentials;
mod database_away;
mod detections;
mod device_erasure;
mod device_split;
mod devices;
mod enrollment;
mod erasure;
mod erasure_races;
mod errors;
mod events;
mod flows_compare;
mod flows_device;
mod flows_export;
mod flows_filter;
mod flows_list;
mod flows_top;
mod identity_atomic;
mod ingest_atomic;
mod ingest_clock;
mod ingest_concurrent;
mod ingest_dropped;
mod ingest_once;
mod ingest_refuses;
mod ingest_storm;
mod injection;
mod jobs;
mod kept_answers;
mod ledger;
mod limits;
mod login_throttle;
mod metrics;
mod migrations;
mod names;
mod networks;
mod openapi;
mod pool;
mod presence;
mod processes;
mod refusals;
mod retention;
mod runbooks;
mod search;
mod sensor_removal;
mod services;
mod sessions;
mod shutdown;
mod stream;
mod tls;
mod traces;
mod transactions;
mod two_instances;
mod users;
