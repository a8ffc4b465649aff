//! Not part of the interface: any release may change it.
//!
//! The wire: generated messages and services, and the conversions between them and [`crate::types`].
//!
//! Writes, loads, listings, outcomes and refusals become [`crate::types`] here and nowhere else, validated, and go back the same way: the
//! machine and the storage below see no generated message, and `tests/tidy` holds that they name neither this module nor prost. The two ends
//! of a connection do see them: the services and the dispatcher of `server`, the driver of `client`, and both ends of the protocol between
//! peers in `raft`, which validates what only it understands (votes, log ids, memberships) in its own conversions.

mod convert;
mod load;
mod refusal;

pub use convert::{
    cluster_id_from, cluster_id_to, list_from, list_page_from, list_page_to, list_to, load_from, load_many_from, load_many_to,
    load_to, member_change_from, member_change_to, members_from, members_to, node_status_from, node_status_to, outcome_from,
    outcome_to, verify_blobs, watch_frame_from, watch_frame_to, watch_from, watch_to, write_from, write_to,
};
pub use load::{Assembled, AssembledMany, LoadAssembler, LoadFrames, ManyAssembler, ManyFrames};
#[cfg(feature = "client")]
pub(crate) use refusal::is_no_operation;
#[cfg(feature = "client")]
pub(crate) use refusal::leader_hint;
pub use refusal::{is_ours, no_operation, refusal_from, refusal_from_status, refusal_to, status_from_refusal, unread};

/// The newest cluster version whose verbs, fields and outcomes this release's messages have, in force or not.
pub const VERSION_KNOWN: u16 = 2;

/// A cluster version as messages say it: a release that does not say knows version 1.
pub fn version_from(version: u32) -> u16 {
    u16::try_from(version).unwrap_or(u16::MAX).max(1)
}

/// The client protocol, `quorate.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("generated/quorate.v1.rs");
}

/// The protocol between peers, `quorate.peer.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod peer {
    /// Version 1.
    pub mod v1 {
        include!("generated/quorate.peer.v1.rs");
    }
}

/// Descriptions of both protocols, for reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!("generated/descriptor.bin");

/// The bytes of a message, for log and state.
pub fn to_bytes(message: &impl prost::Message) -> bytes::Bytes {
    message.encode_to_vec().into()
}

/// A message from its bytes. Errors: they are no such message; the text says where.
pub fn from_bytes<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, std::io::Error> {
    M::decode(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}
