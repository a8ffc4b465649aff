//! What tests stand on: a disk that loses and fails, background work that runs inline.

pub mod disk;
pub mod inline;
