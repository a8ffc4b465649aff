//! Not part of the interface: any release may change it.
//!
//! The files of nodes that do not run: looked into and verified, and made from a backup or from what one node still has.
//!
//! All calls block. A node's own files are never written; a directory is only ever made where there was none.

mod backup;
mod recover;
mod restore;
mod stopped_files;
mod stopped_node;

pub use backup::{Summary, verify};
pub use recover::{Report, Survivor};
pub use restore::{Error as RestoreError, REVISIONS_SKIPPED, Target, require_empty, restore};
pub use stopped_files::Error;
pub use stopped_node::StoppedNode;
