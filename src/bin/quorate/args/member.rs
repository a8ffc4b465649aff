//! `quorate member` and `quorate leader`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Ask;

/// `quorate member`.
#[derive(Debug, Subcommand)]
pub enum Member {
    /// Show the members: their addresses and whether they have a vote. Works without a quorum
    #[command(visible_alias = "ls")]
    List(List),
    /// Make a node that runs and has no data a member without a vote, and wait until it has caught up
    #[command(after_help = ADD_HELP)]
    Add(Add),
    /// Give a member that has caught up a vote
    Promote(One),
    /// Take a member out; a leader hands over first
    #[command(after_help = REMOVE_HELP)]
    Remove(One),
    /// Put a new node in a member's place, in one step: after the loss of a disk or of a machine
    #[command(after_help = REPLACE_HELP)]
    Replace(Replace),
    /// Tell the cluster that a member is reached at other addresses
    #[command(after_help = UPDATE_HELP)]
    Update(Update),
}

const ADD_HELP: &str = "Before: write the new [[node]] into the cluster.toml of its host and start it there: `quorate serve --config cluster.toml \
--node ID --join`. It waits. Its id must be above every id that any node of the cluster ever had, so that no vote counts twice. \
The other members need no restart; write the new [[node]] into their files too when it suits.

After: `quorate member promote ID`. Add and promote two nodes to go from three voters to five: four tolerate no more failures than three.";

const REMOVE_HELP: &str = "The removed node reports it and ends, with exit code 2. A removal that would leave fewer answering members than a majority is refused, \
with the arithmetic; --force makes it all the same, and then nothing can be written until enough members are back.";

const REPLACE_HELP: &str = "Adds NEW, then promotes NEW and removes OLD in one step. OLD may be dead: its disk must never come back into the cluster. \
Interrupted, it can be typed again.";

const UPDATE_HELP: &str = "The member must run there with its data: the node that answers at --peer is asked for its identity. A node that is restarted with other addresses \
in its cluster.toml tells the cluster by itself; change one node at a time. Of two that swapped their addresses either may be named: both \
are recorded, where the leader's cluster.toml has the new addresses.";

/// `quorate member list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub ask: Ask,
}

/// Where a node is.
#[derive(Debug, Args)]
pub struct Addresses {
    /// Where its peers reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: String,
    /// Where clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub client: String,
    /// Where it answers over HTTP
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: String,
}

/// `quorate member add`.
#[derive(Debug, Args)]
pub struct Add {
    /// The new node's id
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    #[command(flatten)]
    pub addresses: Addresses,
    /// How long to wait until it has caught up; 0s: don't. It continues by itself whatever this command does
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10m")]
    pub wait: Duration,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate member promote`, `remove`.
#[derive(Debug, Args)]
pub struct One {
    /// The member
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    /// Even if the members that answer are then no majority
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate member replace`.
#[derive(Debug, Args)]
pub struct Replace {
    /// The member that leaves
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub old: u64,
    /// The new node's id
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub new: u64,
    #[command(flatten)]
    pub addresses: Addresses,
    /// How long to wait until the new node has caught up. It continues by itself whatever this command does
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10m")]
    pub wait: Duration,
    /// Even if the members that answer are then no majority
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate member update`.
#[derive(Debug, Args)]
pub struct Update {
    /// The member
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    #[command(flatten)]
    pub addresses: Addresses,
    #[command(flatten)]
    pub ask: Ask,
}

/// `quorate leader`.
#[derive(Debug, Subcommand)]
pub enum Leader {
    /// Hand the leadership over to another voter: before work on the leader's machine
    Transfer(Transfer),
}

/// `quorate leader transfer`.
#[derive(Debug, Args)]
pub struct Transfer {
    /// The voter that is to lead [default: the one whose log is the longest]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub to: Option<u64>,
    #[command(flatten)]
    pub ask: Ask,
}
