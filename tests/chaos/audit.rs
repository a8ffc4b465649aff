//! The audit of attempts with real processes: nodes write down what they apply, clients trace what they send and how it was refused. An
//! attempt that was refused with "nothing changed" has no entry in the committed log, ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::sim::attempts;

static BEGUN: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Attempts of writes, and those refused as nothing.
    pub begun: u64,
    /// See `begun`.
    pub refused: u64,
    /// Refused ones that were compared with every entry: none, if entries are missing that one of them could have made.
    pub judged: u64,
    /// The last entry that some node applied, and those before it that none wrote down.
    pub last: u64,
    /// See `last`.
    pub missing: u64,
    /// What is wrong.
    pub wrong: Vec<String>,
}

impl Audited {
    /// In one line.
    pub fn line(&self) -> String {
        let Self { begun, refused, judged, last, missing, .. } = self;
        format!("attempts={begun} refused_attempts={refused} judged={judged} entries=1..{last} missing_entries={missing}")
    }
}

struct Listener;

#[derive(Default)]
struct Fields {
    message: String,
    client: u64,
    sequence: u64,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "client" => self.client = value,
            "sequence" => self.sequence = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        match fields.message.as_str() {
            "an attempt of a write begins" => {
                BEGUN.fetch_add(1, Ordering::Relaxed);
                attempts::begun((fields.client, fields.sequence));
            }
            "an attempt of a write was refused" => {
                REFUSED.fetch_add(1, Ordering::Relaxed);
                attempts::refused((fields.client, fields.sequence));
            }
            "the cluster forgot this client, another is opened" => attempts::forgotten(fields.client),
            _ => {}
        }
    }
}

/// From now on what clients of this process send is known. All of them must belong to one cluster.
pub fn listen() {
    let listener = Listener.with_filter(Targets::new().with_target("quorate::client", Level::TRACE));
    // A second run of this process has it already.
    let _ = tracing_subscriber::registry().with(listener).try_init();
}

/// What nodes wrote down, one text for each.
#[derive(Default)]
struct Written {
    /// By index: client and sequence, 0 without one.
    entries: BTreeMap<u64, (u64, u64)>,
    unknown: BTreeSet<u64>,
    wrong: Vec<String>,
}

impl Written {
    fn read(texts: &[String]) -> Self {
        let mut written = Self::default();
        for (node, line) in texts.iter().enumerate().flat_map(|(at, text)| text.lines().map(move |line| (at + 1, line))) {
            let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
            let [index, client, sequence, is_unknown] = numbers[..] else {
                written.wrong.push(format!("node {node} wrote down what is no entry: {line:?}"));
                continue;
            };
            let first = *written.entries.entry(index).or_insert((client, sequence));
            if first != (client, sequence) {
                written
                    .wrong
                    .push(format!("node {node} applied another entry at index {index}: {:?}, not {first:?}", (client, sequence)));
            }
            if is_unknown == 1 {
                written.unknown.insert(client);
            }
        }
        written
    }

    fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(last, _)| *last)
    }

    /// Entries up to the last that nobody wrote down.
    fn missing(&self) -> u64 {
        self.last() - self.entries.range(1..).count() as u64
    }

    fn by_request(&self) -> BTreeMap<attempts::Request, Vec<u64>> {
        let mut by_request: BTreeMap<attempts::Request, Vec<u64>> = BTreeMap::new();
        for (index, request) in self.entries.iter().filter(|(_, (_, sequence))| *sequence > 0) {
            by_request.entry(*request).or_default().push(*index);
        }
        by_request
    }
}

/// Judges what was sent by what nodes wrote down.
pub fn judge(texts: &[String]) -> Audited {
    let written = Written::read(texts);
    let (begun, refused) = (BEGUN.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
    let (last, missing) = (written.last(), written.missing());
    let judged = if missing == 0 { refused } else { 0 };
    let mut wrong = attempts::judge(&written.by_request());
    if missing == 0 {
        wrong.extend(attempts::judge_forgotten(&written.unknown));
    }
    wrong.extend(written.wrong);
    Audited { begun, refused, judged, last, missing, wrong }
}

#[test]
fn what_nodes_wrote_down_is_read_whole_compared_and_its_gaps_are_counted() {
    let read = |texts: &[&str]| Written::read(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let whole = read(&["1 0 0 0\n2 1 0 0\n3 1 7 0\n", "3 1 7 0\n4 1 7 0\n5 9 2 1\n3 1 7 0\n"]);
    assert_eq!((whole.last(), whole.missing(), whole.wrong.len()), (5, 0, 0));
    assert_eq!(whole.by_request(), BTreeMap::from([((1, 7), vec![3, 4]), ((9, 2), vec![5])]));
    assert_eq!(whole.unknown, BTreeSet::from([9]));
    let other = read(&["1 0 0 0\n2 1 3 0\n", "2 1 4 0\n5 0 0 0\n"]);
    assert_eq!((other.missing(), other.wrong.len()), (2, 1));
    assert_eq!(read(&["1 0 0 0\n2 1"]).wrong.len(), 1);
    assert_eq!((read(&[""]).last(), read(&[]).missing()), (0, 0));
}
