//! What arrives: answers, refusals, lost connections; and how operations end.

use super::connection::{self, Broken, Event, StreamId};
use super::given_up::Say;
use super::operation::{Attempt, Body, Key, Operation, Via};
use super::retry::{self, Decision, Situation};
use super::{CLOSE_AGAIN, Connection, Driver};
use crate::client::failures::EndpointFailure;
use crate::client::{Error, ErrorKind};
use crate::env::u64_from;
use crate::limits::intervals;
use crate::mutant::{self, Mutant};
use crate::types::{Applied, Change, ClusterId, Outcome, Refusal, RefusalKind, Verdict, Version};
use crate::wire::{self, v1};

/// How long after a full table of clients or sessions to try again.
const FULL_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

impl Driver {
    pub(super) fn report(&mut self, event: Event) {
        match event {
            Event::Up { line, requests, channel } => {
                if let Some(connection) = self.connection(line) {
                    connection.requests = Some(requests);
                    // The endpoints this client was built with may all be gone one day.
                    self.tasks.spawn(connection::learn(channel, self.reports.clone()));
                }
            }
            Event::Members { addresses } => addresses.iter().for_each(|address| self.router.learn(address)),
            Event::Answers { line, answers } => {
                self.router.answered(line.target);
                answers.into_iter().for_each(|answer| self.answer(answer));
            }
            Event::Down { line, broken } => self.down(line, *broken),
            Event::Alone { target, tag, answer, channel } => match *answer {
                Ok(answer) => {
                    self.bulk = channel.map(|channel| (target, channel));
                    self.router.answered(target);
                    self.answer(v1::SubmitResponse { tag, ..answer });
                }
                Err(Broken { refusal, failure }) => {
                    self.failures.note(failure);
                    if self.bulk.as_ref().is_some_and(|(at, _)| *at == target) && channel.is_none() {
                        self.bulk = None;
                    }
                    self.refuse_tag(tag, refusal);
                }
            },
            Event::Remade { key, change } => self.remade(key, change),
        }
    }

    fn connection(&mut self, line: StreamId) -> Option<&mut Connection> {
        self.connections.get_mut(&line.target).filter(|connection| connection.generation == line.generation)
    }

    /// A stream ended: everything on it without an answer is refused as the stream was.
    fn down(&mut self, line: StreamId, broken: Broken) {
        if self.connection(line).is_none() {
            return;
        }
        let Broken { refusal, failure } = broken;
        self.failures.note(failure);
        self.connections.remove(&line.target);
        self.router.failed(line.target, self.now);
        let on_it = |key: &Key| {
            let attempt = self.operations.get(key).and_then(|operation| operation.attempt);
            attempt.filter(|attempt| attempt.via == Via::Stream(line)).map(|attempt| attempt.tag)
        };
        let tags: Vec<u64> = self.attempts.values().filter_map(on_it).collect();
        // Where nothing was sent, the refusal still is the reason to give when time runs out.
        self.explain_unsequenced(&refusal);
        for key in &self.ready {
            if let Some(operation) = self.operations.get_mut(key) {
                operation.refusal = Some(refusal.clone());
            }
        }
        tags.into_iter().for_each(|tag| self.refuse_tag(tag, refusal.clone()));
        // A node that does not take what we show will not by being asked again, nor does any that we do not fit.
        let all = (0..self.router.count()).map(|at| self.router.address(at));
        if refusal.kind == RefusalKind::Unauthenticated {
            std::mem::take(&mut self.ready).into_iter().for_each(|key| self.give_up(key));
        } else if self.failures.are_settings_of_all(all) {
            let waiting = std::mem::take(&mut self.unsequenced).into_iter().chain(std::mem::take(&mut self.ready));
            waiting.collect::<Vec<_>>().into_iter().for_each(|key| self.give_up(key));
        }
    }

    /// An answer to an attempt. One with a tag we do not know belongs to an operation that ended, and is dropped.
    fn answer(&mut self, response: v1::SubmitResponse) {
        let Some(key) = self.attempts.get(&response.tag).copied() else { return };
        let Some(attempt) = self.operations.get(&key).and_then(|operation| operation.attempt) else { return };
        let is_refusal = matches!(response.answer, Some(v1::submit_response::Answer::Refusal(_)));
        let cluster = match self.check_cluster(&response, attempt) {
            Err(refusal) if !is_refusal => return self.refuse_tag(response.tag, refusal),
            checked => checked.ok().flatten(),
        };
        if let Some(leader) = &response.leader
            && let Some(hint) = wire::leader_hint(leader.node, &leader.address)
        {
            self.router.follow(&hint.address, self.now);
        }
        match response.answer {
            Some(v1::submit_response::Answer::Outcome(outcome)) => match wire::outcome_from(outcome) {
                Ok(outcome) => self.outcome(key, attempt, outcome, cluster),
                Err(refusal) => self.refuse_tag(response.tag, not_understood(refusal)),
            },
            Some(v1::submit_response::Answer::Load(frame)) => self.load_frame(key, attempt, frame, cluster),
            Some(v1::submit_response::Answer::List(page)) => self.list_page(key, attempt, page),
            Some(v1::submit_response::Answer::Refusal(refusal)) => {
                let refusal = wire::refusal_from(refusal);
                let failure = EndpointFailure::new(self.router.address(attempt.via.target()), &refusal.message);
                self.failures.note(EndpointFailure { answered: true, ..failure });
                self.refuse_tag(response.tag, refusal);
            }
            None => self.refuse_tag(response.tag, Refusal::unknown(RefusalKind::Unavailable, "answer is empty")),
        }
    }

    /// The cluster that answered. An outcome counts only if that is the one that was asked.
    fn check_cluster(&mut self, response: &v1::SubmitResponse, attempt: Attempt) -> Result<Option<ClusterId>, Refusal> {
        let answered: Option<ClusterId> = wire::cluster_id_from(&response.cluster_id)?;
        match (attempt.cluster, answered) {
            (Some(asked), Some(answered)) if asked != answered => {
                let message = format!("another cluster answered asked={asked} answered={answered}");
                Err(Refusal::unknown(RefusalKind::WrongCluster, message))
            }
            (_, Some(answered)) => {
                self.table.learn(answered);
                Ok(Some(answered))
            }
            (_, None) => Ok(None),
        }
    }

    fn load_frame(&mut self, key: Key, attempt: Attempt, frame: v1::LoadFrame, cluster: Option<ClusterId>) {
        let Some(Operation { body: Body::Load { assembler, .. }, .. }) = self.operations.get_mut(&key) else {
            return self.refuse_tag(attempt.tag, not_understood(Refusal::invalid("a load's frame answers another call")));
        };
        match assembler.push(frame) {
            Ok(None) => {}
            Ok(Some(assembled)) => {
                self.failures.clear();
                self.end_attempt(key);
                if let Some(Operation { body: Body::Load { reply, .. }, .. }) = self.remove(key) {
                    // The caller went away.
                    let _ = reply.send(Ok((assembled, cluster)));
                }
            }
            Err(refusal) if refusal.kind == RefusalKind::Corrupt => self.refuse_tag(attempt.tag, refusal),
            Err(refusal) => self.refuse_tag(attempt.tag, not_understood(refusal)),
        }
    }

    fn list_page(&mut self, key: Key, attempt: Attempt, page: v1::ListPage) {
        let page = match wire::list_page_from(page) {
            Ok(page) => page,
            Err(refusal) => return self.refuse_tag(attempt.tag, not_understood(refusal)),
        };
        self.failures.clear();
        self.end_attempt(key);
        if let Some(Operation { body: Body::List { reply, .. }, .. }) = self.remove(key) {
            // The caller went away.
            let _ = reply.send(Ok(page));
        }
    }

    fn outcome(&mut self, key: Key, attempt: Attempt, outcome: Outcome, cluster: Option<ClusterId>) {
        self.failures.clear();
        let users_write = self.operations.get(&key).is_some_and(Operation::is_write);
        match outcome.verdict {
            Verdict::ClientUnknown => self.client_unknown(key, attempt),
            // Not recorded, not executed: like an overload.
            Verdict::Busy => {
                let kind = RefusalKind::Overloaded { retry_after: std::time::Duration::ZERO };
                self.refuse_tag(attempt.tag, Refusal::not_applied(kind, "the table of outcomes is full"));
            }
            Verdict::Stale | Verdict::WindowExceeded if users_write => self.fail(key, Error::indeterminate(None)),
            // Not recorded: the same request carries the whole. No earlier attempt can still happen: its base never becomes current.
            Verdict::BaseMismatch => {
                tracing::debug!("a delta's base is not what is stored");
                self.end_attempt(key);
                self.remake(key, false);
            }
            Verdict::Conflict { .. } if self.send_instead(key) => {}
            Verdict::TooManyClients | Verdict::TooManySessions => {
                let error =
                    Error::new(ErrorKind::Refused { retry_after: FULL_RETRY_AFTER }, "the cluster is full, nothing changed");
                self.fail(key, error);
            }
            Verdict::TooLarge(what) => self.fail(key, Error::too_large(what, outcome.revision)),
            _ if users_write => {
                self.end_attempt(key);
                if let Some(Operation { body: Body::Write { reply, plan, .. }, history, .. }) = self.remove(key) {
                    if history.ambiguous {
                        let is_conflict = matches!(outcome.verdict, Verdict::Conflict { .. });
                        tracing::debug!(is_conflict, "an ambiguous write was settled by a retry");
                    }
                    if let Some(mut plan) = plan {
                        plan.ended(Ok((&outcome, cluster)));
                    }
                    // The caller went away; the write happened all the same.
                    let _ = reply.send(Ok(outcome));
                }
            }
            verdict => self.own_outcome(key, &verdict),
        }
    }

    /// Has the whole content of a save made, which is then sent under the same identity; no attempt is open.
    pub(super) fn remake(&mut self, key: Key, elsewhere: bool) {
        let Some(Operation { body: Body::Write { plan, .. }, .. }) = self.operations.get_mut(&key) else { return };
        let Some(make) = plan.as_mut().and_then(|plan| plan.remake(elsewhere)) else {
            return self.fail(key, Error::forgotten(Version(0)));
        };
        let reports = self.reports.clone();
        self.tasks.spawn(async move {
            let change = make();
            // The driver ended.
            let _ = reports.send(Event::Remade { key, change }).await;
        });
    }

    fn remade(&mut self, key: Key, change: Result<Change, Error>) {
        let Some(operation) = self.operations.get_mut(&key) else { return };
        let Body::Write { write, plan: Some(plan), .. } = &mut operation.body else { return };
        match change {
            Err(error) => self.fail(key, error),
            Ok(change) => {
                plan.remade(&change);
                operation.bytes = change.stored_bytes();
                write.set_change(change);
                self.proceed(key);
            }
        }
    }

    /// Whether there is something else to send after a conflict: as another write, since this one has its outcome.
    fn send_instead(&mut self, key: Key) -> bool {
        let Some(operation) = self.operations.get_mut(&key) else { return false };
        let Body::Write { write, plan: Some(plan), .. } = &mut operation.body else { return false };
        let Some(instead) = plan.instead() else { return false };
        operation.bytes = instead.change().map_or(0, Change::stored_bytes);
        *write = instead;
        self.end_attempt(key);
        if let Some(operation) = self.operations.get_mut(&key) {
            operation.history = Default::default();
        }
        self.resequence(key);
        true
    }

    fn own_outcome(&mut self, key: Key, verdict: &Verdict) {
        // Any outcome settles a write under its sequence; only a client that was kept has closed those below.
        let is_heard = |say: &Say| matches!(say, Say::Settle(_)) || *verdict == Verdict::ClientKept;
        if let Some((_, say)) = self.closing.take_if(|(closing, say)| *closing == key && is_heard(say)) {
            self.given_up.heard(&say);
            // The next one, if there is one, at once.
            self.close_at = self.now;
        }
        self.end_attempt(key);
        let removed = self.remove(key);
        if let (Some(Operation { body: Body::Open { nonce }, .. }), Verdict::ClientOpened { client }) = (removed, verdict)
            && nonce == self.table.nonce()
        {
            self.table.opened(*client);
            self.keep_alive_at = Some(self.now + intervals().keep_alive);
        }
    }

    /// The cluster does not know our client: this attempt changed nothing. An earlier one may have, before the client was dropped.
    fn client_unknown(&mut self, key: Key, attempt: Attempt) {
        let Some(request) = self.operations.get(&key).and_then(|operation| operation.request) else {
            // A keep-alive: the next write opens another client. A close: there is nothing to close.
            if let Some(client) = self.table.client() {
                self.table.forget(client, self.config.nonce());
            }
            let error = Error::refused("the client is not open");
            return self.fail(key, error);
        };
        self.table.forget(request.client, self.config.nonce());
        tracing::debug!(client = request.client.0, "the cluster forgot this client, another is opened");
        if self.operations.get(&key).is_some_and(|operation| operation.history.ambiguous) {
            self.fail(key, Error::indeterminate(None));
        } else {
            self.end_attempt(key);
            self.resequence(key);
        }
        assert!(!self.attempts.contains_key(&attempt.tag), "an answered attempt is open tag={}", attempt.tag);
    }

    /// Sends a write again under another identity: every attempt under the old one definitely changed nothing (L7).
    fn resequence(&mut self, key: Key) {
        let Some(operation) = self.operations.get_mut(&key) else { return };
        assert!(!operation.history.ambiguous, "an ambiguous write got another identity");
        if let Some(request) = operation.request.take() {
            self.table.close(&request);
        }
        self.proceed(key);
    }

    fn refuse_tag(&mut self, tag: u64, refusal: Refusal) {
        let Some(key) = self.attempts.get(&tag).copied() else { return };
        self.refuse(key, refusal);
    }

    fn refuse(&mut self, key: Key, refusal: Refusal) {
        let Some(attempt) = self.end_attempt(key) else { return };
        let target = attempt.via.target();
        let random = u64_from(&*self.config.random);
        if refusal.kind == RefusalKind::Unauthenticated {
            self.show_current(attempt.via);
        }
        let Some(operation) = self.operations.get_mut(&key) else { return };
        if let Some(request) = operation.request.filter(|_| refusal.applied == Applied::No) {
            tracing::trace!(client = request.client.0, sequence = request.sequence.0, "an attempt of a write was refused");
        }
        let remaining = operation.deadline.saturating_sub(self.now);
        if operation.is_write() && refusal.applied == Applied::Unknown {
            operation.history.ambiguous = true;
            if let Some(request) = operation.request.take_if(|_| mutant::is(Mutant::RetryWithNewRequest)) {
                self.table.close(&request);
            }
        }
        let situation = Situation { remaining, endpoints: self.router.count(), random };
        let decision = retry::next(&refusal, &mut operation.history, situation);
        operation.refusal = Some(refusal.clone());
        if matches!(operation.body, Body::Open { .. }) {
            self.explain_unsequenced(&refusal);
        }
        match decision {
            Decision::Follow(hint) if self.router.follow(&hint.address, self.now) => self.proceed(key),
            // The named leader just failed: give the others time to notice.
            Decision::Follow(_) => self.rest(key, target, retry::jittered(std::time::Duration::ZERO, random)),
            Decision::Elsewhere => {
                self.router.failed(target, self.now);
                self.proceed(key);
            }
            Decision::After(wait) => self.rest(key, target, wait),
            Decision::Forget(wait) => {
                if attempt.cluster == self.table.cluster() {
                    self.table.forget_cluster(self.config.nonce());
                }
                if let Some(operation) = self.operations.get_mut(&key) {
                    operation.request = None;
                }
                self.rest(key, target, wait);
            }
            Decision::GiveUp => self.give_up(key),
        }
    }

    /// The token shown on a stream is no longer good: the next stream shows what is current then.
    fn show_current(&mut self, via: Via) {
        if let Via::Stream(line) = via
            && self.connection(line).is_some_and(|connection| connection.open == 0)
            && let Some(connection) = self.connections.remove(&line.target)
        {
            connection.task.abort();
        }
    }

    /// Waits, then tries again; elsewhere, if this endpoint still is the preferred one.
    fn rest(&mut self, key: Key, target: usize, wait: std::time::Duration) {
        self.router.leave(target);
        self.arm(key, self.now + wait);
    }

    fn end_attempt(&mut self, key: Key) -> Option<Attempt> {
        let operation = self.operations.get_mut(&key)?;
        let attempt = operation.attempt.take()?;
        if let Body::Load { assembler, .. } = &mut operation.body
            && !mutant::is(Mutant::LostFramesKept)
        {
            **assembler = Default::default();
        }
        self.attempts.remove(&attempt.tag);
        if let Via::Stream(line) = attempt.via
            && let Some(connection) = self.connection(line)
        {
            connection.open = connection.open.saturating_sub(1);
        }
        Some(attempt)
    }

    /// Ends an operation with an error. Its sequence is closed: it will never be sent again.
    pub(super) fn fail(&mut self, key: Key, error: Error) {
        self.end_attempt(key);
        let Some(operation) = self.remove(key) else { return };
        if matches!(error.kind(), ErrorKind::Indeterminate)
            && let (Some(request), Some(id)) = (operation.request, operation.session())
        {
            self.given_up.note(request, id.clone(), &self.table);
        }
        if let Body::Open { .. } = operation.body
            && !matches!(error.kind(), ErrorKind::Refused { retry_after } if retry_after < FULL_RETRY_AFTER)
        {
            self.fail_unsequenced(&error);
        }
        operation.fail(error);
    }

    /// A call that waits for the client learns at its deadline why there was none.
    fn explain_unsequenced(&mut self, refusal: &Refusal) {
        for key in &self.unsequenced {
            if let Some(operation) = self.operations.get_mut(key) {
                operation.refusal = Some(refusal.clone());
            }
        }
    }

    /// The client can not be opened, and will not be by trying again now: the calls that wait for it fail.
    fn fail_unsequenced(&mut self, error: &Error) {
        for key in std::mem::take(&mut self.unsequenced) {
            if let Some(operation) = self.remove(key) {
                operation.fail(error.for_another());
            }
        }
    }

    /// Takes an operation out of everything but the queues, and lets go what waited for it.
    fn remove(&mut self, key: Key) -> Option<Operation> {
        self.disarm(key);
        let operation = self.operations.remove(&key)?;
        self.timers.remove(&(operation.deadline, key));
        if let Some(request) = &operation.request {
            self.table.close(request);
        }
        if operation.is_users() {
            self.users -= 1;
        }
        if self.opening == Some(key) {
            self.opening = None;
        }
        if self.closing.take_if(|(closing, _)| *closing == key).is_some() {
            self.close_at = self.now + CLOSE_AGAIN;
        }
        if operation.is_write()
            && let Some(id) = operation.session()
        {
            if let Some(writes) = self.sessions.get_mut(id) {
                writes.retain(|write| *write != key);
                if writes.is_empty() {
                    self.sessions.remove(id);
                }
            }
            self.open_gates(id);
        }
        Some(operation)
    }
}

/// What arrived makes no sense: nothing is known of what that node did.
fn not_understood(refusal: Refusal) -> Refusal {
    Refusal::unknown(RefusalKind::Unavailable, format!("answer is not understood: {}", refusal.message))
}
