//! Whole nodes in one process, over loopback sockets: what a client sees of a cluster.

mod basics;
mod failures;
mod garbage;
mod port;
mod rig;
