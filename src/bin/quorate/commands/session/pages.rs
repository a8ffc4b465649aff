//! Pages of the sessions with a prefix, for commands that delete them.

use quorate::client::{Client, Error, Written};
use quorate::types::{List, ListPage, SessionId};

use super::many::{Interrupted, Many};
use super::read_failure;
use crate::failure::{Code, Failure};

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

/// Deletes on their way.
pub type Deletes = Many<Result<Option<Written>, Error>>;

/// How a command ends that deleted many: by the first failure of a delete, of what kept the rest from being begun, or by a signal.
pub fn ended(
    failure: Option<Failure>,
    begun: Result<(), Stop>,
    drained: Result<(), Interrupted>,
    deleted: u64,
    unknown: usize,
) -> Result<(), Failure> {
    let again = format!("typing it again is safe deleted={deleted} unknown={unknown}");
    match (failure, begun, drained) {
        (Some(failure), ..) | (None, Err(Stop::Failed(failure)), _) => {
            Err(Failure { message: format!("{}; {again}", failure.message), ..failure })
        }
        (None, Err(Stop::Interrupted(_)), _) | (None, _, Err(Interrupted)) => {
            Err(Failure { code: Code::Interrupted, message: format!("interrupted: some are not deleted; {again}") })
        }
        (None, Ok(()), Ok(())) => Ok(()),
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
