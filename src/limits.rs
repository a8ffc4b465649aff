//! Bounds that shape bytes or protocol, in one place, with the relations between them checked at compile time.
//!
//! Constants that the machine's `apply` looks at are grouped by cluster version in `machine::rules`, which starts from these:
//! changing one of them for an existing cluster version would make replicas disagree. Operators' choices live in `cluster.toml`.

mod intervals;

use std::time::Duration;

#[cfg(feature = "machine")]
pub(crate) use intervals::in_force;
pub use intervals::{Intervals, Shortened, intervals, shorten};

/// One kibibyte, in bytes.
pub const KIB: u64 = 1024;
/// One mebibyte, in bytes.
pub const MIB: u64 = 1024 * KIB;

/// Longest session id, in bytes of UTF-8. The empty id is allowed.
pub const SESSION_ID_BYTES_MAX: usize = 1024;
/// Longest label of a session, in bytes of UTF-8. The empty one is none.
pub const LABEL_BYTES_MAX: usize = 256;
/// Longest name of a lease's holder, in bytes of UTF-8.
pub const HOLDER_BYTES_MAX: usize = 256;
/// Leases that one command renews.
pub const LEASES_RENEWED_MAX: usize = 64;
/// Shortest time that a lease is asked for ...
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(5);
/// ... and the longest.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(600);
/// Most bytes of leases, by the fixed formula of [`LEASE_BYTES`] plus the id and the holder; above it the machine answers `TooManyLeases`.
pub const LEASES_BYTES_MAX: u64 = 64 * MIB;
/// The bytes one lease counts against [`LEASES_BYTES_MAX`], besides its id and its holder.
pub const LEASE_BYTES: u64 = 256;
/// Largest single write: stored bytes of all its chunks and its head.
pub const WRITE_BYTES_MAX: u64 = 16 * MIB;
/// Largest session, in stored (perhaps compressed) bytes.
pub const SESSION_STORED_BYTES_MAX: u64 = 16 * MIB;
/// Largest session, in raw (decompressed) bytes.
pub const SESSION_RAW_BYTES_MAX: u64 = 64 * MIB;
/// Most items (for Bob: messages) of one session.
pub const SESSION_ITEMS_MAX: u64 = 100_000;
/// Most chunks of one session; above it the machine answers `TooLarge`.
pub const SESSION_CHUNKS_MAX: u64 = 4096;
/// From this many chunks on, the client repacks a session by a full change.
pub const SESSION_CHUNKS_REPACK: u64 = 1024;
/// Raw bytes of a chunk a repacking client aims at.
pub const REPACKED_CHUNK_BYTES: u64 = MIB;
/// Most counters of one session.
pub const COUNTERS_MAX: usize = 16;

/// Most operations of one transaction ...
pub const TRANSACTION_OPERATIONS_MAX: usize = 64;
/// ... their chunks together; their stored bytes together are those of a write, [`WRITE_BYTES_MAX`] ...
pub const TRANSACTION_CHUNKS_MAX: u64 = SESSION_CHUNKS_MAX;
/// ... and their ids together.
pub const TRANSACTION_IDS_BYTES_MAX: u64 = 64 * KIB;
/// Everything of one encoded operation that is neither id nor chunk nor data, at most ...
pub const OPERATION_OVERHEAD_BYTES_MAX: u64 = 1024;
/// ... and everything of an encoded chunk that is not its data.
pub const CHUNK_OVERHEAD_BYTES_MAX: u64 = 64;
/// The chunks of the sessions that one entry creates are numbered from multiples of this, so that their rows never meet.
pub const CREATION_CHUNKS: u64 = 1 << 40;

/// Everything of an encoded entry that is not a chunk's or head's data, for [`SESSION_CHUNKS_MAX`] chunks.
pub const ENTRY_OVERHEAD_BYTES_MAX: u64 = MIB;
/// Largest message between peers.
pub const PEER_MESSAGE_BYTES_MAX: u64 = 20 * MIB;
/// Largest message that carries a client's write, or its forward.
pub const WRITE_MESSAGE_BYTES_MAX: u64 = 20 * MIB;
/// Largest message of any other kind.
pub const MESSAGE_BYTES_MAX: u64 = 4 * MIB;
/// Largest request that only reads: of loads, of a page, of a watch.
pub const READ_MESSAGE_BYTES_MAX: u64 = 96 * KIB;
/// The bytes of a read for one session in such a request, besides its id; and so are those of the request for all of them.
pub const READ_OVERHEAD_BYTES_MAX: u64 = 128;
/// Largest request that only asks: of health, of the protocol's description, of members, events and whatever else an operator asks.
pub const ASK_MESSAGE_BYTES_MAX: u64 = 4 * KIB;
/// Soft cap of the entries in one append message; a single larger entry travels alone.
pub const APPEND_BYTES_SOFT: u64 = MIB;
/// Most entries in one append message.
pub const APPEND_ENTRIES_MAX: u64 = 4096;
/// Largest frame of a streamed load or snapshot.
pub const FRAME_BYTES_MAX: usize = MIB as usize;

/// Largest term, index, revision, version, node id and time in milliseconds: what bytes say beyond it is none, and sums of two below it
/// overflow nowhere.
pub const NUMBER_MAX: u64 = 1 << 62;
/// Sequences a client may have open: a sequence at or beyond `acknowledged_below` plus this is refused.
pub const OPEN_WRITES_MAX: u64 = 1024;
/// Most clients in the client table.
pub const CLIENTS_MAX: usize = 100_000;
/// Most recorded outcomes over all clients.
pub const OUTCOMES_MAX: usize = 1_000_000;
/// Most sessions and tombstones together.
pub const SESSIONS_MAX: usize = 2_000_000;
/// Most bytes of metadata, by the fixed formula of [`SESSION_METADATA_BYTES`] plus the id and the label.
pub const METADATA_BYTES_MAX: u64 = 1024 * MIB;
/// The bytes one session or tombstone counts against [`METADATA_BYTES_MAX`], besides its id and its label.
pub const SESSION_METADATA_BYTES: u64 = 384;
/// Longest deadline a write may ask for.
pub const WRITE_DEADLINE_MAX: Duration = Duration::from_secs(120);
/// Longest time to live a session may ask for: ten years.
pub const SESSION_TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Longest time that a tombstone stands, and how long it does where no writer said less.
pub const TOMBSTONE_TTL_MAX: Duration = Intervals::PRODUCTION.tombstone_ttl;
/// Rows one `Sweep` may remove at most.
pub const SWEEP_ROWS_MAX: usize = 8192;
/// Sessions, clients and tombstones one `Sweep` may remove at most.
pub const SWEEP_COUNT_MAX: u32 = 1024;
/// Memory of an unflushed row besides its key and value, as it is counted.
pub const ROW_OVERHEAD_BYTES: u64 = 96;

/// Most sessions that are loaded together ...
pub const LOAD_MANY_IDS_MAX: usize = 64;
/// ... their stored bytes in the answer ...
pub const LOAD_MANY_BYTES_MAX: u64 = SESSION_STORED_BYTES_MAX;
/// ... and the rows of content, chunks and heads, that may have to be read for them.
pub const LOAD_MANY_ROWS_MAX: u64 = 8192;
/// Most sessions on one page of a listing.
pub const LIST_PAGE_MAX: u32 = 1000;
/// Saves that a node remembers in their order, and so what a listing of recent sessions reaches back ...
pub const CHANGES_KEPT: usize = 65_536;
/// ... and their bytes, each with [`CHANGE_BYTES`] and its id.
pub const CHANGES_BYTES_MAX: u64 = 16 * MIB;
/// Deletions that a node remembers since it was started, for watches that are resumed ...
pub const DELETIONS_KEPT: usize = 65_536;
/// ... and their bytes, counted as those of the saves.
pub const DELETIONS_BYTES_MAX: u64 = 4 * MIB;
/// The bytes a remembered change counts, besides its id.
pub const CHANGE_BYTES: u64 = 16;
/// Records a watch looks at under one hold of the view lock.
pub const WATCH_STEP_RECORDS: usize = 1000;
/// Changes in one frame of a watch ...
pub const WATCH_FRAME_CHANGES: usize = 1000;
/// ... and its bytes.
pub const WATCH_FRAME_BYTES: u64 = 64 * KIB;
/// How often the watches of a node look at what changed, at most.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// A watch to which nothing was sent for so long is sent an empty frame.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// A node that has heard of no leader for so long ends its watches; so long a watch waits until its node has applied enough.
pub const WATCH_WITHOUT_LEADER_MAX: Duration = Duration::from_secs(5);
/// Watches that are open at once on one node ...
pub const WATCHES_MAX: usize = 1000;
/// ... on one of its connections ...
pub const WATCHES_PER_CONNECTION_MAX: usize = 64;
/// ... and by one token.
pub const WATCHES_PER_TOKEN_MAX: usize = WATCHES_MAX / 4;
/// Most ids that one watch names.
pub const WATCH_IDS_MAX: usize = 64;
/// Digests that are kept, see [`Intervals::digest_entries`].
pub const DIGESTS_KEPT: usize = 1024;

/// Operations drained into one proposal or one read index.
pub const BATCH_OPERATIONS_MAX: usize = 256;
/// Bytes drained into one proposal.
pub const BATCH_BYTES_MAX: u64 = 256 * KIB;
/// Operations above this travel on a separate connection.
pub const LARGE_OPERATION_BYTES: u64 = 64 * KIB;
/// Calls parked while no leader is known ...
pub const PARKED_CALLS_MAX: usize = 4096;
/// ... their bytes ...
pub const PARKED_BYTES_MAX: u64 = 16 * MIB;
/// ... and how long, within their own deadline.
pub const PARKED_FOR_MAX: Duration = Duration::from_millis(500);
/// Bytes of writes in flight at a leader; above it new ones are refused as overload.
pub const IN_FLIGHT_BYTES_MAX: u64 = 64 * MIB;
/// New ids a second that the shares of tokens are parts of: a cluster of three on small machines takes four times as many, so others are
/// served beside.
pub const NEW_IDS_PER_SECOND: u64 = 2000;
/// Bytes a second of writes above [`BATCH_BYTES_MAX`] that the shares of tokens are parts of. While such a write is on its way to the disks, all
/// others wait for it: at this rate a small disk is busy with them for less than a tenth of the time.
pub const LARGE_BYTES_PER_SECOND: u64 = 8 * MIB;
/// When to try again after a refusal because a token's share is used up: what frees some of it takes seconds at least.
pub const SHARE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes of requests that have arrived at a node's port for clients and are no whole request yet; above it the request that grew is
/// refused as overload.
pub const RECEIVING_BYTES_MAX: u64 = 256 * MIB;
/// The most of [`RECEIVING_BYTES_MAX`] for one connection, or for one token over all connections.
pub const RECEIVING_SHARE_BYTES_MAX: u64 = RECEIVING_BYTES_MAX / 4;
/// A request of which a part has arrived, and not all of it within so long, is ended.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// The bytes every operation counts against [`IN_FLIGHT_BYTES_MAX`], besides its content.
pub const OPERATION_BYTES: u64 = 512;
/// Loaded content that waits for its reader on one node; above it new reads are refused as overload.
pub const LOADED_BYTES_MAX: u64 = 128 * MIB;
/// The most of [`LOADED_BYTES_MAX`] for one connection, or for one token over all connections.
pub const LOADED_SHARE_BYTES_MAX: u64 = LOADED_BYTES_MAX / 4;
/// An answer up to this is small ...
pub const SMALL_ANSWER_BYTES: u64 = 64 * KIB;
/// ... and finds room above [`LOADED_BYTES_MAX`] too, so that large answers nobody takes stop no small ones.
pub const LOADED_RESERVE_BYTES: u64 = 16 * MIB;
/// A reader that took nothing for so long is cut off if others need the room.
pub const READER_STALL_MIN: Duration = Duration::from_millis(50);
/// The bytes every session on a page counts against [`LOADED_BYTES_MAX`], besides its id and its label.
pub const LISTED_BYTES: u64 = 128;
/// A reader that holds loaded content and takes none of it for so long is cut off, and the content is dropped.
pub const READER_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Open operations of one stream; the next is read from the network only when one of them is answered.
pub const STREAM_OPEN_MAX: usize = 2048;
/// Operations queued towards the leader on one forward stream.
pub const FORWARD_QUEUE_MAX: usize = 8192;
/// Deadline of a write that names none.
pub const WRITE_DEADLINE_DEFAULT: Duration = Duration::from_secs(15);
/// Deadline of a read that names none.
pub const READ_DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// Connections open at once on a node's port for clients, of which no address has more than half; one more is closed at once, and its
/// client goes to another node.
pub const CLIENT_CONNECTIONS_MAX: u64 = 4096;
/// Connections at once on a node's port for peers ...
pub const PEER_CONNECTIONS_MAX: u64 = 256;
/// ... and on its port for operators.
pub const ADMIN_CONNECTIONS_MAX: u64 = 64;
/// Connections of one port that have not shown yet what they are, by TLS and the first bytes of HTTP; the oldest is closed for one more.
pub const GREETINGS_MAX: usize = 256;
/// How long they may take for it, and how long the headers of a request to the operators' port may.
pub const GREETING_PATIENCE: Duration = Duration::from_secs(10);
/// A connection that brings no byte for so long is closed, at latest after twice as long. A living client or peer answers the
/// keep-alive of its connection every few seconds.
pub const CONNECTION_QUIET_MAX: Duration = Duration::from_secs(60);

/// Nodes a cluster may be configured with.
pub const NODES_MAX: usize = 16;
/// Longest host name or address in configuration and messages, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;

// A full save of the largest allowed session must always be possible, and one entry must fit in one message.
const _: () = assert!(SESSION_STORED_BYTES_MAX <= WRITE_BYTES_MAX);
const _: () = assert!(WRITE_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX <= PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(WRITE_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX <= WRITE_MESSAGE_BYTES_MAX);
// So must the largest transaction: an entry that a replica refuses ends it. The ids are bounded by their number.
const _: () = assert!((TRANSACTION_OPERATIONS_MAX * SESSION_ID_BYTES_MAX) as u64 <= TRANSACTION_IDS_BYTES_MAX);
const _: () = assert!(
    TRANSACTION_OPERATIONS_MAX as u64 * OPERATION_OVERHEAD_BYTES_MAX
        + TRANSACTION_IDS_BYTES_MAX
        + TRANSACTION_CHUNKS_MAX * CHUNK_OVERHEAD_BYTES_MAX
        <= ENTRY_OVERHEAD_BYTES_MAX
);
// No session ever has so many chunks that it reaches the numbers of another, and no number is out of range.
const _: () = assert!(TRANSACTION_OPERATIONS_MAX as u64 * CREATION_CHUNKS <= NUMBER_MAX);
const _: () = assert!(SESSION_STORED_BYTES_MAX <= LOADED_SHARE_BYTES_MAX);
// As many sessions as may be named fit into a request, by the longest ids; and the largest session is loaded with another as it is alone.
const _: () = assert!(
    LOAD_MANY_IDS_MAX as u64 * (SESSION_ID_BYTES_MAX as u64 + READ_OVERHEAD_BYTES_MAX) + READ_OVERHEAD_BYTES_MAX
        <= READ_MESSAGE_BYTES_MAX
);
const _: () = assert!(WATCH_IDS_MAX <= LOAD_MANY_IDS_MAX);
const _: () = assert!(LOAD_MANY_BYTES_MAX >= SESSION_STORED_BYTES_MAX && LOAD_MANY_ROWS_MAX > SESSION_CHUNKS_MAX);
const _: () = assert!(2 * WRITE_MESSAGE_BYTES_MAX <= RECEIVING_SHARE_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX as u64 + 64 * KIB <= MESSAGE_BYTES_MAX);
// A client that still waits for an answer must never be dropped as idle.
const _: () = assert!(Intervals::PRODUCTION.client_idle_ttl.as_secs() >= 20 * WRITE_DEADLINE_MAX.as_secs());
