//! The commands, one file each.

pub mod admin;
pub mod bench;
pub mod cert;
pub mod completions;
pub mod dev;
pub mod doctor;
pub mod events;
pub mod help;
pub mod lease;
pub mod member;
pub mod offline;
pub mod purge;
pub mod recover;
pub mod serve;
pub mod session;
pub mod snapshot;
pub mod status;
pub mod token;
pub mod upgrade;
