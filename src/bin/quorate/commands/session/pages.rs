//! Pages of the sessions with a prefix, for commands that delete them.

use quorate::client::Client;
use quorate::types::{List, ListPage, SessionId};

use super::many::Interrupted;
use super::read_failure;
use crate::failure::Failure;

/// Pages of sessions with the prefix, each of one instant.
pub struct Pages<'a> {
    client: &'a Client,
    prefix: &'a str,
    after: Option<SessionId>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    /// From the first session on.
    pub fn new(client: &'a Client, prefix: &'a str) -> Self {
        Self { client, prefix, after: None, is_over: false }
    }

    /// The next page; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<ListPage>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        let list = List { prefix: self.prefix.to_owned(), after: self.after.take(), ..List::default() };
        let page = self.client.list(list).await.map_err(read_failure)?;
        self.after = page.sessions.last().map(|listed| listed.id.clone());
        self.is_over = !page.more || self.after.is_none();
        Ok(Some(page).filter(|page| !page.sessions.is_empty()))
    }

    /// The ids of the next page; empty after the last.
    pub async fn next_ids(&mut self) -> Result<Vec<String>, Failure> {
        let sessions = self.next().await?.map(|page| page.sessions).unwrap_or_default();
        Ok(sessions.iter().map(|listed| listed.id.as_str().to_owned()).collect())
    }
}

/// Why the rest of many is not begun.
pub enum Stop {
    /// By a signal.
    Interrupted(Interrupted),
    /// By a page that could not be read.
    Failed(Failure),
}

impl From<Interrupted> for Stop {
    fn from(interrupted: Interrupted) -> Self {
        Self::Interrupted(interrupted)
    }
}
