//! The client, and its adapter for Bob, against a cluster that is scripted.

mod bob;
mod client;
