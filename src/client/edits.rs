//! Edits of conversations: each is one read and one conditional write, and the server has no call for them.

use super::{Client, Content, CopyOptions, Error, Part, SessionPart, WriteOptions, Written};
use crate::types::{Counters, Expected};

use bytes::Bytes;

impl Client {
    /// Stores a session's content, or its first items, as a new session: a conversation branches. `None`: there is no session `from`.
    ///
    /// Cost: a load of the items that are copied, and one save of them in full; no later change of one is seen in the other. Counters begin
    /// at 0 unless the options say otherwise.
    ///
    /// Errors: every [`ErrorKind`](super::ErrorKind); `Conflict` if there is a session `to`, and nothing changed; `Invalid` also if both are
    /// one. Dropping the future does not cancel the save once it is enqueued.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::Client) -> Result<(), quorate::client::Error> {
    /// use quorate::client::CopyOptions;
    ///
    /// let options = CopyOptions { first_items: Some(12), ..CopyOptions::default() };
    /// client.copy("conversation", "conversation/what-if", options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn copy(&self, from: &str, to: &str, options: CopyOptions) -> Result<Option<Written>, Error> {
        if from == to {
            return Err(Error::invalid("a session can't be copied to itself"));
        }
        let CopyOptions { first_items, with_counters, expiry } = options;
        let part = match first_items {
            None => Part::Whole,
            Some(0) => Part::Head,
            Some(limit) => Part::From { item: 0, limit },
        };
        let Some(SessionPart { content: Some(mut content), .. }) = self.load_part(from, part).await? else { return Ok(None) };
        if let Content::Transcript { counters, .. } = &mut content
            && !with_counters
        {
            *counters = Counters::default();
        }
        self.save_if_version(to, content, Expected::Absent, WriteOptions { expiry, ..WriteOptions::default() }).await.map(Some)
    }

    /// Replaces a transcript's items from number `item` on, counted from 0: takes back the last turn, or puts another in its place. The head,
    /// the counters and the deadline stay. `None`: there is no session.
    ///
    /// Cost: a load, of which only what is new travels to a client that knows the session, and one save: of the whole content, as history is
    /// rewritten, unless `item` is the number of items, which appends.
    ///
    /// Errors: every [`ErrorKind`](super::ErrorKind); `Conflict` if another write came between the load and the save, and nothing changed;
    /// `Invalid` for an `item` above the number of items, and for a plain value. Dropping the future does not cancel the save once it is
    /// enqueued.
    pub async fn replace_from(&self, id: &str, item: u64, items: Vec<Bytes>) -> Result<Option<Written>, Error> {
        let Some(session) = self.load(id).await? else { return Ok(None) };
        let expected = session.info.content_version().expected();
        let Content::Transcript { mut messages, head, counters } = session.content else { return Err(no_transcript()) };
        let count = messages.len() as u64;
        if item > count {
            return Err(Error::invalid(format!("field is out of range field=item value={item} min=0 max={count}")));
        }
        messages.truncate(item as usize);
        messages.extend(items);
        let content = Content::Transcript { messages, head, counters };
        self.save_if_version(id, content, expected, WriteOptions::default()).await.map(Some)
    }

    /// Drops all items of a transcript. The id stays, its version counts on, and head, counters and deadline stay. `None`: there is no
    /// session.
    ///
    /// Cost: a load of the head and one small save, however long the conversation is.
    ///
    /// Errors: every [`ErrorKind`](super::ErrorKind); `Conflict` if another write came between the load and the save, and nothing changed;
    /// `Invalid` for a plain value. Dropping the future does not cancel the save once it is enqueued.
    pub async fn clear(&self, id: &str) -> Result<Option<Written>, Error> {
        let Some(SessionPart { info, content: Some(content), .. }) = self.load_part(id, Part::Head).await? else { return Ok(None) };
        if matches!(content, Content::Value(_)) {
            return Err(no_transcript());
        }
        let expected = info.content_version().expected();
        self.save_if_version(id, content, expected, WriteOptions::default()).await.map(Some)
    }
}

fn no_transcript() -> Error {
    Error::invalid("the session is a plain value, which has no items; nothing changed")
}
