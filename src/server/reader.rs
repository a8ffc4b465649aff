//! The content that one stream of answers holds for its reader. The stream takes from it; [`super::readers`] drops it if the reader stalls.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::call::Answer;
use super::frames::Frames;
use crate::wire::v1;

/// Answers of several frames under way at once; while fewer are, small answers overtake them.
const MANY_FRAMES_MAX: usize = 4;

/// The content that a stream holds for its reader.
pub struct Reader {
    held: Mutex<Waiting>,
    /// Not a peer, which reads for all its clients.
    is_client: bool,
}

impl Reader {
    pub fn new(held: Waiting, is_client: bool) -> Self {
        Self { held: Mutex::new(held), is_client }
    }

    pub fn held(&self) -> MutexGuard<'_, Waiting> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that holds a loaded answer of so many bytes.
    #[cfg(test)]
    pub fn holding(budget: &crate::raft::ReadBudget, bytes: u64) -> Self {
        let done = super::call::Response::Relayed { answers: Vec::new(), permit: budget.charge(bytes) };
        let (_, none) = mpsc::channel(1);
        Self { held: Mutex::new(Waiting::new(none, VecDeque::from([(1, Frames::new(Ok(done)))]))), is_client: true }
    }

    /// How many frames were taken so far; `None` while nothing waits to be taken.
    pub fn waiting_since(&self) -> Option<u64> {
        let held = self.held();
        (!held.frames.is_empty() || !held.answers.is_empty()).then_some(held.taken)
    }

    /// Whether it is a client's and holds loaded content that others may need the room of.
    pub fn is_in_the_way(&self) -> bool {
        let held = self.held();
        self.is_client && (!held.answers.is_empty() || held.frames.iter().any(|(_, frames)| frames.loaded_bytes() > 0))
    }

    /// Drops what waits, for this reason. The stream ends with an error when its reader comes back; nothing that was asked is undone by it.
    pub fn cut_off(&self, why: &'static str) {
        let mut held = self.held();
        held.cut_off = Some(why);
        held.frames.clear();
        held.answers.close();
        while held.answers.try_recv().is_ok() {}
    }
}

/// Answers that wait, and those under way.
pub struct Waiting {
    answers: mpsc::Receiver<Answer>,
    /// Answers of which more frames follow.
    frames: VecDeque<(u64, Frames)>,
    taken: u64,
    cut_off: Option<&'static str>,
}

/// The next thing for a reader.
pub enum Next {
    Frame(u64, v1::submit_response::Answer),
    /// Nothing, at the moment.
    Nothing,
    /// All is answered.
    Ended,
    CutOff(&'static str),
}

impl Waiting {
    pub fn new(answers: mpsc::Receiver<Answer>, frames: VecDeque<(u64, Frames)>) -> Self {
        Self { answers, frames, taken: 0, cut_off: None }
    }

    /// Takes what is next. [`Next::Nothing`]: woken once there is more.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Next {
        if let Some(why) = self.cut_off {
            return Next::CutOff(why);
        }
        if self.frames.len() < MANY_FRAMES_MAX {
            match self.answers.poll_recv(cx) {
                // The new one goes first: most are one frame, and never wait here.
                Poll::Ready(Some(answer)) => {
                    if let Some((tag, answer)) = self.take_frame(answer.tag, Frames::new(answer.result)) {
                        return Next::Frame(tag, answer);
                    }
                }
                Poll::Ready(None) if self.frames.is_empty() => return Next::Ended,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        self.next_frame().map_or(Next::Nothing, |(tag, answer)| Next::Frame(tag, answer))
    }

    /// The next frame of the answers under way, taken in turn.
    fn next_frame(&mut self) -> Option<(u64, v1::submit_response::Answer)> {
        let (tag, frames) = self.frames.pop_front()?;
        self.take_frame(tag, frames)
    }

    /// The next frame of this answer; the rest of it waits for its turn.
    fn take_frame(&mut self, tag: u64, mut frames: Frames) -> Option<(u64, v1::submit_response::Answer)> {
        let answer = frames.next()?;
        if !frames.is_finished() {
            self.frames.push_back((tag, frames));
        }
        self.taken += 1;
        Some((tag, answer))
    }
}
