//! A new cluster that is about to be made: its nodes, their empty directories, its id.

use quorate::env::Env;
use quorate::server::backup::{self, RestoreError, Source};
use quorate::server::config::Config;
use quorate::types::{ClusterId, NodeId};
use serde_json::{Value, json};

use crate::args;
use crate::failure::Failure;

/// A data directory for one node of a new cluster.
pub struct NewCluster {
    pub env: Env,
    pub config: Config,
    /// Those that are made here.
    pub nodes: Vec<NodeId>,
    /// The id that another node's was given.
    given: Option<ClusterId>,
}

impl NewCluster {
    /// As it was asked for. Errors: the configuration is wrong, the id is none of today, or a directory has something in it.
    pub fn of(args: &args::NewCluster) -> Result<Self, Failure> {
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
        let given = args.cluster_id.as_deref().map(|text| given(&env, text)).transpose()?;
        for node in &nodes {
            backup::require_empty(&env, &config, *node).map_err(|error| failure(&error))?;
        }
        Ok(Self { env, config, nodes, given })
    }

    /// Its id: the one that was given, or a new one. Errors: the one that was given was drawn for something else; nothing was written.
    pub fn id(&self, source: Source) -> Result<ClusterId, Failure> {
        let Some(id) = self.given else { return Ok(backup::draw_cluster_id(&self.env, source)) };
        backup::require_source(id, source)
            .map_err(|error| Failure::usage(format!("--cluster-id: {error}; nothing was written")))?;
        Ok(id)
    }

    /// The nodes that are made here, and where their data goes.
    pub fn nodes_json(&self) -> Value {
        let node = |node: &NodeId| json!({ "id": node.0, "data_dir": self.config.node_dir(*node).display().to_string() });
        self.nodes.iter().map(node).collect()
    }
}

/// Errors: it is no id of today.
fn given(env: &Env, text: &str) -> Result<ClusterId, Failure> {
    let id = ClusterId::from_hex(text)
        .ok_or_else(|| Failure::usage("--cluster-id must be the 32 hex digits that the same command for the first node printed"))?;
    backup::require_fresh(env, id).map_err(|error| Failure::usage(format!("--cluster-id: {error}")))?;
    Ok(id)
}

/// A directory that must be fixed first is wrong usage; damage and a failing disk are failures.
pub fn failure(error: &RestoreError) -> Failure {
    match error {
        RestoreError::Directory(_) => Failure::usage(error),
        _ => Failure::failed(error),
    }
}
