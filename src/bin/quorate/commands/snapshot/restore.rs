//! `quorate snapshot restore`: data directories of a new cluster.

use quorate::server::backup;
use quorate::types::ClusterId;
use serde_json::json;

use super::target::{NewCluster, failure};
use super::{Verified, open, verify};
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

/// Verifies all before it writes anything. Errors: a directory that was half written does not start, and is named.
pub fn run(args: &args::Restore) -> Result<(), Failure> {
    let new = NewCluster::of(&args.new)?;
    let verified = verify(&args.file)?;
    if let Some(ahead) = backup::time_ahead(&new.env, &verified.summary).filter(|_| !args.force) {
        let (hours, file) = (ahead.as_secs() / 3600, args.file.display());
        return Err(Failure::usage(format!(
            "the time in the backup is ahead of this host's clock by more than a day: a clock is wrong, here or where it was made; set this one \
             right, or say --force to begin with that time, which never goes back; nothing was written file={file} ahead_hours={hours} \
             limit_hours=24"
        )));
    }
    let id = new.id(verified.source)?;
    for node in &new.nodes {
        let (file, bytes) = open(&args.file)?;
        let progress = Progress::bytes("restoring", bytes);
        let restored = backup::restore(&new.env, file, &new.config, *node, id, |done| progress.set(done));
        restored.map_err(|error| failure(&error))?;
    }
    output::after(&format!("all directories are written, the new cluster's id is {id}"), print(args, &new, id, &verified))
}

fn print(args: &args::Restore, new: &NewCluster, id: ClusterId, verified: &Verified) -> Result<(), Failure> {
    let summary = &verified.summary;
    match args.output {
        Output::Json => output::json(&json!({
            "cluster_id": id.to_string(),
            "from_cluster_id": verified.header.cluster.to_string(),
            "revision": summary.applied.index,
            "sessions": summary.sessions,
            "nodes": new.nodes_json(),
        }))?,
        Output::Table => {
            for node in &new.nodes {
                let dir = new.config.node_dir(*node);
                let (sessions, revision) = (summary.sessions, summary.applied.index);
                output::line(&format!("restored node={node} sessions={sessions} revision={revision} data_dir={}", dir.display()))?;
            }
            output::line(&next_steps(args, new, id))?;
        }
    }
    Ok(())
}

fn next_steps(args: &args::Restore, new: &NewCluster, cluster: ClusterId) -> String {
    let mut text = format!("the new cluster's id is {cluster}\n");
    if args.new.cluster_id.is_none() {
        for other in new.config.members.iter().filter(|member| !new.nodes.contains(&member.id)) {
            text += &format!(
                "on the host of node {id}, of a copy of the same FILE and before any node is started: quorate snapshot restore FILE --config FILE --node {id} --cluster-id \
                 {cluster}\n",
                id = other.id
            );
        }
    }
    text + "then start each node: quorate serve --config FILE --node ID"
}
