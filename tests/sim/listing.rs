//! Clients that list, page by page. What a page shows is what the committed log makes of it at the page's revision, exactly; and that
//! revision is no older than what was acknowledged before the page was asked for, and no newer than what any node had applied when it came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::client::{List, Order, SessionId};
use quorate::env::Clock as _;
use quorate::testing::history::{Committed, Op};
use quorate::testing::inline::SeededRandom;
use quorate::types::Consistency;

use super::audit::Audit;
use super::coverage::sometimes;
use super::eras::Eras;
use super::node::HostClock;
use super::workload::{Connect, Phase, Shared, id_of, key_of};

/// Pages of one listing at most: others save meanwhile, but no key comes twice.
const PAGES_MAX: u32 = 100;

/// A page, as its caller knows it.
#[derive(Clone, Debug)]
pub struct Page {
    asked: Duration,
    returned: Duration,
    prefix: String,
    after: String,
    limit: u32,
    revision: u64,
    /// Ids and versions.
    sessions: Vec<(String, u64)>,
    more: bool,
    /// The last entry that any node had applied when the page came.
    newest: u64,
}

/// One client.
pub struct Lister {
    pub connect: Connect,
    pub shared: Arc<Mutex<Shared>>,
    pub audit: Arc<Mutex<Audit>>,
    pub pages: Arc<Mutex<Vec<Page>>>,
    pub random: SeededRandom,
    pub think_ms: u64,
}

impl Lister {
    /// Works until the scan.
    pub async fn run(self) {
        let clock = HostClock::default();
        let mut client = self.connect.client(&self.random);
        loop {
            let prefix = ["", "k", "k", "k", "k1", "s"][self.random.below(6) as usize].to_owned();
            let limit = 1 + self.random.below(4) as u32;
            let mut list = List { prefix, after: None, limit, consistency: Consistency::Linearizable, order: Order::Ids };
            for count in 1..=PAGES_MAX {
                if self.shared.lock().expect("no client panics with it").phase >= Phase::Scan {
                    return;
                }
                let asked = clock.now();
                let Ok(page) = client.list(list.clone()).await else { break };
                let after = list.after.as_ref().map_or("", SessionId::as_str).to_owned();
                let sessions = page.sessions.iter().map(|listed| (listed.id.as_str().to_owned(), listed.info.version.0)).collect();
                self.pages.lock().expect("no client panics with it").push(Page {
                    asked,
                    returned: clock.now(),
                    prefix: list.prefix.clone(),
                    after,
                    limit,
                    revision: page.revision.0,
                    sessions,
                    more: page.more,
                    newest: self.audit.lock().expect("no host panics with it").newest(),
                });
                if count == 2 {
                    sometimes("listing of several pages");
                }
                list.after = page.sessions.last().map(|listed| listed.id.clone());
                if !page.more || list.after.is_none() {
                    break;
                }
                if self.random.below(4) == 0 {
                    tokio::time::sleep(Duration::from_millis(self.random.below(self.think_ms + 1))).await;
                }
            }
            if self.random.below(50) == 0 {
                client = self.connect.client(&self.random);
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(2 * self.think_ms + 1))).await;
        }
    }
}

/// The sessions of single values, as the committed log has them: by id, at each revision the version there is, if there is one.
struct Log(BTreeMap<String, Vec<(u64, Option<u64>)>>);

impl Log {
    fn new(committed: &[Committed]) -> Self {
        let mut sessions: BTreeMap<String, Vec<(u64, Option<u64>)>> = BTreeMap::new();
        for entry in committed {
            sessions.entry(id_of(entry.key)).or_default().push((entry.revision, entry.value.map(|_| entry.version)));
        }
        Self(sessions)
    }

    /// What is there at a page's revision, of what the page is to show.
    fn shown(&self, page: &Page) -> Vec<(String, u64)> {
        let until = page.sessions.last().filter(|_| page.more).map(|(id, _)| id.as_str());
        let is_meant = |id: &str| id.starts_with(&page.prefix) && *id > *page.after && until.is_none_or(|until| id <= until);
        let version = |changes: &Vec<(u64, Option<u64>)>| {
            let behind = changes.partition_point(|(revision, _)| *revision <= page.revision);
            behind.checked_sub(1).and_then(|last| changes[last].1)
        };
        let of_key = |(id, changes): (&String, &Vec<(u64, Option<u64>)>)| Some((id.clone(), version(changes)?));
        self.0.iter().filter(|(id, _)| is_meant(id)).filter_map(of_key).collect()
    }
}

/// Judges every page; `log` is the committed log, if it is known whole, with versions counted on.
pub fn judge(pages: &[Page], history: &[Op], log: Option<&[Committed]>, eras: &Eras) -> Vec<String> {
    let mut known: Vec<(Duration, u64)> = history.iter().filter_map(|op| Some((op.returned, op.answer.revision()?))).collect();
    known.extend(pages.iter().map(|page| (page.returned, page.revision)));
    known.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut known {
        newest = newest.max(*revision);
        *revision = newest;
    }
    let log = log.map(Log::new);
    let mut wrong = Vec::new();
    for page in pages {
        let before = known.partition_point(|(returned, _)| *returned < page.asked);
        let acknowledged = before.checked_sub(1).map_or(0, |last| known[last].1);
        if page.revision < acknowledged {
            wrong.push(format!("a listing is stale: {acknowledged} was acknowledged before it began: {page:?}"));
        }
        if page.revision > page.newest {
            wrong.push(format!("a listing shows what nobody applied: {page:?}"));
        }
        let is_short = page.sessions.len() < page.limit as usize;
        if !page.sessions.is_sorted() || page.sessions.len() > page.limit as usize || (page.more && is_short) {
            wrong.push(format!("a page is out of order or bounds: {page:?}"));
        }
        let counted = |(id, version): &(String, u64)| Some((id.clone(), eras.before(key_of(id)?, page.revision) + version));
        let shown: Vec<_> = page.sessions.iter().filter_map(counted).collect();
        if let Some(log) = &log {
            sometimes("listing checked");
            let stored = log.shown(page);
            if stored != shown {
                wrong.push(format!("a listing shows what is not there, or not what is: there was {stored:?}: {page:?}"));
            }
        }
    }
    wrong
}

/// What is wrong with a page, after a history in which k0, k1 and k2 were saved, k0 once more, and k1 deleted.
#[cfg(test)]
fn judged(change: impl FnOnce(&mut Page)) -> Vec<String> {
    use quorate::testing::history::{Answer, Ask};
    let at = Duration::from_millis;
    let saved = |key, revision, version, value| Committed { key, version, revision, value, request: None, is_expiry: false };
    let log =
        [saved(0, 5, 1, Some(1)), saved(1, 6, 1, Some(2)), saved(2, 7, 1, Some(3)), saved(0, 8, 2, Some(4)), saved(1, 9, 2, None)];
    let acknowledged = |version, revision, from, until| Op {
        answer: Answer::Written { version, revision },
        returned: at(until),
        ..Op::invoke(0, 0, Ask::Save { value: revision }, at(from))
    };
    let history = [acknowledged(1, 5, 10, 20), acknowledged(2, 8, 50, 60)];
    let ids = |ids: &[(&str, u64)]| ids.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect();
    let mut page = Page {
        asked: at(40),
        returned: at(45),
        prefix: String::new(),
        after: String::new(),
        limit: 2,
        revision: 7,
        // Others than single values are not known one by one.
        sessions: ids(&[("k0", 1), ("k1", 1)]),
        more: true,
        newest: 7,
    };
    change(&mut page);
    judge(&[page], &history, Some(&log), &Eras::default())
}

#[test]
fn a_page_shows_what_the_log_has_at_its_revision_and_is_no_older_than_what_was_acknowledged() {
    let ids = |ids: &[(&str, u64)]| ids.iter().map(|(id, version)| ((*id).to_owned(), *version)).collect::<Vec<_>>();
    let right = |change: &dyn Fn(&mut Page)| assert_eq!(judged(change), Vec::<String>::new());
    let wrong = |say: &str, change: &dyn Fn(&mut Page)| {
        let found = judged(change);
        assert!(found.iter().any(|found| found.contains(say)), "{say}: {found:?}");
    };
    right(&|_| {});
    right(&|page| (page.revision, page.sessions) = (6, ids(&[("k0", 1), ("k1", 1)])));
    right(&|page| (page.limit, page.more, page.sessions) = (9, false, ids(&[("k0", 1), ("k1", 1), ("k2", 1), ("shared0", 4)])));
    right(&|page| (page.after, page.more, page.sessions) = ("k1".to_owned(), false, ids(&[("k2", 1)])));
    right(&|page| (page.revision, page.newest, page.more, page.sessions) = (9, 9, false, ids(&[("k0", 2), ("k2", 1)])));
    right(&|page| (page.prefix, page.more, page.sessions) = ("k1".to_owned(), false, ids(&[("k1", 1)])));
    right(&|page| (page.prefix, page.more, page.sessions) = ("s".to_owned(), false, Vec::new()));
    let not_there = "shows what is not there, or not what is";
    wrong(not_there, &|page| page.sessions = ids(&[("k0", 1), ("k2", 1)]));
    wrong(not_there, &|page| page.sessions = ids(&[("k0", 2), ("k1", 1)]));
    wrong(not_there, &|page| (page.more, page.sessions) = (false, ids(&[("k0", 1), ("k1", 1)])));
    wrong(not_there, &|page| (page.revision, page.newest, page.more) = (9, 9, false));
    wrong(not_there, &|page| (page.after, page.more, page.sessions) = ("k1".to_owned(), false, Vec::new()));
    wrong("a listing is stale", &|page| (page.revision, page.more, page.sessions) = (4, false, Vec::new()));
    wrong("a listing is stale", &|page| page.asked = Duration::from_millis(61));
    wrong("what nobody applied", &|page| page.newest = 6);
    wrong("out of order or bounds", &|page| page.limit = 1);
    wrong("out of order or bounds", &|page| page.limit = 3);
    wrong("out of order or bounds", &|page| page.sessions.reverse());
}
