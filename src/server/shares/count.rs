//! Keeps the counts by prefix current, and reports the usage of each token.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::Share;
use crate::limits::{IN_FLIGHT_BYTES_MAX, LARGE_BYTES_PER_SECOND, LOADED_BYTES_MAX, NEW_IDS_PER_SECOND, SESSIONS_MAX};
use crate::raft::Node;
use crate::server::auth::{Guard, Resource};

/// How often the task checks whether the tokens or the machine were replaced.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Sessions counted at once: nothing is applied meanwhile.
const COUNTED_AT_ONCE: usize = 1024;
/// From this part of a table or a share on it is reported, in per cent.
const NEARLY: u64 = 80;
/// So many are named at most.
const NAMED_MAX: usize = 5;

/// How much there is of something, of one token or in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The table's or the share's name.
    pub what: &'static str,
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
    /// Of shares: how often something was refused for it.
    pub refused: u64,
}

/// Counts the stored records, and again whenever the tokens or the machine change; until `stop`. Its spawner joins it.
pub async fn run(node: Node, guard: Guard, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let wait = if update(&node, &guard) { Duration::from_millis(1) } else { POLL_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Sets the prefixes of the tokens in force where others are counted, and counts on; whether there is more to count.
fn update(node: &Node, guard: &Guard) -> bool {
    let Some((generation, shares)) = guard.shares() else { return false };
    if node.prefixes_generation() != generation {
        let prefixes: Vec<Box<str>> = shares.values().flat_map(|share| share.prefixes().map(Box::from)).collect();
        node.metered(|machine| machine.set_prefixes(generation, prefixes.into_iter()));
    }
    node.metered(|machine| machine.count_on(COUNTED_AT_ONCE))
}

/// How full the tables of this node are.
pub fn tables(node: &Node, in_flight_bytes: u64) -> Vec<Usage> {
    let (counts, rules) = node.counts();
    let usage = |what, used, limit| Usage { what, used, limit, refused: 0 };
    vec![
        usage("clients", counts.clients, rules.clients_max),
        usage("outcomes", counts.outcomes, rules.outcomes_max),
        usage("sessions", counts.sessions + counts.tombstones, rules.sessions_max),
        usage("metadata_bytes", counts.metadata_bytes, rules.metadata_bytes_max),
        usage("lease_bytes", counts.lease_bytes, rules.leases_bytes_max),
        usage("in_flight_bytes", in_flight_bytes, IN_FLIGHT_BYTES_MAX),
        usage("loaded_bytes", node.loaded().bytes(), LOADED_BYTES_MAX),
    ]
}

/// How much of its shares each token has used, by name. A share that is everything has what there may be in all as its limit.
pub fn tokens(node: &Node, guard: &Guard) -> Vec<(String, Vec<Usage>)> {
    let Some((_, shares)) = guard.shares() else { return Vec::new() };
    shares.values().map(|share| (share.name().to_owned(), share.usage(node))).collect()
}

impl Share {
    fn usage(&self, node: &Node) -> Vec<Usage> {
        let (_, rules) = node.counts();
        let usage = node.prefix_usage(self.prefixes()).unwrap_or_default();
        let usage = |what: Resource| {
            let (used, total) = match what {
                Resource::Clients => (self.live.held.clients(), rules.clients_max),
                Resource::Outcomes => (self.live.held.outcomes(), rules.outcomes_max),
                Resource::NewIds => (0, NEW_IDS_PER_SECOND),
                Resource::LargeBytes => (0, LARGE_BYTES_PER_SECOND),
                Resource::Sessions => (usage.records, SESSIONS_MAX as u64),
                Resource::StoredBytes => (usage.stored_bytes, node.disk().1),
                Resource::LeaseBytes => (usage.lease_bytes(rules), rules.leases_bytes_max),
                Resource::InFlightBytes => (self.live.in_flight.load(Ordering::Relaxed), IN_FLIGHT_BYTES_MAX),
            };
            let limit = self.portions.of(what).of(total).unwrap_or(total);
            let refused = self.live.refused[what as usize].load(Ordering::Relaxed);
            Usage { what: what.name(), used, limit, refused }
        };
        Resource::ALL.into_iter().map(usage).collect()
    }
}

/// Tables and shares that are nearly used up, in words, the fullest first; `None`: none is. Resources that are free again within a second
/// are left to the metrics.
pub fn nearly_used_up(tables: &[Usage], tokens: &[(String, Vec<Usage>)]) -> Option<String> {
    let passing = ["in_flight_bytes", "loaded_bytes", Resource::NewIds.name(), Resource::LargeBytes.name()];
    let lasting = |usage: &&Usage| !passing.contains(&usage.what);
    let part = |usage: &Usage| (u128::from(usage.used) * 100).checked_div(u128::from(usage.limit)).unwrap_or(0) as u64;
    let of_tables = tables.iter().filter(lasting).map(|usage| (part(usage), format!("table={}", usage.what), usage));
    let of_tokens = tokens.iter().flat_map(|(name, shares)| {
        shares.iter().filter(lasting).map(move |usage| (part(usage), format!("token={name} share={}", usage.what), usage))
    });
    let mut full: Vec<_> = of_tables.chain(of_tokens).filter(|(part, ..)| *part >= NEARLY).collect();
    full.sort_by_key(|(part, ..)| std::cmp::Reverse(*part));
    let more = full.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = full
        .into_iter()
        .take(NAMED_MAX)
        .map(|(_, whose, usage)| format!("{whose} used={} limit={}", usage.used, usage.limit))
        .collect();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("nearly used up: {}{more}", named.join(", ")))
}
