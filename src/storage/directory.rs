//! The kind of a directory, before anything is opened or made in it, and before anything is said about what to do with it.
//!
//! A data directory is known by its `identity`. An empty one is as good as a missing one: a mount point whose disk is missing is empty.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::identity::Identity;
use crate::env::Disk;
use crate::types::NodeId;

/// Files in a directory that no node has used: a lock, the rest of a killed start, the content of an empty file system.
const NOTHING: [&str; 3] = ["LOCK", "identity.tmp", "lost+found"];

/// The thing at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// A file.
    NoDirectory,
    /// A directory without files of a node or of anything else.
    Empty,
    /// A node's own directory.
    Node,
    /// A node's log or state, without the file that says whose it is.
    NoIdentity,
    /// The directories of these nodes.
    Parent(Vec<NodeId>),
    /// Something else: the first of its names.
    Other(String),
}

/// Looks, and changes nothing. Errors: it can't be read.
pub fn look(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Found> {
    if !disk.exists(dir)? {
        return Ok(Found::Missing);
    }
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Found::NoDirectory),
        names => names?,
    };
    let has = |name: &str| names.iter().any(|found| found == name);
    if has("identity") {
        return Ok(Found::Node);
    }
    if has("log") || has("state") {
        return Ok(Found::NoIdentity);
    }
    let mut nodes = Vec::new();
    for id in names.iter().filter_map(|name| name.parse().ok()) {
        if disk.exists(&dir.join(format!("{id}")).join("identity"))? {
            nodes.push(NodeId(id));
        }
    }
    nodes.sort_unstable();
    Ok(match names.into_iter().find(|name| !NOTHING.contains(&name.as_str())) {
        _ if !nodes.is_empty() => Found::Parent(nodes),
        Some(name) => Found::Other(name),
        None => Found::Empty,
    })
}

/// A node's own directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Where.
    pub dir: PathBuf,
    /// The node's id; `None`: its identity is damaged.
    pub node: Option<NodeId>,
}

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "node {node}'s own directory"),
            None => f.write_str("a node's own directory"),
        }
    }
}

/// The nearest node's own directory that `dir` is, or is in. One that can't be read counts as none.
pub fn own_of(disk: &Arc<dyn Disk>, dir: &Path) -> Option<Own> {
    let dirs = dir.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    dirs.into_iter().find_map(|dir| {
        let has = |name: &str| disk.exists(&dir.join(name)).unwrap_or(false);
        if !has("identity") {
            return None;
        }
        let node = Identity::inspect(disk, dir).ok().map(|identity| identity.node());
        // A file of that name may be anybody's.
        (node.is_some() || has("log") || has("state")).then(|| Own { dir: dir.to_owned(), node })
    })
}

/// Why `dir` is not a node's own directory, and what to name instead; `None`: it may be one.
pub fn why_not_own(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Option<String>> {
    let path = dir.display();
    let inside =
        || own_of(disk, dir).map(|own| format!("this is inside {own}: name that one dir={path} own={}", own.dir.display()));
    Ok(match look(disk, dir)? {
        Found::Node | Found::NoIdentity => None,
        Found::Missing => Some(format!("there is no such directory dir={path}")),
        Found::NoDirectory => Some(format!("this is a file and no directory dir={path}")),
        Found::Empty => Some(inside().unwrap_or_else(|| format!("the directory is empty: no node has used it dir={path}"))),
        Found::Parent(nodes) => {
            let first = dir.join(nodes[0].to_string());
            Some(format!(
                "it holds a directory of each node: name one of them, e.g. {} nodes={} dir={path}",
                first.display(),
                NodeId::listed(&nodes)
            ))
        }
        Found::Other(name) => Some(inside().unwrap_or_else(|| {
            format!("this is no node's directory: it has {name:?} and no file `identity`; name the right one dir={path}")
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Env, RealDisk};

    fn disk() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    #[test]
    fn every_wrong_directory_is_called_what_it_is_and_none_is_to_be_wiped() {
        let temporary = tempfile::tempdir().expect("a directory");
        let at = |name: &str| temporary.path().join(name);
        let found = |name: &str| look(&disk(), &at(name)).expect("it can be read");
        let why = |name: &str| why_not_own(&disk(), &at(name)).expect("it can be read");
        for node in [10, 2] {
            Identity::load_or_create(&Env::real(), &at(&format!("data/{node}")), NodeId(node)).expect("an empty directory");
        }
        for dir in ["empty/lost+found", "torn/state", "other/photos", "data/3", "data/2/log", "damaged/log"] {
            std::fs::create_dir_all(at(dir)).expect("writable");
        }
        for file in ["file", "empty/LOCK", "damaged/identity", "data/2/log/segment"] {
            std::fs::write(at(file), "").expect("writable");
        }
        let cases = [
            ("nope", Found::Missing, Some("there is no such directory")),
            ("file", Found::NoDirectory, Some("a file and no directory")),
            ("empty", Found::Empty, Some("the directory is empty: no node has used it")),
            ("data/2", Found::Node, None),
            ("damaged", Found::Node, None),
            ("torn", Found::NoIdentity, None),
            ("data", Found::Parent(vec![NodeId(2), NodeId(10)]), Some("data/2 nodes=2,10")),
            ("other", Found::Other("photos".into()), Some("it has \"photos\" and no file `identity`")),
            ("data/2/log", Found::Other("segment".into()), Some("this is inside node 2's own directory: name that one")),
        ];
        for (name, expected, said) in cases {
            assert_eq!(found(name), expected, "{name}");
            let why = why(name);
            assert_eq!(why.is_some(), said.is_some(), "{name}: {why:?}");
            let why = why.unwrap_or_default();
            assert!(why.contains(said.unwrap_or_default()) && !why.contains("wipe"), "{why}");
        }
        assert_eq!(own_of(&disk(), &at("data/2/2")), Some(Own { dir: at("data/2"), node: Some(NodeId(2)) }));
        assert_eq!(own_of(&disk(), &at("damaged")), Some(Own { dir: at("damaged"), node: None }));
        assert_eq!(own_of(&disk(), &at("data")), None);
    }
}
