//! The machine and its codec: transcripts, a reference model, exhaustive small scope, formats.

mod codec;
mod exhaustive;
mod golden;
mod lab;
mod limits;
mod model;
mod reference;
mod route;
mod script;
mod transcripts;
