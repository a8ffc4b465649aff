//! The line from the walker to one watch's stream: one frame at most, made when the stream asks for it.
//!
//! A stream whose reader grants no flow-control credit is not polled, so it does not ask, and nothing is made for it: a slow watcher costs a
//! cursor.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use tonic::Status;

use super::{Place, Watches};
use crate::wire::v1;

/// The end that the walker holds. Cheap to clone.
#[derive(Clone, Default)]
pub struct Line(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    frame: Option<v1::WatchFrame>,
    /// How the stream ends, once the frame is taken.
    end: Option<Result<(), Status>>,
    /// The stream asks for a frame.
    waker: Option<Waker>,
    /// The walker has something for it, and is to be woken when it asks.
    is_awaited: bool,
    is_closed: bool,
}

impl Slot {
    fn asks(&self) -> bool {
        self.waker.is_some() && self.frame.is_none() && self.end.is_none()
    }
}

impl Line {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stream asks for a frame.
    pub fn asks(&self) -> bool {
        self.slot().asks()
    }

    /// As [`Line::asks`]; one that does not will wake the walker as soon as it does.
    pub fn asks_or_will(&self) -> bool {
        let mut slot = self.slot();
        let asks = slot.asks();
        slot.is_awaited = !asks;
        asks
    }

    /// Whether nobody listens any more, or it has ended.
    pub fn is_closed(&self) -> bool {
        let slot = self.slot();
        slot.is_closed || slot.end.is_some()
    }

    /// Gives the frame that was asked for.
    pub fn give(&self, frame: v1::WatchFrame) {
        let mut slot = self.slot();
        slot.frame = Some(frame);
        wake(slot);
    }

    /// Ends the stream.
    pub fn end(&self, how: Result<(), Status>) {
        let mut slot = self.slot();
        slot.end.get_or_insert(how);
        wake(slot);
    }
}

fn wake(mut slot: MutexGuard<'_, Slot>) {
    let waker = slot.waker.take();
    drop(slot);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The frames of one watch. Dropped, it gives its place back.
pub struct Frames {
    line: Line,
    watches: Watches,
    _place: Place,
    is_over: bool,
}

impl Frames {
    pub fn new(line: Line, watches: Watches, place: Place) -> Self {
        Self { line, watches, _place: place, is_over: false }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.line.slot().is_closed = true;
    }
}

impl Stream for Frames {
    type Item = Result<v1::WatchFrame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let mut slot = this.line.slot();
        if let Some(frame) = slot.frame.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(end) = slot.end.clone() {
            drop(slot);
            this.is_over = true;
            return Poll::Ready(end.err().map(Err));
        }
        slot.waker = Some(cx.waker().clone());
        let is_awaited = std::mem::take(&mut slot.is_awaited);
        drop(slot);
        if is_awaited {
            this.watches.asked();
        }
        Poll::Pending
    }
}
