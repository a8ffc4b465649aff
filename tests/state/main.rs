//! `storage::state` on real files and on a disk that crashes.

mod crash;
mod disk;
mod flush;
mod rig;
mod snapshot;
