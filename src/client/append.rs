//! Appends to whatever is stored: no load before, and no conflict with other appenders.

use std::time::Duration;

use bytes::Bytes;

use super::cache::pack;
use super::{Client, Error, ErrorKind, NO_REQUEST, session_id};
use crate::types::{self, Attributes, Counters, Expiry, Label, Require, Revision, Verdict, Version, Write};

/// How to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// The state of the session that is required; any, by default, and one that is absent is created.
    pub require: Require,
    /// The head, JSON, of a session that the append creates; `{}` if it is empty. That of one that exists is never touched.
    pub head_if_created: Bytes,
    /// The increments of the counters.
    pub counters: Counters,
    /// When the session is to expire; as it was, by default.
    pub expiry: Expiry,
    /// As of [`WriteOptions`](crate::client::WriteOptions).
    pub tombstone_ttl: Option<Duration>,
    /// As of [`WriteOptions`](crate::client::WriteOptions).
    pub label: Option<Label>,
}

/// An append that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The session's version now.
    pub version: Version,
    /// Where the session was created.
    pub create_revision: Revision,
    /// The append's own place in the order of all writes.
    pub revision: Revision,
    /// The position of the first new item, counted from 0.
    pub first_item: u64,
    /// Items of the session now; the new ones are the last.
    pub items: u64,
    /// The counters now.
    pub counters: Counters,
}

impl Client {
    /// Appends items, JSON each, to a transcript, in one step, whatever others append meanwhile: nothing is loaded, and the cost does not
    /// depend on the length of the session. Without items it adds to the counters, and says their values. It needs cluster version 2.
    ///
    /// Bounds: those of a session, for what is appended and for what comes of it. Errors: every [`ErrorKind`]; `Conflict` where `require` is
    /// not met; `WrongForm` if the session is a plain value; `Unsupported` under cluster version 1; in each of these nothing changed. After
    /// `Indeterminate` it may or may not have happened: an application that repeats it names the items it saw in [`Require::At`].
    /// Dropping the future does not cancel the append once it is enqueued.
    #[doc(hidden)]
    pub async fn append(&self, id: &str, items: Vec<Bytes>, options: AppendOptions) -> Result<Appended, Error> {
        let AppendOptions { require, head_if_created, counters, expiry, tombstone_ttl, label } = options;
        let attributes = Attributes { expiry, tombstone_ttl, label, ..Attributes::default() };
        if matches!(require, Require::At { create_revision: None, version: None, items: None }) {
            return Err(Error::invalid(
                "an append that requires a session names its create_revision, version or items: none is given",
            ));
        }
        let head: &[u8] = if head_if_created.is_empty() { b"{}" } else { &head_if_created };
        let head = require.may_create().then(|| pack::tagged(true, head));
        let count = items.len() as u64;
        let addition = pack::addition(&items, head, counters)?;
        let write = Write::Append { request: NO_REQUEST, id: session_id(id)?, require, addition, attributes, fence: None };
        let outcome = self.handle.write(write, None).await?;
        match outcome.verdict {
            Verdict::Appended(types::Appended { content, counters, .. }) => Ok(Appended {
                version: content.version,
                create_revision: content.create_revision,
                revision: outcome.revision,
                first_item: content.items.saturating_sub(count),
                items: content.items,
                counters,
            }),
            Verdict::Conflict { actual, .. } => Err(Error::conflict(actual, outcome.revision)),
            Verdict::WrongForm { form } => {
                let message = format!("items can't be appended, nothing changed: the session is no transcript form={form:?}");
                Err(Error::new(ErrorKind::WrongForm, message))
            }
            // No append gets such an outcome: what it did is not known.
            _ => Err(Error::indeterminate(None)),
        }
    }
}
