//! Files that every user of this machine may read, and only the node's should.

use super::config::Config;
use crate::env::open_to_all;
use crate::types::NodeId;

/// One line for each: the private key, the tokens, an existing data directory. A new one is made for its owner alone.
///
/// The files are used all the same: a host with one account loses nothing by it.
pub fn exposed(config: &Config, node: NodeId) -> Vec<String> {
    let key = config.tls.as_ref().map(|tls| ("the private key", tls.of_node(node).key, "chmod o-rwx"));
    let tokens = config.auth.as_ref().map(|auth| ("the file of tokens", auth.tokens.clone(), "chmod o-rwx"));
    let data = Some(("the data directory, which holds every session", config.node_dir(node), "chmod -R go-rwx"));
    let all = [key, tokens, data].into_iter().flatten();
    let line = |(what, path, fix): (&str, std::path::PathBuf, &str)| {
        let mode = open_to_all(&path)?;
        let path = path.display();
        Some(format!("every user of this machine may read {what}: {fix} {path} mode={mode:04o}"))
    };
    all.filter_map(line).collect()
}
