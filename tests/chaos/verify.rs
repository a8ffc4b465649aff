//! After the faults: does the cluster serve, did it converge, is every answer one that a linearizable store gives?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate::client::{Client, Content, Expiry, WriteOptions};
use quorate::testing::history::{self, Op};

use crate::chaos::figures::Figures;
use crate::chaos::load::{CALLERS, Caller, KEYS, Shared};
use crate::chaos::nemesis::Nemesis;
use crate::chaos::reach::Reach;
use crate::chaos::turns::{self, Turns};

/// A healed cluster serves new writes, and its nodes agree, within so long each.
const BOUND: Duration = Duration::from_secs(60);
/// Sessions that would expire if a clock that is ahead counted.
const LEASES: usize = 4;
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// Stores what must be there at the end.
pub async fn prepare(endpoints: &[String]) -> Result<(), String> {
    let client = client(endpoints);
    for number in 0..LEASES {
        let options = WriteOptions { expiry: Expiry::After(LEASE), ..WriteOptions::default() };
        let saved = client.save(&format!("lease-{number}"), Content::Value("here".into()), options).await;
        saved.map_err(|error| format!("a healthy cluster refused a write: {error}"))?;
    }
    Ok(())
}

/// Every finding of the end of a run, whose load has ended.
pub async fn at_the_end(nemesis: &mut Nemesis, shared: &Arc<Shared>, turns: &Turns) {
    if nemesis.recover(BOUND).await.is_none() {
        shared.surprise(format!("the healed cluster does not serve within {BOUND:?}"));
        return;
    }
    let endpoints = nemesis.nodes.endpoints();
    for node in nemesis.nodes.all() {
        let mut caller = Caller::new(CALLERS + 8, node as u64, Reach::only(&nemesis.nodes.endpoint(node)), shared);
        let served = tokio::time::timeout(BOUND, async { while !caller.prove(KEYS + 3).await {} });
        if served.await.is_err() {
            shared.surprise(format!("a client of node {node} alone is not served within {BOUND:?}"));
        }
    }
    let mut caller = Caller::new(CALLERS + 8, 0, Reach::any(&endpoints), shared);
    for key in 0..KEYS + 4 {
        caller.read(key).await;
    }
    leases(&endpoints, shared).await;
    let wrong = turns::check(&endpoints, &turns.all()).await;
    wrong.into_iter().for_each(|wrong| shared.surprise(wrong));
    if let Err(why) = converge(nemesis).await {
        shared.surprise(why);
    }
    for node in nemesis.nodes.all() {
        let log = std::fs::read(nemesis.nodes.log(node)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        log.lines().filter(|line| line.contains("panicked at")).for_each(|line| shared.surprise(format!("node {node}: {line}")));
    }
}

async fn leases(endpoints: &[String], shared: &Shared) {
    let client = client(endpoints);
    for number in 0..LEASES {
        match client.load(&format!("lease-{number}")).await {
            Ok(Some(_)) => {}
            Ok(None) => shared.surprise(format!("lease-{number} expired a day early")),
            Err(error) => shared.surprise(format!("lease-{number} can't be loaded: {error}")),
        }
    }
}

/// Waits until all nodes have applied the same, and compares their digests. Errors: they do not, or differ.
async fn converge(nemesis: &Nemesis) -> Result<(), String> {
    let began = tokio::time::Instant::now();
    let mut last = BTreeMap::new();
    while began.elapsed() < BOUND {
        let status = nemesis.nodes.status().await;
        let states: BTreeMap<usize, _> =
            status.iter().map(|(node, status)| (*node, (status.applied, status.digest_index, status.digest))).collect();
        let first = states.values().next().copied();
        let same_index = states.len() == nemesis.nodes.all().len()
            && states.values().all(|state| Some((state.0, state.1)) == first.map(|first| (first.0, first.1)));
        if same_index && first.is_some_and(|first| first.2.is_some()) {
            let same = states.values().all(|state| Some(*state) == first);
            return same.then_some(()).ok_or_else(|| format!("digests differ at one index: {states:?}"));
        }
        last = states;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("nodes do not converge within {BOUND:?}: {last:?}"))
}

/// What both checkers find in the history, in words.
pub fn check(ops: &[Op]) -> Vec<String> {
    let exact = history::exact(ops).into_iter().map(|violation| format!("by revision: {violation}"));
    let windows = history::windows(ops).into_iter().map(|violation| format!("by version: {violation}"));
    exact.chain(windows).collect()
}

/// What is wrong with how long calls took, and how many ended without a known outcome.
pub fn check_calls(figures: &Figures, turns_unknown: usize, max: Duration) -> Vec<String> {
    let longest = figures.longest_call();
    let slow = (longest > max).then(|| format!("a call took {longest:?}, longer than {max:?}"));
    let unknown = figures.ambiguous + turns_unknown as u64;
    slow.into_iter().chain((unknown > 0).then(|| format!("{unknown} calls and turns ended without a known outcome"))).collect()
}

/// A client with deadlines of its own.
pub fn client(endpoints: &[String]) -> Client {
    Client::builder().endpoints(endpoints).build().expect("valid endpoints")
}

#[test]
fn a_slow_call_and_an_unknown_outcome_are_findings_where_calls_are_bounded() {
    let (second, ms) = (Duration::from_secs(1), Duration::from_millis);
    let calls = |answer, took| {
        let op = Op { answer, returned: took, ..Op::invoke(0, 0, history::Ask::Delete, Duration::ZERO) };
        check_calls(&Figures::of(&[op], 2 * second), 0, second)
    };
    let written = history::Answer::Written { version: 1, revision: 1 };
    assert_eq!(calls(written, second), [""; 0]);
    assert!(calls(written, ms(1001)).concat().contains("1.001s"));
    assert!(calls(history::Answer::Unknown, second).concat().contains("1 calls and turns"));
    assert_eq!(check_calls(&Figures::default(), 2, second).len(), 1);
}
