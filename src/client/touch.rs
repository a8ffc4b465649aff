//! Moves of a deadline that are no writes of the session.

use super::{Client, Error, NO_REQUEST, Touched, session_id};
use crate::types::{Expiry, Verdict, Write};

impl Client {
    /// Moves the deadline of a session and nothing else: neither its version nor its `mod_revision`, so no one's conditional save fails by
    /// it, and no watch shows it. `None`: there is no such session; one that has expired does not come back. It needs cluster version 2.
    ///
    /// A [`Client::load`] of a content that this client remembers shows the deadline that it saw before:
    /// [`Part::Info`](crate::client::Part::Info) has that of now.
    ///
    /// Errors: `Invalid` for a time to live out of its bounds; `Unsupported` under cluster version 1; in both nothing changed. After
    /// `Indeterminate` the touch may or may not have happened, and may be repeated. Dropping the future does not cancel it.
    #[doc(hidden)]
    pub async fn touch(&self, id: &str, expiry: Expiry) -> Result<Option<Touched>, Error> {
        let write = Write::Touch { request: NO_REQUEST, id: session_id(id)?, expiry, fence: self.handle.fence() };
        let outcome = self.handle.write(write, None).await?;
        match outcome.verdict {
            Verdict::Touched { deadline_ms } => Ok(Some(Touched { revision: outcome.revision, deadline_ms })),
            Verdict::NotFound { .. } => Ok(None),
            // No touch gets such an outcome: what it did is not known.
            _ => Err(Error::indeterminate(None)),
        }
    }
}
