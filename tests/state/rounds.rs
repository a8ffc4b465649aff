//! Entries as openraft hands them to the state machine: where rounds and flushes fall changes nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine as _};
use quorate::codec;
use quorate::env::Blocking;
use quorate::machine::{Command, Entry, allow_test_version};
use quorate::raft::adapter::state_machine::{AppliedState, StateMachine};
use quorate::raft::adapter::types::{Entry as RaftEntry, Payload, Types, log_id_to};
use quorate::storage::state::{Options, State};
use quorate::testing::disk::SimDisk;
use quorate::testing::inline::SimEnv;
use quorate::types::{Blob, Change, Chunk, ClientId, Counters, Expiry, Nonce, Request, Sequence, SessionId, Write};

use crate::state::rig::{FakeLog, id};

const NONCE: Nonce = Nonce([7; 16]);

/// A state on a simulated disk, under openraft's state machine.
struct Rig {
    sim: SimEnv,
    state: Arc<State<AppliedState>>,
    machine: StateMachine,
}

impl Rig {
    fn open(disk: &SimDisk) -> Self {
        Self::open_with(disk, Options::default())
    }

    fn open_with(disk: &SimDisk, options: Options) -> Self {
        let (sim, log) = (SimEnv::new(disk, 1), Arc::new(FakeLog::default()));
        log.cover(u64::MAX);
        let state = State::open(&sim.env, Path::new("/state"), options, log, AppliedState::from_rows).unwrap();
        state.complete_flushes(AppliedState::completion());
        let machine = StateMachine::new(state.clone(), Blocking::new(sim.env.workers.clone()), None);
        Self { sim, state, machine }
    }

    /// Applies entries of which so many are at hand at a time.
    async fn apply(&mut self, entries: &[RaftEntry], at_hand: usize) -> io::Result<()> {
        let (mut polls, mut left) = (0, Some(entries.iter().cloned()));
        let stream = futures_util::stream::poll_fn(move |context| {
            polls += 1;
            if polls % (at_hand + 1) == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let next = left.as_mut().expect("a stream that has ended is not polled").next();
            if next.is_none() {
                left = None;
            }
            Poll::Ready(next.map(|entry| Ok::<EntryResponder<Types>, io::Error>((entry, None))))
        });
        self.machine.apply(stream).await
    }

    fn applied(&self) -> u64 {
        self.state.applied().map_or(0, |applied| applied.index)
    }

    /// The digest after each of the first entries, as far as it is kept.
    fn digests(&self, count: u64) -> Vec<Option<u64>> {
        self.state.view(|state, _, _| (0..count).map(|index| state.machine.digest_at(index)).collect())
    }

    fn digest(&self) -> u64 {
        self.state.view(|state, _, _| state.machine.digest())
    }

    fn flush(&self) {
        self.state.flush(Box::new(|flushed| flushed.unwrap()));
        self.sim.workers.run();
    }
}

fn entry(index: u64, command: Command, format: u8) -> RaftEntry {
    let payload = EntryPayload::Normal(Payload(codec::encode(&Entry { stamp_ms: index, command }, format)));
    RaftEntry { log_id: log_id_to(id(index)), payload }
}

/// Opens the client that the saves below are of.
fn opening() -> RaftEntry {
    entry(1, Command::Client(Write::OpenClient { nonce: NONCE }), codec::FORMAT)
}

/// A save that closes the sequences that are seven behind.
fn save(index: u64, session: u64, chunks: usize) -> RaftEntry {
    let acknowledged_below = Sequence(index.saturating_sub(7));
    let request = Request { client: ClientId(1), nonce: NONCE, sequence: Sequence(index), acknowledged_below };
    let id = SessionId::new(&format!("session-{session}")).unwrap();
    let chunks = vec![Chunk { item_count: 1, blob: Blob::plain(Bytes::from_static(b"chunk")) }; chunks];
    let change = Change::Full { chunks, head: Blob::plain(Bytes::new()), counters: Counters::default() };
    entry(index, Command::Client(Write::Save { request, id, change, attributes: Expiry::Keep.into(), fence: None }), codec::FORMAT)
}

/// A client and its saves over fifty sessions.
fn saves(count: u64) -> Vec<RaftEntry> {
    std::iter::once(opening()).chain((2..=count).map(|index| save(index, index % 50, 0))).collect()
}

#[tokio::test]
async fn a_flush_has_the_row_of_every_record_wherever_rounds_and_flushes_fall() {
    let entries = saves(1200);
    let mut expected = None;
    for (at_hand, flush_every) in [(1, 1200), (7, 100), (64, 333), (1000, 50)] {
        let disk = SimDisk::new();
        let mut rig = Rig::open(&disk);
        for some in entries.chunks(flush_every) {
            rig.apply(some, at_hand).await.unwrap();
            let unflushed = rig.state.bytes().unflushed_bytes;
            let heads = some.len().min(50) as u64 * (8 + 96);
            assert!(unflushed > 2 * heads, "{unflushed} bytes of heads and of what is marked");
            rig.flush();
            let reopened = Rig::open(&disk);
            assert_eq!((reopened.applied(), reopened.digest()), (rig.applied(), rig.digest()), "{at_hand} at hand");
        }
        let digests = rig.digests(1201);
        assert!(digests[1024].is_some() && digests[1023].is_none());
        assert_eq!(*expected.get_or_insert(digests.clone()), digests, "{at_hand} at hand");
    }
}

#[tokio::test]
async fn an_entry_that_does_not_decode_ends_a_round_and_those_before_it_are_applied() {
    let mut rig = Rig::open(&SimDisk::new());
    let mut entries = saves(9);
    entries[5].payload = EntryPayload::Normal(Payload(Bytes::from_static(&[1, 99])));
    rig.apply(&entries, 64).await.expect_err("one does not decode");
    assert_eq!(rig.applied(), 5);
}

#[tokio::test]
async fn an_entry_behind_a_raise_of_the_version_is_read_by_the_new_one() {
    allow_test_version();
    let mut rig = Rig::open(&SimDisk::new());
    let sweep = |index, format| entry(index, Command::Sweep { limit: 1 }, format);
    let raise = entry(2, Command::SetClusterVersion { version: 2 }, codec::FORMAT);
    let entries = [sweep(1, codec::FORMAT), raise, sweep(3, codec::FORMAT_2)];
    rig.apply(&entries, 64).await.unwrap();
    assert_eq!(rig.applied(), 3);
}

/// One thread does everything here: an update that blocked until there is room would never end.
#[tokio::test]
async fn a_round_that_changes_many_rows_waits_for_room_between_two_holds_of_the_lock() {
    let options = Options { unflushed_bytes_soft: 100_000, unflushed_bytes_hard: 200_000, ..Options::default() };
    let mut rig = Rig::open_with(&SimDisk::new(), options);
    let entries: Vec<RaftEntry> = std::iter::once(opening()).chain((2..=5).map(|index| save(index, index, 4096))).collect();
    let workers = rig.sim.workers.clone();
    let flusher = async {
        loop {
            workers.run();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        applied = rig.apply(&entries, 64) => applied.unwrap(),
        () = flusher => {}
    }
    assert_eq!(rig.applied(), 5);
}
