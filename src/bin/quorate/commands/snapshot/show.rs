//! Prints the content of a backup.

use std::path::Path;

use serde_json::{Value, json};

use super::Verified;
use crate::args::Output;
use crate::failure::Failure;
use crate::output;

/// Prints it.
pub fn verified(path: &Path, verified: &Verified, how: Output) -> Result<(), Failure> {
    output::print(how, || document(path, verified), || lines(path, verified))?;
    Ok(())
}

fn document(path: &Path, Verified { header, summary, bytes, .. }: &Verified) -> Value {
    json!({
        "file": path.display().to_string(),
        "bytes": bytes,
        "cluster_id": header.cluster.to_string(),
        "cluster_name": header.name,
        "node": header.node.0,
        "release": header.release,
        "taken_ms": header.taken_ms,
        "revision": summary.applied.index,
        "term": summary.applied.term,
        "cluster_version": summary.cluster_version,
        "machine_time_ms": summary.machine_time_ms,
        "sessions": summary.sessions,
        "tombstones": summary.tombstones,
        "clients": summary.clients,
        "rows": summary.rows,
        "chunks": summary.totals.chunks,
        "session_raw_bytes": summary.totals.raw_bytes,
        "session_stored_bytes": summary.totals.stored_bytes,
        "orphans": summary.totals.orphans,
        "members": summary.members.iter().map(|member| json!({
            "id": member.id.0, "peer": member.peer_address, "client": member.client_address, "voter": member.voter,
        })).collect::<Vec<_>>(),
    })
}

fn lines(path: &Path, Verified { header, summary, bytes, .. }: &Verified) -> String {
    let members: Vec<String> = summary.members.iter().map(|member| format!("{}={}", member.id, member.client_address)).collect();
    let fields = [
        ("file", format!("{} ({}, whole, every checksum verified)", path.display(), output::size(*bytes))),
        ("cluster", format!("{} {}", output::printable(&header.name), header.cluster)),
        (
            "taken",
            format!("{} by node {}, release {}", output::time(header.taken_ms), header.node, output::printable(&header.release)),
        ),
        ("revision", format!("{} (term {})", summary.applied.index, summary.applied.term)),
        ("machine time", output::time(summary.machine_time_ms)),
        ("cluster version", summary.cluster_version.to_string()),
        (
            "sessions",
            format!(
                "{} in {} chunks, {} ({} as stored)",
                summary.sessions,
                summary.totals.chunks,
                output::size(summary.totals.raw_bytes),
                output::size(summary.totals.stored_bytes)
            ),
        ),
        ("tombstones", summary.tombstones.to_string()),
        ("clients", summary.clients.to_string()),
        ("rows", summary.rows.to_string()),
        ("members", output::printable(&members.join(" "))),
    ];
    fields.map(|(name, value)| format!("{name:<16} {value}")).join("\n")
}
