//! What a restore makes of a backup, without a cluster around it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate::env::{Env, SystemClock, ThreadWorkers};
use quorate::limits::LEASE_TTL_MAX;
use quorate::machine::{Command, Effects, Entry, Machine, allow_test_version, rows};
use quorate::offline::{Target, restore};
use quorate::storage::backup::{Header, Reader, Writer};
use quorate::storage::log::{self, Log};
use quorate::storage::state::{self, Error, State};
use quorate::testing::disk::SimDisk;
use quorate::testing::inline::SeededRandom;
use quorate::types::{
    Blob, Change, ClientId, ClusterId, Counters, Expiry, Fence, Holder, LeaseTtl, LogId, Member, NodeId, Nonce, Outcome, Request,
    Revision, Sequence, SessionId, Verdict, Write,
};

use crate::state::rig::{FakeLog, Model};

const NONCE: Nonce = Nonce([7; 16]);

/// A machine, its rows, and the index of its last entry.
struct Node {
    machine: Machine,
    rows: Model,
    index: u64,
}

impl Node {
    fn write(&mut self, write: Write) -> Outcome {
        self.apply(Command::Client(write))
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let log_id = LogId { term: 3, node: NodeId(1), index: self.index };
        let mut effects = Effects::default();
        let outcome = self.machine.apply(log_id, &Entry { stamp_ms: 1000, command }, &mut effects);
        self.machine.complete(&mut effects);
        for row in effects.rows {
            match row.value {
                Some(value) => drop(self.rows.insert((row.table, row.key), value)),
                None => drop(self.rows.remove(&(row.table, row.key))),
            }
        }
        outcome
    }

    fn create(&mut self, client: ClientId, sequence: u64, id: &str) -> Revision {
        let sequence = Sequence(sequence);
        let request = Request { client, nonce: NONCE, sequence, acknowledged_below: sequence };
        let change =
            Change::Full { chunks: Vec::new(), head: Blob::plain(Bytes::from_static(b"h")), counters: Counters::default() };
        let id = SessionId::new(id).unwrap();
        match self.write(Write::Save { request, id, change, attributes: Expiry::Keep.into(), fence: None }).verdict {
            Verdict::Saved(saved) => saved.content.create_revision,
            other => panic!("it is not saved: {other:?}"),
        }
    }

    /// Takes a lease that lives, if another one does not.
    fn take(&mut self, client: ClientId, sequence: u64) -> Fence {
        let request = Request { client, nonce: NONCE, sequence: Sequence(sequence), acknowledged_below: Sequence(1) };
        let (id, holder) = (SessionId::new("a turn").unwrap(), Holder::new("h").unwrap());
        let ttl = LeaseTtl::new(LEASE_TTL_MAX).unwrap();
        match self.write(Write::AcquireLease { request, id, holder, ttl, steal: false }).verdict {
            Verdict::LeaseGranted { fence, .. } => fence,
            other => panic!("no lease: {other:?}"),
        }
    }

    fn open_client(&mut self) -> ClientId {
        match self.write(Write::OpenClient { nonce: NONCE }).verdict {
            Verdict::ClientOpened { client } => client,
            other => panic!("no client: {other:?}"),
        }
    }
}

fn machine_of(rows: state::Rows<'_>) -> Result<Machine, Error> {
    let all: Vec<_> = rows.table_range(&rows::METADATA_TABLES).collect::<Result<_, _>>()?;
    Machine::from_rows(all.into_iter().map(Ok::<_, rows::Error>)).map_err(|error| Error::invalid(error.to_string()))
}

fn open(env: &Env, dir: &Path) -> Arc<State<Machine>> {
    State::open(env, dir, state::Options::default(), Arc::new(FakeLog::default()), machine_of).unwrap()
}

/// A client's base and cache name a content by its create_revision for ever, so the new cluster must not give one away again, nor may a
/// client's id come twice.
#[test]
fn no_create_revision_or_client_comes_twice_after_a_restore() {
    let disk = SimDisk::new();
    let env = Env {
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SeededRandom::new(1)),
        disk: Arc::new(disk),
        workers: Arc::new(ThreadWorkers),
    };
    let mut old = Node { machine: Machine::new(), rows: Model::new(), index: 0 };
    let client = old.open_client();
    allow_test_version();
    old.apply(Command::SetClusterVersion { version: 2 });
    let fence = old.take(client, 100);
    let created: Vec<Revision> = (1..=20).map(|n| old.create(client, n, &format!("s{n}"))).collect();
    let rows = old.rows.iter().map(|((table, key), value)| Ok::<_, Error>((*table, key.clone(), value.clone())));
    let applied = old.machine.applied().unwrap();
    let source = Path::new("/source");
    state::create(&env, source, state::Options::default(), applied, rows).unwrap();
    let header = Header { cluster: ClusterId([1; 16]), name: "c".into(), node: NodeId(1), taken_ms: 1, release: "0".into() };
    let mut writer = Writer::new(open(&env, source).snapshot().unwrap(), header);
    let mut backup = Vec::new();
    while let Some(piece) = writer.next_piece().unwrap() {
        backup.extend_from_slice(&piece);
    }

    let data_dir = Path::new("/restored").to_owned();
    let member = Member::new(NodeId(1));
    let target = Target { cluster: ClusterId([2; 16]), node: NodeId(1), members: vec![member], data_dir: data_dir.clone() };
    restore(&env, Reader::open(&backup[..]).unwrap(), &target, |_| {}).unwrap();

    let last = Log::open(&env, &data_dir.join("log"), log::Options::default()).unwrap().position().last.unwrap();
    let machine = open(&env, &data_dir.join("state")).view(|machine, _, _| machine.clone());
    assert_eq!(machine.counts().sessions, 20, "everything was restored");
    let mut new = Node { machine, rows: Model::new(), index: last.index };
    let client = new.open_client();
    let born = new.create(client, 1, "born later");
    assert!(!created.contains(&born), "{born} was given to another session of the old cluster");
    let newer = new.take(client, 2);
    // The old cluster may have gone on long after the backup, and a fence is compared by others too.
    assert!(newer.0 - fence.0 >= 1 << 40 && born.0 - applied.index >= 1 << 40, "newer={newer} fence={fence} born={born}");
    assert!(client.0 > applied.index && born.0 > applied.index, "client={client:?} born={born} applied={applied}");
}
