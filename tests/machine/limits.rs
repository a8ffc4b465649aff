//! Bounds that are too large to reach, with smaller rules; and one sweep's bounds.

use std::time::Duration;

use quorate::limits::LEASE_TTL_MIN;
use quorate::machine::{Command, Machine, Rules, rules};
use quorate::types::{
    Aborted, Attributes, Base, Change, ClientId, Counters, Expected, Expiry, Holder, Label, LeaseTtl, Operation, Operations,
    SessionId, Swept, TooLarge, Verdict, Version, Write,
};

use crate::machine::lab::{Lab, blob, chunk, id, nonce, request};

fn lab(change: impl FnOnce(&mut Rules)) -> Lab {
    let mut small = *rules(1).expect("version 1");
    change(&mut small);
    let mut lab = Lab::new();
    lab.machine = Machine::with_rules(Box::leak(Box::new(small)));
    lab
}

fn save(client: ClientId, sequence: u64, session: &SessionId, chunks: u64, expiry: Expiry) -> Write {
    let chunks = (0..chunks).map(|_| chunk(1, "c")).collect();
    let change = Change::Full { chunks, head: blob("h"), counters: Counters::default() };
    Write::Save { request: request(client, 1, sequence, 0), id: session.clone(), change, attributes: expiry.into(), fence: None }
}

fn delete(client: ClientId, sequence: u64, session: &SessionId) -> Write {
    Write::Delete { request: request(client, 1, sequence, 0), id: session.clone(), expected: None, fence: None }
}

#[test]
fn a_creation_above_the_bound_on_sessions_is_refused_and_everything_else_goes_on() {
    let mut lab = lab(|rules| rules.sessions_max = 2);
    let client = lab.open(1000, 1);
    for (sequence, name) in [(1, "a"), (2, "b")] {
        let outcome = lab.write(1000, save(client, sequence, &id(name), 0, Expiry::Keep));
        assert!(matches!(outcome.verdict, Verdict::Saved(_)), "{outcome:?}");
    }
    assert_eq!(lab.write(1000, save(client, 3, &id("c"), 0, Expiry::Keep)).verdict, Verdict::TooManySessions);
    assert!(matches!(lab.write(1000, save(client, 4, &id("a"), 0, Expiry::Keep)).verdict, Verdict::Saved(_)));
    assert_eq!(lab.write(1000, delete(client, 5, &id("a"))).verdict, Verdict::Deleted { version: Version(3) });
    assert_eq!(lab.write(1000, save(client, 6, &id("c"), 0, Expiry::Keep)).verdict, Verdict::TooManySessions, "a tombstone counts");
    assert!(
        matches!(lab.write(1000, save(client, 7, &id("a"), 0, Expiry::Keep)).verdict, Verdict::Saved(_)),
        "it replaces its own"
    );
    assert_eq!(lab.write(1000, save(client, 3, &id("c"), 0, Expiry::Keep)).verdict, Verdict::TooManySessions, "it is an answer");
    lab.check_content();
}

#[test]
fn metadata_bytes_bound_creations_by_the_fixed_formula() {
    let mut lab = lab(|rules| rules.metadata_bytes_max = 2 * 384 + 5);
    let client = lab.open(1000, 1);
    assert!(matches!(lab.write(1000, save(client, 1, &id("abc"), 0, Expiry::Keep)).verdict, Verdict::Saved(_)));
    assert_eq!(lab.write(1000, save(client, 2, &id("def"), 0, Expiry::Keep)).verdict, Verdict::TooManySessions);
    assert!(matches!(lab.write(1000, save(client, 3, &id("de"), 0, Expiry::Keep)).verdict, Verdict::Saved(_)));
    assert_eq!(lab.machine.counts().metadata_bytes, 2 * 384 + 5);
}

/// A label counts as an id does: of what is there, a longer one is refused where there is no room, and nothing else is.
#[test]
fn labels_count_against_the_bound_on_metadata() {
    let small = Rules { metadata_bytes_max: 2 * 384 + 10, ..*rules(1).expect("version 1") };
    let mut lab = Lab::quick();
    lab.machine = Machine::with_rules(Box::leak(Box::new(small)));
    let client = lab.open(1000, 1);
    let mut sequence = 0;
    let mut labelled = |lab: &mut Lab, name: &str, label: Option<&str>| {
        sequence += 1;
        let change = Change::Full { chunks: Vec::new(), head: blob("h"), counters: Counters::default() };
        let label = label.map(|label| Label::new(label).expect("short"));
        let attributes = Attributes { label, ..Attributes::default() };
        let outcome = lab
            .write(1000, Write::Save { request: request(client, 1, sequence, 0), id: id(name), change, attributes, fence: None });
        lab.machine.check().expect("invariants");
        matches!(outcome.verdict, Verdict::Saved(_))
    };
    assert!(labelled(&mut lab, "a", Some("12345")));
    assert_eq!(lab.machine.counts().metadata_bytes, 384 + 6);
    assert!(!labelled(&mut lab, "b", Some("1234")), "a creation with a label");
    assert!(labelled(&mut lab, "b", Some("123")));
    assert!(!labelled(&mut lab, "b", Some("1234")), "a longer one");
    assert!(labelled(&mut lab, "b", None) && labelled(&mut lab, "b", Some("321")), "what takes no more room");
    assert!(labelled(&mut lab, "a", Some("")) && labelled(&mut lab, "b", Some("12345678")), "one that went made room");
    assert_eq!(lab.machine.counts().metadata_bytes, 2 * 384 + 10);
    let request = request(client, 1, 100, 0);
    lab.write(1000, Write::Delete { request, id: id("b"), expected: None, fence: None });
    lab.machine.check().expect("invariants");
    assert_eq!(lab.machine.counts().metadata_bytes, 2 * 384 + 2, "a tombstone has none");
    assert!(!labelled(&mut lab, "b", Some("123456789")), "in the place of a tombstone");
    assert!(labelled(&mut lab, "b", Some("12345678")));
}

/// Leases have a bound of their own: each counts a fixed number of bytes, its id and its holder, until it is released or swept.
#[test]
fn a_lease_above_their_bound_is_refused_and_everything_else_goes_on() {
    let mut lab = Lab::quick();
    let small = Rules { leases_bytes_max: 2 * 256 + 8, ..*rules(1).expect("version 1") };
    lab.machine = Machine::with_rules(Box::leak(Box::new(small)));
    let client = lab.open(1000, 1);
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        request(client, 1, sequence, 0)
    };
    let ttl = LeaseTtl::new(LEASE_TTL_MIN).expect("within");
    let mut take = |lab: &mut Lab, at, name: &str, holder: &str| {
        let holder = Holder::new(holder).expect("short");
        let outcome = lab.write(at, Write::AcquireLease { request: next(), id: id(name), holder, ttl, steal: true });
        lab.machine.check().expect("invariants");
        match outcome.verdict {
            Verdict::LeaseGranted { fence, .. } => Some(fence),
            Verdict::TooManyLeases => None,
            other => panic!("{other:?}"),
        }
    };
    assert!(take(&mut lab, 1000, "a", "123").is_some());
    assert!(take(&mut lab, 1000, "b", "1234").is_none(), "a byte too many");
    let fence = take(&mut lab, 1000, "b", "123").expect("there is room");
    assert!(take(&mut lab, 1000, "a", "1234").is_none(), "a longer holder");
    assert!(take(&mut lab, 1000, "a", "321").is_some() && take(&mut lab, 1000, "a", "").is_some(), "its own place is free for it");
    assert!(take(&mut lab, 1000, "b", "123456").is_some(), "one that went made room");
    assert!(take(&mut lab, 6000, "c", "").is_none(), "what has ended counts until it is swept");
    assert_eq!(lab.apply(6000, Command::Sweep { limit: 9 }).verdict, Verdict::Swept(Swept { leases: 2, ..Swept::default() }));
    let fence = take(&mut lab, 6000, "c", "").filter(|newer| *newer > fence).expect("there is room, and it grows");
    let release = Write::ReleaseLease { request: request(client, 1, 100, 0), id: id("c"), fence };
    assert_eq!(lab.write(6000, release).verdict, Verdict::LeaseReleased);
    assert_eq!(lab.machine.counts().leases, 0);
}

#[test]
fn a_full_client_table_refuses_new_clients_and_keeps_the_old_ones() {
    let mut lab = lab(|rules| rules.clients_max = 1);
    let client = lab.open(1000, 1);
    assert_eq!(lab.write(1000, Write::OpenClient { nonce: nonce(2) }).verdict, Verdict::TooManyClients);
    assert_eq!(lab.open(1000, 1), client);
}

#[test]
fn a_full_table_of_outcomes_answers_busy_and_records_nothing() {
    let mut lab = lab(|rules| rules.outcomes_max = 2);
    let client = lab.open(1000, 1);
    let first = lab.write(1000, save(client, 1, &id("a"), 0, Expiry::Keep));
    lab.write(1000, save(client, 2, &id("a"), 0, Expiry::Keep));
    assert_eq!(lab.write(1000, save(client, 3, &id("a"), 0, Expiry::Keep)).verdict, Verdict::Busy);
    assert_eq!(lab.write(1000, save(client, 1, &id("a"), 0, Expiry::Keep)), first, "answers stay");
    let closing = Write::KeepAlive { client, nonce: nonce(1), acknowledged_below: request(client, 1, 2, 0).sequence };
    assert_eq!(lab.write(1000, closing).verdict, Verdict::ClientKept);
    let Verdict::Saved(saved) = lab.write(1000, save(client, 3, &id("a"), 0, Expiry::Keep)).verdict else {
        panic!("there is room again");
    };
    assert_eq!(saved.content.version, Version(3), "the busy one was not executed");
}

/// A lab of version 2 with smaller rules.
fn later_lab(change: impl FnOnce(&mut Rules)) -> Lab {
    quorate::machine::allow_test_version();
    let mut small = *rules(2).expect("allowed above");
    change(&mut small);
    let mut lab = Lab::new();
    lab.machine = Machine::with_rules(Box::leak(Box::new(small)));
    lab
}

fn transaction(client: ClientId, sequence: u64, writes: impl IntoIterator<Item = Write>) -> Write {
    let operations = writes.into_iter().map(|write| Operation::of(write).expect("an operation")).collect();
    Write::Transaction { request: request(client, 1, sequence, 0), operations: Operations::new(operations).expect("few") }
}

fn aborted(index: u32, verdict: Verdict) -> Verdict {
    Verdict::Aborted(Aborted { index, verdict: Box::new(verdict) })
}

#[test]
fn new_sessions_of_a_transaction_count_together_and_so_do_their_metadata() {
    let create = |client, sequence, names: &[&str]| {
        transaction(client, sequence, names.iter().map(|name| save(client, sequence, &id(name), 0, Expiry::Keep)))
    };
    let mut lab = later_lab(|rules| rules.sessions_max = 3);
    let client = lab.open(1000, 1);
    lab.write(1000, save(client, 1, &id("a"), 0, Expiry::Keep));
    let answer = lab.write(1000, create(client, 2, &["a", "b", "c", "d"]));
    assert_eq!(answer.verdict, aborted(3, Verdict::TooManySessions), "the one that is there takes no room");
    assert_eq!(lab.machine.counts().sessions, 1, "nothing of it is stored");
    assert!(matches!(lab.write(1000, create(client, 3, &["a", "b", "c"])).verdict, Verdict::Transacted(_)));
    let mut lab = later_lab(|rules| rules.metadata_bytes_max = 2 * 384 + 5);
    let client = lab.open(1000, 1);
    assert_eq!(lab.write(1000, create(client, 1, &["abc", "def"])).verdict, aborted(1, Verdict::TooManySessions));
    assert!(matches!(lab.write(1000, create(client, 2, &["abc", "de"])).verdict, Verdict::Transacted(_)));
    lab.check_content();
}

#[test]
fn a_transaction_drops_no_more_rows_than_a_sweep() {
    let mut lab = later_lab(|rules| rules.sweep_rows_max = 12);
    let client = lab.open(1000, 1);
    for (sequence, name) in [(1, "a"), (2, "b"), (3, "c")] {
        lab.write(1000, save(client, sequence, &id(name), 4, Expiry::Keep));
    }
    // A delete drops 4 chunks and 3 rows more, a full change the chunks and perhaps the head.
    let mixed = |sequence| transaction(client, sequence, [save(client, 1, &id("a"), 1, Expiry::Keep), delete(client, 1, &id("b"))]);
    let both = transaction(client, 4, [delete(client, 1, &id("a")), delete(client, 1, &id("b"))]);
    let too_large = Verdict::TooLarge(TooLarge::Rows { now: 14, limit: 12 });
    assert_eq!(lab.write(1000, both).verdict, aborted(1, too_large));
    assert_eq!(lab.machine.counts().tombstones, 0);
    assert!(matches!(lab.write(1000, mixed(5)).verdict, Verdict::Transacted(_)));
    lab.rebuild();
    lab.check_content();
}

#[test]
fn the_bytes_of_a_transaction_count_together() {
    let mut lab = later_lab(|rules| rules.write_bytes_max = 10);
    let client = lab.open(1000, 1);
    let of =
        |sequence, chunks| transaction(client, sequence, ["a", "b"].map(|name| save(client, 1, &id(name), chunks, Expiry::Keep)));
    // Each has a byte for every chunk and one for its head.
    let too_large = Verdict::TooLarge(TooLarge::Write { now: 12, limit: 10 });
    assert_eq!(lab.write(1000, of(1, 5)).verdict, aborted(1, too_large));
    assert!(matches!(lab.write(1000, of(2, 4)).verdict, Verdict::Transacted(_)));
}

/// Sixteen of the largest fill a client's table; what was answered is answered again, and an acknowledgement makes room.
#[test]
fn the_outcome_of_a_transaction_counts_for_each_of_its_operations() {
    let mut lab = later_lab(|rules| rules.outcomes_max = 1040);
    let client = lab.open(1000, 1);
    let largest = |client, sequence, below| {
        let operations =
            (0..64).map(|n| Operation::Require { id: id(&format!("s{n}")), expected: Some(Expected::Absent), fence: None });
        let operations = Operations::new(operations.collect()).expect("64");
        Write::Transaction { request: request(client, 1, sequence, below), operations }
    };
    let first = lab.write(1000, largest(client, 1, 0));
    for sequence in 2..=16 {
        assert!(matches!(lab.write(1000, largest(client, sequence, 0)).verdict, Verdict::Transacted(_)));
    }
    assert_eq!(lab.machine.counts().outcomes, 1024);
    assert_eq!(lab.write(1000, save(client, 17, &id("a"), 0, Expiry::Keep)).verdict, Verdict::Busy, "of the client's");
    assert_eq!(lab.write(1000, largest(client, 1, 0)), first);
    let other = lab.open(1000, 2);
    let of_other = |write: Write| {
        let Write::Transaction { operations, .. } = write else { panic!("a transaction") };
        Write::Transaction { request: request(other, 2, 1, 0), operations }
    };
    assert_eq!(lab.write(1000, of_other(largest(client, 1, 0))).verdict, Verdict::Busy, "of all");
    assert!(matches!(lab.write(1000, largest(client, 17, 2)).verdict, Verdict::Transacted(_)), "the first is acknowledged");
    assert_eq!(lab.machine.counts().outcomes, 1024);
    lab.write(1000, Write::CloseClient { client, nonce: nonce(1) });
    assert_eq!(lab.machine.counts().outcomes, 0);
    assert!(matches!(lab.write(1000, of_other(largest(client, 1, 0))).verdict, Verdict::Transacted(_)));
    lab.rebuild();
    assert_eq!(lab.machine.counts().outcomes, 64);
}

#[test]
fn a_sweep_stops_at_its_rows_and_the_next_one_goes_on() {
    let mut lab = lab(|rules| rules.sweep_rows_max = 10);
    let client = lab.open(1000, 1);
    for (sequence, name) in [(1, "a"), (2, "b")] {
        lab.write(1000, save(client, sequence, &id(name), 4, Expiry::After(Duration::from_millis(10))));
    }
    // Each has 4 chunks and 3 rows more.
    let one = Verdict::Swept(Swept { sessions: 1, ..Swept::default() });
    assert_eq!(lab.apply(1010, Command::Sweep { limit: 100 }).verdict, one);
    assert_eq!(lab.machine.due_at_ms(), Some(1010));
    assert_eq!(lab.apply(1010, Command::Sweep { limit: 100 }).verdict, one);
    assert_eq!(lab.apply(1010, Command::Sweep { limit: 100 }).verdict, Verdict::Swept(Swept::default()));
    lab.check_content();
}

#[test]
fn a_sweep_drops_no_more_records_than_the_rules_allow() {
    let mut lab = lab(|rules| rules.sweep_count_max = 3);
    let client = lab.open(1000, 1);
    for sequence in 1..=5 {
        lab.write(1000, save(client, sequence, &id(&format!("s{sequence}")), 0, Expiry::After(Duration::ZERO)));
    }
    let swept = |sessions| Verdict::Swept(Swept { sessions, ..Swept::default() });
    assert_eq!(lab.apply(1000, Command::Sweep { limit: u32::MAX }).verdict, swept(3));
    assert_eq!(lab.apply(1000, Command::Sweep { limit: u32::MAX }).verdict, swept(2));
}

#[test]
fn chunks_and_bytes_above_their_bounds_are_too_large_and_change_nothing() {
    let mut lab = Lab::new();
    let client = lab.open(1000, 1);
    assert!(matches!(lab.write(1000, save(client, 1, &id("a"), 4096, Expiry::Keep)).verdict, Verdict::Saved(_)));
    let before = lab.machine.info(&id("a"));
    let base =
        before.as_ref().map(|info| Base::At { create_revision: info.create_revision, version: info.version, items: info.items });
    let delta = |text: &str| Change::Delta {
        base: base.expect("saved"),
        chunks: vec![chunk(1, text)],
        head: None,
        counters: Counters::default(),
    };
    let write = |sequence, change| Write::Save {
        request: request(client, 1, sequence, 0),
        id: id("a"),
        change,
        attributes: Expiry::Keep.into(),
        fence: None,
    };
    let outcome = lab.write(1000, write(2, delta("x")));
    assert_eq!(outcome.verdict, Verdict::TooLarge(TooLarge::Chunks { now: 4097, limit: 4096 }));
    let large = "x".repeat((16 << 20) + 1);
    let outcome = lab.write(1000, write(3, delta(&large)));
    assert_eq!(outcome.verdict, Verdict::TooLarge(TooLarge::Write { now: (16 << 20) + 1, limit: 16 << 20 }));
    let outcome = lab.write(1000, write(4, delta(&large[..16 << 20])));
    assert_eq!(outcome.verdict, Verdict::TooLarge(TooLarge::StoredBytes { now: (16 << 20) + 4097, limit: 16 << 20 }));
    assert_eq!(lab.machine.info(&id("a")), before);
    // The largest session can always be saved in full.
    let full = Change::Full { chunks: vec![chunk(1, &large[..16 << 20])], head: blob(""), counters: Counters::default() };
    assert!(matches!(lab.write(1000, write(5, full)).verdict, Verdict::Saved(_)));
    lab.rebuild();
    lab.check_content();
}

#[test]
fn digests_are_kept_after_every_1024th_index() {
    let mut lab = Lab::new();
    let client = lab.open(1000, 1);
    let mut noted = Vec::new();
    for sequence in 1..=70 {
        lab.write(1000, save(client, sequence, &id("a"), 1, Expiry::Keep));
        for _ in 0..30 {
            noted.push((lab.next_index - 1, lab.machine.digest()));
            lab.skip();
        }
    }
    for (index, digest) in &noted {
        let is_kept = index % 1024 == 0 || *index == lab.next_index - 1;
        assert_eq!(lab.machine.digest_at(*index), is_kept.then_some(*digest), "index={index}");
    }
    assert_eq!(lab.machine.digest_at(0), None);
    assert_eq!(lab.machine.digest_at(100_000), None);
}
