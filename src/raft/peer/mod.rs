//! The other nodes: how this one reaches them, what they ask and say, whose clocks count, and who leads next.

pub mod clocks;
mod divergence;
pub mod failover;
pub mod peer_table;
pub mod peers;
pub mod service;
pub mod streams;
pub mod takeover;
mod time;
pub mod transfer;
