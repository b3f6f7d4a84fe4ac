//! Weir's control plane for whoever sits at a terminal, and for scripts.
//!
//! [`client`] speaks to the API, [`session`] keeps who logged in, [`commands`] ask and show. Nothing of a server's
//! answer reaches a terminal as it came: [`show`] writes all of it.
#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod commands;
mod session;
mod show;
