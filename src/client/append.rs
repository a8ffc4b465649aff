//! Appends to whatever is stored: no load before, and no conflict with other appenders.

use bytes::Bytes;

use super::cache::pack;
use super::{AppendOptions, Appended, Client, Error, NO_REQUEST, session_id};
use crate::types::{self, Addition, Attributes, Require, Revision, Verdict, Write};

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
        let count = items.len() as u64;
        let (require, addition, attributes) = addition_of(&items, options)?;
        let write =
            Write::Append { request: NO_REQUEST, id: session_id(id)?, require, addition, attributes, fence: self.handle.fence() };
        let outcome = self.handle.write(write, None).await?;
        match outcome.verdict {
            Verdict::Appended(appended) => Ok(appended_of(appended, count, outcome.revision)),
            verdict => Err(Error::of_verdict(&verdict, outcome.revision)),
        }
    }
}

/// The content of an append of these items, with what it requires and gives. Errors: `Invalid`.
pub(super) fn addition_of(items: &[Bytes], options: AppendOptions) -> Result<(Require, Addition, Attributes), Error> {
    let AppendOptions { require, head_if_created, counters, expiry, tombstone_ttl, label } = options;
    let attributes = Attributes { expiry, tombstone_ttl, label, ..Attributes::default() };
    if matches!(require, Require::At { create_revision: None, version: None, items: None }) {
        return Err(Error::invalid("an append that requires a session names its create_revision, version or items: none is given"));
    }
    let head: &[u8] = if head_if_created.is_empty() { b"{}" } else { &head_if_created };
    let head = require.may_create().then(|| pack::tagged(true, head));
    Ok((require, pack::addition(items, head, counters)?, attributes))
}

/// An append of so many items that happened.
pub(super) fn appended_of(appended: types::Appended, count: u64, revision: Revision) -> Appended {
    let types::Appended { content, counters, .. } = appended;
    Appended {
        version: content.version,
        create_revision: content.create_revision,
        revision,
        first_item: content.items.saturating_sub(count),
        items: content.items,
        counters,
    }
}
