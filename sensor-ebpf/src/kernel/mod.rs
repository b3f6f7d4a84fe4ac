//! What the programs are made of, beside the parser.

pub mod account;
pub mod clock;
mod event;
mod filter;
pub mod frame;
mod link_number;
mod listed;
pub mod maps;
pub mod outline;
mod packed;
mod settings;
mod table;
mod wake;
