//! `storage::state` on real files and on a disk that crashes.

mod flush;
mod rig;
mod snapshot;
