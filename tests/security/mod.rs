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
pub mod pki;
mod reload;
mod shares;
mod tokens;
mod walkthrough;
pub mod wire;
