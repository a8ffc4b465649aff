//! The machine and its codec: transcripts, a reference model, exhaustive small scope, formats.

mod codec;
mod exhaustive;
mod golden;
pub mod lab;
mod limits;
mod model;
mod repacks;
mod route;
mod script;
mod transactions;
mod transcripts;
mod turns;
mod watch;
