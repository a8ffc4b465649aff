//! The words that client and server share: identities, positions, changes, outcomes and refusals.
//!
//! Plain data with its own validation; no IO, no serialization format. The wire's messages are converted to these types before
//! anything else looks at them, and the machine's commands are made of them.

mod address;
mod blob;
mod change;
mod id;
mod lease;
mod member;
mod number;
mod operation;
mod outcome;
mod part;
#[cfg(feature = "server")]
mod planted;
mod read;
mod refusal;
mod repack;
mod status;
mod watch;

#[doc(hidden)]
pub use address::{is_loopback, validate_address, validate_listen_address};
pub use blob::{Blob, Chunk, Codec};
pub use change::{
    Access, Addition, Attributes, Base, Change, Content, Counters, Expected, Expiry, Form, OnConflict, Request, Require, Write,
};
pub use id::{
    ClientId, ClusterId, Fence, InstanceId, InvalidId, InvalidLabel, Label, LogId, NodeId, Nonce, Revision, Sequence, SessionId,
    Version, set_log_hash_key,
};
pub use lease::{Holder, InvalidHolder, InvalidLeaseTtl, InvalidRenewals, Lease, LeaseTtl, Lost, Renewals};
pub use member::{Member, MemberChange, Members};
pub use number::{OutOfRange, bounded};
pub use operation::{NoTransaction, Operation, Operations};
pub use outcome::{Aborted, Appended, Outcome, Saved, Swept, TooLarge, Transacted, Verdict};
pub use part::Part;
pub use read::{Consistency, ContentVersion, List, ListPage, Listed, Load, LoadMany, Loaded, LoadedContent, Order, SessionInfo};
pub use refusal::{Applied, LeaderHint, Refusal, RefusalKind};
pub(crate) use repack::mix;
pub use repack::{ChunkSum, Repack, chunk_hash};
pub use status::{ClusterStatus, NodeCheck, NodeStatus, Role};
pub use watch::{Position, Selector, SessionChange, Watch, WatchFrame};
