//! Loads of a part of a session: asks for what is needed, and takes it out of whatever a node answers.
//!
//! A node of a release before parts answers with everything, which then costs more and means the same. A part is no content of the
//! session: what this client remembers of it is neither asked nor changed.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::cache::{Cache, lock, pack};
use super::content::{Content, PartOptions, PartRead, SeenContent, SessionPart};
use super::driver::operation::Body;
use super::handle::Handle;
use super::{Error, assembler, session_id, sessions};
use crate::mutant::{self, Mutant};
use crate::types::{Chunk, ClusterId, Consistency, Load, LoadMany, Loaded, LoadedContent, Part, Revision, SessionId, Version};
use crate::wire::{Assembled, AssembledMany};

/// A part of a session as of now. Dropping the future cancels it.
pub(super) async fn load(
    handle: &Handle,
    cache: &Cache<Bytes>,
    id: &str,
    part: Part,
    options: PartOptions,
) -> Result<PartRead, Error> {
    let id = session_id(id)?;
    let part = part.bounded().map_err(Error::invalid)?;
    let mut seen = options.have;
    loop {
        let (cluster, have) = seen.map(|SeenContent { cluster, content }| (cluster, content)).unzip();
        let load = Load { id: id.clone(), have, part, consistency: options.consistency };
        let (assembled, answered): (Assembled, Option<ClusterId>) =
            handle.read(|reply| Body::Load { load, cluster, assembler: assembler(), reply }).await?;
        if mutant::is(Mutant::PartInCache) {
            enter(cache, &id, &assembled.loaded, answered);
        }
        match part_read(assembled, part, have.is_some(), answered)? {
            Some(read) => return Ok(read),
            None => seen = None,
        }
    }
}

/// Parts of several sessions, as of one instant. Dropping the future cancels it.
pub(super) async fn load_many(
    handle: &Handle,
    wanted: Vec<(SessionId, Part, Option<SeenContent>)>,
    consistency: Consistency,
) -> Result<Vec<PartRead>, Error> {
    let mut wanted = wanted
        .into_iter()
        .map(|(id, part, seen)| Ok((id, part.bounded().map_err(Error::invalid)?, seen)))
        .collect::<Result<Vec<_>, Error>>()?;
    loop {
        // One request names one cluster.
        let cluster = wanted.iter().find_map(|(.., seen)| seen.map(|seen| seen.cluster));
        let have = |seen: &Option<SeenContent>| seen.filter(|seen| Some(seen.cluster) == cluster).map(|seen| seen.content);
        let loads = wanted.iter().map(|(id, part, seen)| (id.clone(), have(seen), *part));
        let many = LoadMany::new(loads, consistency).map_err(Error::invalid)?;
        let (assembled, answered) = handle.read(|reply| Body::LoadMany { many, cluster, assembler: Box::default(), reply }).await?;
        let AssembledMany { revision, loaded, age_ms } = assembled;
        let mut reads = Vec::with_capacity(wanted.len());
        for ((_, part, seen), loaded) in wanted.iter_mut().zip(loaded) {
            let has_some = have(seen).is_some();
            match part_read(Assembled { revision, loaded, age_ms }, *part, has_some, answered)? {
                Some(read) => reads.push(read),
                None => *seen = None,
            }
        }
        if reads.len() == wanted.len() {
            return Ok(reads);
        }
    }
}

/// The part out of an answer to a reader who had some content, or nothing. `None`: what he had is a prefix, of which he does not hold the part.
fn part_read(assembled: Assembled, part: Part, had_some: bool, answered: Option<ClusterId>) -> Result<Option<PartRead>, Error> {
    let Assembled { revision, loaded, age_ms } = assembled;
    let (first_item, content) = match loaded {
        Loaded::Suffix { first_item, content } => (first_item, content),
        Loaded::Full(content) => (0, content),
        Loaded::NotFound { tombstone } => return Ok(Some(read(revision, age_ms, tombstone, false, None))),
        Loaded::NotModified if had_some => return Ok(Some(read(revision, age_ms, Version(0), true, None))),
        // Of the whole, or by a node that knows of no parts.
        Loaded::Tail(_) if had_some => return Ok(None),
        Loaded::NotModified | Loaded::Tail(_) => {
            return Err(Error::corrupt("a load by a reader who had nothing was answered by what is new"));
        }
    };
    let seen = answered.map(|cluster| SeenContent { cluster, content: content.info.content_version() });
    let found = taken(part, first_item, content, revision, seen)?;
    Ok(Some(read(revision, age_ms, Version(0), false, Some(found))))
}

fn read(revision: Revision, age_ms: Option<u64>, tombstone: Version, not_modified: bool, part: Option<SessionPart>) -> PartRead {
    PartRead { revision, tombstone, age: age_ms.map(Duration::from_millis), not_modified, part }
}

/// Takes a part for the content, as [`Mutant::PartInCache`] does.
fn enter(cache: &Cache<Bytes>, id: &SessionId, loaded: &Loaded, cluster: Option<ClusterId>) {
    let Loaded::Suffix { content, .. } = loaded else { return };
    if let (Ok((place, view, info)), Some(_)) = (sessions::whole(content.clone(), cluster, cache), cluster) {
        let session = cache.session(id);
        let mut session = lock(&session);
        let moment = session.moment();
        session.learn(place, view, info, moment);
    }
}

/// The part out of an answer whose first item has this number.
///
/// Errors: `Corrupt`, the answer lacks something of the part, or is no content of this client.
fn taken(
    part: Part,
    first_item: u64,
    content: LoadedContent,
    revision: Revision,
    seen: Option<SeenContent>,
) -> Result<SessionPart, Error> {
    let LoadedContent { info, chunks, head } = content;
    let wanted = part.items(info.items);
    let number = wanted.start;
    if !part.has_head() {
        return Ok(SessionPart { info, revision, first_item: number, content: None, seen });
    }
    let (chunks, skipped) = overlapping(chunks, first_item, &wanted)?;
    let (mut messages, head) = pack::unpack(chunks, head)?;
    let head = head.ok_or_else(|| Error::corrupt("a loaded part has no head"))?;
    messages.drain(..skipped);
    messages.truncate((wanted.end - wanted.start) as usize);
    let content = Content::from_parts(&head, messages, &info.counters);
    Ok(SessionPart { info, revision, first_item: number, content: Some(content), seen })
}

/// The chunks that hold wanted items, and how many items in them come before those. No others are unpacked.
fn overlapping(chunks: Vec<Chunk>, first_item: u64, wanted: &Range<u64>) -> Result<(Vec<Chunk>, usize), Error> {
    let mut next = first_item;
    let mut kept: Vec<Chunk> = Vec::new();
    let mut from = None;
    for chunk in chunks {
        let items = next..next.saturating_add(chunk.item_count);
        next = items.end;
        if items.start < wanted.end && wanted.start < items.end {
            from = from.or(Some(items.start));
            kept.push(chunk);
        }
    }
    if wanted.is_empty() {
        return Ok((Vec::new(), 0));
    }
    match from {
        // Kept chunks follow each other, so they lack nothing in between; of at most as many items as a session has.
        Some(from) if from <= wanted.start && wanted.end <= next => Ok((kept, (wanted.start - from) as usize)),
        _ => {
            let text = "a loaded part lacks items that were asked for";
            Err(Error::corrupt(format!("{text} asked={}..{} loaded={first_item}..{next}", wanted.start, wanted.end)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ErrorKind;
    use crate::types::{Blob, SessionInfo};

    /// A transcript of items "0", "1" … in chunks of so many.
    fn content(counts: &[u64]) -> LoadedContent {
        let mut number = 0;
        let chunk = |count: &u64| {
            let mut raw = Vec::new();
            for _ in 0..*count {
                let item = number.to_string();
                raw.extend((item.len() as u32).to_le_bytes());
                raw.extend(item.as_bytes());
                number += 1;
            }
            Chunk { item_count: *count, blob: Blob::plain(raw.into()) }
        };
        let chunks: Vec<_> = counts.iter().map(chunk).collect();
        let info = SessionInfo { items: counts.iter().sum(), version: Version(3), ..SessionInfo::default() };
        LoadedContent { info, chunks, head: Some(Blob::plain(Bytes::from_static(b"\x01{}"))) }
    }

    fn messages(part: &SessionPart) -> Vec<u64> {
        let Some(Content::Transcript { messages, .. }) = &part.content else { panic!("a transcript") };
        messages.iter().map(|item| std::str::from_utf8(item).expect("text").parse().expect("a number")).collect()
    }

    /// Whole or in part, with more than was asked for before and behind it: the same items come out.
    #[test]
    fn a_part_is_cut_out_of_whatever_holds_it() {
        let counts = [3, 1, 4, 2];
        let from = |item, limit| Part::From { item, limit };
        let parts = [
            Part::Whole,
            Part::Head,
            Part::Last(1),
            Part::Last(3),
            Part::Last(10),
            from(0, 1),
            from(2, 4),
            from(9, 9),
            from(12, 1),
        ];
        for part in parts {
            let wanted = part.items(10);
            for (begin, end) in (0..=counts.len()).flat_map(|begin| (begin..=counts.len()).map(move |end| (begin, end))) {
                let whole = content(&counts);
                let first_item: u64 = counts[..begin].iter().sum();
                let last_item: u64 = counts[..end].iter().sum();
                let cut = LoadedContent { chunks: whole.chunks[begin..end].to_vec(), ..whole };
                let is_in = wanted.is_empty() || first_item <= wanted.start && wanted.end <= last_item;
                match taken(part, first_item, cut, Revision(9), None) {
                    Ok(taken) => {
                        assert!(is_in, "{part:?} of chunks {begin}..{end}");
                        assert_eq!(messages(&taken), wanted.clone().collect::<Vec<_>>(), "{part:?} of chunks {begin}..{end}");
                        assert_eq!(taken.first_item, wanted.start);
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt);
                        assert!(!is_in, "{part:?} of chunks {begin}..{end}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_part_without_the_head_it_asks_for_is_no_answer_and_metadata_needs_none() {
        let headless = || LoadedContent { head: None, ..content(&[2]) };
        for part in [Part::Head, Part::Last(1)] {
            assert_eq!(taken(part, 0, headless(), Revision(1), None).expect_err("no head").kind(), ErrorKind::Corrupt, "{part:?}");
        }
        let info = taken(Part::Info, 2, headless(), Revision(1), None).expect("metadata");
        assert_eq!((info.content, info.first_item, info.info.items), (None, 2, 2));
    }
}
