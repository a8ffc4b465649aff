//! What a secured cluster must refuse, and that it serves the rest: real processes on real sockets.

mod cli;
mod connections;
mod debug;
mod forwarded;
mod gate;
mod matrix;
mod names;
mod nodes;
mod operator;
mod pki;
#[path = "../process/ports.rs"]
mod ports;
#[path = "../cluster/raw.rs"]
mod raw;
mod reload;
mod shares;
mod tokens;
mod walkthrough;
mod wire;
