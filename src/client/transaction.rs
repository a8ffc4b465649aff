//! Transactions: up to 64 operations on as many sessions, of which all are done or none.

use bytes::Bytes;

use super::append::{addition_of, appended_of};
use super::cache::pack;
use super::handle::Fencing;
use super::{AppendOptions, Appended, Client, Content, Error, NO_REQUEST, Turn, WriteOptions, Written, session_id, written};
use crate::types::{
    self, Attributes, Change, Expected, OnConflict, Operation, Operations, Outcome, Revision, SessionId, Verdict, Write,
};

/// A transaction that is being put together. Nothing is sent before [`Transaction::commit`].
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    client: Client,
    /// Each with the items that it appends.
    operations: Vec<(Operation, u64)>,
    turns: Vec<(SessionId, Fencing)>,
    /// The first operation that is wrong as written.
    wrong: Option<Error>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("operations", &self.operations.len()).finish_non_exhaustive()
    }
}

/// A transaction that was done, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transacted {
    /// The transaction's own place in the order of all writes: all of it has this one.
    pub revision: Revision,
    /// The effect of each operation, in the order in which they were given.
    pub done: Vec<Done>,
}

/// The effect of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Done {
    /// The session was as required.
    Met,
    /// The session was saved.
    Saved(Written),
    /// The items were appended.
    Appended(Appended),
    /// The session was deleted; `None`: there was nothing.
    Deleted(Option<Written>),
}

impl Client {
    /// Begins a transaction: operations on up to 64 sessions, of which all are done at one revision, or nothing changes. Each is decided against
    /// the state before the transaction, and does what the call of its name does alone. It needs cluster version 2.
    ///
    /// With [`Client::load_parts`] it is serializable: load several sessions as of one instant, then require what was read and write what
    /// follows from it.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::Client) -> Result<(), quorate::client::Error> {
    /// use quorate::client::{AppendOptions, Content, Expected, WriteOptions};
    ///
    /// let tool_call = vec![r#"{"role": "tool"}"#.into()];
    /// client
    ///     .transaction()
    ///     .append("conversation", tool_call, AppendOptions::default())
    ///     .save_if_version("budget", Content::Value("41".into()), Expected::Absent, WriteOptions::default())
    ///     .delete("draft", None)
    ///     .commit()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(hidden)]
    pub fn transaction(&self) -> Transaction {
        Transaction { client: self.clone(), operations: Vec::new(), turns: Vec::new(), wrong: None }
    }
}

impl Transaction {
    /// Requires a session to be as expected, and changes nothing of it. A right to read it is enough.
    pub fn require(self, id: &str, expected: Expected) -> Self {
        self.with(id, 0, |id| Ok(Operation::Require { id, expected: Some(expected), fence: None }))
    }

    /// As [`Client::save`]. The content travels whole.
    pub fn save(self, id: &str, content: Content, options: WriteOptions) -> Self {
        self.with(id, 0, |id| {
            let (change, attributes) = whole(content, options)?;
            Ok(Operation::Save { id, change, attributes, fence: None })
        })
    }

    /// As [`Client::save_if_version`]. The content travels whole.
    pub fn save_if_version(self, id: &str, content: Content, expected: Expected, options: WriteOptions) -> Self {
        self.with(id, 0, |id| {
            let (change, attributes) = whole(content, options)?;
            Ok(Operation::SaveIfVersion { id, expected, change, on_conflict: OnConflict::Reject, attributes, fence: None })
        })
    }

    /// As [`Client::append`].
    pub fn append(self, id: &str, items: Vec<Bytes>, options: AppendOptions) -> Self {
        self.with(id, items.len() as u64, |id| {
            let (require, addition, attributes) = addition_of(&items, options)?;
            Ok(Operation::Append { id, require, addition, attributes, fence: None })
        })
    }

    /// As [`Client::delete`]: where nothing is stored and nothing expected, that is no failure.
    pub fn delete(self, id: &str, expected: Option<Expected>) -> Self {
        self.with(id, 0, |id| Ok(Operation::Delete { id, expected, fence: None }))
    }

    /// Makes the transaction a part of this turn: the operation on its session carries the turn's fence, and where there is none, the turn is
    /// required to last. A transaction may be a part of several turns of one client.
    pub fn under(mut self, turn: &Turn) -> Self {
        self.turns.push(turn.fencing());
        self
    }

    fn with(mut self, id: &str, items: u64, operation: impl FnOnce(SessionId) -> Result<Operation, Error>) -> Self {
        let index = self.operations.len();
        match session_id(id).and_then(operation) {
            Ok(operation) => self.operations.push((operation, items)),
            Err(error) => drop(self.wrong.get_or_insert(error.in_operation(index, id))),
        }
        self
    }

    /// Sends the transaction. Once it is enqueued, dropping the future does not cancel it.
    ///
    /// Errors: every [`ErrorKind`](super::ErrorKind). Of an operation that failed [`Error::operation`] is the position, and its kind says why, as
    /// of that call alone (`Conflict`, `Leased`, `Fenced`, `WrongForm`, `Invalid` where something would be too large): nothing at all changed.
    /// `Invalid` also for no operation, more than 64, two on one session, or more than 16 MiB or 4 096 chunks together. `Fenced` also if it is
    /// part of turns of two clusters. After `Indeterminate` all of it happened, or nothing.
    pub async fn commit(self) -> Result<Transacted, Error> {
        let Self { client, mut operations, turns, wrong } = self;
        if let Some(error) = wrong {
            return Err(error);
        }
        let given = operations.len();
        let mut handle = client.handle;
        for (id, fencing) in turns {
            if handle.fencing().is_some_and(|other| other.cluster != fencing.cluster) {
                return Err(Error::fenced(None));
            }
            handle = handle.fenced(fencing);
            match operations.iter_mut().find(|(operation, _)| *operation.session().0 == id) {
                Some((operation, _)) => operation.set_fence(fencing.fence),
                None => operations.push((Operation::Require { id, expected: None, fence: Some(fencing.fence) }, 0)),
            }
        }
        let (operations, items): (Vec<_>, Vec<_>) = operations.into_iter().unzip();
        let ids: Vec<SessionId> = operations.iter().map(|operation| operation.session().0.clone()).collect();
        let operations = Operations::new(operations).map_err(|error| Error::invalid(error.to_string()))?;
        let Outcome { revision, verdict } = handle.write(Write::Transaction { request: NO_REQUEST, operations }, None).await?;
        match verdict {
            Verdict::Transacted(types::Transacted { results }) if results.len() == ids.len() => {
                let done = results.into_iter().zip(items).take(given);
                let done = done.map(|(verdict, items)| done_of(verdict, items, revision)).collect::<Result<_, _>>()?;
                Ok(Transacted { revision, done })
            }
            Verdict::Aborted(types::Aborted { index, verdict }) => {
                let index = index as usize;
                let id = ids.get(index).map_or("", |id| id.as_str());
                Err(Error::of_verdict(&verdict, revision).in_operation(index, id))
            }
            // No transaction gets such an outcome: what it did is not known.
            _ => Err(Error::indeterminate(None)),
        }
    }
}

fn whole(content: Content, options: WriteOptions) -> Result<(Change, Attributes), Error> {
    let (items, head, counters) = content.into_parts();
    let attributes = Attributes { form: pack::form(&head), ..options.attributes() };
    Ok((pack::full(&items, &head, counters)?, attributes))
}

fn done_of(verdict: Verdict, items: u64, revision: Revision) -> Result<Done, Error> {
    match verdict {
        Verdict::Met => Ok(Done::Met),
        Verdict::Appended(appended) => Ok(Done::Appended(appended_of(appended, items, revision))),
        Verdict::NotFound { .. } => Ok(Done::Deleted(None)),
        Verdict::Deleted { .. } => written(Outcome { revision, verdict }).map(|written| Done::Deleted(Some(written))),
        verdict => written(Outcome { revision, verdict }).map(Done::Saved),
    }
}
