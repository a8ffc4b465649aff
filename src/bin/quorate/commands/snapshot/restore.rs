//! `quorate snapshot restore`: data directories of a new cluster.

use quorate::env::Env;
use quorate::server::backup::{self, RestoreError};
use quorate::server::config::Config;
use quorate::types::{ClusterId, NodeId};
use serde_json::json;

use super::{open, verify};
use crate::args::{self, Output};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

/// Verifies all before it writes anything. Errors: a directory that was half written does not start, and is named.
pub fn run(args: &args::Restore) -> Result<(), Failure> {
    let env = Env::real();
    let mut config = Config::load(&args.config).map_err(Failure::usage)?;
    if let Some(dir) = &args.data_dir {
        config.data_dir.clone_from(dir);
    }
    let nodes = match args.node.map(NodeId) {
        None => config.members.iter().map(|member| member.id).collect(),
        Some(node) => {
            config.member(node).map_err(|error| Failure::usage(format!("{}: {error}", args.config.display())))?;
            vec![node]
        }
    };
    let cluster = cluster_id(&env, args.cluster_id.as_deref())?;
    for node in &nodes {
        backup::require_empty(&env, &config, *node).map_err(|error| restore_failure(&error))?;
    }
    let verified = verify(&args.file)?;
    for node in &nodes {
        let (file, bytes) = open(&args.file)?;
        let progress = Progress::bytes("restoring", bytes);
        backup::restore(&env, file, &config, *node, cluster, |done| progress.set(done)).map_err(|error| restore_failure(&error))?;
    }
    let summary = &verified.summary;
    match args.output {
        Output::Json => output::json(&json!({
            "cluster_id": cluster.to_string(),
            "from_cluster_id": verified.header.cluster.to_string(),
            "revision": summary.applied.index,
            "sessions": summary.sessions,
            "nodes": nodes.iter().map(|node| json!({
                "id": node.0, "data_dir": config.node_dir(*node).display().to_string(),
            })).collect::<Vec<_>>(),
        }))?,
        Output::Table => {
            for node in &nodes {
                let dir = config.node_dir(*node);
                let (sessions, revision) = (summary.sessions, summary.applied.index);
                output::line(&format!("restored node={node} sessions={sessions} revision={revision} data_dir={}", dir.display()))?;
            }
            output::line(&next_steps(args, &config, &nodes, cluster))?;
        }
    }
    Ok(())
}

/// The one that was given, or a new one. Errors: it is no id of today.
pub fn cluster_id(env: &Env, given: Option<&str>) -> Result<ClusterId, Failure> {
    let Some(text) = given else { return Ok(backup::draw_cluster_id(env)) };
    let id = ClusterId::from_hex(text)
        .ok_or_else(|| Failure::usage("--cluster-id must be the 32 hex digits that the restore of the first node printed"))?;
    backup::require_fresh(env, id).map_err(|error| Failure::usage(format!("--cluster-id: {error}")))?;
    Ok(id)
}

fn next_steps(args: &args::Restore, config: &Config, nodes: &[NodeId], cluster: ClusterId) -> String {
    let mut text = format!("the new cluster's id is {cluster}\n");
    if args.cluster_id.is_none() {
        for other in config.members.iter().filter(|member| !nodes.contains(&member.id)) {
            text += &format!(
                "on the host of node {id}, before any node is started: quorate snapshot restore FILE --config FILE --node {id} --cluster-id \
                 {cluster}\n",
                id = other.id
            );
        }
    }
    text + "then start each node: quorate serve --config FILE --node ID"
}

/// A directory that must be mended first is wrong usage; damage and a failing disk are failures.
pub fn restore_failure(error: &RestoreError) -> Failure {
    match error {
        RestoreError::Directory(_) => Failure::usage(error),
        _ => Failure::failed(error),
    }
}
