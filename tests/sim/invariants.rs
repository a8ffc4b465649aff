//! What no node may do, seen from inside: a vote that was granted is remembered, and no process leads in a term that an earlier process
//! of its node led.
//!
//! One process runs one seed, so what was seen is the process's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate::types::{NodeStatus, Role};

static SEEN: Mutex<Seen> = Mutex::new(Seen {
    granted: BTreeMap::new(),
    promised: BTreeMap::new(),
    fresh: Vec::new(),
    proposed: false,
    leaders: BTreeMap::new(),
});

struct Seen {
    /// The largest term in which a node granted its vote.
    granted: BTreeMap<u64, u64>,
    /// By node: its process that was seen last, and that term as it was when this process began.
    promised: BTreeMap<u64, (u64, u64)>,
    /// Who granted one since the nemesis looked.
    fresh: Vec<u64>,
    /// Whether a change of the members was proposed since the nemesis looked.
    proposed: bool,
    /// By term and node: which of the node's processes led.
    leaders: BTreeMap<(u64, u64), u64>,
}

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node is about to tell a candidate that it has its vote.
pub fn granted(node: u64, term: u64) {
    let mut seen = seen();
    let known = seen.granted.entry(node).or_default();
    *known = term.max(*known);
    seen.fresh.push(node);
}

/// Who granted a vote since this was last asked.
pub fn take_granted() -> Vec<u64> {
    std::mem::take(&mut seen().fresh)
}

/// A leader is about to propose a change of the members.
pub fn proposed() {
    seen().proposed = true;
}

/// Whether one was proposed since this was last asked.
pub fn take_proposed() -> bool {
    std::mem::take(&mut seen().proposed)
}

/// Judges what a node's process says of itself; `process` counts them from 1.
pub fn judge(node: u64, process: u64, status: &NodeStatus) -> Option<String> {
    let mut seen = seen();
    let granted = seen.granted.get(&node).copied().unwrap_or_default();
    let known = seen.promised.entry(node).or_insert((process, 0));
    if known.0 != process {
        *known = (process, granted);
    }
    // What its earlier processes promised: openraft publishes its own process's term only after what else it has at hand, which may be
    // another vote on a slow disk (seed 62725216287). Before it has read its log it says 0.
    let promised = known.1;
    if status.term > 0 && status.term < promised {
        return Some(format!("a vote is forgotten: granted in term {promised}, now in term {}", status.term));
    }
    if status.role == Role::Leader {
        let first = *seen.leaders.entry((status.term, node)).or_insert(process);
        if first != process {
            return Some(format!("it leads in term {} again after a restart process={process} first={first}", status.term));
        }
    }
    None
}
