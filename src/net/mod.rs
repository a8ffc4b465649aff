//! Not part of the interface: any release may change it.
//!
//! The ports of a node: how connections are made, let in, counted and closed. Production and simulation differ behind [`Net`] only.

mod endpoint;
mod greet;
mod listen;
mod ports;

pub use endpoint::{peer_server, to_peer};
pub use greet::Speaks;
pub use listen::{Port, listen};
pub use ports::{Accepted, Connection, Incoming, Io, Net, Place, Proof, TcpNet, Traffic};
