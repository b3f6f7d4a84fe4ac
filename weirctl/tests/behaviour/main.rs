//! What `weirctl` does: the real program against a real control plane with a real Postgres.

#[allow(dead_code, reason = "the control plane's own tests use the rest of it")]
#[path = "../../../control-plane/tests/behaviour/people.rs"]
mod people;
#[allow(dead_code, reason = "the control plane's own tests use the rest of it")]
#[path = "../../../control-plane/tests/behaviour/support.rs"]
mod support;

mod devices;
mod document;
mod export;
mod machine;
mod program;
mod session;
mod settings;
mod tail;
mod terminal;
