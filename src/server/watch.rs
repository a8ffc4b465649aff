//! Watches: which sessions change, shown to their readers. The promises are the machine's cursor's; this is how many, for whom, how often.
//!
//! ```text
//! service ── begin: limits, rights, applied far enough ──> Watches ──> walker: one task a node, every 50 ms
//!    │                                                                   │ what changed, once for all who are at its end
//!    └── Frames <── a frame, when the reader has room ── Line <──────────┤
//!                                                                        └ one step of a cursor for each that is behind
//! ```
//!
//! Rights are asked for again before each frame, so a token that is withdrawn ends its watches. Nothing is kept for a reader but its cursor.

mod line;
mod prefixes;
mod walker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::auth::{Caller, Guard, Need};
use crate::limits::{SHARE_RETRY_AFTER, WATCHES_MAX, WATCHES_PER_CONNECTION_MAX, WATCHES_PER_TOKEN_MAX};
use crate::machine::Cursor;
use crate::types::{Refusal, RefusalKind, Selector};

pub use line::Frames;
pub use walker::run;

use line::Line;

/// The watches of one node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Watches(Arc<Inner>);

#[derive(Default)]
struct Inner {
    registered: Mutex<Registered>,
    /// Something is to be done before the walker's next round.
    wake: Notify,
    frames: AtomicU64,
    resyncs: AtomicU64,
}

#[derive(Default)]
struct Registered {
    held: Vec<Held>,
    /// Those that the walker has not seen yet.
    new: Vec<Begun>,
    last_key: u64,
}

struct Held {
    key: u64,
    token: Option<Arc<str>>,
    /// The counter that is its connection's alone.
    connection: Option<Arc<AtomicU64>>,
}

/// A watch that begins.
struct Begun {
    key: u64,
    caller: Caller,
    selector: Selector,
    cursor: Cursor,
    line: Line,
}

/// The place that a watch takes among those of its node, connection and token.
pub struct Place {
    watches: Watches,
    key: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.watches.registered().held.retain(|held| held.key != self.key);
    }
}

/// Counts for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Watches that are open.
    pub open: u64,
    /// Frames sent.
    pub frames: u64,
    /// Frames that said `resync`.
    pub resyncs: u64,
}

impl Watches {
    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.0.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place. Errors: overload, by what there are too many of; nothing began.
    pub fn reserve(&self, caller: &Caller, connection: Option<Arc<AtomicU64>>) -> Result<Place, Refusal> {
        let token = caller.token();
        let mut registered = self.registered();
        let of_token = registered.held.iter().filter(|held| token.is_some() && held.token == token).count();
        let of_connection = |held: &&Held| {
            let both = connection.as_ref().zip(held.connection.as_ref());
            both.is_some_and(|(one, other)| Arc::ptr_eq(one, other))
        };
        let of_connection = registered.held.iter().filter(of_connection).count();
        let counts = [
            ("watches of this connection", of_connection, WATCHES_PER_CONNECTION_MAX),
            ("watches of this token", of_token, WATCHES_PER_TOKEN_MAX),
            ("watches", registered.held.len(), WATCHES_MAX),
        ];
        if let Some((what, _, limit)) = counts.into_iter().find(|(_, count, limit)| count >= limit) {
            let kind = RefusalKind::Overloaded { retry_after: SHARE_RETRY_AFTER };
            return Err(Refusal::not_applied(
                kind,
                format!("this node has too many {what}: end some, or go to another limit={limit}"),
            ));
        }
        registered.last_key += 1;
        let key = registered.last_key;
        registered.held.push(Held { key, token, connection });
        Ok(Place { watches: self.clone(), key })
    }

    /// Begins a watch in its place.
    pub fn begin(&self, place: Place, caller: Caller, selector: Selector, cursor: Cursor) -> Frames {
        let line = Line::default();
        self.registered().new.push(Begun { key: place.key, caller, selector, cursor, line: line.clone() });
        self.asked();
        Frames::new(line, self.clone(), place)
    }

    /// A stream asks for a frame.
    fn asked(&self) {
        self.0.wake.notify_one();
    }

    fn sent(&self, is_resync: bool) {
        self.0.frames.fetch_add(1, Ordering::Relaxed);
        self.0.resyncs.fetch_add(is_resync.into(), Ordering::Relaxed);
    }

    pub fn counts(&self) -> Counts {
        Counts {
            open: self.registered().held.len() as u64,
            frames: self.0.frames.load(Ordering::Relaxed),
            resyncs: self.0.resyncs.load(Ordering::Relaxed),
        }
    }
}

/// Whether the caller may see these sessions, now. Errors: `Unauthenticated` or `Denied`.
pub fn authorize(guard: &Guard, caller: &Caller, selector: &Selector) -> Result<(), Refusal> {
    match selector {
        Selector::Prefix(prefix) => guard.authorize(caller, Need::List(prefix)),
        Selector::Ids(ids) => ids.iter().try_for_each(|id| guard.authorize(caller, Need::Read(id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_a_token_and_a_node_each_have_so_many() {
        let watches = Watches::default();
        let mut places = Vec::new();
        let connection = || Some(Arc::<AtomicU64>::default());
        let (one, anyone) = (connection(), Caller::anyone());
        for _ in 0..WATCHES_PER_CONNECTION_MAX {
            places.push(watches.reserve(&anyone, one.clone()).expect("room"));
        }
        let refused = watches.reserve(&anyone, one.clone()).map(drop).expect_err("of one connection");
        assert!(
            refused.message.contains("of this connection") && matches!(refused.kind, RefusalKind::Overloaded { .. }),
            "{refused:?}"
        );
        let holder = Caller::of_token("agents");
        for _ in 0..WATCHES_PER_TOKEN_MAX {
            places.push(watches.reserve(&holder, connection()).expect("room"));
        }
        let refused = watches.reserve(&holder, connection()).map(drop).expect_err("of one token");
        assert!(refused.message.contains("of this token"), "{refused:?}");
        while places.len() < WATCHES_MAX {
            places.push(watches.reserve(&anyone, connection()).expect("room"));
        }
        let refused = watches.reserve(&anyone, None).map(drop).expect_err("of one node");
        assert!(refused.message.contains("too many watches:"), "{refused:?}");
        drop(places.pop());
        assert_eq!(watches.counts().open, WATCHES_MAX as u64 - 1);
        watches.reserve(&anyone, None).map(drop).expect("a place was given back");
    }
}
