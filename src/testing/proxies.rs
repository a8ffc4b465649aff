//! Proxies between the nodes of a cluster that can be cut off: one for each direction in which one node dials another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::processes::{Rule, Way};
use crate::env::Locked as _;
use crate::types::NodeId;

/// The proxies of one cluster. Dropping it ends them.
#[derive(Default)]
pub(super) struct Proxies(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Nodes whose connections to others carry nothing.
    cut_off: BTreeSet<NodeId>,
    /// How bytes between two nodes fare.
    rules: BTreeMap<BTreeSet<NodeId>, watch::Sender<Rule>>,
    /// Those by which each node reaches others, of its latest start.
    tasks: BTreeMap<NodeId, JoinSet<()>>,
}

impl Inner {
    fn rule(&self, ends: &BTreeSet<NodeId>) -> Rule {
        Rule { stalled: !ends.is_disjoint(&self.cut_off), ..Rule::default() }
    }
}

impl Proxies {
    /// Whether what a node and its peers send each other waits, from now on.
    pub fn set(&self, node: NodeId, is_cut_off: bool) {
        let mut inner = self.0.locked();
        let _ = if is_cut_off { inner.cut_off.insert(node) } else { inner.cut_off.remove(&node) };
        for (ends, rule) in &inner.rules {
            rule.send_replace(inner.rule(ends));
        }
    }

    /// Where one node reaches others that is being started: a proxy for each of these, by their addresses. Those of its earlier start end.
    ///
    /// Errors: no port is free.
    pub async fn before(&self, me: NodeId, others: Vec<(NodeId, String)>) -> io::Result<BTreeMap<String, String>> {
        let (mut via, mut tasks) = (BTreeMap::new(), JoinSet::new());
        for (other, address) in others {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            via.insert(address.clone(), listener.local_addr()?.to_string());
            let (mut inner, ends) = (self.0.locked(), BTreeSet::from([me, other]));
            let rule = inner.rule(&ends);
            let rule = inner.rules.entry(ends).or_insert_with(|| watch::Sender::new(rule));
            tasks.spawn(Way::new(address, [rule.subscribe(), rule.subscribe()]).serve(listener));
        }
        self.0.locked().tasks.insert(me, tasks);
        Ok(via)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_node_that_is_started_again_lets_its_former_listeners_go() {
        let proxies = Proxies::default();
        let address = "127.0.0.1:1";
        let start = async |node| {
            proxies.before(NodeId(node), vec![(NodeId(9), address.to_owned())]).await.expect("a port")[address].clone()
        };
        let (first, other) = (start(1).await, start(2).await);
        let second = start(1).await;
        // A task ends when the runtime next looks at it.
        for looked in 0.. {
            if TcpStream::connect(&first).await.is_err() {
                break;
            }
            assert!(looked < 100_000, "it listens for ever");
            tokio::task::yield_now().await;
        }
        for stays in [other, second] {
            TcpStream::connect(stays).await.expect("it listens");
        }
    }
}
