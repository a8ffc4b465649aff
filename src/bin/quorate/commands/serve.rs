//! `quorate serve`: one node, until a signal.

use quorate::env::Env;
use quorate::server::config::Config;
use quorate::server::{Options, Server};
use quorate::types::NodeId;

use crate::args;
use crate::failure::Failure;
use crate::signals::{self, Signals};

/// Runs the node until SIGINT, SIGTERM or the end of the parent's pipe; then hands over, flushes and returns.
///
/// Errors: whatever an operator has to mend before the node can start is of kind usage; a node that fails while it runs is not.
pub async fn run(args: args::Serve) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(|error| Failure::failed(format!("can't watch for signals: {error}")))?;
    let mut config = Config::load(&args.config).map_err(Failure::usage)?;
    let node = NodeId(args.node);
    config.member(node).map_err(|error| Failure::usage(format!("{}: {error}", args.config.display())))?;
    if !args.insecure {
        config.require_loopback().map_err(|error| Failure::usage(format!("{}: {error}", args.config.display())))?;
    }
    if let Some(dir) = args.data_dir {
        config.data_dir = dir;
    }
    let data_dir = config.node_dir(node);
    if !args.bootstrap && !data_dir.exists() {
        return Err(Failure::usage(format!(
            "there is no data directory; pass --bootstrap to form a new cluster, or name the right one with --data-dir path={}",
            data_dir.display()
        )));
    }
    let parent = match args.parent_pipe {
        true => Some(signals::stdin_ended().map_err(|error| Failure::failed(format!("can't watch stdin: {error}")))?),
        false => None,
    };
    let shutdown = async move {
        tokio::select! {
            () = signals.recv() => {}
            () = gone(parent) => {}
        }
    };
    let options = Options { config, node, data_dir, bootstrap: args.bootstrap, env: Env::real() };
    tokio::pin!(shutdown);
    // A signal while the node is still starting must not be kept waiting: nothing was promised yet.
    let server = tokio::select! {
        server = Server::start(options) => server.map_err(Failure::usage)?,
        () = &mut shutdown => return Ok(()),
    };
    server.run(shutdown).await.map_err(Failure::failed)
}

async fn gone(parent: Option<tokio::sync::oneshot::Receiver<()>>) {
    match parent {
        Some(parent) => drop(parent.await),
        None => std::future::pending().await,
    }
}
