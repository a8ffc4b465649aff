//! How a node learns that it is no member any more: by a mark in the answer of one that has removed it.

use tonic::Status;
use tonic::metadata::MetadataValue;

/// In the metadata of a refusal: the caller is no member any more.
const REMOVED: &str = "quorate-removed";

/// The answer to a node that is no member any more.
pub fn removed() -> Status {
    let mut status = Status::failed_precondition("this node was removed from the cluster");
    status.metadata_mut().insert(REMOVED, MetadataValue::from_static("yes"));
    status
}

/// Whether a peer's answer says that this node is no member any more.
pub fn says_removed(status: &Status) -> bool {
    status.metadata().contains_key(REMOVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_mark_says_removed() {
        assert!(says_removed(&removed()));
        assert!(!says_removed(&Status::failed_precondition("this node was removed from the cluster")));
    }
}
