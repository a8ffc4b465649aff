//! The identity of a data directory: written first, before the log exists, and replaced as a whole.
//!
//! A peer refuses calls for another instance, so a wiped disk cannot vote. The cluster id is absent until the node adopts one, and
//! never changes once the node was initialized: it may hold acknowledged writes of that cluster then.
//!
//! The file is text, so that an operator can read it; its last line is a checksum, so that nobody edits it by accident.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Disk, Env, replace_file, u64_from};
use crate::types::{ClusterId, InstanceId, NodeId, bounded};

const FILE: &str = "identity";
const FIRST_LINE: &str = "quorate identity 1";
const FILE_BYTES_MAX: u64 = 4096;

/// Why an identity is refused. Nothing changed, but for [`Error::Io`]: then either the old or the new one is on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not verify. Put it back from a copy, or replace the node by one with a new id and an empty directory.
    #[error(
        "the identity is damaged: {what}; put the file back from a copy, or replace this node by one with a new id and an empty directory, \
         and keep this one until that is done file={file}"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The problem.
        what: Cow<'static, str>,
    },
    /// The directory belongs to another node. Fix the node id or the directory in the configuration.
    #[error(
        "the data directory belongs to another node; fix the node id or the directory in the configuration file={file} found={found} \
         expected={expected}"
    )]
    OtherNode {
        /// The file.
        file: PathBuf,
        /// The directory's node.
        found: NodeId,
        /// The node that opened it.
        expected: NodeId,
    },
    /// There is data and no identity: the file was lost.
    #[error(
        "the directory holds a node's data and no identity; put the file back from a copy, or replace the node by one with a new id and an \
         empty directory, and keep this one until that is done file={file}"
    )]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The node was initialized in a cluster and never changes it. To join another one takes an empty directory and a new node id.
    #[error(
        "this node was initialized in a cluster and does not change it; to join another one takes a new node id and an empty directory \
         cluster={cluster} offered={offered}"
    )]
    Initialized {
        /// The cluster it belongs to.
        cluster: ClusterId,
        /// The one it was to adopt.
        offered: ClusterId,
    },
    /// The disk failed.
    #[error("cannot read or write the identity: {error} file={file}")]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// The identity of one data directory, as it is on disk.
#[derive(Clone, Debug)]
pub struct Identity {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    fields: Fields,
    /// The first record of the log is under way; after a crash the log tells whether it was.
    begun: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    node: NodeId,
    instance: InstanceId,
    cluster: Option<ClusterId>,
    log_hash_key: u64,
    initialized: bool,
}

impl Identity {
    /// Reads the identity in `dir` (`data/<node>`), or draws one and syncs it. Makes the directory if it is missing.
    ///
    /// Errors: see [`Error`]; a directory that has a log or a state but no identity is [`Error::Missing`].
    pub fn load_or_create(env: &Env, dir: &Path, node: NodeId) -> Result<Identity, Error> {
        let file = dir.join(FILE);
        let failed = |error: io::Error| Error::Io { file: file.clone(), error };
        env.disk.create_dir_all(dir).map_err(failed)?;
        if env.disk.exists(&file).map_err(failed)? {
            let text = read(&*env.disk, &file).map_err(failed)?;
            let fields = Fields::parse(&text).map_err(|what| Error::Damaged { file: file.clone(), what })?;
            if fields.node != node {
                return Err(Error::OtherNode { file, found: fields.node, expected: node });
            }
            // A killed process may have renamed it without the sync: what is believed from now on must be durable.
            env.disk.sync_dir(dir).map_err(failed)?;
            return Ok(Identity { disk: env.disk.clone(), dir: dir.to_owned(), fields, begun: false });
        }
        for data in ["log", "state"] {
            if env.disk.exists(&dir.join(data)).map_err(failed)? {
                return Err(Error::Missing { file });
            }
        }
        let mut instance = [0; 16];
        env.random.fill(&mut instance);
        let log_hash_key = u64_from(&*env.random);
        let fields = Fields { node, instance: InstanceId(instance), cluster: None, log_hash_key, initialized: false };
        let mut identity = Identity { disk: env.disk.clone(), dir: dir.to_owned(), fields: fields.clone(), begun: false };
        identity.replace(fields)?;
        Ok(identity)
    }

    /// The identity in `dir`, of whichever node, read and nothing else. Errors: [`Error::Missing`], [`Error::Damaged`], [`Error::Io`].
    pub fn inspect(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Identity, Error> {
        let file = dir.join(FILE);
        let failed = |error: io::Error| Error::Io { file: file.clone(), error };
        if !disk.exists(&file).map_err(failed)? {
            return Err(Error::Missing { file });
        }
        let text = read(&**disk, &file).map_err(failed)?;
        let fields = Fields::parse(&text).map_err(|what| Error::Damaged { file: file.clone(), what })?;
        Ok(Identity { disk: disk.clone(), dir: dir.to_owned(), fields, begun: false })
    }

    /// Writes, last of all, the identity of a directory that was restored as a member of `cluster`: it holds data of it.
    ///
    /// Errors: [`Error::Io`]. Panics if there is an identity: the caller has looked.
    pub fn create_restored(
        env: &Env,
        dir: &Path,
        node: NodeId,
        cluster: ClusterId,
        instance: InstanceId,
    ) -> Result<Identity, Error> {
        let fields = Fields { node, instance, cluster: Some(cluster), log_hash_key: u64_from(&*env.random), initialized: true };
        let mut identity = Identity { disk: env.disk.clone(), dir: dir.to_owned(), fields: fields.clone(), begun: false };
        let there = env.disk.exists(&dir.join(FILE)).map_err(|error| Error::Io { file: dir.join(FILE), error })?;
        assert!(!there, "a restore never replaces an identity: {}", dir.display());
        identity.replace(fields)?;
        Ok(identity)
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.fields.node
    }

    /// This data directory.
    pub fn instance(&self) -> InstanceId {
        self.fields.instance
    }

    /// The cluster it adopted.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.fields.cluster
    }

    /// The key that session ids are hashed with in logs.
    pub fn log_hash_key(&self) -> u64 {
        self.fields.log_hash_key
    }

    /// Whether this node was ever part of an initialized cluster: it may have promised something to others (L31).
    pub fn was_initialized(&self) -> bool {
        self.fields.initialized
    }

    /// Takes a cluster id and syncs it; the one it has already changes nothing. The caller has checked that log and vote are empty (L34).
    ///
    /// Errors: [`Error::Initialized`], for another cluster; [`Error::Io`].
    pub fn adopt(&mut self, cluster: ClusterId) -> Result<(), Error> {
        match self.fields.cluster {
            Some(mine) if mine == cluster => Ok(()),
            Some(mine) if self.fields.initialized || self.begun => Err(Error::Initialized { cluster: mine, offered: cluster }),
            _ => self.replace(Fields { cluster: Some(cluster), ..self.fields.clone() }),
        }
    }

    /// The node is about to write the first record of its log: it adopts no other cluster any more. In memory only; what is durable is
    /// [`Identity::mark_initialized`]'s, once the record is.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// Notes that the node is part of an initialized cluster, for ever; idempotent, and then without a look at the disk. Panics without a cluster id: that is the caller's
    /// mistake. Errors: [`Error::Io`].
    pub fn mark_initialized(&mut self) -> Result<(), Error> {
        assert!(self.fields.cluster.is_some(), "a node is initialized only in a cluster: {:?}", self.fields);
        if self.fields.initialized {
            return Ok(());
        }
        self.replace(Fields { initialized: true, ..self.fields.clone() })
    }

    fn replace(&mut self, fields: Fields) -> Result<(), Error> {
        let written = replace_file(&*self.disk, &self.dir, FILE, &fields.text());
        written.map_err(|error| Error::Io { file: self.dir.join(FILE), error })?;
        self.fields = fields;
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; file.len()?.min(FILE_BYTES_MAX) as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Fields {
    fn text(&self) -> String {
        let cluster = self.cluster.map_or_else(|| "none".to_owned(), |cluster| cluster.to_string());
        let body = format!(
            "{FIRST_LINE}\nnode={}\ninstance={}\ncluster={cluster}\nlog_hash_key={:016x}\ninitialized={}\n",
            self.node, self.instance, self.log_hash_key, self.initialized
        );
        format!("{body}crc32c={:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    fn parse(bytes: &[u8]) -> Result<Self, Cow<'static, str>> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let (body, crc) = text.split_at(text.find("crc32c=").ok_or("it has no checksum")?);
        if crc != format!("crc32c={:08x}\n", crc32c::crc32c(body.as_bytes())) {
            return Err("its checksum does not match".into());
        }
        let mut lines = body.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err("its format is of another version of this program".into());
        }
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).and_then(|rest| rest.strip_prefix('='));
        let node = field("node").and_then(|node| node.parse().ok()).ok_or("it has no node id")?;
        let node = bounded("node", node).map_err(|error| error.to_string())?;
        let instance = field("instance").and_then(InstanceId::from_hex).ok_or("it has no instance")?;
        let cluster = match field("cluster").ok_or("it has no cluster id")? {
            "none" => None,
            hex => Some(ClusterId::from_hex(hex).ok_or("its cluster id is not 32 hex digits")?),
        };
        let key = field("log_hash_key").and_then(|key| u64::from_str_radix(key, 16).ok()).ok_or("it has no log hash key")?;
        let initialized =
            field("initialized").and_then(|flag| flag.parse().ok()).ok_or("it does not say whether it was initialized")?;
        Ok(Self { node: NodeId(node), instance, cluster, log_hash_key: key, initialized })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk::{Crash, SimDisk};
    use crate::testing::inline::SimEnv;

    const DIR: &str = "/data/1";
    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn load(disk: &SimDisk, seed: u64) -> Result<Identity, Error> {
        Identity::load_or_create(&SimEnv::new(disk, seed).env, Path::new(DIR), NodeId(1))
    }

    #[test]
    fn what_was_adopted_and_marked_survives_a_power_cut() {
        let disk = SimDisk::new();
        let mut identity = load(&disk, 1).expect("an empty disk");
        assert_eq!((identity.cluster(), identity.was_initialized()), (None, false));
        identity.adopt(CLUSTER).expect("no fault is set");
        identity.mark_initialized().expect("no fault is set");
        let after = load(&disk.crash(Crash::Lost, 0), 2).expect("it is synced");
        assert_eq!(after.fields, identity.fields);
    }

    #[test]
    fn a_node_id_that_is_out_of_range_is_damage_by_name_though_the_checksum_is_right() {
        let id = crate::limits::NUMBER_MAX + 1;
        let fields =
            Fields { node: NodeId(id), instance: InstanceId([1; 16]), cluster: None, log_hash_key: u64::MAX, initialized: false };
        let error = Fields::parse(fields.text().as_bytes()).expect_err("no id");
        assert_eq!(error, format!("a number is out of range field=node value={id} limit={}", id - 1));
        let within = Fields { node: NodeId(id - 1), ..fields };
        assert_eq!(Fields::parse(within.text().as_bytes()), Ok(within));
    }

    const CRASHES: [Crash; 7] = [
        Crash::Lost,
        Crash::Kept,
        Crash::Prefix,
        Crash::Torn { sector: 512 },
        Crash::Torn { sector: 4096 },
        Crash::Reordered { sector: 512 },
        Crash::Reordered { sector: 4096 },
    ];

    /// Draws, adopts and marks until the disk halts; gives what was acknowledged last.
    fn live(disk: &SimDisk) -> Option<Fields> {
        let mut identity = load(disk, 1).ok()?;
        let mut acknowledged = identity.fields.clone();
        if identity.adopt(CLUSTER).is_ok() {
            acknowledged = identity.fields.clone();
        }
        if identity.cluster().is_some() && identity.mark_initialized().is_ok() {
            acknowledged = identity.fields.clone();
        }
        Some(acknowledged)
    }

    fn is_what_was_known(found: &Identity, acknowledged: Option<&Fields>, what: &str) {
        let Some(known) = acknowledged else { return };
        assert_eq!(found.instance(), known.instance, "{what}");
        assert!(known.cluster.is_none() || found.cluster() == known.cluster, "{what}");
        assert!(!known.initialized || found.was_initialized(), "{what}");
    }

    /// At every crash point the identity is the old one or the new one, and never damaged; a crash of the start after that one, too.
    #[test]
    fn a_crash_during_a_change_leaves_the_old_or_the_new_identity() {
        let dry = SimDisk::new();
        let whole = live(&dry).expect("nothing fails");
        assert!(whole.initialized && whole.cluster == Some(CLUSTER));
        assert!(dry.operations() > 10, "{}", dry.operations());
        for halt in 0..=dry.operations() {
            let disk = SimDisk::new();
            disk.halt_after(halt);
            let acknowledged = live(&disk);
            for (crash, seed) in CRASHES.iter().flat_map(|crash| (0..8).map(move |seed| (*crash, seed))) {
                let what = format!("halt={halt} crash={crash:?} seed={seed}");
                let left = disk.crash(crash, seed);
                let found = load(&left.kill(), 2).unwrap_or_else(|error| panic!("{what}: {error}"));
                is_what_was_known(&found, acknowledged.as_ref(), &what);
                let next = left.kill();
                drop(load(&next, 2));
                for halt in 0..=next.operations() {
                    let again = left.kill();
                    again.halt_after(halt);
                    let shown = load(&again, 2).ok().map(|identity| identity.fields);
                    let what = format!("{what}, then halt={halt} of the next start");
                    let found = load(&again.crash(crash, seed + 1), 3).unwrap_or_else(|error| panic!("{what}: {error}"));
                    is_what_was_known(&found, shown.as_ref().or(acknowledged.as_ref()), &what);
                }
            }
        }
    }

    #[test]
    fn an_initialized_node_never_adopts_another_cluster_and_an_uninitialized_one_may() {
        let mut identity = load(&SimDisk::new(), 1).expect("an empty disk");
        identity.adopt(ClusterId([1; 16])).expect("it has none");
        identity.adopt(CLUSTER).expect("it is not initialized");
        identity.mark_initialized().expect("no fault is set");
        identity.adopt(CLUSTER).expect("it is its own");
        let error = identity.adopt(ClusterId([1; 16])).expect_err("it is initialized");
        assert!(matches!(error, Error::Initialized { cluster: CLUSTER, .. }), "{error}");
        assert_eq!(identity.cluster(), Some(CLUSTER));
    }

    #[test]
    fn the_directory_of_another_node_is_refused_with_both_ids() {
        let disk = SimDisk::new();
        load(&disk, 1).expect("an empty disk");
        let error = Identity::load_or_create(&SimEnv::new(&disk, 1).env, Path::new(DIR), NodeId(2)).expect_err("it is node 1's");
        assert!(error.to_string().contains("found=1 expected=2"), "{error}");
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let disk = SimDisk::new();
        load(&disk, 1).expect("an empty disk");
        let path = Path::new(DIR).join(FILE);
        let len = disk.contents(&path).expect("it was written").len() as u64;
        for bit in 0..len * 8 {
            let corrupt = disk.crash(Crash::Kept, 0);
            corrupt.damage(&path, bit / 8, 1 << (bit % 8));
            let error = load(&corrupt, 1).expect_err("the checksum covers it");
            assert!(matches!(error, Error::Damaged { .. }), "bit={bit} {error}");
        }
    }

    #[test]
    fn data_without_an_identity_is_refused() {
        let disk = SimDisk::new();
        disk.create_dir_all(&Path::new(DIR).join("log")).expect("no fault is set");
        assert!(matches!(load(&disk, 1), Err(Error::Missing { .. })));
    }
}
