//! Small scope, completely: every sequence of appends, rebases, full changes, deletes, repacks of what was read at any time, and retries of
//! them, against the reference model; and after each step the tail that every earlier reader is served.

use std::collections::BTreeMap;

use quorate::machine::{Command, Plan};
use quorate::types::{
    Addition, Base, Change, Chunk, ChunkSum, ClientId, ContentVersion, Counters, Expected, Expiry, Load, OnConflict, Repack,
    Request, Require, Sequence, Verdict, Write,
};

use crate::machine::lab::{Lab, blob, chunk, id, request};
use crate::support::reference::Model;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Append,
    /// A turn on the first content that was read.
    Rebase,
    /// The content that is there is replaced.
    Replace,
    Delete,
    /// Of all that was read last, or of all but its last chunk.
    Repack {
        all: bool,
    },
    /// The same request again as the last repack.
    Retry,
    Rebuild,
}

const STEPS: [Step; 8] = [
    Step::Append,
    Step::Rebase,
    Step::Replace,
    Step::Delete,
    Step::Repack { all: true },
    Step::Repack { all: false },
    Step::Retry,
    Step::Rebuild,
];

/// What a reader had: its content's name and items, and where the session's own numbers began.
#[derive(Clone)]
struct Read {
    have: ContentVersion,
    first_chunk: u64,
    chunks: Vec<Chunk>,
}

#[derive(Clone)]
struct World {
    lab: Lab,
    model: Model,
    sequence: u64,
    reads: Vec<Read>,
    last_repack: Option<Write>,
}

impl World {
    fn new() -> Self {
        let mut world = Self { lab: Lab::new(), model: Model::default(), sequence: 0, reads: Vec::new(), last_repack: None };
        world.lab.open(1000, 7);
        world.model.apply(1, 1000, &Write::OpenClient { nonce: crate::machine::lab::nonce(7) });
        world.lab.apply(1000, Command::SetClusterVersion { version: 2 });
        world
    }

    fn request(&mut self) -> Request {
        self.sequence += 1;
        request(ClientId(1), 7, self.sequence, 0)
    }

    fn step(&mut self, step: Step, seen: &mut BTreeMap<String, usize>) {
        let counters = Counters::default;
        let id = id("a");
        let write = match step {
            Step::Rebuild => return self.lab.rebuild(),
            Step::Retry => match self.last_repack.clone() {
                Some(write) => write,
                None => return,
            },
            Step::Append => {
                let chunks = vec![chunk(1, "one")];
                let addition = Addition { chunks, head_if_created: Some(blob("h")), counters: counters() };
                Write::Append {
                    request: self.request(),
                    id,
                    require: Require::Any,
                    addition,
                    attributes: Expiry::Keep.into(),
                    fence: None,
                }
            }
            Step::Rebase => {
                let base = self.reads.first().map_or(Base::Absent, |read| read.have.base());
                let expected = self.reads.first().map_or(Expected::Absent, |read| read.have.expected());
                let change = Change::Delta { base, chunks: vec![chunk(2, "two")], head: Some(blob("h")), counters: counters() };
                let (attributes, on_conflict) = (Expiry::Keep.into(), OnConflict::Rebase);
                Write::SaveIfVersion { request: self.request(), id, expected, change, on_conflict, attributes, fence: None }
            }
            Step::Replace => {
                let change = Change::Full { chunks: vec![chunk(1, "x"), chunk(2, "y")], head: blob("h"), counters: counters() };
                Write::Save { request: self.request(), id, change, attributes: Expiry::Keep.into(), fence: None }
            }
            Step::Delete => Write::Delete { request: self.request(), id, expected: None, fence: None },
            Step::Repack { all } => match self.repack(all) {
                Some(write) => write,
                None => return,
            },
        };
        let index = self.lab.next_index;
        let modelled = self.model.apply(index, 1000, &write);
        let outcome = self.lab.write(1000, write.clone());
        assert_eq!(outcome, modelled, "{write:?}");
        let is_repeated = outcome.revision.0 != index;
        let name = format!("{:?}", outcome.verdict);
        let name = name.split([' ', '(']).next().unwrap_or_default();
        *seen.entry(format!("{name}{}", if is_repeated { " repeated" } else { "" })).or_default() += 1;
        if let Write::Repack { .. } = write {
            self.last_repack = Some(write);
        }
        self.lab.check_content();
        self.tails(seen);
        self.read();
    }

    /// One merges what was read, and the leader compares it with what is there.
    fn repack(&mut self, all: bool) -> Option<Write> {
        let read = self.reads.last()?.clone();
        let take = read.chunks.len() - usize::from(!all);
        let until_chunk = read.have.next_chunk - u64::from(!all);
        let old = ChunkSum::of(&read.chunks[..take]);
        let data: Vec<u8> = read.chunks[..take].iter().flat_map(|chunk| chunk.blob.data.to_vec()).collect();
        let chunks = vec![chunk(old.items, std::str::from_utf8(&data).expect("text"))];
        let repack = Repack {
            id: id("a"),
            create_revision: read.have.create_revision,
            first_chunk: read.first_chunk,
            until_chunk,
            old,
            chunks,
        };
        let request = self.request();
        // As the leader does.
        let is_answered = self.lab.machine.has_outcome(request.client, Sequence(request.sequence.0));
        let Some(Plan::Read { places, chunks, .. }) = self.lab.machine.plan_repack(&repack) else {
            return is_answered.then_some(Write::Repack { request, repack });
        };
        let stored = ChunkSum::of(&self.lab.chunks(&places, chunks));
        assert_eq!(stored, old, "where the session and its first chunk are the same, so are all chunks before the last one read");
        Some(Write::Repack { request, repack })
    }

    /// Whatever an earlier reader is sent, it then has what is stored.
    fn tails(&self, seen: &mut BTreeMap<String, usize>) {
        let Some((stored, _)) = self.lab.content(&id("a")) else { return };
        let unpacked = |chunks: &[Chunk]| -> Vec<u8> { chunks.iter().flat_map(|chunk| chunk.blob.data.to_vec()).collect() };
        for read in &self.reads {
            let load = Load { have: Some(read.have), ..Load::whole(id("a")) };
            match self.lab.machine.plan(&load) {
                Plan::Read { tail: true, places, chunks, info, .. } => {
                    let all = [read.chunks.clone(), self.lab.chunks(&places, chunks)].concat();
                    assert_eq!(unpacked(&all), unpacked(&stored), "have={:?}", read.have);
                    let name = if info.first_chunk > 0 { "Tail behind a repack" } else { "Tail" };
                    *seen.entry(name.to_owned()).or_default() += 1;
                }
                Plan::NotModified => assert_eq!(unpacked(&read.chunks), unpacked(&stored)),
                Plan::Read { tail: false, .. } => *seen.entry("Full".to_owned()).or_default() += 1,
                other => panic!("a session that is there: {other:?}"),
            }
        }
    }

    fn read(&mut self) {
        let Some(info) = self.lab.machine.info(&id("a")) else { return };
        let (chunks, _) = self.lab.content(&id("a")).expect("there");
        let is_new =
            self.reads.last().is_none_or(|last| last.have != info.content_version() || last.first_chunk != info.first_chunk);
        if is_new {
            self.reads.push(Read { have: info.content_version(), first_chunk: info.first_chunk, chunks });
        }
    }

    fn explore(&self, depth: usize, seen: &mut BTreeMap<String, usize>) {
        for step in STEPS {
            let mut next = self.clone();
            next.step(step, seen);
            // A repack that is in flight while others write: what was read before is repacked behind them.
            if depth > 1 {
                next.explore(depth - 1, seen);
            }
        }
    }
}

#[test]
fn every_sequence_of_appends_rebases_and_repacks_keeps_the_content_and_every_tail() {
    let mut seen = BTreeMap::new();
    let mut world = World::new();
    // Chunks to be packed.
    for _ in 0..3 {
        world.step(Step::Append, &mut seen);
    }
    world.explore(5, &mut seen);
    for expected in
        ["Repacked", "Repacked repeated", "NotRepacked", "Appended", "Saved", "Deleted", "Tail", "Tail behind a repack", "Full"]
    {
        assert!(seen.get(expected).is_some_and(|count| *count > 50), "too little of {expected} seen={seen:?}");
    }
}

/// What a client read before others wrote is repacked behind them, whatever they did in between.
#[test]
fn a_repack_that_was_long_under_way_changes_nothing_that_it_was_not_made_from() {
    for between in
        [&[Step::Append, Step::Append][..], &[Step::Replace], &[Step::Delete, Step::Append], &[Step::Repack { all: true }]]
    {
        let mut seen = BTreeMap::new();
        let mut world = World::new();
        for _ in 0..3 {
            world.step(Step::Append, &mut seen);
        }
        let late = world.repack(true).expect("three chunks");
        between.iter().for_each(|step| world.step(*step, &mut seen));
        let before = world.lab.content(&id("a"));
        let index = world.lab.next_index;
        let modelled = world.model.apply(index, 1000, &late);
        let outcome = world.lab.write(1000, late);
        assert_eq!(outcome, modelled);
        match outcome.verdict {
            Verdict::Repacked { first_chunk: 3, chunks: 3 } => assert_eq!(between, [Step::Append, Step::Append]),
            Verdict::NotRepacked => assert_eq!(world.lab.content(&id("a")), before),
            other => panic!("{other:?}"),
        }
        world.lab.check_content();
        world.tails(&mut seen);
    }
}
