//! The Weir sensor.
pub mod kernel;
