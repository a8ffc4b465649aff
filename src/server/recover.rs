//! A new cluster out of what one node still has, after a majority was lost for good. For the command line; all calls block.

use super::backup::{Source, members_of};
use super::config::Config;
use crate::env::Env;
use crate::offline::{RestoreError, Target};
use crate::types::{ClusterId, NodeId};

pub use crate::offline::{Error, REVISIONS_SKIPPED, Report, Survivor};

/// The source of a new cluster from a survivor.
pub fn source_of(survivor: &Survivor) -> Source {
    Source(survivor.checksum())
}

/// Writes the data directory of one node of `config` from what the survivor has.
///
/// Errors: see [`RestoreError`]. Panics if the node is not configured.
pub fn recover(env: &Env, survivor: &mut Survivor, config: &Config, node: NodeId, cluster: ClusterId) -> Result<(), RestoreError> {
    let target = Target { cluster, node, members: members_of(config), data_dir: config.node_dir(node) };
    survivor.write(env, &target)
}
