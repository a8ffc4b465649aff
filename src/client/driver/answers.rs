//! The driver's inputs from the network: answers, refusals, lost connections; and the ends of operations.

use super::connection::{self, Broken, Event, StreamId};
use super::given_up::Say;
use super::operation::{Attempt, Body, Key, Operation, Via};
use super::retry::{self, Decision, Situation};
use super::{CLOSE_AGAIN, Connection, Driver};
use crate::client::error::FULL_RETRY_AFTER;
use crate::client::failures::EndpointFailure;
use crate::client::{Error, ErrorKind};
use crate::env::u64_from;
use crate::limits::intervals;
use crate::mutant::{self, Mutant};
use crate::types::{Applied, Change, ClusterId, Order, Outcome, Refusal, RefusalKind, Verdict, Version};
use crate::wire::{self, v1};

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
                self.router.on_answer(line.target);
                answers.into_iter().for_each(|answer| self.answer(answer));
            }
            Event::Down { line, broken } => self.down(line, *broken),
            Event::Alone { target, tag, answer, channel } => match *answer {
                Ok(answer) => {
                    self.bulk = channel.map(|channel| (target, channel));
                    self.router.on_answer(target);
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
        self.router.on_failure(line.target, self.now);
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
            std::mem::take(&mut self.ready).into_iter().for_each(|key| self.give_up_key(key));
        } else if self.failures.are_settings_of_all(all) {
            let waiting = std::mem::take(&mut self.unsequenced).into_iter().chain(std::mem::take(&mut self.ready));
            waiting.collect::<Vec<_>>().into_iter().for_each(|key| self.give_up_key(key));
        }
    }

    /// An answer to an attempt. One with a tag we do not know belongs to an operation that ended, and is dropped.
    fn answer(&mut self, response: v1::SubmitResponse) {
        let Some(key) = self.attempts.get(&response.tag).copied() else { return };
        let Some(mut operation) = self.operations.remove(&key) else { return };
        let Some(attempt) = operation.attempt else { return self.keep(key, operation) };
        let is_refusal = matches!(response.answer, Some(v1::submit_response::Answer::Refusal(_)));
        let cluster = match self.check_cluster(&response, attempt) {
            Err(refusal) if !is_refusal => return self.refuse(key, operation, refusal),
            checked => checked.ok().flatten(),
        };
        if cluster.is_some() && cluster == self.window.cluster() {
            self.window.hear(wire::version_from(response.cluster_version));
        }
        self.answers += 1;
        self.config.seen.note_answer(cluster, &response.answer);
        if let Some(leader) = &response.leader
            && let Some(hint) = wire::leader_hint(leader.node, &leader.address)
        {
            self.router.follow(&hint.address, self.now);
        }
        match response.answer {
            Some(v1::submit_response::Answer::Outcome(outcome)) => match wire::outcome_from(outcome) {
                Ok(outcome) => self.outcome(key, operation, outcome, cluster),
                Err(refusal) => self.refuse(key, operation, not_understood(refusal)),
            },
            Some(v1::submit_response::Answer::Load(frame)) => self.load_frame(key, operation, frame, cluster),
            Some(v1::submit_response::Answer::LoadMany(frame)) => self.many_frame(key, operation, frame, cluster),
            Some(v1::submit_response::Answer::List(page)) => self.list_page(key, operation, page),
            Some(v1::submit_response::Answer::Refusal(refusal)) => {
                let refusal = self.of_older(&mut operation, wire::refusal_from(refusal));
                let failure = EndpointFailure::new(self.router.address(attempt.via.target()), &refusal.message);
                self.failures.note(EndpointFailure { answered: true, ..failure });
                self.refuse(key, operation, refusal);
            }
            None => self.refuse(key, operation, Refusal::unknown(RefusalKind::Unavailable, "answer is empty")),
        }
    }

    /// Puts an operation back that waits for more.
    fn keep(&mut self, key: Key, operation: Operation) {
        self.operations.insert(key, operation);
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
                self.window.learn(answered);
                Ok(Some(answered))
            }
            (_, None) => Ok(None),
        }
    }

    fn load_frame(&mut self, key: Key, mut operation: Operation, frame: v1::LoadFrame, cluster: Option<ClusterId>) {
        let Body::Load { assembler, .. } = &mut operation.body else {
            return self.refuse(key, operation, not_understood(Refusal::invalid("a load's frame answers another call")));
        };
        let pushed = assembler.push(frame);
        self.pushed(key, operation, pushed, |body, assembled| {
            if let Body::Load { reply, .. } = body {
                // The caller went away.
                let _ = reply.send(Ok((assembled, cluster)));
            }
        });
    }

    /// A frame was taken. `answer` gives the body of the operation that it ended what came of all of them.
    fn pushed<T>(&mut self, key: Key, operation: Operation, pushed: Result<Option<T>, Refusal>, answer: impl FnOnce(Body, T)) {
        match pushed {
            Ok(None) => self.keep(key, operation),
            Ok(Some(assembled)) => {
                self.failures.clear();
                answer(self.end(key, operation).body, assembled);
            }
            Err(refusal) if refusal.kind == RefusalKind::Corrupt => self.refuse(key, operation, refusal),
            Err(refusal) => self.refuse(key, operation, not_understood(refusal)),
        }
    }

    fn many_frame(&mut self, key: Key, mut operation: Operation, frame: v1::LoadManyFrame, cluster: Option<ClusterId>) {
        let Body::LoadMany { many, assembler, .. } = &mut operation.body else {
            return self.refuse(key, operation, not_understood(Refusal::invalid("frames of several loads answer another call")));
        };
        let asked = many.loads().len();
        let pushed = assembler.push(frame).and_then(|assembled| match assembled {
            Some(all) if all.loaded.len() != asked => {
                Err(Refusal::invalid(format!("not all loads are answered asked={asked} answered={}", all.loaded.len())))
            }
            assembled => Ok(assembled),
        });
        self.pushed(key, operation, pushed, |body, assembled| {
            if let Body::LoadMany { reply, .. } = body {
                // The caller went away.
                let _ = reply.send(Ok((assembled, cluster)));
            }
        });
    }

    /// The refusal of an operation that the node's release, or its leader's, does not know: others may, until each was asked.
    fn of_older(&self, operation: &mut Operation, refusal: Refusal) -> Refusal {
        if !matches!(operation.body, Body::LoadMany { .. }) || !wire::is_no_operation(&refusal) {
            return refusal;
        }
        operation.history.older += 1;
        let is_last = operation.history.older >= self.router.count();
        let kind = if is_last { RefusalKind::Unsupported } else { RefusalKind::Unavailable };
        let text = "a node's release does not know loads of several sessions together: upgrade every node, or load them one by one";
        Refusal::not_applied(kind, text)
    }

    fn list_page(&mut self, key: Key, operation: Operation, page: v1::ListPage) {
        let page = match wire::list_page_from(page) {
            Ok(page) => page,
            Err(refusal) => return self.refuse(key, operation, not_understood(refusal)),
        };
        // A node of an older release does not know the order, and passes it over.
        if matches!(&operation.body, Body::List { list, .. } if matches!(list.order, Order::Recent { .. }) && page.since.is_none())
        {
            return self.refuse(key, operation, not_understood(Refusal::invalid("the node's release lists by id only")));
        }
        self.failures.clear();
        if let Body::List { reply, .. } = self.end(key, operation).body {
            // The caller went away.
            let _ = reply.send(Ok(page));
        }
    }

    fn outcome(&mut self, key: Key, mut operation: Operation, outcome: Outcome, cluster: Option<ClusterId>) {
        self.failures.clear();
        let users_write = operation.is_write();
        match outcome.verdict {
            Verdict::ClientUnknown => self.client_unknown(key, operation),
            // Not recorded, not executed: like an overload.
            Verdict::Busy => {
                let kind = RefusalKind::Overloaded { retry_after: std::time::Duration::ZERO };
                self.refuse(key, operation, Refusal::not_applied(kind, "the table of outcomes is full"));
            }
            Verdict::Stale | Verdict::WindowExceeded if users_write => self.fail(key, operation, Error::indeterminate(None)),
            // Not recorded: the same request carries the whole. No earlier attempt can still happen: its base never becomes current.
            Verdict::BaseMismatch | Verdict::BaseMismatchAt { .. } => {
                tracing::debug!("a delta's base is not what is stored");
                self.end_attempt(&mut operation);
                self.make_full(key, operation, false);
            }
            // As another write, since this one has its outcome.
            Verdict::Conflict { .. } if operation.fall_back() => {
                self.end_attempt(&mut operation);
                operation.history = Default::default();
                self.resequence(key, operation);
            }
            verdict @ (Verdict::TooManyClients | Verdict::TooManySessions | Verdict::TooManyLeases | Verdict::TooLarge(_)) => {
                self.fail(key, operation, Error::of_verdict(&verdict, outcome.revision));
            }
            // One of our own that is answered so is settled like any other.
            verdict @ (Verdict::Leased { .. } | Verdict::Fenced { .. }) if users_write => {
                self.fail(key, operation, Error::of_verdict(&verdict, outcome.revision));
            }
            _ if users_write => self.end(key, operation).succeed(outcome, cluster),
            verdict => self.own_outcome(key, operation, &verdict),
        }
    }

    /// Has the full change of a save made, which is then sent under the same identity; no attempt is open.
    pub(super) fn make_full(&mut self, key: Key, mut operation: Operation, elsewhere: bool) {
        // Only a user's write continues from anything: another operation that is answered so ends with its deadline.
        let Body::Write { write, plan, .. } = &mut operation.body else { return self.keep(key, operation) };
        let Some(make) = plan.as_mut().and_then(|plan| plan.full_change(elsewhere)) else {
            let is_fenced = elsewhere && write.fence().is_some();
            let error = if is_fenced { Error::fenced(None) } else { Error::forgotten(Version(0)) };
            return self.fail(key, operation, error);
        };
        self.keep(key, operation);
        let made = self.make_full_changes.clone();
        self.tasks.spawn(async move {
            let change = make();
            // The driver ended.
            let _ = made.send((key, change)).await;
        });
    }

    pub(super) fn full_change_made(&mut self, key: Key, change: Result<Change, Error>) {
        let Some(mut operation) = self.operations.remove(&key) else { return };
        match change {
            Err(error) => self.fail(key, operation, error),
            Ok(change) => {
                if let Body::Write { write, plan: Some(plan), .. } = &mut operation.body {
                    plan.on_full_change(&change);
                    write.set_change(change);
                    operation.bytes = write.stored_bytes();
                }
                self.proceed(key, operation);
            }
        }
    }

    fn own_outcome(&mut self, key: Key, operation: Operation, verdict: &Verdict) {
        // Any outcome settles a write under its sequence; only a client that was kept has closed those below.
        let is_heard = |say: &Say| matches!(say, Say::Settle(_)) || *verdict == Verdict::ClientKept;
        if let Some((_, say)) = self.closing.take_if(|(closing, say)| *closing == key && is_heard(say)) {
            self.given_up.on_answer(&say);
            // The next one, if there is one, at once.
            self.close_at = self.now;
        }
        let operation = self.end(key, operation);
        if let (Body::Open { nonce }, Verdict::ClientOpened { client }) = (operation.body, verdict)
            && nonce == self.window.nonce()
        {
            self.window.on_opened(*client);
            self.keep_alive_at = Some(self.now + intervals().keep_alive);
        }
    }

    /// The cluster does not know our client: this attempt changed nothing. An earlier one may have, before the client was dropped.
    fn client_unknown(&mut self, key: Key, mut operation: Operation) {
        let Some(request) = operation.request else {
            // A keep-alive: the next write opens another client. A close: there is nothing to close.
            if let Some(client) = self.window.client() {
                self.window.forget(client, self.config.nonce());
            }
            return self.fail(key, operation, Error::refused("the client is not open"));
        };
        self.window.forget(request.client, self.config.nonce());
        tracing::debug!(client = request.client.0, "the cluster forgot this client, another is opened");
        if operation.history.ambiguous {
            self.fail(key, operation, Error::indeterminate(None));
        } else {
            self.end_attempt(&mut operation);
            self.resequence(key, operation);
        }
    }

    /// Sends a write again under another identity: every attempt under the old one definitely changed nothing (L7).
    fn resequence(&mut self, key: Key, mut operation: Operation) {
        assert!(!operation.history.ambiguous, "an ambiguous write got another identity");
        if let Some(request) = operation.request.take() {
            self.window.close(&request);
        }
        self.proceed(key, operation);
    }

    fn refuse_tag(&mut self, tag: u64, refusal: Refusal) {
        let Some(key) = self.attempts.get(&tag).copied() else { return };
        let Some(operation) = self.operations.remove(&key) else { return };
        self.refuse(key, operation, refusal);
    }

    fn refuse(&mut self, key: Key, mut operation: Operation, refusal: Refusal) {
        let Some(attempt) = self.end_attempt(&mut operation) else { return self.keep(key, operation) };
        let target = attempt.via.target();
        let random = u64_from(&*self.config.random);
        if refusal.kind == RefusalKind::Unauthenticated {
            self.drop_stale_stream(attempt.via);
        }
        if let Some(request) = operation.request.filter(|_| refusal.applied == Applied::No) {
            tracing::trace!(client = request.client.0, sequence = request.sequence.0, "an attempt of a write was refused");
        }
        if operation.is_write() && refusal.applied == Applied::Unknown {
            operation.history.ambiguous = true;
            if let Some(request) = operation.request.take_if(|_| mutant::is(Mutant::RetryWithNewRequest)) {
                self.window.close(&request);
            }
        }
        let remaining = operation.deadline.saturating_sub(self.now);
        let situation = Situation { remaining, endpoints: self.router.count(), random };
        let decision = retry::next(&refusal, &mut operation.history, situation);
        if matches!(operation.body, Body::Open { .. }) {
            self.explain_unsequenced(&refusal);
        }
        operation.refusal = Some(refusal);
        match decision {
            Decision::Follow(hint) if self.router.follow(&hint.address, self.now) => self.proceed(key, operation),
            // The named leader just failed: give the others time to notice.
            Decision::Follow(_) => self.retry_after(key, operation, target, retry::jittered(std::time::Duration::ZERO, random)),
            Decision::Elsewhere => {
                self.router.on_failure(target, self.now);
                self.proceed(key, operation);
            }
            Decision::After(wait) => self.retry_after(key, operation, target, wait),
            Decision::Forget(wait) => {
                if attempt.cluster == self.window.cluster() {
                    self.window.forget_cluster(self.config.nonce());
                }
                operation.request = None;
                self.retry_after(key, operation, target, wait);
            }
            Decision::GiveUp => self.give_up(key, operation),
        }
    }

    /// Drops a stream whose token is no longer good, once nothing is open on it: the next one is opened with the current token.
    fn drop_stale_stream(&mut self, via: Via) {
        if let Via::Stream(line) = via
            && self.connection(line).is_some_and(|connection| connection.open == 0)
            && let Some(connection) = self.connections.remove(&line.target)
        {
            connection.task.abort();
        }
    }

    /// Waits, then tries again; elsewhere, if this endpoint still is the preferred one.
    fn retry_after(&mut self, key: Key, mut operation: Operation, target: usize, wait: std::time::Duration) {
        self.router.leave(target);
        self.timers.arm(key, &mut operation, self.now + wait);
        self.keep(key, operation);
    }

    fn end_attempt(&mut self, operation: &mut Operation) -> Option<Attempt> {
        let attempt = operation.attempt.take()?;
        match &mut operation.body {
            Body::Load { assembler, .. } if !mutant::is(Mutant::LostFramesKept) => **assembler = Default::default(),
            Body::LoadMany { assembler, .. } => **assembler = Default::default(),
            _ => {}
        }
        self.attempts.remove(&attempt.tag);
        if let Via::Stream(stream) = attempt.via
            && let Some(connection) = self.connection(stream)
        {
            connection.open = connection.open.saturating_sub(1);
        }
        Some(attempt)
    }

    pub(super) fn fail_key(&mut self, key: Key, error: Error) {
        if let Some(operation) = self.operations.remove(&key) {
            self.fail(key, operation, error);
        }
    }

    /// Ends an operation with an error. Its sequence is closed: it will never be sent again.
    pub(super) fn fail(&mut self, key: Key, operation: Operation, error: Error) {
        let operation = self.end(key, operation);
        if matches!(error.kind(), ErrorKind::Indeterminate)
            && let (Some(request), Some(id)) = (operation.request, operation.written().next())
        {
            self.given_up.note(request, id.clone(), &self.window);
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
            if let Some(operation) = self.operations.remove(&key) {
                self.end(key, operation).fail(error.for_another());
            }
        }
    }

    /// Takes an operation, which is out of the table, with its attempt out of all else but the queues, and lets go what waited for it.
    fn end(&mut self, key: Key, mut operation: Operation) -> Operation {
        self.end_attempt(&mut operation);
        self.timers.end(key, &mut operation);
        if let Some(request) = &operation.request {
            self.window.close(request);
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
        for id in operation.written() {
            if let Some(writes) = self.sessions.get_mut(id) {
                writes.retain(|write| *write != key);
                if writes.is_empty() {
                    self.sessions.remove(id);
                }
            }
            self.open_gates(id);
        }
        operation
    }
}

/// The refusal of an answer that can't be understood: the effect of the attempt is unknown.
fn not_understood(refusal: Refusal) -> Refusal {
    Refusal::unknown(RefusalKind::Unavailable, format!("answer is not understood: {}", refusal.message))
}
