//! Bounded memory of sessions, shared by clones: contents by bytes, identities by number, least recently used first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::known::Session;
use super::view::{Item, Meter};
use crate::limits::MIB;
use crate::types::SessionId;

/// Bytes of contents.
const BYTES_MAX: u64 = 64 * MIB;
/// Sessions of which anything is known.
const SESSIONS_MAX: usize = 16_384;

/// What is known of one session, under its own lock.
pub(super) type Shared<T> = Arc<Mutex<Session<T>>>;

/// See the module. A session's lock may be taken under the cache's, never the other way round.
pub(super) struct Cache<T> {
    inner: Mutex<Inner<T>>,
    pub meter: Meter,
    bytes_max: u64,
    sessions_max: usize,
}

struct Inner<T> {
    sessions: HashMap<SessionId, (u64, Shared<T>)>,
    /// By last use.
    order: BTreeMap<u64, SessionId>,
    /// Those of `order` that were used since their contents were dropped: all that have any.
    full: BTreeSet<u64>,
    tick: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self::bounded(BYTES_MAX, SESSIONS_MAX)
    }
}

impl<T> Cache<T> {
    fn bounded(bytes_max: u64, sessions_max: usize) -> Self {
        let inner = Inner { sessions: HashMap::new(), order: BTreeMap::new(), full: BTreeSet::new(), tick: 0 };
        Self { inner: Mutex::new(inner), meter: Meter::default(), bytes_max, sessions_max }
    }
}

impl<T: Item> Cache<T> {
    /// What is known of this session, perhaps nothing.
    pub fn session(&self, id: &SessionId) -> Shared<T> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tick += 1;
        let tick = inner.tick;
        let entry = inner.sessions.entry(id.clone()).or_insert_with(|| (tick, Arc::default()));
        let before = std::mem::replace(&mut entry.0, tick);
        let session = entry.1.clone();
        inner.order.remove(&before);
        inner.order.insert(tick, id.clone());
        inner.full.remove(&before);
        inner.full.insert(tick);
        while inner.order.len() > self.sessions_max
            && let Some((tick, oldest)) = inner.order.pop_first()
        {
            inner.sessions.remove(&oldest);
            inner.full.remove(&tick);
        }
        session
    }

    /// Drops contents while there are too many bytes of them. No session's lock may be held.
    pub fn trim(&self) {
        if self.meter.bytes() <= self.bytes_max {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { sessions, order, full, .. } = &mut *inner;
        let mut from = 0;
        while self.meter.bytes() > self.bytes_max
            && let Some(&tick) = full.range(from..).next()
        {
            from = tick + 1;
            let Some((_, session)) = order.get(&tick).and_then(|id| sessions.get(id)) else { continue };
            // One that is busy is in use.
            let Ok(mut held) = session.try_lock() else { continue };
            held.strip();
            drop(held);
            // Whoever holds it may be about to remember more. The others leave the set, so that no call walks over those of calls
            // before.
            if Arc::strong_count(session) == 1 {
                full.remove(&tick);
            }
        }
    }
}

/// A panic elsewhere can only have lost knowledge.
pub(super) fn lock<T>(session: &Shared<T>) -> MutexGuard<'_, Session<T>> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::known::Place;
    use super::super::view::{New, View};
    use super::*;
    use crate::types::{ClusterId, Counters, Revision, Version};

    fn remember(cache: &Cache<Bytes>, id: &str, bytes: usize) {
        let place = Place {
            cluster: ClusterId([1; 16]),
            create_revision: Revision(1),
            version: Version(1),
            items: 1,
            first_chunk: 0,
            next_chunk: 1,
        };
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
    fn the_number_of_sessions_is_bounded() {
        let cache = Cache::bounded(1 << 20, 2);
        for id in ["a", "b", "c"] {
            remember(&cache, id, 10);
        }
        assert_eq!(cache.inner.lock().expect("no panic").sessions.len(), 2);
        assert!(!knows(&cache, "a"));
    }
}
