//! Connections to peers: one set of lazy channels per address, and the route every call carries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tonic::codegen::http::Uri;
use tonic::transport::Channel;

use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::net::{Net, to_peer};
use crate::raft::adapter::types::PeerNode;
use crate::tls::TlsConnector;
use crate::types::{ClusterId, InstanceId, NodeId};
use crate::wire::peer::v1::{Route, peer_client::PeerClient};

/// The purpose of a connection. Each has one, so that a large append never delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Appends and votes.
    Append,
    /// Heartbeats and read indexes.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Clients' operations on their way to the leader.
    Forward,
    /// Everything else: hello, presence, status.
    Control,
}

/// This node's identity towards its peers, and its connections to them. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    me: NodeId,
    net: Arc<dyn Net>,
    tls: Option<TlsConnector>,
    cluster_id: RwLock<Option<ClusterId>>,
    channels: Mutex<BTreeMap<(String, Purpose), Channel>>,
    /// The members of the last membership: openraft keeps the address with which it began a stream.
    members: RwLock<BTreeMap<NodeId, PeerNode>>,
    /// Where members were found, by their data, that are not where the membership has them.
    found: RwLock<BTreeMap<InstanceId, String>>,
}

impl Peers {
    pub fn new(me: NodeId, cluster_id: Option<ClusterId>, net: Arc<dyn Net>, tls: Option<TlsConnector>) -> Self {
        Self(Arc::new(Inner {
            me,
            net,
            tls,
            cluster_id: RwLock::new(cluster_id),
            channels: Mutex::default(),
            members: RwLock::default(),
            found: RwLock::default(),
        }))
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.0.me
    }

    /// The cluster, once one was adopted.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        *self.0.cluster_id.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node has adopted a cluster.
    pub fn set_cluster_id(&self, id: ClusterId) {
        *self.0.cluster_id.write().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    /// The membership has changed.
    pub fn set_members(&self, members: BTreeMap<NodeId, PeerNode>) {
        *self.0.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Where a member is now, if it is one.
    pub fn member(&self, id: NodeId) -> Option<PeerNode> {
        self.0.members.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Members were found elsewhere than the membership has them.
    pub fn set_found(&self, found: BTreeMap<InstanceId, String>) {
        *self.0.found.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// The peer port of a member: where it was found, else where the membership has it.
    pub fn address(&self, node: &PeerNode) -> String {
        let found = self.0.found.read().unwrap_or_else(PoisonError::into_inner);
        found.get(&node.instance).unwrap_or(&node.peer_address).clone()
    }

    /// Where a member may be called from: where the membership has it, and where it was found with its data.
    pub fn addresses(&self, node: &PeerNode) -> Vec<String> {
        let found = self.0.found.read().unwrap_or_else(PoisonError::into_inner);
        found.get(&node.instance).into_iter().chain([&node.peer_address]).cloned().collect()
    }

    /// The route of a call to `to`, whose data directory is `instance`.
    pub fn route(&self, to: NodeId, instance: InstanceId) -> Route {
        Route {
            cluster_id: self.cluster_id().map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            from: self.0.me.0,
            to: to.0,
            to_instance: Bytes::copy_from_slice(instance.as_bytes()),
        }
    }

    /// The channel to an address, made on first use. Errors: the address is none.
    pub fn channel(&self, address: &str, purpose: Purpose) -> Result<Channel, tonic::transport::Error> {
        let key = (address.to_owned(), purpose);
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let route = self.0.net.route(address);
        let endpoint = to_peer(&route)?;
        let channel = match &self.0.tls {
            None => self.0.net.channel(endpoint),
            Some(tls) => {
                let origin = format!("https://{route}").parse::<Uri>().unwrap_or_else(|_| endpoint.uri().clone());
                self.0.net.secured(endpoint.origin(origin), tls.clone())
            }
        };
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    /// A client of a member's peer port.
    pub fn client(&self, node: &PeerNode, purpose: Purpose) -> Result<PeerClient<Channel>, tonic::transport::Error> {
        self.client_at(&self.address(node), purpose)
    }

    /// A client of the peer port at an address.
    pub fn client_at(&self, address: &str, purpose: Purpose) -> Result<PeerClient<Channel>, tonic::transport::Error> {
        let limit = PEER_MESSAGE_BYTES_MAX as usize;
        Ok(PeerClient::new(self.channel(address, purpose)?).max_decoding_message_size(limit).max_encoding_message_size(limit))
    }
}
