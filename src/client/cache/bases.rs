//! This client's knowledge of sessions: the contents it saw and its own saves from them. Decides how a save is sent; sends nothing.
//!
//! ```text
//! Session ── bases: contents the cluster holds or held, by version (loaded, or saved by us and not rebased)
//!               └── own saves from that base: on their way, or done: a second save of a turn continues from there
//! ```
//!
//! A delta is sent only against a base that this client has compared item by item. Otherwise the full content is sent, and in a turn only
//! if the session is exactly at the remembered version.

use std::sync::Arc;

use tokio::sync::watch;

use super::view::{Append, Item, Meter, New, Step, View};
use crate::limits::SESSION_CHUNKS_REPACK;
use crate::mutant::{self, Mutant};
use crate::types::{ClusterId, ContentVersion, Expected, OnConflict, Saved, SessionInfo, Version};

/// Contents remembered of one session.
const BASES_MAX: usize = 512;
/// Own saves remembered of one base; above it the base is sent whole.
const OWN_MAX: usize = 512;
/// Identities kept of a session whose contents were dropped.
const STRIPPED_MAX: usize = 4;

/// A content of a session in a cluster, and where its chunks begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredContent {
    pub cluster: ClusterId,
    pub content: ContentVersion,
    pub first_chunk: u64,
}

/// The content a save is made against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// There is no session; in the cluster that said so, if one did.
    Absent(Option<ClusterId>),
    At(StoredContent),
}

impl Origin {
    pub fn cluster(&self) -> Option<ClusterId> {
        match self {
            Origin::Absent(cluster) => *cluster,
            Origin::At(place) => Some(place.cluster),
        }
    }

    fn version(&self) -> Version {
        match self {
            Origin::Absent(_) => Version(0),
            Origin::At(place) => place.content.version,
        }
    }

    fn expected(&self) -> Expected {
        match self {
            Origin::Absent(_) => Expected::Absent,
            Origin::At(place) => place.content.expected(),
        }
    }
}

/// Where a save ended.
#[derive(Clone, Copy, Debug)]
struct SavedAs {
    at: StoredContent,
    /// Whether the stored content is the view that was saved: not after a rebase.
    is_exact: bool,
}

/// Names a save among those from one base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalSaveId {
    base: Version,
    token: u64,
}

/// A save from a base that is on its way or done.
struct LocalSave<T> {
    token: u64,
    view: Arc<View<T>>,
    /// Where it ended.
    done: Option<SavedAs>,
    /// Dropped when it settles.
    pending: Option<watch::Sender<()>>,
}

struct BaseVersion<T> {
    from: Origin,
    /// `None` once dropped for want of room.
    view: Option<Arc<View<T>>>,
    info: Option<SessionInfo>,
    saves: Vec<LocalSave<T>>,
    /// Own saves were dropped: a second save of their turn would not be recognized.
    forgot: bool,
    /// A save from here ended without an outcome; the number of that event.
    unsettled: Option<u64>,
}

/// How a save is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaveMode {
    /// Unconditionally.
    Blind,
    /// If the session is so.
    Expect(Expected),
    /// As a turn that began at this version: if it is still that, else a conflict or a rebase.
    #[allow(dead_code, reason = "only adapters know of turns")]
    Turn(Version, OnConflict),
}

/// How a save is to be sent.
pub(crate) struct Plan<T> {
    pub view: Arc<View<T>>,
    /// The condition.
    pub expected: Option<Expected>,
    pub on_conflict: OnConflict,
    /// Its base, if any: the full content may replace it only if `replaceable`.
    pub from: Option<Origin>,
    pub append: Option<Append>,
    /// The whole may be sent where the base is not what was thought.
    pub replaceable: bool,
    /// Replace many chunks by few; if that conflicts, append.
    pub repack: bool,
    /// The save of a turn, as its base knows it.
    pub save: Option<LocalSaveId>,
}

pub(crate) enum SaveDecision<T> {
    Send(Plan<T>),
    /// This turn is being saved already: decide again when that save has ended.
    Wait(watch::Receiver<()>),
    /// The base is not remembered, or it is not known what is stored.
    Conflict {
        actual: Version,
    },
}

/// How a planned save ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaveResult {
    /// Where; `None` if no cluster was named. And the first chunk of what is stored now.
    Saved { saved: Saved, cluster: Option<ClusterId>, first_chunk: u64 },
    /// Nothing changed.
    Nothing,
    /// The save may have happened.
    Unknown,
}

/// The bases of one session.
pub(crate) struct Session<T> {
    bases: Vec<BaseVersion<T>>,
    next: u64,
}

impl<T> Default for Session<T> {
    fn default() -> Self {
        Self { bases: Vec::new(), next: 1 }
    }
}

impl<T: Item> Session<T> {
    /// The newest content to load from; with its metadata, if that is needed.
    pub fn newest(&self, with_info: bool) -> Option<(StoredContent, Arc<View<T>>, Option<SessionInfo>)> {
        // Chosen first and copied after: there may be hundreds.
        let usable = |known: &&BaseVersion<T>| known.view.is_some() && (!with_info || known.info.is_some());
        let at = |known: &BaseVersion<T>| match known.from {
            Origin::At(place) => Some((place.content.create_revision, place.content.version)),
            Origin::Absent(_) => None,
        };
        let newest = self.bases.iter().filter(usable).max_by_key(|known| at(known))?;
        match (newest.from, &newest.view) {
            (Origin::At(place), Some(view)) => Some((place, view.clone(), newest.info.clone())),
            _ => None,
        }
    }

    /// A number for "now": what is unsettled later is not settled by a load that began before.
    pub fn moment(&self) -> u64 {
        self.next
    }

    /// A load that began at `began` found this content.
    pub fn learn(&mut self, place: StoredContent, view: Arc<View<T>>, info: Option<SessionInfo>, began: u64) {
        // Another cluster: nothing known of the old one means anything.
        self.bases.retain(|known| known.from.cluster().is_none_or(|cluster| cluster == place.cluster));
        self.put(Origin::At(place), view, info);
        self.settle_by_load(place.content.version, began);
    }

    /// A load that began at `began` found nothing.
    pub fn learn_absent(&mut self, cluster: ClusterId, meter: &Meter, began: u64) {
        self.bases.retain(|known| known.from.cluster().is_none_or(|at| at == cluster));
        self.put(Origin::Absent(Some(cluster)), Arc::new(View::empty(meter)), None);
        self.settle_by_load(Version(0), began);
    }

    fn settle_by_load(&mut self, version: Version, began: u64) {
        if let Some(known) = self.at(version) {
            known.unsettled = known.unsettled.filter(|event| *event >= began);
        }
    }

    fn put(&mut self, from: Origin, view: Arc<View<T>>, info: Option<SessionInfo>) {
        let same = |known: &BaseVersion<T>| match (known.from, from) {
            (Origin::At(StoredContent { content: one, .. }), Origin::At(StoredContent { content: other, .. })) => {
                one.create_revision == other.create_revision && one.version == other.version
            }
            (Origin::Absent(_), Origin::Absent(_)) => true,
            _ => false,
        };
        if let Some(known) = self.bases.iter_mut().find(|known| same(known)) {
            (known.from, known.view) = (from, Some(view));
            known.info = info.or(known.info.take());
            return;
        }
        self.bases.retain(|known| known.from.version() != from.version());
        if self.bases.len() >= BASES_MAX {
            let oldest = self.bases.iter().position(|known| known.saves.iter().all(|own| own.pending.is_none()));
            self.bases.remove(oldest.unwrap_or(0));
        }
        self.bases.push(BaseVersion { from, view: Some(view), info, saves: Vec::new(), forgot: false, unsettled: None });
    }

    fn at(&mut self, version: Version) -> Option<&mut BaseVersion<T>> {
        self.bases.iter_mut().find(|known| known.from.version() == version)
    }

    /// A session at this version, with its create_revision where it is known.
    #[allow(dead_code, reason = "only adapters name a session by its version alone")]
    pub fn expected_at(&mut self, version: Version) -> Expected {
        let known = self.at(version).map(|known| known.from.expected());
        known.unwrap_or(Expected::At { version, create_revision: None })
    }

    /// How to send `new`. Error: an item that can't be stored.
    pub fn plan_save(&mut self, new: &New<'_, T>, mode: SaveMode, meter: &Meter) -> Result<SaveDecision<T>, String> {
        match mode {
            SaveMode::Blind => {
                let base = self.newest(false).map(|(place, view, _)| (place, view));
                Ok(SaveDecision::Send(from_base(base, None, new, meter)?))
            }
            SaveMode::Expect(expected) => {
                let base = match expected {
                    // Of any version nothing is known.
                    Expected::Absent | Expected::Incarnation { .. } => None,
                    Expected::At { version, .. } => self.at(version).and_then(|known| match known.from {
                        Origin::At(place) => known.view.clone().map(|view| (place, view)),
                        Origin::Absent(_) => None,
                    }),
                };
                Ok(SaveDecision::Send(from_base(base, Some(expected), new, meter)?))
            }
            SaveMode::Turn(version, on_conflict) => self.plan_turn(new, version, on_conflict, meter),
        }
    }

    fn plan_turn(
        &mut self,
        new: &New<'_, T>,
        version: Version,
        on_conflict: OnConflict,
        meter: &Meter,
    ) -> Result<SaveDecision<T>, String> {
        if version == Version(0) && new.items.is_empty() {
            return Ok(SaveDecision::Send(from_base(None, None, new, meter)?));
        }
        let actual = self.bases.iter().map(|known| known.from.version()).max().unwrap_or_default();
        if self.at(version).is_none() {
            if version != Version(0) {
                return Ok(SaveDecision::Conflict { actual });
            }
            // Nobody said that there is no session: it is created only if there is none.
            self.put(Origin::Absent(None), Arc::new(View::empty(meter)), None);
        }
        let token = self.next;
        let Some(known) = self.at(version) else { return Ok(SaveDecision::Conflict { actual }) };
        if known.unsettled.is_some() {
            return Ok(SaveDecision::Conflict { actual });
        }
        let begun = |own: &&LocalSave<T>| own.pending.is_some() && own.view.is_prefix_of(new.items);
        if let Some(pending) = known.saves.iter().find(begun).and_then(|own| own.pending.as_ref()) {
            return Ok(SaveDecision::Wait(pending.subscribe()));
        }
        let continued = |own: &&LocalSave<T>| own.view.len() < new.items.len() && own.view.is_prefix_of(new.items);
        let longest = known.saves.iter().filter(continued).max_by_key(|own| own.view.len());
        let (from, view, exact) = match longest.and_then(|own| own.done.map(|done| (done, own.view.clone()))) {
            Some((SavedAs { at, is_exact }, view)) => (Origin::At(at), Some(view), is_exact),
            None => (known.from, known.view.clone().filter(|_| !known.forgot), true),
        };
        let Some(mut plan) = turn(from, view, exact, on_conflict, new, meter)? else {
            return Ok(SaveDecision::Conflict { actual });
        };
        plan.save = Some(LocalSaveId { base: version, token });
        let own = LocalSave { token, view: plan.view.clone(), done: None, pending: Some(watch::Sender::new(())) };
        known.saves.push(own);
        self.next += 1;
        Ok(SaveDecision::Send(plan))
    }

    /// Records the result of a planned save.
    pub fn record(&mut self, plan: &Plan<T>, result: SaveResult) {
        let done = match result {
            SaveResult::Saved { saved: Saved { content, rebased }, cluster: Some(cluster), first_chunk } => {
                if rebased {
                    tracing::debug!("a turn was rebased");
                }
                // A view that says other than the cluster counts is no content of ours, nor is what was rebased (L12).
                let is_exact = !rebased && content.items == plan.view.len() as u64 || mutant::is(Mutant::CacheAfterRebase);
                Some(SavedAs { at: StoredContent { cluster, content, first_chunk }, is_exact })
            }
            _ => None,
        };
        if let Some(SavedAs { at, is_exact: true }) = done {
            if plan.save.is_none() && plan.from.is_none() && plan.view.len() == 0 {
                // All that was there was replaced, and nothing can be appended to what came before: a value that is saved again and
                // again would fill the cache with what it was.
                self.bases.retain(|known| !known.saves.is_empty() || known.forgot || known.unsettled.is_some());
            }
            self.put(Origin::At(at), plan.view.clone(), None);
        }
        let event = self.next;
        self.next += 1;
        let Some(LocalSaveId { base, token }) = plan.save else { return };
        let Some(known) = self.at(base) else { return };
        if done.is_none() {
            known.saves.retain(|own| own.token != token);
        } else if let Some(own) = known.saves.iter_mut().find(|own| own.token == token) {
            (own.done, own.pending) = (done, None);
        }
        match result {
            SaveResult::Unknown => known.unsettled = Some(event),
            // It happened, and where is not known: nothing may be taken to continue from here.
            SaveResult::Saved { cluster: None, .. } => known.forgot = true,
            SaveResult::Saved { .. } | SaveResult::Nothing => {}
        }
        if known.saves.len() > OWN_MAX
            && let Some(oldest) = known.saves.iter().position(|own| own.pending.is_none())
        {
            known.saves.remove(oldest);
            known.forgot = true;
        }
    }

    /// Drops contents, and keeps some identities.
    pub fn strip(&mut self) {
        let excess = self.bases.len().saturating_sub(STRIPPED_MAX);
        let mut at = 0;
        self.bases.retain(|known| {
            at += 1;
            at > excess || known.saves.iter().any(|own| own.pending.is_some())
        });
        for known in &mut self.bases {
            let before = known.saves.len();
            known.saves.retain(|own| own.pending.is_some());
            known.forgot |= known.saves.len() < before;
            (known.view, known.info) = (None, None);
        }
    }
}

/// A save whose condition does not depend on what is remembered: a base only makes it smaller.
fn from_base<T: Item>(
    base: Option<(StoredContent, Arc<View<T>>)>,
    expected: Option<Expected>,
    new: &New<'_, T>,
    meter: &Meter,
) -> Result<Plan<T>, String> {
    let (from, step) = match base {
        Some((place, view)) => (Some(place), view.step(new, meter)?),
        None => (None, View::empty(meter).step(new, meter)?),
    };
    let Step { view, append } = step;
    // Where everything is new, a delta would be no smaller, and could miss its base.
    let is_smaller = |append: &Append| append.items.len() < view.len() || append.head.is_none();
    let append = append.filter(|append| from.is_some_and(|place| !is_full_of_chunks(&place)) && is_smaller(append));
    let on_conflict = OnConflict::Reject;
    let from = from.map(Origin::At).filter(|_| append.is_some());
    Ok(Plan { view, expected, on_conflict, from, append, replaceable: true, repack: false, save: None })
}

/// A turn that continues from `from`. `None` where that would lose what others stored.
fn turn<T: Item>(
    from: Origin,
    known: Option<Arc<View<T>>>,
    exact: bool,
    on_conflict: OnConflict,
    new: &New<'_, T>,
    meter: &Meter,
) -> Result<Option<Plan<T>>, String> {
    let expected = Some(from.expected());
    let is_compared = known.is_some() && from.cluster().is_some();
    let Step { view, append } = match &known {
        Some(known) => known.step(new, meter)?,
        None => View::empty(meter).step(new, meter)?,
    };
    // A new session has a head, whatever it is.
    let append = append.filter(|_| is_compared).map(|append| match from {
        Origin::Absent(_) => Append { head: Some(new.head.clone()), ..append },
        Origin::At(_) => append,
    });
    let repack = exact && matches!(from, Origin::At(place) if is_full_of_chunks(&place));
    let plan = Plan { view, expected, on_conflict, from: Some(from), append, replaceable: exact, repack, save: None };
    Ok(match plan.append {
        None if !exact => None,
        None => Some(Plan { on_conflict: OnConflict::Reject, repack: false, ..plan }),
        Some(_) => Some(plan),
    })
}

fn is_full_of_chunks(place: &StoredContent) -> bool {
    place.content.next_chunk.saturating_sub(place.first_chunk) >= SESSION_CHUNKS_REPACK
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Counters, Revision};

    const REBASE: OnConflict = OnConflict::Rebase;

    fn items(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    fn place(version: u64, items: u64) -> StoredContent {
        let content = ContentVersion { create_revision: Revision(5), version: Version(version), items, next_chunk: version };
        StoredContent { cluster: ClusterId([1; 16]), content, first_chunk: 0 }
    }

    fn plan_save(session: &mut Session<Bytes>, texts: &[&'static str], mode: SaveMode) -> SaveDecision<Bytes> {
        let items = items(texts);
        let new = New { items: &items, head: Bytes::from_static(b"h"), counters: Counters::default() };
        session.plan_save(&new, mode, &Meter::default()).expect("bytes are always stored")
    }

    fn plan(session: &mut Session<Bytes>, texts: &[&'static str], mode: SaveMode) -> Plan<Bytes> {
        match plan_save(session, texts, mode) {
            SaveDecision::Send(plan) => plan,
            SaveDecision::Wait(_) => panic!("it waits"),
            SaveDecision::Conflict { .. } => panic!("a conflict"),
        }
    }

    fn loaded(version: u64, texts: &[&'static str]) -> Session<Bytes> {
        let mut session = Session::default();
        let view = plan(&mut Session::default(), texts, SaveMode::Blind).view;
        session.learn(place(version, texts.len() as u64), view, None, 1);
        session
    }

    fn saved(version: u64, items: u64, rebased: bool) -> SaveResult {
        let StoredContent { cluster, content, first_chunk } = place(version, items);
        SaveResult::Saved { saved: Saved { content, rebased }, cluster: Some(cluster), first_chunk }
    }

    #[test]
    fn a_turn_whose_base_was_dropped_is_sent_whole_if_the_session_is_exactly_that() {
        let mut session = loaded(3, &["a"]);
        session.strip();
        assert!(session.newest(false).is_none());
        let plan = plan(&mut session, &["a", "b"], SaveMode::Turn(Version(3), REBASE));
        assert_eq!(
            (plan.append, plan.expected, plan.on_conflict),
            (None, Some(place(3, 1).content.expected()), OnConflict::Reject)
        );
    }

    #[test]
    fn a_version_that_is_known_names_the_session_that_had_it() {
        let mut session = loaded(3, &["a"]);
        assert_eq!(session.expected_at(Version(3)), place(3, 1).content.expected());
        assert_eq!(session.expected_at(Version(4)), Expected::At { version: Version(4), create_revision: None });
    }

    /// A second save of a turn whose first is not remembered would append it twice.
    #[test]
    fn after_own_saves_were_dropped_nothing_is_appended_to_their_base() {
        let mut session = loaded(3, &["a"]);
        let first = plan(&mut session, &["a", "b"], SaveMode::Turn(Version(3), REBASE));
        session.record(&first, saved(4, 2, false));
        session.strip();
        let view = plan(&mut Session::default(), &["a"], SaveMode::Blind).view;
        session.put(Origin::At(place(3, 1)), view, None);
        let second = plan(&mut session, &["a", "b", "c"], SaveMode::Turn(Version(3), REBASE));
        assert_eq!((second.append, second.on_conflict), (None, OnConflict::Reject));
    }

    #[test]
    fn what_was_rebased_is_no_content_of_ours_but_the_turn_goes_on_from_it() {
        let mut session = loaded(3, &["a"]);
        let first = plan(&mut session, &["a", "b"], SaveMode::Turn(Version(3), REBASE));
        session.record(&first, saved(5, 3, true));
        assert_eq!(session.newest(false).map(|(place, ..)| place.content.version), Some(Version(3)));
        let second = plan(&mut session, &["a", "b", "c"], SaveMode::Turn(Version(3), REBASE));
        assert_eq!((second.from, second.replaceable), (Some(Origin::At(place(5, 3))), false));
        assert_eq!(second.append.map(|append| append.items), Some(items(&["c"])));
        assert!(matches!(plan_save(&mut session, &["a", "b"], SaveMode::Turn(Version(4), REBASE)), SaveDecision::Conflict { .. }));
    }

    #[test]
    fn a_load_that_began_before_does_not_settle_what_was_lost_after() {
        let mut session = loaded(3, &["a"]);
        let turn = SaveMode::Turn(Version(3), REBASE);
        let lost = plan(&mut session, &["a", "b"], turn);
        let before = session.moment();
        session.record(&lost, SaveResult::Unknown);
        let view = plan(&mut Session::default(), &["a"], SaveMode::Blind).view;
        session.learn(place(3, 1), view.clone(), None, before);
        assert!(matches!(plan_save(&mut session, &["a", "b"], turn), SaveDecision::Conflict { .. }));
        let after = session.moment();
        session.learn(place(3, 1), view, None, after);
        assert!(plan(&mut session, &["a", "b"], turn).append.is_some());
    }

    #[test]
    fn the_same_turn_waits_for_its_first_save_and_another_does_not() {
        let mut session = loaded(3, &["a"]);
        let turn = SaveMode::Turn(Version(3), REBASE);
        let first = plan(&mut session, &["a", "b"], turn);
        assert!(matches!(plan_save(&mut session, &["a", "b", "c"], turn), SaveDecision::Wait(_)));
        assert!(matches!(plan_save(&mut session, &["a", "x"], turn), SaveDecision::Send(_)));
        session.record(&first, SaveResult::Nothing);
        let again = plan(&mut session, &["a", "b", "c"], turn);
        assert_eq!(again.append.map(|append| append.items), Some(items(&["b", "c"])));
    }

    #[test]
    fn the_number_of_bases_and_of_own_saves_is_bounded() {
        let mut session = loaded(1, &["a"]);
        for version in 2..2 * BASES_MAX as u64 {
            let view = plan(&mut Session::default(), &["a"], SaveMode::Blind).view;
            session.learn(place(version, 1), view, None, 1);
        }
        assert_eq!(session.bases.len(), BASES_MAX);
        let newest = Version(2 * BASES_MAX as u64 - 1);
        for version in 0..2 * OWN_MAX as u64 {
            let own = plan(&mut session, &["b"], SaveMode::Turn(newest, REBASE));
            session.record(&own, saved(newest.0 + 1 + version, 9, true));
        }
        let known = session.at(newest).expect("the newest");
        assert_eq!((known.saves.len(), known.forgot), (OWN_MAX, true));
    }
}
