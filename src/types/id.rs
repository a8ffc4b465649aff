//! Identities and positions. Every id and count has its own type, so that two of them cannot be swapped.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use crate::limits::{LABEL_BYTES_MAX, SESSION_ID_BYTES_MAX};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Counts the writes of one session from 1, dense over writes and deletes. 0 stands for "no such session".
    Version
}
number! {
    /// A place in the cluster's one order of writes: the log index of an entry. Reads name the last entry applied to what they saw.
    Revision
}
number! {
    /// A row of the replicated client table: the log index of the `OpenClient` that made it.
    ClientId
}
number! {
    /// Numbers one client's writes from 1. A retry reuses its sequence.
    Sequence
}
number! {
    /// The number of a lease: the revision that granted it. It grows over all grants of a cluster, over elections, restores and recoveries,
    /// so what else is written in a turn can be fenced with it too. 0 is none.
    Fence
}
number! {
    /// A configured member of the cluster. Never reused.
    NodeId
}

impl Version {
    /// The version after this one.
    pub fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }
}

impl NodeId {
    /// Nodes as messages name several: in this order, with commas between.
    pub fn listed(ids: impl IntoIterator<Item = impl fmt::Display>) -> String {
        ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join(",")
    }
}

impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

macro_rules! sixteen_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Exactly 16 bytes, or `None`.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Exactly 32 hex digits, as `Display` writes them, or `None`.
            pub fn from_hex(text: &str) -> Option<Self> {
                let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                digits.then(|| u128::from_str_radix(text, 16).ok())?.map(|bytes| Self(bytes.to_be_bytes()))
            }

            /// The bytes as they travel and lie on disk.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

sixteen_bytes! {
    /// Names one cluster for its whole life; drawn once at bootstrap. Clients, bases and caches are valid for one cluster id.
    ClusterId
}
sixteen_bytes! {
    /// Names one data directory: a wiped disk has another instance and is refused by its peers.
    InstanceId
}

/// A client's secret: 128 random bits that prove a request comes from the opener of the client. `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// Exactly 16 bytes, or `None`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nonce")
    }
}

/// The position of one log entry: the term it was proposed in, the leader that proposed it, its index.
///
/// Ordered by term, then node, then index, which is the order Raft compares logs by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Raft term of the leader that proposed the entry.
    pub term: u64,
    /// That leader.
    pub node: NodeId,
    /// Position in the log; the first entry of a cluster has index 0.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.term, self.node, self.index)
    }
}

/// A text that a writer sets beside a session's content, e.g. a title or a status: any UTF-8 of at most [`LABEL_BYTES_MAX`] bytes. The empty
/// one is none. It is data of the user: `Debug` prints its length.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Label(Box<str>);

/// Why a string is no [`Label`]. Nothing changed; use a shorter one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLabel {
    /// Bytes of the label that was given.
    pub bytes: usize,
}

impl fmt::Display for InvalidLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "label is too long bytes={} limit={LABEL_BYTES_MAX}", self.bytes)
    }
}

impl std::error::Error for InvalidLabel {}

impl Label {
    /// Checks the length. Errors: [`InvalidLabel`], above [`LABEL_BYTES_MAX`].
    pub fn new(label: &str) -> Result<Self, InvalidLabel> {
        let bytes = label.len();
        if bytes > LABEL_BYTES_MAX { Err(InvalidLabel { bytes }) } else { Ok(Self(label.into())) }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({} bytes)", self.0.len())
    }
}

/// A session's name: any UTF-8 string of at most [`SESSION_ID_BYTES_MAX`] bytes, the empty one too.
///
/// It is a credential: `Debug` prints eight hex digits of a keyed hash, and there is no `Display`.
#[derive(Clone)]
pub struct SessionId {
    /// Its first bytes, so that a search among thousands rarely has to look at the text of each.
    first: (u64, u64),
    text: Arc<str>,
}

/// Why a string is no [`SessionId`]. Nothing changed; use a shorter id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidId {
    /// Bytes of the id that was given.
    pub bytes: usize,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session id is too long bytes={} limit={SESSION_ID_BYTES_MAX}", self.bytes)
    }
}

impl std::error::Error for InvalidId {}

impl SessionId {
    /// Checks the length. Errors: [`InvalidId`], above [`SESSION_ID_BYTES_MAX`].
    pub fn new(id: &str) -> Result<Self, InvalidId> {
        if id.len() > SESSION_ID_BYTES_MAX {
            return Err(InvalidId { bytes: id.len() });
        }
        let mut first = [0; 16];
        let len = id.len().min(first.len());
        first[..len].copy_from_slice(&id.as_bytes()[..len]);
        let first = u128::from_be_bytes(first);
        Ok(Self { first: ((first >> 64) as u64, first as u64), text: id.into() })
    }

    /// Whether `first` has all of it.
    fn is_short(&self) -> bool {
        self.text.len() <= 16
    }

    /// The id itself. Never print it into a log.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SessionId {}

/// As the text: it is looked up by it.
impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// As the text. Zeros stand for the first bytes a short one lacks, so equal ones say nothing yet.
impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> Ordering {
        let rest = || {
            if self.is_short() && other.is_short() { self.text.len().cmp(&other.text.len()) } else { self.text.cmp(&other.text) }
        };
        self.first.cmp(&other.first).then_with(rest)
    }
}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session:{:08x}", keyed_hash(log_hash_key(), self.text.as_bytes()) as u32)
    }
}

static LOG_HASH_KEY: OnceLock<u64> = OnceLock::new();

/// Sets the key that session ids are hashed with in logs, once per process; later calls change nothing.
///
/// A node passes the key of its `identity`, so that one id keeps one hash over restarts; a client draws one for its process. Without a call
/// ids hash with key 0.
pub fn set_log_hash_key(key: u64) {
    let _ = LOG_HASH_KEY.set(key);
}

fn log_hash_key() -> u64 {
    LOG_HASH_KEY.get().copied().unwrap_or(0)
}

/// FNV-1a from a keyed start, finished with a 64-bit mixer: enough to tell ids apart in a log, not a MAC.
fn keyed_hash(key: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ key;
    let folded = bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (folded ^ (folded >> 33) ^ key.rotate_left(17)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_limit_is_taken_and_one_byte_more_is_refused() {
        assert!(SessionId::new(&"x".repeat(SESSION_ID_BYTES_MAX)).is_ok());
        assert!(Label::new(&"x".repeat(LABEL_BYTES_MAX)).is_ok());
        let long = Label::new(&"x".repeat(LABEL_BYTES_MAX + 1)).expect_err("too long").to_string();
        assert_eq!(long, "label is too long bytes=257 limit=256");
        assert_eq!(SessionId::new(&"x".repeat(SESSION_ID_BYTES_MAX + 1)), Err(InvalidId { bytes: SESSION_ID_BYTES_MAX + 1 }));
        assert!(SessionId::new("").is_ok());
    }

    #[test]
    fn ids_are_equal_and_ordered_as_their_texts() {
        let long = "x".repeat(16);
        let texts =
            ["", "\0", "\0\0", "a", "a\0", "ab", "b", "é", &long, &format!("{long}\0"), &format!("{long}a"), "session-0000001"];
        for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (*one, *other))) {
            let (id, other_id) = (SessionId::new(one).expect("short"), SessionId::new(other).expect("short"));
            assert_eq!(id.cmp(&other_id), one.cmp(other), "{one:?} {other:?}");
            assert_eq!(id == other_id, one == other, "{one:?} {other:?}");
        }
    }

    #[test]
    fn debug_of_an_id_or_nonce_does_not_show_it() {
        let id = SessionId::new("secret-session").expect("short");
        assert!(!format!("{id:?}").contains("secret"));
        assert_eq!(format!("{:?}", Nonce([7; 16])), "nonce");
    }
}
