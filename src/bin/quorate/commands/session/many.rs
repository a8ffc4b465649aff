//! Many writes at once: bounded in number, in bytes and in rate, in order for each session, and stopped by a signal.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Interval;

use super::print;
use crate::failure::Failure;
use crate::signals::Signals;

/// Writes on their way at once.
const OPEN_MAX: usize = 64;
/// Their content together, in bytes; a larger one travels alone.
const OPEN_BYTES_MAX: u64 = 64 << 20;

/// The end of one write.
pub struct Ended<T> {
    id: String,
    bytes: u64,
    /// Its result.
    pub result: T,
}

/// Writes on their way. Dropped, it leaves those to their fate.
pub struct Many<T> {
    open: JoinSet<Ended<T>>,
    ids: BTreeSet<String>,
    bytes: u64,
    pace: Option<Interval>,
    signals: Signals,
    is_interrupted: bool,
}

/// The user has asked for an end: nothing more is begun.
#[derive(Debug, PartialEq, Eq)]
pub struct Interrupted;

impl<T: Send + 'static> Many<T> {
    /// From here on SIGINT and SIGTERM are asked for by [`Many::room`] and [`Many::next`]. `rate`: begun in a second, at most.
    pub fn new(rate: Option<u32>) -> Result<Self, Failure> {
        let signals = Signals::install().map_err(|error| Failure::failed(format!("can't listen for signals: {error}")))?;
        let pace = rate.map(|rate| {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            pace
        });
        Ok(Self { open: JoinSet::new(), ids: BTreeSet::new(), bytes: 0, pace, signals, is_interrupted: false })
    }

    /// Whether one of these bytes may begin on this session: two writes of one session keep their order.
    fn has_room(&self, id: &str, bytes: u64) -> bool {
        let is_alone = self.open.is_empty();
        is_alone || (self.open.len() < OPEN_MAX && self.bytes + bytes <= OPEN_BYTES_MAX && !self.ids.contains(id))
    }

    /// Waits until [`Many::begin`] may be called for it; gives the writes that end meanwhile one by one, `None`: now it may.
    pub async fn room(&mut self, id: &str, bytes: u64) -> Result<Option<Ended<T>>, Interrupted> {
        if self.is_interrupted {
            return Err(Interrupted);
        }
        if !self.has_room(id, bytes) {
            return self.next_or_signal().await;
        }
        if let Some(pace) = &mut self.pace {
            tokio::select! {
                _ = pace.tick() => {}
                () = self.signals.recv() => return Err(self.interrupted()),
            }
        }
        Ok(None)
    }

    /// The result of `work`, unless a signal comes first.
    pub async fn unless_interrupted<R>(&mut self, work: impl Future<Output = R>) -> Result<R, Interrupted> {
        tokio::select! {
            result = work => Ok(result),
            () = self.signals.recv() => Err(self.interrupted()),
        }
    }

    /// Begins a write, for which there is room.
    pub fn begin(&mut self, id: &str, bytes: u64, write: impl Future<Output = T> + Send + 'static) {
        self.ids.insert(id.to_owned());
        self.bytes += bytes;
        let id = id.to_owned();
        self.open.spawn(async move { Ended { result: write.await, id, bytes } });
    }

    async fn next_or_signal(&mut self) -> Result<Option<Ended<T>>, Interrupted> {
        let ended = tokio::select! {
            ended = self.open.join_next() => ended,
            () = self.signals.recv() => return Err(self.interrupted()),
        };
        Ok(self.taken(ended))
    }

    /// The next write that ends, `None` after the last: also after an interruption, where a second signal ends the waiting.
    pub async fn next(&mut self) -> Result<Option<Ended<T>>, Interrupted> {
        self.next_or_signal().await
    }

    /// Waits for all that was begun, so that a count is true.
    pub async fn drain(&mut self, mut take: impl FnMut(Ended<T>)) -> Result<(), Interrupted> {
        while let Some(ended) = self.next().await? {
            take(ended);
        }
        Ok(())
    }

    fn taken(&mut self, ended: Option<Result<Ended<T>, tokio::task::JoinError>>) -> Option<Ended<T>> {
        // No write panics, and nobody aborts one: a lost one would only leave its place taken.
        let ended = ended?.ok()?;
        self.ids.remove(&ended.id);
        self.bytes -= ended.bytes;
        Some(ended)
    }

    fn interrupted(&mut self) -> Interrupted {
        if !self.is_interrupted && !self.open.is_empty() {
            print::note("interrupted; waits for calls under way; another Ctrl-C ends at once");
        }
        self.is_interrupted = true;
        Interrupted
    }

    /// How many are on their way.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_of_one_session_keep_their_order_and_bytes_are_bounded() {
        let mut many = Many::new(None).expect("signals");
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        assert!(many.has_room("a", u64::MAX), "one alone may have any size");
        many.begin("a", OPEN_BYTES_MAX - 1, async move { held.await.is_ok() });
        assert!(!many.has_room("a", 0), "the first one is still on its way");
        assert!(many.has_room("b", 1) && !many.has_room("b", 2));
        release.send(()).expect("it waits");
        let ended = many.room("a", 0).await.expect("no signal").expect("it had to wait");
        assert!(ended.result);
        assert!(many.room("a", 0).await.expect("no signal").is_none());
        assert!(many.next().await.expect("no signal").is_none());
    }

    #[tokio::test]
    async fn at_most_so_many_are_on_their_way() {
        let mut many = Many::new(None).expect("signals");
        for n in 0..OPEN_MAX {
            assert!(many.has_room(&n.to_string(), 1), "{n}");
            many.begin(&n.to_string(), 1, std::future::pending::<()>());
        }
        assert_eq!((many.open(), many.has_room("more", 1)), (OPEN_MAX, false));
    }
}
