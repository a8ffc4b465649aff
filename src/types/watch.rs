//! Changes of sessions, as a watch shows them: never their content.

use super::{SessionId, SessionInfo};

/// The newest state of a session, as a watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// The session is there in this state. Another [`create_revision`](SessionInfo::create_revision) than before: the session before it is gone.
    Saved {
        /// The session.
        id: SessionId,
        /// Its metadata.
        info: SessionInfo,
    },
    /// The session was deleted, or expired and was swept.
    Gone {
        /// The session.
        id: SessionId,
    },
}

impl SessionChange {
    /// The session.
    pub fn id(&self) -> &SessionId {
        match self {
            Self::Saved { id, .. } | Self::Gone { id } => id,
        }
    }

    /// Bytes it takes in a frame, at most.
    pub fn bytes(&self) -> u64 {
        /// Numbers of a session's metadata, with their tags.
        const INFO: u64 = 16 * 11;
        let id = self.id().as_str().len() as u64 + 16;
        match self {
            Self::Saved { info, .. } => id + INFO + info.counters.as_slice().len() as u64 * 10,
            Self::Gone { .. } => id,
        }
    }
}
