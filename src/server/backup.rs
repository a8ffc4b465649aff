//! Backup files: what they hold, and data directories made of them, or of what one node still has. For the command line; all calls block.

use std::io::Read;
use std::time::Duration;

use super::config::Config;
use crate::env::Env;
use crate::offline::{self, Survivor, Target};
use crate::storage::backup::{Reader, Summed};
use crate::types::{ClusterId, Member, NodeId};

pub use crate::machine::audit::Totals;
pub use crate::offline::{RestoreError, Summary};
pub use crate::storage::backup::{Error, Header};

/// How long after it was drawn a cluster id may be given to another node's restore.
///
/// A node that is restored into a cluster that has been running would vote for what it no longer knows. The id carries the time it was
/// drawn at, so a command line that lies around is refused.
const CLUSTER_ID_FRESH: Duration = Duration::from_secs(24 * 3600);

/// A checksum over the whole source of a new cluster. All nodes of the cluster must start from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub u32);

/// The source of a new cluster that is made of what one node still has.
pub fn source_of(survivor: &Survivor) -> Source {
    Source(survivor.checksum())
}

/// Reads a whole backup and verifies it: every record, and every session's content against its metadata. `progress` gets the bytes
/// read. Errors: the first damage, with record and offset.
pub fn verify(from: impl Read, progress: impl FnMut(u64)) -> Result<(Header, Summary, Source), Error> {
    let mut sum = 0;
    let mut reader = Reader::open(Summed::new(from, &mut sum))?;
    let summary = offline::verify(&mut reader, progress)?;
    let header = reader.header().clone();
    drop(reader);
    Ok((header, summary, Source(sum)))
}

/// How far machine time may be ahead of this host's clock before a restore is refused: more than any two clocks of one cluster differ by.
const TIME_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// How far a backup's machine time is ahead of this host's clock, if that is by more than a day. It never goes back: in the new cluster
/// what is to expire would live until the clocks have caught up.
pub fn time_ahead(env: &Env, summary: &Summary) -> Option<Duration> {
    let ahead = Duration::from_millis(summary.machine_time_ms.saturating_sub(env.clock.wall_ms()));
    Some(ahead).filter(|ahead| *ahead > TIME_AHEAD_MAX)
}

/// A new cluster's id: the time in its first 6 bytes, then entropy, and in its last 4 what it is made of.
pub fn draw_cluster_id(env: &Env, source: Source) -> ClusterId {
    let mut bytes = [0; 16];
    env.random.fill(&mut bytes);
    bytes[..6].copy_from_slice(&env.clock.wall_ms().to_be_bytes()[2..]);
    bytes[12..].copy_from_slice(&source.0.to_be_bytes());
    ClusterId(bytes)
}

/// A cluster id that was drawn for something else.
#[derive(Debug, thiserror::Error)]
#[error(
    "this cluster id was drawn for another backup or another survivor than the one named here; make every node of the new cluster of \
     one and the same, copied to each host, with the same release of quorate"
)]
pub struct OtherSource;

/// Checks an id that another node's restore has printed. Two nodes made of two backups would share revisions and differ in what those
/// are, which nothing could reconcile later. Errors: it was drawn for something else.
pub fn require_source(cluster: ClusterId, source: Source) -> Result<(), OtherSource> {
    if cluster.0[12..] == source.0.to_be_bytes() { Ok(()) } else { Err(OtherSource) }
}

/// A cluster id that does not come from a restore of today.
#[derive(Debug, thiserror::Error)]
#[error(
    "this cluster id was not drawn by a restore within the last 24 hours; restore all nodes of the new cluster together, and bring \
     a node into a cluster that is running by replacing it, never by a restore"
)]
pub struct NotFresh;

/// Checks an id that another node's restore has printed. Errors: it is too old, or was never drawn by a restore.
pub fn require_fresh(env: &Env, cluster: ClusterId) -> Result<(), NotFresh> {
    let drawn_ms = cluster.0[..6].iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    let apart_ms = env.clock.wall_ms().abs_diff(drawn_ms);
    if u128::from(apart_ms) <= CLUSTER_ID_FRESH.as_millis() { Ok(()) } else { Err(NotFresh) }
}

/// Errors: the data directory of this node has something in it.
pub fn require_empty(env: &Env, config: &Config, node: NodeId) -> Result<(), RestoreError> {
    offline::require_empty(env, &config.node_dir(node))
}

/// Writes the data directory of one node of `config` from a backup that [`verify`] took. `progress` gets the bytes read.
///
/// Errors: see [`RestoreError`]. Panics if the node is not configured.
pub fn restore(
    env: &Env,
    from: impl Read,
    config: &Config,
    node: NodeId,
    cluster: ClusterId,
    progress: impl FnMut(u64),
) -> Result<(), RestoreError> {
    let target = Target { cluster, node, members: members_of(config), data_dir: config.node_dir(node) };
    let reader = Reader::open(from).map_err(RestoreError::Backup)?;
    offline::restore(env, reader, &target, progress)
}

/// Writes the data directory of one node of `config` from what the survivor has.
///
/// Errors: see [`RestoreError`]. Panics if the node is not configured.
pub fn recover(env: &Env, survivor: &mut Survivor, config: &Config, node: NodeId, cluster: ClusterId) -> Result<(), RestoreError> {
    let target = Target { cluster, node, members: members_of(config), data_dir: config.node_dir(node) };
    survivor.write(env, &target)
}

/// The configured nodes as members of a new cluster.
pub(super) fn members_of(config: &Config) -> Vec<Member> {
    config.members.iter().map(|member| Member { voter: true, ..member.member() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_drawn_now_is_fresh_and_is_for_what_it_was_drawn_for() {
        let env = Env::real();
        let (one, other) = (Source(0x0102_0304), Source(0x0102_0305));
        let drawn = draw_cluster_id(&env, one);
        assert_ne!(drawn, draw_cluster_id(&env, one));
        require_fresh(&env, drawn).expect("drawn now");
        require_source(drawn, one).expect("drawn for it");
        require_source(drawn, other).expect_err("drawn for another");
        let mut old = drawn;
        // Some 49 days.
        old.0[1] ^= 1;
        require_fresh(&env, old).expect_err("from another time");
        require_fresh(&env, ClusterId([7; 16])).expect_err("of a bootstrapped cluster");
    }
}
