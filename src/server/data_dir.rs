//! Whether a node may start in a directory. For the command line.

use std::path::Path;

use super::config::Config;
use crate::env::Env;
use crate::storage::directory::{self, Found, own_of};
use crate::types::NodeId;

/// Whether a node may start on an empty data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// No: the node has data.
    No,
    /// Yes: the node forms a new cluster, or joins one.
    Yes,
}

/// Whether the node has data. Nothing was changed. Errors, one line: it must have data and has none, or the directory is another than it
/// is taken for; what it is, and what to name instead.
pub fn require(env: &Env, config: &Config, node: NodeId, begin: Begin) -> Result<bool, String> {
    let dir = config.node_dir(node);
    let path = dir.display();
    let found =
        directory::look(&env.disk, &dir).map_err(|error| format!("the data directory can't be read: {error} path={path}"))?;
    match found {
        // Whose it is, and whether all of it is there, is seen when it is opened.
        Found::Node | Found::NoIdentity => Ok(true),
        Found::Missing | Found::Empty => {
            if let Some(refusal) = within_own(env, &config.data_dir) {
                return Err(refusal);
            }
            match (begin, found) {
                (Begin::Yes, _) => Ok(false),
                (Begin::No, Found::Missing) => Err(format!(
                    "there is no data directory; pass --bootstrap to form a new cluster, --join to be taken into one that runs, or name the \
                     right one with --data-dir path={path}"
                )),
                (Begin::No, _) => Err(format!(
                    "the data directory is empty: if a disk belongs there, mount it; pass --bootstrap to form a new cluster, --join to be \
                     taken into one that runs, or name the right one with --data-dir path={path}"
                )),
            }
        }
        Found::NoDirectory => Err(format!("the data directory is a file; name the right one with --data-dir path={path}")),
        Found::Parent(nodes) => {
            let ids = NodeId::listed(nodes);
            Err(format!(
                "this holds a directory of each node, where node {node}'s own should be: pass --data-dir {path} nodes={ids}"
            ))
        }
        Found::Other(name) => Err(format!(
            "the data directory has {name:?} and nothing of a node; name the right one with --data-dir, or an empty one to begin path={path}"
        )),
    }
}

/// `--data-dir` takes the parent of the nodes' directories. Named for what it is if it is one of them.
fn within_own(env: &Env, data_dir: &Path) -> Option<String> {
    let own = own_of(&env.disk, data_dir)?;
    let parent = own.dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = if own.dir == data_dir { "is" } else { "lies in" };
    Some(format!(
        "--data-dir {place} {own}, where it takes the directory above that: pass --data-dir {}; nothing was made own={}",
        parent.display(),
        own.dir.display()
    ))
}

/// Errors, one line: `data_dir` is a node's own directory or lies in one, so a cluster's can't begin there.
pub fn require_no_nodes_own(env: &Env, data_dir: &Path) -> Result<(), String> {
    within_own(env, data_dir).map_or(Ok(()), Err)
}
