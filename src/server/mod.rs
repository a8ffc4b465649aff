//! server.

pub mod config;
