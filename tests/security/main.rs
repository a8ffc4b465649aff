//! What a secured cluster must refuse, and that it serves the rest: real processes on real sockets.

mod cli;
mod connections;
mod forwarded;
mod names;
mod nodes;
mod pki;
mod reload;
mod tokens;
mod wire;
