//! Whole nodes in one process, over loopback sockets: what a client sees of a cluster.

mod basics;
mod clocks;
mod corruption;
mod cut_off;
mod edge;
mod erased;
mod failures;
mod forwarded;
mod full;
mod garbage;
mod greedy;
mod histories;
mod many;
mod members;
mod numbers;
mod parts;
mod port;
mod power_loss;
mod quorum;
mod recovered;
mod rig;
mod seen;
mod snapshot;
mod strangers;
mod upgrade;
mod watch;
