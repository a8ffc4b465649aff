//! Proxies between the nodes of a cluster that can be cut off: one for each direction in which one node dials another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::types::NodeId;

/// Bytes a connection carries at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The proxies of one cluster. Dropping it ends them.
#[derive(Default)]
pub(super) struct Proxies {
    /// Nodes whose connections to others carry nothing.
    cut_off: watch::Sender<BTreeSet<NodeId>>,
    /// Those by which each node reaches others, of its latest start.
    tasks: Mutex<BTreeMap<NodeId, JoinSet<()>>>,
}

impl Proxies {
    /// Whether what a node and its peers send each other waits, from now on.
    pub fn set(&self, node: NodeId, is_cut_off: bool) {
        self.cut_off.send_modify(|cut_off| {
            if is_cut_off {
                cut_off.insert(node)
            } else {
                cut_off.remove(&node)
            };
        });
    }

    /// Where one node reaches others that is being started: a proxy for each of these, by their addresses. Those of its earlier start end.
    ///
    /// Errors: no port is free.
    pub async fn before(&self, me: NodeId, others: Vec<(NodeId, String)>) -> io::Result<BTreeMap<String, String>> {
        let (mut via, mut tasks) = (BTreeMap::new(), JoinSet::new());
        for (other, address) in others {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            via.insert(address.clone(), listener.local_addr()?.to_string());
            let link = Link { ends: [me, other], cut_off: self.cut_off.subscribe() };
            tasks.spawn(serve(listener, address, link));
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(me, tasks);
        Ok(via)
    }
}

/// Between two nodes.
#[derive(Clone)]
struct Link {
    ends: [NodeId; 2],
    cut_off: watch::Receiver<BTreeSet<NodeId>>,
}

impl Link {
    /// Waits until neither end is cut off. Whether that may still be.
    async fn is_whole(&mut self) -> bool {
        let ends = self.ends;
        self.cut_off.wait_for(|cut_off| ends.iter().all(|end| !cut_off.contains(end))).await.is_ok()
    }
}

async fn serve(listener: TcpListener, address: String, link: Link) {
    let address: Arc<str> = address.into();
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(near, address.clone(), link.clone()));
    }
}

async fn connection(near: TcpStream, address: Arc<str>, mut link: Link) {
    if !link.is_whole().await {
        return;
    }
    // A node that does not run: the caller sees its connection end.
    let Ok(far) = TcpStream::connect(&*address).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = carry(near_read, far_write, link.clone()) => {}
        () = carry(far_read, near_write, link) => {}
    }
}

/// Carries what comes, while the link is whole, until one side ends.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut link: Link) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
        if !link.is_whole().await || to.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
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
