//! The targets, compiled once for all programs of this package.

#[path = "../../state/rig.rs"]
pub mod rig;
#[path = "../targets.rs"]
pub mod targets;
