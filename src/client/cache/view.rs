//! Content as this client remembers it: decoded items, shared between versions, and what is new in a later one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use crate::client::Error;
use crate::types::Counters;

/// The memory of a view besides its items, and of an item besides its bytes, in bytes.
const VIEW_BYTES: u64 = 256;
const ITEM_BYTES: u64 = 64;

/// Why content could not be taken or given.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The call failed.
    Client(Error),
    /// The bytes are not of the caller's form, or what the caller gave has none.
    Encoding(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Client(error)
    }
}

/// One element of a transcript, decoded.
pub(crate) trait Item: Clone + Send + Sync + 'static {
    /// By value.
    fn is_same(&self, other: &Self) -> bool;
    /// As it is stored. Error: why it can't be.
    fn to_bytes(&self) -> Result<Bytes, String>;
    /// Error: why these bytes are no such item.
    fn from_bytes(bytes: Bytes) -> Result<Self, String>;
    /// The text the item was decoded from, where [`Item::to_bytes`] would give another: what the caller's type can't hold is kept with it.
    fn foreign(&self, _stored: &Bytes) -> Option<Bytes> {
        None
    }
    /// The tagged head to store with `new` over one that was there: what the caller's type can't hold may be kept.
    fn head_after(_old: &Bytes, new: &Bytes) -> Bytes {
        new.clone()
    }
    /// Where the caller's counters end; stored ones may be above.
    const COUNTER_MAX: u64;
}

impl Item for Bytes {
    const COUNTER_MAX: u64 = u64::MAX;

    fn is_same(&self, other: &Self) -> bool {
        // Content that was loaded and is saved again shares its bytes.
        (self.as_ptr() == other.as_ptr() && self.len() == other.len()) || self == other
    }

    fn to_bytes(&self) -> Result<Bytes, String> {
        Ok(self.clone())
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, String> {
        Ok(bytes)
    }
}

/// Counts the bytes of all items and views that live.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: u64) -> Counted {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Counted { meter: self.clone(), bytes }
    }
}

#[derive(Debug)]
struct Counted {
    meter: Meter,
    bytes: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An item out of its stored bytes.
pub(crate) struct Decoded<T> {
    value: T,
    /// Its memory, in bytes.
    bytes: usize,
    /// As it was stored, where the value alone does not give that.
    text: Option<Bytes>,
}

impl<T: Item> Decoded<T> {
    /// Error: why these bytes are no such item.
    pub fn from_stored(stored: Bytes) -> Result<Self, String> {
        let value = T::from_bytes(stored.clone())?;
        let text = value.foreign(&stored);
        Ok(Self { value, bytes: stored.len() + text.as_ref().map_or(0, Bytes::len), text })
    }
}

#[derive(Debug)]
struct ItemSlot<T> {
    value: T,
    text: Option<Bytes>,
    _counted: Counted,
}

/// Items in order; more come only at the end. Contents that continue from each other are beginnings of one list.
#[derive(Debug)]
struct ItemList<T>(RwLock<Vec<Arc<ItemSlot<T>>>>);

impl<T> ItemList<T> {
    fn items(&self) -> RwLockReadGuard<'_, Vec<Arc<ItemSlot<T>>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `at` items, then `more`: on this list if it ends there, else on a new one.
    fn followed_by(self: &Arc<Self>, at: usize, more: Vec<Arc<ItemSlot<T>>>) -> Arc<Self> {
        let mut items = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if items.len() == at {
            items.extend(more);
            return self.clone();
        }
        Arc::new(Self(RwLock::new(items[..at].iter().cloned().chain(more).collect())))
    }
}

/// One content of a session. Versions that share a prefix share its items.
#[derive(Debug)]
pub(crate) struct View<T> {
    list: Arc<ItemList<T>>,
    /// How many items of the list, from the first, are in it.
    len: usize,
    /// As stored, unpacked.
    pub head: Bytes,
    pub counters: Counters,
    _counted: Counted,
}

/// Content a caller wants stored.
pub(crate) struct New<'a, T> {
    pub items: &'a [T],
    pub head: Bytes,
    pub counters: Counters,
}

impl<T: Item> View<T> {
    pub fn empty(meter: &Meter) -> Self {
        let list = Arc::new(ItemList(RwLock::default()));
        Self { list, len: 0, head: Bytes::new(), counters: Counters::default(), _counted: meter.count(VIEW_BYTES) }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Collects `f` of each item.
    pub fn map<R, C: FromIterator<R>>(&self, mut f: impl FnMut(&T) -> R) -> C {
        self.list.items()[..self.len].iter().map(|kept| f(&kept.value)).collect()
    }

    /// This view's items, then `more`.
    pub fn followed_by(&self, more: Vec<Decoded<T>>, head: Bytes, counters: Counters, meter: &Meter) -> Self {
        self.cut_and_followed_by(self.len, more, head, counters, meter)
    }

    fn cut_and_followed_by(&self, at: usize, more: Vec<Decoded<T>>, head: Bytes, counters: Counters, meter: &Meter) -> Self {
        let len = at + more.len();
        let kept =
            |Decoded { value, bytes, text }| Arc::new(ItemSlot { value, text, _counted: meter.count(ITEM_BYTES + bytes as u64) });
        // What is cut off is not held by what remains.
        let is_same = at == self.len && more.is_empty();
        let list = if is_same { self.list.clone() } else { self.list.followed_by(at, more.into_iter().map(kept).collect()) };
        let bytes = VIEW_BYTES + head.len() as u64;
        Self { list, len, head, counters, _counted: meter.count(bytes) }
    }

    /// Leading items that are the same.
    fn common(&self, items: &[T]) -> usize {
        let kept = self.list.items();
        kept[..self.len].iter().zip(items).take_while(|(kept, item)| kept.value.is_same(item)).count()
    }

    /// Whether its items are the first of these, perhaps all of them. From the end: racing turns differ there.
    pub fn is_prefix_of(&self, items: &[T]) -> bool {
        let Some(items) = items.get(..self.len) else { return false };
        let kept = self.list.items();
        kept[..self.len].iter().zip(items).rev().all(|(kept, item)| kept.value.is_same(item))
    }

    /// All items as they are stored.
    ///
    /// Error: none for items that were stored or encoded before, by their own promise.
    pub fn encoded(&self) -> Result<Vec<Bytes>, String> {
        let encoded = |kept: &Arc<ItemSlot<T>>| kept.text.clone().map_or_else(|| kept.value.to_bytes(), Ok);
        self.list.items()[..self.len].iter().map(encoded).collect()
    }

    /// The content after `new`, and the new part of it.
    ///
    /// Errors: an item that can't be stored.
    pub fn step(&self, new: &New<'_, T>, meter: &Meter) -> Result<Step<T>, String> {
        let shared = self.common(new.items);
        let fresh = new.items[shared..].iter().map(Item::to_bytes).collect::<Result<Vec<_>, _>>()?;
        let decoded = |(item, bytes): (&T, &Bytes)| Decoded { value: item.clone(), bytes: bytes.len(), text: None };
        let more = new.items[shared..].iter().zip(&fresh).map(decoded).collect();
        // Of what begins again nothing is kept.
        let head = if new.items.is_empty() { new.head.clone() } else { T::head_after(&self.head, &new.head) };
        let view = self.cut_and_followed_by(shared, more, head.clone(), new.counters.clone(), meter);
        let appended = (shared == self.len).then(|| increments(&self.counters, &new.counters, T::COUNTER_MAX)).flatten();
        let append = appended.map(|counters| Append { items: fresh, head: (self.head != head).then_some(head), counters });
        Ok(Step { view: Arc::new(view), append })
    }
}

/// One content after another.
#[derive(Debug)]
pub(crate) struct Step<T> {
    pub view: Arc<View<T>>,
    /// `None` if history was rewritten or a counter fell: then only the whole says it.
    pub append: Option<Append>,
}

/// The content of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Append {
    pub items: Vec<Bytes>,
    /// If it changed.
    pub head: Option<Bytes>,
    /// Increments.
    pub counters: Counters,
}

/// The increment of each counter, as far as the caller can count; `None` if one fell.
fn increments(old: &Counters, new: &Counters, max: u64) -> Option<Counters> {
    let count = old.as_slice().len().max(new.as_slice().len());
    let added = (0..count).map(|position| new.at(position).checked_sub(old.at(position).min(max)));
    Counters::new(added.collect::<Option<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(values: &[u64]) -> Counters {
        Counters::new(values.to_vec()).expect("few")
    }

    fn items(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    fn stepped(from: &View<Bytes>, texts: &[&'static str], usage: &[u64], meter: &Meter) -> Step<Bytes> {
        let items = items(texts);
        let new = New { items: &items, head: Bytes::from_static(b"h"), counters: counters(usage) };
        from.step(&new, meter).expect("bytes are always stored")
    }

    #[test]
    fn a_longer_transcript_is_an_append_of_what_is_new() {
        let meter = Meter::default();
        let first = stepped(&View::empty(&meter), &["a", "b"], &[3], &meter);
        let second = stepped(&first.view, &["a", "b", "c"], &[3, 4], &meter);
        assert_eq!(second.append, Some(Append { items: items(&["c"]), head: None, counters: counters(&[0, 4]) }));
        assert_eq!(second.view.encoded().expect("bytes"), items(&["a", "b", "c"]));
        assert!(Arc::ptr_eq(&first.view.list, &second.view.list), "items are shared");
        assert_eq!(first.view.encoded().expect("bytes"), items(&["a", "b"]), "and each has its own");
    }

    #[test]
    fn contents_that_part_share_what_they_had_in_common() {
        let meter = Meter::default();
        let first = stepped(&View::empty(&meter), &["a", "b"], &[], &meter).view;
        let one = stepped(&first, &["a", "b", "c"], &[], &meter).view;
        let other = stepped(&first, &["a", "b", "d", "e"], &[], &meter).view;
        let shorter = stepped(&one, &["a"], &[], &meter).view;
        let rewritten = stepped(&shorter, &["a", "x"], &[], &meter).view;
        for (view, expected) in [
            (&first, &["a", "b"][..]),
            (&one, &["a", "b", "c"]),
            (&other, &["a", "b", "d", "e"]),
            (&shorter, &["a"]),
            (&rewritten, &["a", "x"]),
        ] {
            assert_eq!(view.encoded().expect("bytes"), items(expected));
            assert_eq!(view.len(), expected.len());
        }
        assert!(Arc::ptr_eq(&one.list.items()[1], &other.list.items()[1]));
    }

    #[test]
    fn rewritten_history_and_a_counter_that_fell_are_no_append() {
        let meter = Meter::default();
        let first = stepped(&View::empty(&meter), &["a", "b"], &[3, 1], &meter).view;
        for (texts, usage) in [(&["a"][..], &[3, 1][..]), (&["a", "x", "c"], &[3, 1]), (&["a", "b", "c"], &[3])] {
            let step = stepped(&first, texts, usage, &meter);
            assert_eq!(step.append, None, "{texts:?} {usage:?}");
            assert_eq!(step.view.encoded().expect("bytes"), items(texts));
        }
    }

    #[test]
    fn the_meter_counts_shared_items_once_and_forgets_what_is_dropped() {
        let meter = Meter::default();
        let first = stepped(&View::empty(&meter), &["aaaaaaaaaa"], &[], &meter).view;
        let alone = meter.bytes();
        let second = stepped(&first, &["aaaaaaaaaa", "b"], &[], &meter).view;
        assert!(meter.bytes() < 2 * alone + ITEM_BYTES, "{} {alone}", meter.bytes());
        let reset = stepped(&second, &[], &[], &meter).view;
        drop((first, second));
        assert!(meter.bytes() <= VIEW_BYTES + ITEM_BYTES, "{}", meter.bytes());
        drop(reset);
        assert_eq!(meter.bytes(), 0);
    }
}
