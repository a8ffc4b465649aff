//! One answer as the messages it is sent in, and what of its content still counts as loaded.

use crate::raft::BytePermit;
use crate::server::call::Response;
use crate::types::Refusal;
use crate::wire::{self, LoadFrames, ManyFrames, v1};

/// The messages of one answer.
pub struct Frames {
    source: Source,
    finished: bool,
    /// Loaded content counts for as long as it is here: what a reader took is given back with each frame.
    permit: BytePermit,
}

enum Source {
    One(Option<v1::submit_response::Answer>),
    Own(LoadFrames),
    OwnMany(ManyFrames),
    Relayed(std::vec::IntoIter<v1::submit_response::Answer>),
}

impl Source {
    /// Bytes that are here for the messages to come; `None` where that is not counted.
    fn held_bytes(&self) -> Option<u64> {
        match self {
            Source::One(_) => None,
            Source::Own(frames) => Some(frames.held_bytes()),
            Source::OwnMany(frames) => Some(frames.held_bytes()),
            Source::Relayed(answers) => Some(answers.as_slice().iter().map(content_bytes).sum()),
        }
    }
}

/// Bytes of sessions' content in a message.
pub fn content_bytes(answer: &v1::submit_response::Answer) -> u64 {
    let of_frame = |frame: &v1::LoadFrame| frame.pieces.iter().map(|piece| piece.data.len() as u64).sum();
    match answer {
        v1::submit_response::Answer::Load(frame) => of_frame(frame),
        v1::submit_response::Answer::LoadMany(many) => many.loads.iter().map(of_frame).sum(),
        _ => 0,
    }
}

/// Whether the message is the last one of its answer.
pub fn is_last(answer: &v1::submit_response::Answer) -> bool {
    match answer {
        v1::submit_response::Answer::Load(frame) => frame.last,
        v1::submit_response::Answer::LoadMany(many) => many.last,
        _ => true,
    }
}

impl Frames {
    pub fn new(result: Result<Response, Refusal>) -> Self {
        use v1::submit_response::Answer as Message;
        let (source, permit) = match result {
            Err(refusal) => (Source::One(Some(Message::Refusal(wire::refusal_to(&refusal)))), BytePermit::default()),
            Ok(Response::Outcome(outcome)) => {
                (Source::One(Some(Message::Outcome(wire::outcome_to(&outcome)))), BytePermit::default())
            }
            Ok(Response::Listed { page, permit }) => (Source::One(Some(Message::List(wire::list_page_to(&page)))), permit),
            Ok(Response::Loaded { revision, loaded, age_ms, permit }) => {
                (Source::Own(LoadFrames::new(revision, loaded, age_ms)), permit)
            }
            Ok(Response::LoadedMany { revision, loaded, age_ms, permit }) => {
                (Source::OwnMany(ManyFrames::new(revision, loaded, age_ms)), permit)
            }
            Ok(Response::Relayed { answers, permit }) => (Source::Relayed(answers.into_iter()), permit),
        };
        Self { source, finished: false, permit }
    }

    /// Bytes of loaded content that count for this answer.
    pub fn loaded_bytes(&self) -> u64 {
        self.permit.bytes()
    }

    /// Whether the last message was given.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The only message of an answer that is no load.
    pub fn only(mut self) -> Option<v1::submit_response::Answer> {
        self.next()
    }
}

impl Iterator for Frames {
    type Item = v1::submit_response::Answer;

    fn next(&mut self) -> Option<Self::Item> {
        let answer = match &mut self.source {
            Source::One(answer) => answer.take(),
            Source::Own(frames) => frames.next().map(v1::submit_response::Answer::Load),
            Source::OwnMany(frames) => frames.next().map(v1::submit_response::Answer::LoadMany),
            Source::Relayed(answers) => answers.next(),
        };
        self.finished = answer.as_ref().is_none_or(is_last);
        if !self.finished
            && let Some(held) = self.source.held_bytes()
        {
            self.permit.shrink_to(held);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::limits::FRAME_BYTES_MAX;
    use crate::raft::ReadBudget;
    use crate::types::{Blob, Chunk, Counters, Loaded, LoadedContent, Revision, SessionInfo, Version};

    #[test]
    fn a_large_load_is_finished_only_with_its_last_frame() {
        let info = SessionInfo { version: Version(1), counters: Counters::default(), ..SessionInfo::default() };
        let head = Some(Blob::plain(Bytes::from(vec![7; 3 << 20])));
        let loaded = Loaded::Full(LoadedContent { info, chunks: vec![], head });
        let done = Response::Loaded { revision: Revision(1), loaded, age_ms: None, permit: BytePermit::default() };
        let mut frames = Frames::new(Ok(done));
        let mut count = 0;
        while !frames.is_finished() {
            assert!(frames.next().is_some(), "an unfinished answer has another frame");
            count += 1;
        }
        assert!(count > 3, "3 MiB do not fit into {count} frames of 1 MiB");
        assert!(frames.next().is_none());
    }

    /// Twelve chunks of 1 MiB, the head first: 13 MiB, of which a reader that has taken *n* frames keeps the rest only.
    #[test]
    fn what_a_reader_took_of_a_large_load_counts_no_more() {
        let blob = || Blob::plain(Bytes::from(vec![7; 1 << 20]));
        let info = SessionInfo { version: Version(1), counters: Counters::default(), ..SessionInfo::default() };
        let chunks = (0..12).map(|_| Chunk { item_count: 1, blob: blob() }).collect();
        let loaded = Loaded::Full(LoadedContent { info, chunks, head: Some(blob()) });
        let (budget, frame_bytes) = (ReadBudget::default(), FRAME_BYTES_MAX as u64);
        let done = Response::Loaded { revision: Revision(1), loaded, age_ms: None, permit: budget.charge(13 << 20) };
        let mut frames = Frames::new(Ok(done));
        let mut taken = Vec::new();
        while !frames.is_finished() {
            let before = budget.bytes();
            taken.push(frames.next().expect("another frame"));
            // A chunk that was begun is there until its end; the last frame's goes with the answer.
            assert!(budget.bytes() <= (13 << 20) - (taken.len() as u64 - 1) * (frame_bytes - 1024) || frames.is_finished());
            assert!(budget.bytes() < before || taken.len() == 1 || frames.is_finished(), "frame {}", taken.len());
        }
        assert!(taken.len() > 12);
        drop(frames);
        assert_eq!(budget.bytes(), 0);

        let bytes = taken.iter().map(content_bytes).sum();
        assert_eq!(bytes, 13 << 20);
        let count = taken.len();
        let mut relayed = Frames::new(Ok(Response::Relayed { answers: taken, permit: budget.charge(bytes) }));
        let mut left = Vec::new();
        while !relayed.is_finished() {
            assert!(relayed.next().is_some());
            left.push(budget.bytes());
        }
        assert!(left.len() == count && left.is_sorted_by(|one, next| next <= one) && left[count / 2] < 7 << 20, "{left:?}");
    }

    #[test]
    fn a_refusal_is_one_message() {
        let mut frames = Frames::new(Err(Refusal::invalid("no")));
        assert!(matches!(frames.next(), Some(v1::submit_response::Answer::Refusal(_))));
        assert!(frames.is_finished());
    }
}
