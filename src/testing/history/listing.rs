//! Listings: a client that asks for page after page, and whether a linearizable store can have answered each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Op};
use crate::client::{Client, Error};
use crate::types::{List, SessionId};

/// The prefix of the ids of a history's sessions; the key's number follows.
const PREFIX: &str = "k";

/// A page of a linearizable listing of a history's sessions. Times count from the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// When it was asked for.
    pub asked: Duration,
    /// The id it begins after; empty: from the first.
    pub after: String,
    /// Sessions asked for at most.
    pub limit: usize,
    /// Applied index of the view that answered.
    pub revision: u64,
    /// Each with its version and the index of its last write, in the order of the answer.
    pub sessions: Vec<(String, u64, u64)>,
    /// Whether more follow.
    pub more: bool,
}

/// A client that lists the sessions of a history, page by page and from the start again, and writes down what it was answered.
#[derive(Clone, Debug)]
pub struct Lister {
    client: Client,
    began: Instant,
    limit: usize,
    after: Option<SessionId>,
    pages: Arc<Mutex<Vec<Page>>>,
}

impl Lister {
    /// Lists so many sessions a page. `began` is when the history begins. Clones share what is written down.
    #[must_use]
    pub fn new(client: Client, limit: usize, began: Instant) -> Self {
        Self { client, began, limit, after: None, pages: Arc::default() }
    }

    /// Asks for the next page. Errors: of the client; nothing is written down then, and the same page is asked for again. Cancel safe.
    pub async fn step(&mut self) -> Result<(), Error> {
        let (asked, limit) = (self.began.elapsed(), u32::try_from(self.limit).unwrap_or(u32::MAX));
        let list = List { prefix: PREFIX.to_owned(), after: self.after.clone(), limit, ..List::default() };
        let page = self.client.list(list).await?;
        let after = self.after.take().map_or(String::new(), |id| id.as_str().to_owned());
        self.after = page.sessions.last().filter(|_| page.more).map(|last| last.id.clone());
        let listed =
            |listed: &crate::types::Listed| (listed.id.as_str().to_owned(), listed.info.version.0, listed.info.mod_revision.0);
        let sessions = page.sessions.iter().map(listed).collect();
        let page = Page { asked, after, limit: self.limit, revision: page.revision.0, sessions, more: page.more };
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).push(page);
        Ok(())
    }

    /// The pages so far.
    #[must_use]
    pub fn pages(&self) -> Vec<Page> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A change of a session that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Change {
    revision: u64,
    /// `None`: it was deleted.
    version: Option<u64>,
}

/// The faults of the pages, by the history they were asked for in.
///
/// A page shows the state after the entry it names, which is no older than anything acknowledged before it was asked for.
#[must_use]
pub fn listings(ops: &[Op], pages: &[Page]) -> Vec<String> {
    let known = Known::of(ops);
    pages.iter().flat_map(|page| known.judge(page).into_iter().map(move |wrong| format!("a listing {wrong}: {page:?}"))).collect()
}

struct Known {
    /// Acknowledged changes of each session, by revision.
    changes: BTreeMap<String, Vec<Change>>,
    /// Sessions that may have ended without an acknowledged change.
    may_be_gone: Vec<String>,
    /// The greatest revision that was answered by each time.
    answered: Vec<(Duration, u64)>,
}

impl Known {
    fn of(ops: &[Op]) -> Self {
        let mut changes: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        let mut may_be_gone = Vec::new();
        for op in ops {
            let id = format!("{PREFIX}{}", op.key);
            match op.answer {
                Answer::Written { version, revision } => {
                    let version = (!op.ask.removes()).then_some(version);
                    changes.entry(id.clone()).or_default().push(Change { revision, version });
                }
                Answer::Unknown if op.ask.removes() => may_be_gone.push(id.clone()),
                _ => {}
            }
            if op.expires || op.late {
                may_be_gone.push(id);
            }
        }
        changes.values_mut().for_each(|changes| changes.sort_unstable_by_key(|change| change.revision));
        let mut answered: Vec<_> = ops.iter().filter_map(|op| Some((op.returned, op.answer.revision()?))).collect();
        answered.sort_unstable();
        let mut newest = 0;
        for (_, revision) in &mut answered {
            newest = newest.max(*revision);
            *revision = newest;
        }
        Self { changes, may_be_gone, answered }
    }

    fn judge(&self, page: &Page) -> Vec<String> {
        let mut wrong = Vec::new();
        let before = self.answered.partition_point(|(returned, _)| *returned < page.asked);
        let acknowledged = before.checked_sub(1).map_or(0, |last| self.answered[last].1);
        if page.revision < acknowledged {
            wrong.push(format!("is stale: {acknowledged} was acknowledged before it was asked for"));
        }
        let ids: Vec<&str> = page.sessions.iter().map(|(id, ..)| id.as_str()).collect();
        let is_in_order =
            ids.windows(2).all(|pair| pair[0] < pair[1]) && ids.first().is_none_or(|first| *first > page.after.as_str());
        if !is_in_order || ids.len() > page.limit || (page.more && ids.len() < page.limit) {
            wrong.push("is out of order or bounds".to_owned());
        }
        for (id, version, modified) in &page.sessions {
            if *modified > page.revision {
                wrong.push(format!("shows {id} of a later entry"));
            }
            let last = self.last(id, page.revision);
            // What stands in between was of unknown outcome.
            let is_right = match last {
                None => true,
                Some(Change { revision, version: Some(written) }) => {
                    (modified == &revision && *version == written) || (*modified > revision && *version > written)
                }
                Some(Change { revision, version: None }) => *modified > revision,
            };
            if !is_right {
                wrong.push(format!("shows {id} not as it was after {last:?}"));
            }
        }
        let until = ids.last().filter(|_| page.more);
        let is_meant = |id: &str| id > page.after.as_str() && until.is_none_or(|until| id <= *until);
        for id in self.changes.keys().filter(|id| is_meant(id) && !ids.contains(&id.as_str()) && !self.may_be_gone.contains(id)) {
            if let Some(change @ Change { version: Some(_), .. }) = self.last(id, page.revision) {
                wrong.push(format!("leaves out {id}, which was there after {change:?}"));
            }
        }
        wrong
    }

    /// The last acknowledged change of a session up to an entry.
    fn last(&self, id: &str, revision: u64) -> Option<Change> {
        let changes = self.changes.get(id)?;
        let behind = changes.partition_point(|change| change.revision <= revision);
        behind.checked_sub(1).map(|last| changes[last])
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ask;
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Acknowledged at `ms`.
    fn done(at: u64, key: usize, ask: Ask, version: u64, revision: u64) -> Op {
        Op { answer: Answer::Written { version, revision }, returned: ms(at), ..Op::invoke(0, key, ask, ms(at - 5)) }
    }

    fn page(asked: u64, revision: u64, sessions: &[(&str, u64, u64)]) -> Page {
        let sessions = sessions.iter().map(|(id, version, modified)| ((*id).to_owned(), *version, *modified)).collect();
        Page { asked: ms(asked), after: String::new(), limit: 2, revision, sessions, more: false }
    }

    /// k1 at 10 and 20; k2 at 12, deleted at 22.
    fn history() -> Vec<Op> {
        let save = |value| Ask::Save { value };
        vec![done(10, 1, save(1), 1, 10), done(12, 2, save(2), 1, 12), done(20, 1, save(3), 2, 20), done(22, 2, Ask::Delete, 2, 22)]
    }

    fn wrong(ops: &[Op], page: Page, words: &str) {
        let found = listings(ops, &[page]).join("\n");
        assert!(found.contains(words), "{words}: {found}");
    }

    #[test]
    fn pages_of_any_instant_after_what_was_acknowledged_are_right() {
        let right = [
            page(11, 12, &[("k1", 1, 10), ("k2", 1, 12)]),
            page(11, 21, &[("k1", 2, 20), ("k2", 1, 12)]),
            page(30, 25, &[("k1", 2, 20)]),
            Page { limit: 1, more: true, ..page(13, 13, &[("k1", 1, 10)]) },
            Page { after: "k1".to_owned(), ..page(13, 13, &[("k2", 1, 12)]) },
        ];
        assert_eq!(listings(&history(), &right), [""; 0]);
    }

    #[test]
    fn each_lie_of_a_page_is_found() {
        wrong(&history(), page(21, 19, &[("k1", 1, 10), ("k2", 1, 12)]), "is stale");
        wrong(&history(), page(23, 22, &[("k1", 1, 10)]), "not as it was");
        wrong(&history(), page(23, 22, &[("k1", 2, 20), ("k2", 1, 12)]), "not as it was");
        wrong(&history(), page(13, 15, &[("k2", 1, 12)]), "leaves out k1");
        wrong(&history(), page(13, 15, &[("k2", 1, 12), ("k1", 1, 10)]), "out of order");
        wrong(&history(), page(13, 15, &[("k1", 1, 10), ("k2", 2, 16)]), "of a later entry");
        wrong(&history(), Page { more: true, ..page(13, 15, &[("k1", 1, 10)]) }, "out of order or bounds");
    }

    #[test]
    fn what_nobody_knows_is_no_lie() {
        let mut ops = history();
        ops.push(Op { returned: ms(40), ..Op::invoke(0, 1, Ask::Delete, ms(30)) });
        ops.push(Op { returned: ms(40), ..Op::invoke(0, 2, Ask::Save { value: 9 }, ms(30)) });
        assert_eq!(listings(&ops, &[page(41, 50, &[]), page(41, 50, &[("k1", 2, 20), ("k2", 3, 31)])]), [""; 0]);
    }
}
