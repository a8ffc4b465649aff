//! `quorate offline`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;

/// `quorate offline`.
#[derive(Debug, Subcommand)]
pub enum Offline {
    /// Show whose data it is, how far log and state reach, and what they hold
    Inspect(Look),
    /// Read everything, compare every session's content with its metadata, and name the first damage; exit code 1
    Verify(Look),
    /// Write the sessions as JSON, one per line, as `quorate session import` takes them
    #[command(after_help = "The state of a node that was killed may be up to some seconds behind its log; `inspect` shows both.")]
    Export(Export),
}

/// Which directory.
#[derive(Debug, Args)]
pub struct Look {
    /// The node's own directory, e.g. quorate-data/1. No node may be running on it; nothing in it is changed
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `quorate offline export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The node's own directory, e.g. quorate-data/1. No node may be running on it; nothing in it is changed
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Only ids with this prefix
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Where to write them; must not exist; `-` is stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}
