//! The reference model: what the machine has to answer, in the plainest way. It sweeps everything the moment it expires, keeps contents
//! beside what is known of them, and has no limits but the window of sequences. The simulation replays whole logs through it.

use std::collections::BTreeMap;

use quorate::types::{
    Aborted, Addition, Appended, Attributes, Base, Blob, Change, Chunk, ChunkSum, ClientId, ContentVersion, Counters, Expected,
    Expiry, Fence, Form, Holder, Label, Lost, Nonce, OnConflict, Operation, Outcome, Repack, Request, Require, Revision, Saved,
    Transacted, Verdict, Version, Write,
};

pub const TOMBSTONE_MS: u64 = 7 * 24 * 3_600_000;
pub const IDLE_MS: u64 = 3_600_000;
const WINDOW: u64 = 1024;

#[derive(Clone, Debug, Default)]
pub struct Session {
    pub created: u64,
    pub version: u64,
    pub chunks: Vec<Chunk>,
    /// The number of the first chunk that no repack made.
    pub first_chunk: u64,
    pub next_chunk: u64,
    /// Whether it was begun under version 1 of the cluster: then it is repacked whole.
    is_old: bool,
    pub head: Blob,
    head_since: u64,
    append_only_since: u64,
    pub deadline: Option<u64>,
    idle: Option<u64>,
    /// How long its tombstone stands, where a writer said it.
    tombstone: Option<u64>,
    pub label: Label,
    counters: Counters,
    declared: Form,
}

#[derive(Clone, Debug)]
struct Client {
    nonce: Nonce,
    below: u64,
    deadline: u64,
    answers: BTreeMap<u64, Outcome>,
}

/// A session or a tombstone, by its id, and the version that its end took or it counted last; of a lease, its fence.
pub type Expired = (String, u64);

/// What the time ended.
#[derive(Default)]
pub struct Passed {
    pub sessions: Vec<Expired>,
    pub tombstones: Vec<Expired>,
    pub leases: Vec<Expired>,
}

#[derive(Clone)]
pub struct Model {
    /// How long tombstones live, and clients that say nothing.
    tombstone_ms: u64,
    idle_ms: u64,
    now: u64,
    pub sessions: BTreeMap<String, Session>,
    tombstones: BTreeMap<String, (u64, u64)>,
    clients: BTreeMap<u64, Client>,
    /// Whether version 1 is in force.
    pub is_old: bool,
    /// Fence, holder and deadline.
    pub leases: BTreeMap<String, (u64, Holder, u64)>,
}

impl Default for Model {
    fn default() -> Self {
        Self::new(TOMBSTONE_MS, IDLE_MS)
    }
}

impl Model {
    pub fn new(tombstone_ms: u64, idle_ms: u64) -> Self {
        Self {
            tombstone_ms,
            idle_ms,
            now: 0,
            sessions: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            clients: BTreeMap::new(),
            is_old: false,
            leases: BTreeMap::new(),
        }
    }

    /// Moves time on; gives what it ended.
    pub fn advance(&mut self, stamp: u64) -> Passed {
        self.now = self.now.max(stamp);
        let now = self.now;
        let mut passed = Passed::default();
        for (id, session) in &self.sessions {
            if let Some(deadline) = session.deadline.filter(|deadline| *deadline <= now) {
                let until = deadline + session.tombstone.unwrap_or(self.tombstone_ms);
                self.tombstones.insert(id.clone(), (session.version + 1, until));
                passed.sessions.push((id.clone(), session.version + 1));
            }
        }
        self.sessions.retain(|_, session| session.deadline.is_none_or(|deadline| deadline > now));
        let ended = self.tombstones.iter().filter(|(_, (_, until))| *until <= now);
        passed.tombstones = ended.map(|(id, (version, _))| (id.clone(), *version)).collect();
        self.tombstones.retain(|_, (_, until)| *until > now);
        self.clients.retain(|_, client| client.deadline > now);
        let ended = self.leases.iter().filter(|(_, (_, _, deadline))| *deadline <= now);
        passed.leases = ended.map(|(id, (fence, _, _))| (id.clone(), *fence)).collect();
        self.leases.retain(|_, (_, _, deadline)| *deadline > now);
        passed
    }

    /// What a client's write that is the entry at `index` is answered.
    pub fn apply(&mut self, index: u64, stamp: u64, write: &Write) -> Outcome {
        self.advance(stamp);
        let verdict = match write {
            Write::OpenClient { nonce } => self.open(index, *nonce),
            Write::KeepAlive { client, nonce, acknowledged_below } => {
                if self.touch(*client, *nonce, acknowledged_below.0) {
                    Verdict::ClientKept
                } else {
                    Verdict::ClientUnknown
                }
            }
            Write::CloseClient { client, nonce } if self.client(*client, *nonce).is_some() => {
                self.clients.remove(&client.0);
                Verdict::ClientClosed
            }
            Write::CloseClient { .. } => Verdict::ClientUnknown,
            write => return self.once(index, write),
        };
        Outcome { revision: Revision(index), verdict }
    }

    fn client(&mut self, client: ClientId, nonce: Nonce) -> Option<&mut Client> {
        self.clients.get_mut(&client.0).filter(|client| client.nonce == nonce)
    }

    fn open(&mut self, index: u64, nonce: Nonce) -> Verdict {
        let deadline = self.now + self.idle_ms;
        let Some((client, row)) = self.clients.iter_mut().find(|(_, client)| client.nonce == nonce) else {
            self.clients.insert(index, Client { nonce, below: 1, deadline, answers: BTreeMap::new() });
            return Verdict::ClientOpened { client: ClientId(index) };
        };
        row.deadline = deadline;
        Verdict::ClientOpened { client: ClientId(*client) }
    }

    fn touch(&mut self, client: ClientId, nonce: Nonce, below: u64) -> bool {
        let deadline = self.now + self.idle_ms;
        let Some(client) = self.client(client, nonce) else { return false };
        client.deadline = deadline;
        client.below = client.below.max(below);
        client.answers.retain(|sequence, _| *sequence >= client.below);
        true
    }

    fn once(&mut self, index: u64, write: &Write) -> Outcome {
        let outcome = |verdict| Outcome { revision: Revision(index), verdict };
        let request = *write.request().expect("only writes else");
        if !self.touch(request.client, request.nonce, request.acknowledged_below.0) {
            return outcome(Verdict::ClientUnknown);
        }
        let client = &self.clients[&request.client.0];
        match request.sequence.0 {
            sequence if sequence < client.below => return outcome(Verdict::Stale),
            sequence if sequence >= client.below + WINDOW => return outcome(Verdict::WindowExceeded),
            sequence if client.answers.contains_key(&sequence) => return client.answers[&sequence].clone(),
            _ => {}
        }
        let recorded: usize = client.answers.values().map(|answer| operations_of(&answer.verdict)).sum();
        let more = if let Write::Transaction { operations, .. } = write { operations.len() } else { 1 };
        if recorded + more > WINDOW as usize {
            return outcome(Verdict::Busy);
        }
        let answer = outcome(self.execute(index, write));
        if !matches!(answer.verdict, Verdict::BaseMismatch | Verdict::BaseMismatchAt { .. }) {
            let client = self.clients.get_mut(&request.client.0).expect("found above");
            client.answers.insert(request.sequence.0, answer.clone());
        }
        answer
    }

    /// One operation after the other, on a copy: it takes the place of the state only if none of them fails.
    fn transact(&mut self, index: u64, request: Request, operations: &[Operation]) -> Verdict {
        let before = (self.sessions.clone(), self.tombstones.clone());
        let (mut results, mut creations) = (Vec::new(), 0);
        for (at, operation) in operations.iter().enumerate() {
            let id = operation.session().0.as_str();
            let is_new = !self.sessions.contains_key(id);
            let mut verdict = match (operation, operation.clone().alone(request)) {
                (_, Some(write)) => self.execute(index, &write),
                (Operation::Require { expected, fence, .. }, None) => self.required(id, *expected, *fence),
                (_, None) => unreachable!("all others may come alone"),
            };
            // Those that one entry creates have numbers apart.
            if let (true, Some(session)) = (is_new, self.sessions.get_mut(id)) {
                session.first_chunk += creations << 40;
                session.next_chunk += creations << 40;
                creations += 1;
                match &mut verdict {
                    Verdict::Saved(saved) => saved.content = session.content(),
                    Verdict::Appended(appended) => appended.content = session.content(),
                    other => panic!("a session is created by {other:?}"),
                }
            }
            let index = at as u32;
            let end = match verdict {
                Verdict::BaseMismatch => Verdict::BaseMismatchAt { index },
                Verdict::Conflict { .. } | Verdict::WrongForm { .. } | Verdict::Leased { .. } | Verdict::Fenced { .. } => {
                    Verdict::Aborted(Aborted { index, verdict: Box::new(verdict) })
                }
                done => {
                    results.push(done);
                    continue;
                }
            };
            (self.sessions, self.tombstones) = before;
            return end;
        }
        Verdict::Transacted(Transacted { results })
    }

    /// As of a leader that has compared: `old` is what is there, if the session is.
    fn repack(&mut self, repack: &Repack) -> Verdict {
        let Some(session) = self.sessions.get_mut(repack.id.as_str()) else { return Verdict::NotRepacked };
        let is_here = session.created == repack.create_revision.0 && session.first_chunk == repack.first_chunk;
        if !is_here || repack.until_chunk <= repack.first_chunk || repack.until_chunk > session.next_chunk {
            return Verdict::NotRepacked;
        }
        let behind = (session.next_chunk - repack.until_chunk) as usize;
        let (old, rest) = session.chunks.split_at(session.chunks.len() - behind);
        let (sum, new) = (ChunkSum::of(old), ChunkSum::of(&repack.chunks));
        let is_same = repack.old == sum && (new.items, new.raw_bytes) == (sum.items, sum.raw_bytes);
        let is_less = !repack.chunks.is_empty() && repack.chunks.len() < old.len() && new.stored_bytes <= sum.stored_bytes;
        if !is_same || !is_less || (session.is_old && behind > 0) {
            return Verdict::NotRepacked;
        }
        session.chunks = [&repack.chunks, rest].concat();
        (session.first_chunk, session.is_old) = (repack.until_chunk, false);
        Verdict::Repacked { first_chunk: session.first_chunk, chunks: session.chunks.len() as u64 }
    }

    fn required(&self, id: &str, expected: Option<Expected>, fence: Option<Fence>) -> Verdict {
        let lease = self.leases.get(id).map(|(fence, _, _)| Fence(*fence));
        if fence.is_some() && fence != lease {
            return Verdict::Fenced { current: lease };
        }
        let stored = self.sessions.get(id);
        let is_met = match (stored, expected) {
            (_, None) => true,
            (stored, Some(Expected::Absent)) => stored.is_none(),
            (None, Some(Expected::At { .. } | Expected::Incarnation { .. })) => false,
            (Some(stored), Some(Expected::Incarnation { create_revision })) => stored.created == create_revision.0,
            (Some(stored), Some(Expected::At { version, create_revision })) => {
                stored.version == version.0 && create_revision.is_none_or(|created| created.0 == stored.created)
            }
        };
        let tombstone = Version(self.tombstones.get(id).map_or(0, |(version, _)| *version));
        let actual = Version(stored.map_or(0, |stored| stored.version));
        if is_met { Verdict::Met } else { Verdict::Conflict { actual, tombstone } }
    }

    fn execute(&mut self, index: u64, write: &Write) -> Verdict {
        if let Write::Transaction { request, operations } = write {
            return self.transact(index, *request, operations);
        }
        if let Some(verdict) = self.lease(index, write) {
            return verdict;
        }
        if let Write::Append { id, require, addition, attributes, .. } = write {
            return self.append(index, id.as_str(), require, addition, attributes);
        }
        if let Write::Touch { id, expiry, .. } = write {
            let tombstone = Version(self.tombstones.get(id.as_str()).map_or(0, |(version, _)| *version));
            let now = self.now;
            let Some(session) = self.sessions.get_mut(id.as_str()) else { return Verdict::NotFound { tombstone } };
            session.expire(*expiry, now);
            self.outlive_lease(id.as_str());
            return Verdict::Touched { deadline_ms: self.sessions[id.as_str()].deadline };
        }
        let (id, expected) = match write {
            Write::Save { id, .. } => (id, None),
            Write::SaveIfVersion { id, expected, .. } => (id, Some(*expected)),
            Write::Delete { id, expected, .. } => (id, *expected),
            _ => unreachable!("has no request"),
        };
        let old = self.sessions.get(id.as_str()).cloned();
        let tombstone = self.tombstones.get(id.as_str()).map_or(0, |(version, _)| *version);
        let matches = match (&old, expected) {
            (_, None) => true,
            (old, Some(Expected::Absent)) => old.is_none(),
            (None, Some(Expected::At { .. } | Expected::Incarnation { .. })) => false,
            (Some(old), Some(Expected::Incarnation { create_revision })) => old.created == create_revision.0,
            (Some(old), Some(Expected::At { version, create_revision })) => {
                old.version == version.0 && create_revision.is_none_or(|created| created.0 == old.created)
            }
        };
        let actual = Version(old.as_ref().map_or(0, |old| old.version));
        let conflict = Verdict::Conflict { actual, tombstone: Version(tombstone) };
        if let Write::Delete { .. } = write {
            return match old {
                _ if !matches => conflict,
                None => Verdict::NotFound { tombstone: Version(tombstone) },
                Some(old) => {
                    self.sessions.remove(id.as_str());
                    let until = self.now + old.tombstone.unwrap_or(self.tombstone_ms);
                    self.tombstones.insert(id.as_str().to_owned(), (old.version + 1, until));
                    Verdict::Deleted { version: Version(old.version + 1) }
                }
            };
        }
        let of_one = matches!(expected, Some(Expected::Incarnation { .. }));
        let rebase = matches!(write, Write::SaveIfVersion { on_conflict: OnConflict::Rebase, .. }) && !of_one;
        if !matches && !rebase {
            return conflict;
        }
        let change = write.changes().next().expect("a save");
        let next = if matches { changed(old.as_ref(), change, index, tombstone) } else { rebased(old.as_ref(), change) };
        let Some(mut next) = next else {
            return if matches { Verdict::BaseMismatch } else { conflict };
        };
        next.give(write.attributes().next().expect("a save"), self.now, self.tombstone_ms);
        let begins = old.is_none() || matches!(change, Change::Full { .. });
        next.is_old = if begins { self.is_old } else { next.is_old };
        let brings_head = next.head_since == next.version;
        if let (Write::Save { attributes, .. } | Write::SaveIfVersion { attributes, .. }, true) = (write, brings_head) {
            next.declared = attributes.form;
        }
        let saved = Saved { content: next.content(), rebased: !matches };
        self.tombstones.remove(id.as_str());
        self.sessions.insert(id.as_str().to_owned(), next);
        self.outlive_lease(id.as_str());
        Verdict::Saved(saved)
    }
}

impl Model {
    /// The verdict of a write that is of leases, or is kept from its session by one, or is free of them.
    fn lease(&mut self, index: u64, write: &Write) -> Option<Verdict> {
        let now = self.now;
        match write {
            Write::Repack { repack, .. } => Some(self.repack(repack)),
            Write::AcquireLease { id, holder, ttl, steal, .. } => {
                if let Some((_, holder, deadline)) = self.leases.get(id.as_str()).filter(|_| !steal) {
                    return Some(Verdict::LeaseHeld { holder: holder.clone(), deadline_ms: *deadline });
                }
                let deadline_ms = now + ttl.millis();
                self.leases.insert(id.as_str().to_owned(), (index, holder.clone(), deadline_ms));
                self.outlive_lease(id.as_str());
                Some(Verdict::LeaseGranted { fence: Fence(index), deadline_ms })
            }
            Write::RenewLeases { leases, ttl, .. } => {
                let deadline_ms = now + ttl.millis();
                let mut lost = Vec::new();
                for (n, (id, fence)) in leases.as_slice().iter().enumerate() {
                    match self.leases.get_mut(id.as_str()) {
                        Some((of, _, deadline)) if *of == fence.0 => *deadline = deadline_ms.max(*deadline),
                        _ => lost.push(n),
                    }
                    if !lost.contains(&n) {
                        self.outlive_lease(id.as_str());
                    }
                }
                Some(Verdict::LeasesRenewed { deadline_ms, lost: Lost::at(lost) })
            }
            Write::ReleaseLease { id, fence, .. } => {
                let is_held = self.leases.get(id.as_str()).is_some_and(|(of, _, _)| *of == fence.0);
                if is_held {
                    self.leases.remove(id.as_str());
                }
                Some(if is_held { Verdict::LeaseReleased } else { Verdict::LeaseLost })
            }
            write => {
                let (id, _) = write.sessions().next()?;
                match (self.leases.get(id.as_str()), write.fence()) {
                    (Some((fence, _, _)), Some(of)) if of.0 == *fence => None,
                    (Some((_, holder, deadline)), None) => Some(Verdict::Leased { holder: holder.clone(), deadline_ms: *deadline }),
                    (None, None) => None,
                    (lease, Some(_)) => Some(Verdict::Fenced { current: lease.map(|(fence, _, _)| Fence(*fence)) }),
                }
            }
        }
    }

    /// An idle session lives on after the lease, at least.
    fn outlive_lease(&mut self, id: &str) {
        let (Some((_, _, lease)), Some(session)) = (self.leases.get(id), self.sessions.get_mut(id)) else { return };
        if let Some(idle) = session.idle {
            session.deadline = session.deadline.max(Some(lease + idle));
        }
    }
}

/// How many outcomes an answer counts for.
fn operations_of(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Transacted(transacted) => transacted.results.len(),
        _ => 1,
    }
}

impl Session {
    fn give(&mut self, attributes: &Attributes, now: u64, tombstone_max: u64) {
        self.expire(attributes.expiry, now);
        if let Some(ttl) = attributes.tombstone_ttl {
            self.tombstone = Some(tombstone_max.min(ttl.as_millis() as u64));
        }
        if let Some(label) = &attributes.label {
            self.label = label.clone();
        }
    }

    fn expire(&mut self, expiry: Expiry, now: u64) {
        match expiry {
            Expiry::Keep => {}
            Expiry::Never => (self.deadline, self.idle) = (None, None),
            Expiry::After(ttl) => (self.deadline, self.idle) = (Some(now + ttl.as_millis() as u64), None),
            Expiry::Idle(ttl) => self.idle = Some(ttl.as_millis() as u64),
        }
        if let Some(idle) = self.idle {
            self.deadline = Some(now + idle);
        }
    }
}

impl Model {
    fn append(&mut self, index: u64, id: &str, require: &Require, addition: &Addition, attributes: &Attributes) -> Verdict {
        let old = self.sessions.get(id).cloned();
        let tombstone = self.tombstones.get(id).map_or(0, |(version, _)| *version);
        let is_met = match (require, &old) {
            (Require::Any, _) => true,
            (Require::Present, old) => old.is_some(),
            (Require::Absent, old) => old.is_none(),
            (Require::At { .. } | Require::AppendedOnly { .. }, None) => false,
            (Require::AppendedOnly { create_revision, since }, Some(old)) => {
                old.created == create_revision.0 && old.append_only_since <= since.0 && since.0 <= old.version
            }
            (Require::At { create_revision, version, items }, Some(old)) => {
                let same = |wanted: Option<u64>, is: u64| wanted.is_none_or(|wanted| wanted == is);
                same(create_revision.map(|created| created.0), old.created)
                    && same(version.map(|version| version.0), old.version)
                    && same(*items, old.items())
            }
        };
        let actual = Version(old.as_ref().map_or(0, |old| old.version));
        if !is_met || (old.is_none() && addition.head_if_created.is_none()) {
            return Verdict::Conflict { actual, tombstone: Version(tombstone) };
        }
        let is_new = old.is_none();
        let mut next =
            old.unwrap_or(Session { created: index, version: tombstone, declared: Form::Transcript, ..Session::default() });
        let form = if next.items() > 0 { Form::Transcript } else { next.declared };
        if form != Form::Transcript && !addition.chunks.is_empty() {
            return Verdict::WrongForm { form };
        }
        next.version += 1;
        next.take(&addition.chunks, addition.head_if_created.as_ref().filter(|_| is_new));
        next.counters.add(&addition.counters);
        next.give(attributes, self.now, self.tombstone_ms);
        let content = next.content();
        let (chunks, counters) = (next.chunks.len() as u64, next.counters.clone());
        self.tombstones.remove(id);
        self.sessions.insert(id.to_owned(), next);
        self.outlive_lease(id);
        Verdict::Appended(Appended { content, chunks, counters })
    }
}

/// The session after a change where the expectation held; `None` is a mismatch of the base.
fn changed(old: Option<&Session>, change: &Change, index: u64, tombstone: u64) -> Option<Session> {
    let mut next = old.cloned().unwrap_or(Session { created: index, version: tombstone, ..Session::default() });
    next.version += 1;
    match change {
        Change::Full { chunks, head, counters } => {
            next.counters = counters.clone();
            if old.is_some() {
                next.append_only_since = next.version;
            }
            next.chunks.clear();
            next.first_chunk = next.next_chunk;
            next.take(chunks, Some(head));
        }
        Change::Delta { base, chunks, head, counters } => {
            next.counters.add(counters);
            let is_base = match (base, old) {
                (Base::Absent, old) => old.is_none(),
                (Base::At { create_revision, version, items }, Some(old)) => {
                    create_revision.0 == old.created && version.0 == old.version && *items == old.items()
                }
                (Base::At { .. }, None) => false,
            };
            if !is_base {
                return None;
            }
            next.take(chunks, head.as_ref());
        }
    }
    Some(next)
}

/// The newest session with a delta appended; `None` is a conflict.
fn rebased(old: Option<&Session>, change: &Change) -> Option<Session> {
    let (Some(old), Change::Delta { base, chunks, head, counters }) = (old, change) else {
        return None;
    };
    let (version, items) = match base {
        Base::Absent => (0, 0),
        Base::At { create_revision, .. } if create_revision.0 != old.created => return None,
        Base::At { version, items, .. } => (version.0, *items),
    };
    let head = head.as_ref().filter(|head| **head != old.head);
    let is_known = version <= old.version && items <= old.items();
    if !is_known || version < old.append_only_since || (head.is_some() && old.head_since > version) {
        return None;
    }
    let mut next = old.clone();
    next.version += 1;
    next.take(chunks, head);
    next.counters.add(counters);
    Some(next)
}

impl Session {
    fn content(&self) -> ContentVersion {
        ContentVersion {
            version: Version(self.version),
            create_revision: Revision(self.created),
            items: self.items(),
            next_chunk: self.next_chunk,
        }
    }

    fn items(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.item_count).sum()
    }

    fn take(&mut self, chunks: &[Chunk], head: Option<&Blob>) {
        self.next_chunk += chunks.len() as u64;
        self.chunks.extend_from_slice(chunks);
        if let Some(head) = head {
            self.head = head.clone();
            self.head_since = self.version;
        }
    }
}
