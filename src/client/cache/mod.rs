//! Bounded memory of sessions, shared by clones: contents by bytes, identities by number, least recently used first.

pub(crate) mod bases;
pub(crate) mod pack;
pub(crate) mod view;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::MIB;
use crate::types::SessionId;
use bases::Session;
use view::{Item, Meter};

/// Bytes of contents.
const BYTES_MAX: u64 = 64 * MIB;
/// Sessions of which anything is known.
const SESSIONS_MAX: usize = 16_384;

/// One session's bases, under their own lock.
pub(crate) type SessionLock<T> = Arc<Mutex<Session<T>>>;

/// The bases of all sessions, within a bound on memory. A session's lock may be taken under the cache's, never the other way round.
pub(crate) struct Cache<T> {
    inner: Mutex<Inner<T>>,
    pub meter: Meter,
    bytes_max: u64,
    sessions_max: usize,
}

struct Inner<T> {
    sessions: HashMap<SessionId, Entry<T>>,
    /// A lazy LRU queue of all sessions: an entry may carry an outdated tick, and is queued again when popped.
    order: Queue,
    /// Sessions that were used since their contents were dropped: all that have contents.
    full: Queue,
    tick: u64,
}

type Queue = BinaryHeap<Reverse<(u64, SessionId)>>;

struct Entry<T> {
    /// The last use.
    tick: u64,
    in_full: bool,
    session: SessionLock<T>,
}

impl<T> Inner<T> {
    /// Takes the least recently used out of `queue`.
    fn oldest(sessions: &HashMap<SessionId, Entry<T>>, queue: &mut Queue) -> Option<SessionId> {
        while let Some(Reverse((tick, id))) = queue.pop() {
            match sessions.get(&id) {
                Some(entry) if entry.tick == tick => return Some(id),
                Some(entry) => queue.push(Reverse((entry.tick, id))),
                None => {}
            }
        }
        None
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self::bounded(BYTES_MAX, SESSIONS_MAX)
    }
}

impl<T> Cache<T> {
    fn bounded(bytes_max: u64, sessions_max: usize) -> Self {
        let inner = Inner { sessions: HashMap::new(), order: Queue::new(), full: Queue::new(), tick: 0 };
        Self { inner: Mutex::new(inner), meter: Meter::default(), bytes_max, sessions_max }
    }
}

impl<T: Item> Cache<T> {
    /// The bases of this session, perhaps none.
    pub fn session(&self, id: &SessionId) -> SessionLock<T> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { sessions, order, full, tick } = &mut *inner;
        *tick += 1;
        let tick = *tick;
        if let Some(entry) = sessions.get_mut(id) {
            entry.tick = tick;
            if !std::mem::replace(&mut entry.in_full, true) {
                full.push(Reverse((tick, id.clone())));
            }
            return entry.session.clone();
        }
        while sessions.len() >= self.sessions_max
            && let Some(oldest) = Inner::oldest(sessions, order)
        {
            sessions.remove(&oldest);
        }
        // What was dropped here is still in there.
        if full.len() >= 2 * self.sessions_max {
            let still = sessions.iter().filter(|(_, entry)| entry.in_full);
            *full = still.map(|(id, entry)| Reverse((entry.tick, id.clone()))).collect();
        }
        order.push(Reverse((tick, id.clone())));
        full.push(Reverse((tick, id.clone())));
        let session = SessionLock::default();
        sessions.insert(id.clone(), Entry { tick, in_full: true, session: session.clone() });
        session
    }

    /// Drops contents while there are too many bytes of them. No session's lock may be held.
    pub fn trim(&self) {
        if self.meter.bytes() <= self.bytes_max {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { sessions, full, .. } = &mut *inner;
        let mut kept = Vec::new();
        while self.meter.bytes() > self.bytes_max
            && let Some(id) = Inner::oldest(sessions, full)
        {
            let Some(entry) = sessions.get_mut(&id) else { continue };
            // One that is busy is in use.
            let stripped = entry.session.try_lock().map(|mut held| held.strip()).is_ok();
            // Its holder may be about to remember more. The others leave the queue, so that no call walks over those of calls
            // before.
            entry.in_full = !stripped || Arc::strong_count(&entry.session) > 1;
            if entry.in_full {
                kept.push(Reverse((entry.tick, id)));
            }
        }
        full.extend(kept);
    }
}

/// A panic elsewhere can only have lost knowledge.
pub(crate) fn lock<T>(session: &SessionLock<T>) -> MutexGuard<'_, Session<T>> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::bases::StoredContent;
    use super::view::{New, View};
    use super::*;
    use crate::types::{ClusterId, ContentVersion, Counters, Revision, Version};

    fn remember(cache: &Cache<Bytes>, id: &str, bytes: usize) {
        let content = ContentVersion { create_revision: Revision(1), version: Version(1), items: 1, next_chunk: 1 };
        let place = StoredContent { cluster: ClusterId([1; 16]), content, first_chunk: 0 };
        let items = [Bytes::from(vec![0; bytes])];
        let new = New { items: &items, head: Bytes::new(), counters: Counters::default() };
        let view = View::empty(&cache.meter).step(&new, &cache.meter).expect("bytes").view;
        lock(&cache.session(&SessionId::new(id).expect("short"))).learn(place, Arc::clone(&view), None, 1);
        drop(view);
        cache.trim();
    }

    fn knows(cache: &Cache<Bytes>, id: &str) -> bool {
        lock(&cache.session(&SessionId::new(id).expect("short"))).newest(false).is_some()
    }

    #[test]
    fn contents_stay_below_their_bound_and_the_least_recently_used_goes_first() {
        let cache = Cache::bounded(100_000, 100);
        for id in ["a", "b", "c"] {
            remember(&cache, id, 30_000);
        }
        assert!(knows(&cache, "a"), "used now");
        remember(&cache, "d", 30_000);
        assert!(cache.meter.bytes() <= 100_000);
        assert_eq!(["a", "b", "c", "d"].map(|id| knows(&cache, id)), [true, false, true, true]);
    }

    #[test]
    fn what_is_learned_of_a_session_stripped_meanwhile_counts_too() {
        let cache = Cache::bounded(50_000, 100);
        let held = cache.session(&SessionId::new("a").expect("short"));
        remember(&cache, "a", 30_000);
        remember(&cache, "b", 30_000);
        remember(&cache, "a", 30_000);
        drop(held);
        remember(&cache, "c", 30_000);
        assert!(cache.meter.bytes() <= 50_000, "{}", cache.meter.bytes());
        assert_eq!(cache.inner.lock().expect("no panic").full.len(), 1, "those without contents are not walked over");
    }

    #[test]
    fn the_number_of_sessions_is_bounded_and_so_is_what_orders_them() {
        let cache = Cache::bounded(1 << 20, 2);
        for id in ["a", "b", "c"].repeat(5) {
            remember(&cache, id, 10);
            let inner = cache.inner.lock().expect("no panic");
            assert!(inner.sessions.len() <= 2 && inner.order.len() <= 2 && inner.full.len() <= 4);
        }
        assert!(!knows(&cache, "a"));
    }
}
