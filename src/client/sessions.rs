//! Loads and saves of sessions, over what is known of them: asks only for what is new, sends only what is new.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cache::bases::{Origin, Plan, SaveDecision, SaveMode, SaveResult, StoredContent};
use super::cache::pack;
use super::cache::view::{Decoded, Failure, Item, New, View};
use super::cache::{Cache, SessionLock, lock};
use super::content::{Content, Session};
use super::driver::operation::{Body, MakeChange, Planned};
use super::handle::Handle;
use super::{Error, ErrorKind, NO_REQUEST, Written, assembler, session_id, written};
use crate::types::{
    Attributes, Base, Change, ClusterId, Consistency, ContentVersion, Fence, Load, LoadMany, Loaded, LoadedContent, OnConflict,
    Outcome, Part, Revision, SessionId, SessionInfo, Verdict, Version, Write,
};
use crate::wire::{Assembled, AssembledMany};

/// A content that was read.
pub(super) struct Found<T> {
    #[allow(dead_code, reason = "only adapters read it; others have the metadata")]
    pub version: Version,
    pub view: Arc<View<T>>,
    /// Metadata, if it was asked for.
    pub info: Option<SessionInfo>,
}

impl<T> Found<T> {
    fn of((place, view, info): Learned<T>) -> Self {
        Self { version: place.content.version, view, info }
    }
}

/// An answer to a load.
pub(super) struct LoadAnswer<T> {
    pub revision: Revision,
    pub tombstone: Version,
    pub age: Option<Duration>,
    pub found: Option<Found<T>>,
}

/// A session's content, as of now. Dropping the future cancels it.
pub(super) async fn load<T: Item>(
    handle: &Handle,
    cache: &Cache<T>,
    id: &str,
    consistency: Consistency,
    with_info: bool,
) -> Result<LoadAnswer<T>, Failure> {
    let id = session_id(id)?;
    let session = cache.session(&id);
    let is_fresh = consistency == Consistency::Linearizable;
    let (began, mut base) = {
        let session = lock(&session);
        (session.moment(), session.newest(with_info).filter(|_| is_fresh))
    };
    loop {
        let known = base.as_ref().map(|(place, ..)| (place.cluster, place.content));
        let (assembled, cluster) = ask(handle, &id, consistency, known).await?;
        let Assembled { revision, loaded, age_ms } = assembled;
        // It does not fit what we know: ask for everything.
        let Some((tombstone, found)) = taken(loaded, base.take(), cluster, cache)? else { continue };
        if let Some(cluster) = cluster.filter(|_| is_fresh) {
            learn(&session, cluster, found.as_ref(), cache, began);
        }
        cache.trim();
        return Ok(LoadAnswer { revision, tombstone, age: age_ms.map(Duration::from_millis), found: found.map(Found::of) });
    }
}

/// The contents of several sessions, as of one instant. Dropping the future cancels it.
pub(super) async fn load_many<T: Item>(
    handle: &Handle,
    cache: &Cache<T>,
    ids: Vec<SessionId>,
    consistency: Consistency,
) -> Result<Vec<LoadAnswer<T>>, Failure> {
    let is_fresh = consistency == Consistency::Linearizable;
    let sessions: Vec<SessionLock<T>> = ids.iter().map(|id| cache.session(id)).collect();
    let known = |session: &SessionLock<T>| {
        let session = lock(session);
        (session.moment(), session.newest(true).filter(|_| is_fresh))
    };
    let (began, mut bases): (Vec<u64>, Vec<Option<Learned<T>>>) = sessions.iter().map(known).unzip();
    loop {
        // Only contents of one cluster are named, as a request names one.
        let cluster = bases.iter().flatten().map(|(place, ..)| place.cluster).next();
        bases.iter_mut().for_each(|base| drop(base.take_if(|(place, ..)| Some(place.cluster) != cluster)));
        let have = bases.iter().map(|base| base.as_ref().map(|(place, ..)| place.content));
        let loads = ids.iter().cloned().zip(have).map(|(id, have)| (id, have, Part::Whole));
        let many = LoadMany::new(loads, consistency).map_err(Error::invalid)?;
        let (assembled, answered) = handle.read(|reply| Body::LoadMany { many, cluster, assembler: Box::default(), reply }).await?;
        let AssembledMany { revision, loaded, age_ms } = assembled;
        let mut answers = Vec::with_capacity(ids.len());
        for (at, loaded) in loaded.into_iter().enumerate() {
            // As of one load: all of them are asked for again, since they are of one instant.
            let Some((tombstone, found)) = taken(loaded, bases[at].clone(), answered, cache)? else {
                bases[at] = None;
                break;
            };
            answers.push((tombstone, found));
        }
        if answers.len() < ids.len() {
            continue;
        }
        if let Some(cluster) = answered.filter(|_| is_fresh) {
            for ((session, began), (_, found)) in sessions.iter().zip(began).zip(&answers) {
                learn(session, cluster, found.as_ref(), cache, began);
            }
        }
        cache.trim();
        let age = age_ms.map(Duration::from_millis);
        let answer = |(tombstone, found): Stands<T>| LoadAnswer { revision, tombstone, age, found: found.map(Found::of) };
        return Ok(answers.into_iter().map(answer).collect());
    }
}

/// The tombstone's version, and the content if there is a session.
type Stands<T> = (Version, Option<Learned<T>>);

/// How it stands with a session, by the answer to a reader who had `base`. `None`: the answer does not fit that base.
fn taken<T: Item>(
    loaded: Loaded,
    base: Option<Learned<T>>,
    cluster: Option<ClusterId>,
    cache: &Cache<T>,
) -> Result<Option<Stands<T>>, Failure> {
    Ok(Some(match (loaded, base) {
        (Loaded::NotFound { tombstone }, _) => (tombstone, None),
        (Loaded::NotModified, Some(base)) => (Version(0), Some(base)),
        (Loaded::Full(content), _) => (Version(0), Some(whole(content, cluster, cache)?)),
        (Loaded::Tail(content), Some((place, view, _))) => match longer(content, place, &view, cache)? {
            Some(base) => (Version(0), Some(base)),
            None => return Ok(None),
        },
        (Loaded::NotModified | Loaded::Tail(_), None) | (Loaded::Suffix { .. }, _) => {
            return Err(Error::corrupt("a load of everything was answered in part").into());
        }
    }))
}

fn learn<T: Item>(session: &SessionLock<T>, cluster: ClusterId, found: Option<&Learned<T>>, cache: &Cache<T>, began: u64) {
    let mut session = lock(session);
    match found {
        Some((place, view, info)) => session.learn(*place, view.clone(), info.clone(), began),
        None => session.learn_absent(cluster, &cache.meter, began),
    }
}

async fn ask(
    handle: &Handle,
    id: &SessionId,
    consistency: Consistency,
    known: Option<(ClusterId, ContentVersion)>,
) -> Result<(Assembled, Option<ClusterId>), Error> {
    let (cluster, have) = known.unzip();
    let load = Load { id: id.clone(), have, part: Part::Whole, consistency };
    handle.read(|reply| Body::Load { load, cluster, assembler: assembler(), reply }).await
}

type Learned<T> = (StoredContent, Arc<View<T>>, Option<SessionInfo>);

fn decoded<T: Item>(items: Vec<Bytes>) -> Result<Vec<Decoded<T>>, Failure> {
    items.into_iter().map(|stored| Decoded::from_stored(stored).map_err(Failure::Encoding)).collect()
}

pub(super) fn whole<T: Item>(content: LoadedContent, cluster: Option<ClusterId>, cache: &Cache<T>) -> Result<Learned<T>, Failure> {
    let LoadedContent { info, chunks, head } = content;
    let first_chunk = info.next_chunk.saturating_sub(chunks.len() as u64);
    let (items, head) = pack::unpack(chunks, head)?;
    let head = head.ok_or_else(|| Error::corrupt("loaded content has no head"))?;
    let view = View::empty(&cache.meter).followed_by(decoded(items)?, head, info.counters.clone(), &cache.meter);
    // Without a cluster's name it is returned and not remembered.
    let place = StoredContent { cluster: cluster.unwrap_or_default(), content: info.content_version(), first_chunk };
    Ok((place, Arc::new(view), Some(info)))
}

/// A session out of content as it is stored, e.g. in the files of a stopped node.
pub(super) fn from_stored(content: LoadedContent, revision: Revision) -> Result<Session, Error> {
    let LoadedContent { info, chunks, head } = content;
    let (items, head) = pack::unpack(chunks, head)?;
    let head = head.ok_or_else(|| Error::corrupt("stored content has no head"))?;
    let content = Content::from_parts(&head, items, &info.counters);
    Ok(Session { info, revision, content })
}

/// `None` if the tail does not continue from there.
fn longer<T: Item>(
    content: LoadedContent,
    base: StoredContent,
    view: &View<T>,
    cache: &Cache<T>,
) -> Result<Option<Learned<T>>, Failure> {
    let LoadedContent { info, chunks, head } = content;
    let (items, head) = pack::unpack(chunks, head)?;
    if info.create_revision != base.content.create_revision || (view.len() + items.len()) as u64 != info.items {
        return Ok(None);
    }
    let head = head.unwrap_or_else(|| view.head.clone());
    let view = view.followed_by(decoded(items)?, head, info.counters.clone(), &cache.meter);
    Ok(Some((StoredContent { content: info.content_version(), ..base }, Arc::new(view), Some(info))))
}

/// Stores what is new, by `mode`. Once enqueued it continues, whatever becomes of the future.
pub(super) async fn save<T: Item>(
    handle: &Handle,
    cache: &Cache<T>,
    id: &str,
    new: New<'_, T>,
    mode: SaveMode,
    attributes: Attributes,
) -> Result<Written, Failure> {
    let id = session_id(id)?;
    let session = cache.session(&id);
    let patience = handle.config().write_deadline / 2;
    let plan = tokio::time::timeout(patience, await_plan(&session, &new, mode, cache));
    let late = || Error::refused("the same turn is still being saved, this save was not sent");
    let mut save = Save::new(plan.await.map_err(|_| late())??, session, handle.fence());
    let write = save.write(id, attributes)?;
    let outcome = handle.write(write, Some(Box::new(save))).await;
    cache.trim();
    Ok(written(outcome?)?)
}

async fn await_plan<T: Item>(
    session: &SessionLock<T>,
    new: &New<'_, T>,
    mode: SaveMode,
    cache: &Cache<T>,
) -> Result<Plan<T>, Failure> {
    loop {
        let decision = lock(session).plan_save(new, mode, &cache.meter).map_err(Failure::Encoding)?;
        match decision {
            SaveDecision::Send(plan) => return Ok(plan),
            // The save has ended once its end is dropped.
            SaveDecision::Wait(mut ended) => drop(ended.changed().await),
            SaveDecision::Conflict { actual } => return Err(Error::forgotten(actual).into()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not enqueued: dropped now, it never happened.
    Ours,
    /// The driver has it: dropped now, nobody knows.
    Taken,
    Ended,
}

/// A planned save on its way. It tells what is known of its session how it ended, however it ends.
struct Save<T: Item> {
    plan: Plan<T>,
    session: SessionLock<T>,
    fence: Option<Fence>,
    stage: Stage,
    /// Chunks of the whole, if that is what is sent.
    whole: Option<u64>,
    /// The write to send if a repack conflicts.
    fallback: Option<Write>,
}

impl<T: Item> Save<T> {
    fn new(plan: Plan<T>, session: SessionLock<T>, fence: Option<Fence>) -> Self {
        Self { plan, session, fence, stage: Stage::Ours, whole: None, fallback: None }
    }

    fn write(&mut self, id: SessionId, attributes: Attributes) -> Result<Write, Failure> {
        let attributes = Attributes { form: pack::form(&self.plan.view.head), ..attributes };
        let base = match self.plan.from {
            Some(Origin::At(place)) => place.content.base(),
            Some(Origin::Absent(_)) | None => Base::Absent,
        };
        let appended = self.plan.append.take().map(|append| pack::delta(base, append)).transpose()?;
        let Some(change) = appended.filter(|_| !self.plan.repack || self.plan.on_conflict == OnConflict::Rebase) else {
            let change = whole_change(&self.plan.view)?;
            self.on_full_change(&change);
            return Ok(self.request(id, change, OnConflict::Reject, attributes));
        };
        let append = self.request(id.clone(), change, self.plan.on_conflict, attributes.clone());
        if !self.plan.repack {
            return Ok(append);
        }
        self.fallback = Some(append);
        let change = whole_change(&self.plan.view)?;
        self.on_full_change(&change);
        Ok(self.request(id, change, OnConflict::Reject, attributes))
    }

    fn request(&self, id: SessionId, change: Change, on_conflict: OnConflict, attributes: Attributes) -> Write {
        let fence = self.fence;
        match self.plan.expected {
            None => Write::Save { request: NO_REQUEST, id, change, attributes, fence },
            Some(expected) => Write::SaveIfVersion { request: NO_REQUEST, id, expected, change, on_conflict, attributes, fence },
        }
    }

    fn end(&mut self, ended: SaveResult) {
        self.stage = Stage::Ended;
        lock(&self.session).record(&self.plan, ended);
    }
}

fn whole_change<T: Item>(view: &View<T>) -> Result<Change, Failure> {
    Ok(pack::full(&view.encoded().map_err(Failure::Encoding)?, &view.head, view.counters.clone())?)
}

impl<T: Item> Planned for Save<T> {
    fn cluster(&self) -> Option<ClusterId> {
        let is_turn = self.plan.save.is_some();
        self.plan.from.and_then(|from| from.cluster()).filter(|_| is_turn || self.whole.is_none())
    }

    fn full_change(&mut self, elsewhere: bool) -> Option<MakeChange> {
        // A turn means the session it was loaded from; another cluster's may only look the same.
        let is_turn = self.plan.save.is_some();
        if !self.plan.replaceable || (elsewhere && is_turn) {
            return None;
        }
        let view = self.plan.view.clone();
        Some(Box::new(move || {
            whole_change(&view).map_err(|failure| match failure {
                Failure::Client(error) => error,
                Failure::Encoding(why) => Error::invalid(why),
            })
        }))
    }

    fn on_full_change(&mut self, change: &Change) {
        self.whole = Some(change.chunks().len() as u64);
    }

    fn fallback(&mut self) -> Option<Write> {
        let write = self.fallback.take()?;
        self.whole = None;
        Some(write)
    }

    fn on_accepted(&mut self) {
        self.stage = Stage::Taken;
    }

    fn on_finished(&mut self, end: Result<(&Outcome, Option<ClusterId>), ErrorKind>) {
        self.end(match end {
            Ok((Outcome { verdict: Verdict::Saved(saved), .. }, cluster)) => {
                let first_chunk = match (self.whole, self.plan.from) {
                    (Some(chunks), _) => saved.content.next_chunk.saturating_sub(chunks),
                    (None, Some(Origin::At(place))) => place.first_chunk,
                    (None, _) => 0,
                };
                SaveResult::Saved { saved: *saved, cluster, first_chunk }
            }
            Ok(_) => SaveResult::Nothing,
            Err(ErrorKind::Indeterminate) => SaveResult::Unknown,
            Err(_) => SaveResult::Nothing,
        });
    }
}

impl<T: Item> Drop for Save<T> {
    fn drop(&mut self) {
        match self.stage {
            Stage::Ours => self.end(SaveResult::Nothing),
            Stage::Taken => self.end(SaveResult::Unknown),
            Stage::Ended => {}
        }
    }
}
