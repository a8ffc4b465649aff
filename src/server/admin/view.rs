//! The page's data, as JSON. Pure. The content of a session is passed on as text, so that no number in it changes on its way.

use serde_json::{Value, json};

use crate::client::{Content, Session};
use crate::types::{ListPage, NodeId, SessionId, SessionInfo};
use crate::wire::v1;

/// Content in one answer, in bytes, before what JSON adds; the page asks for more.
const CONTENT_BYTES_MAX: usize = 1 << 20;
/// Messages in one answer.
const MESSAGES_MAX: usize = 500;

/// The cluster, as the node `asked` sees it.
pub fn cluster(cluster: &v1::StatusResponse, asked: NodeId, now_ms: u64) -> Value {
    let id: String = cluster.cluster_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (state, text) = verdict(&cluster.nodes);
    json!({
        "cluster_id": id,
        "cluster_name": cluster.cluster_name,
        "asked": asked.0,
        "now_ms": now_ms,
        "health": { "state": state, "text": text },
        "leader": leader(&cluster.nodes).map(|node| node.id),
        "nodes": cluster.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

/// The leader: the ready node that calls itself leader with the newest term. A node that leads without a majority is not ready.
fn leader(nodes: &[v1::NodeStatus]) -> Option<&v1::NodeStatus> {
    let heard = |node: &v1::NodeStatus| node.checks.iter().all(|check| check.ok || check.name != "leader");
    let leads =
        |node: &&v1::NodeStatus| node.reachable && node.role() == v1::Role::Leader && node.leader == Some(node.id) && heard(node);
    nodes.iter().filter(leads).max_by_key(|node| node.term)
}

/// The one word on the whole cluster, and how bad it is: what matters most comes first.
fn verdict(nodes: &[v1::NodeStatus]) -> (&'static str, String) {
    let down = nodes.iter().filter(|node| !node.reachable).count();
    let failing = || {
        let up = nodes.iter().filter(|node| node.reachable);
        up.flat_map(|node| node.checks.iter().filter(|check| !check.ok).map(move |check| (node.id, check)))
    };
    if leader(nodes).is_none() {
        return ("bad", "no leader: no writes".to_owned());
    }
    if down > 0 {
        return ("warn", format!("{down} of {} nodes down", nodes.len()));
    }
    if let Some((node, _)) = failing().find(|(_, check)| check.required) {
        return ("warn", format!("node {node} is not ready"));
    }
    match failing().count() {
        0 => ("good", "healthy".to_owned()),
        1 => ("warn", "1 warning".to_owned()),
        count => ("warn", format!("{count} warnings")),
    }
}

fn sample(sample: &v1::Sample) -> Value {
    let behind: Vec<_> = sample.behind.iter().map(|behind| json!([behind.node, behind.entries])).collect();
    json!({
        "sequence": sample.sequence,
        "age_ms": sample.age_ms,
        "interval_ms": sample.interval_ms,
        "writes": sample.writes,
        "reads": sample.reads,
        "p50_us": sample.p50_us,
        "p99_us": sample.p99_us,
        "syncs": sample.syncs,
        "sync_us": sample.sync_us,
        "leads": sample.leads,
        "behind": behind,
    })
}

fn node(node: &v1::NodeStatus) -> Value {
    let checks = node
        .checks
        .iter()
        .map(|check| json!({ "name": check.name, "ok": check.ok, "required": check.required, "detail": check.detail }));
    json!({
        "id": node.id,
        "client": node.client_address,
        "reachable": node.reachable,
        "error": node.error,
        "role": format!("{:?}", node.role()).to_lowercase(),
        "term": node.term,
        "last_log": node.last_log,
        "committed": node.committed,
        "applied": node.applied,
        "flushed": node.flushed,
        "digest": node.digest.map(|digest| format!("{digest:016x}")),
        "sessions": node.sessions,
        "clients": node.clients,
        "log_bytes": node.log_bytes,
        "state_bytes": node.state_bytes,
        "disk_free_bytes": node.disk_free_bytes,
        "disk_total_bytes": node.disk_total_bytes,
        "clock_offset_ms": node.clock_offset_ms,
        "version": node.version,
        "cluster_version": node.cluster_version,
        "uptime_ms": node.uptime_ms,
        "sync_us_max": node.sync_us_max,
        "scrubbed_ms": node.scrubbed_ms,
        "checks": checks.collect::<Vec<_>>(),
        "samples": node.samples.iter().map(sample).collect::<Vec<_>>(),
    })
}

/// One page of the list of sessions.
pub fn page(page: &ListPage, now_ms: u64) -> Value {
    let sessions = page.sessions.iter().map(|listed| info(&listed.id, &listed.info));
    json!({ "now_ms": now_ms, "more": page.more, "age_ms": page.age_ms, "sessions": sessions.collect::<Vec<_>>() })
}

fn info(id: &SessionId, info: &SessionInfo) -> Value {
    json!({
        "id": id.as_str(),
        "version": info.version.0,
        "items": info.items,
        "raw_bytes": info.content_bytes(),
        "stored_bytes": info.stored_bytes,
        "created_ms": info.created_ms,
        "updated_ms": info.updated_ms,
        "deadline_ms": info.deadline_ms,
    })
}

/// One session; of a transcript the messages from `from` on, or the last ones. The page parses its content.
pub fn session(id: &SessionId, session: &Session, from: Option<u64>) -> Value {
    let mut all = info(id, &session.info);
    let more = match &session.content {
        Content::Value(bytes) => {
            let shown = &bytes[..bytes.len().min(CONTENT_BYTES_MAX)];
            json!({ "found": true, "kind": "value", "value": content(shown), "cut": shown.len() < bytes.len() })
        }
        Content::Transcript { messages, head, counters } => {
            let (first, end) = window(messages, from);
            let shown: Vec<Value> = messages[first..end].iter().map(|message| content(message)).collect();
            json!({
                "found": true,
                "kind": "transcript",
                "total": messages.len(),
                "from": first,
                "messages": shown,
                "head": content(&head[..head.len().min(CONTENT_BYTES_MAX)]),
                "counters": counters.as_slice().iter().map(u64::to_string).collect::<Vec<_>>(),
            })
        }
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

/// The messages that one answer takes: from the one asked for, or as many of the last ones.
fn window<T: AsRef<[u8]>>(messages: &[T], from: Option<u64>) -> (usize, usize) {
    let mut bytes = 0;
    let mut fits = |message: &&T| {
        bytes += message.as_ref().len();
        bytes <= CONTENT_BYTES_MAX
    };
    match from {
        Some(from) => {
            let first = usize::try_from(from).unwrap_or(usize::MAX).min(messages.len());
            let count = messages[first..].iter().take(MESSAGES_MAX).take_while(&mut fits).count();
            (first, (first + count.max(1)).min(messages.len()))
        }
        None => {
            let count = messages.iter().rev().take(MESSAGES_MAX).take_while(&mut fits).count();
            (messages.len() - count.max(1).min(messages.len()), messages.len())
        }
    }
}

/// Bytes for a person: text as it stands, anything else by its first bytes in hex.
fn content(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        // A character that was cut off at the end.
        Err(error) if error.error_len().is_none() && bytes.len() >= CONTENT_BYTES_MAX => {
            json!({ "text": String::from_utf8_lossy(&bytes[..error.valid_up_to()]) })
        }
        Err(_) => {
            let hex: String = bytes.iter().take(512).map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex, "bytes": bytes.len() })
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Counters, Revision, Version};

    fn shown(content: Content, from: Option<u64>) -> Value {
        let info = SessionInfo { version: Version(3), ..SessionInfo::default() };
        session(&SessionId::new("a").unwrap(), &Session { info, revision: Revision(9), content }, from)
    }

    fn nodes() -> Vec<v1::NodeStatus> {
        let check = |name: &str, required| v1::Check { name: name.into(), ok: true, required, detail: String::new() };
        let role = |id| if id == 2 { v1::Role::Leader } else { v1::Role::Follower };
        let checks = || vec![check("leader", true), check("running", true), check("disk", false)];
        let node = |id| v1::NodeStatus {
            id,
            reachable: true,
            role: role(id).into(),
            leader: Some(2),
            checks: checks(),
            ..Default::default()
        };
        (1..=3).map(node).collect()
    }

    #[test]
    fn one_word_says_what_is_worst_and_a_leader_without_a_majority_leads_nobody() {
        let said = |change: &dyn Fn(&mut Vec<v1::NodeStatus>)| {
            let mut all = nodes();
            change(&mut all);
            let shown = cluster(&v1::StatusResponse { nodes: all, ..Default::default() }, NodeId(1), 7);
            (
                shown["health"]["text"].as_str().unwrap().to_owned(),
                shown["health"]["state"].as_str().unwrap().to_owned(),
                shown["leader"].as_u64(),
            )
        };
        let is = |text: &str, state: &str, leader| (text.to_owned(), state.to_owned(), leader);
        assert_eq!(said(&|_| {}), is("healthy", "good", Some(2)));
        assert_eq!(said(&|all| all[0].checks[2].ok = false), is("1 warning", "warn", Some(2)));
        assert_eq!(said(&|all| all[0].checks[1].ok = false), is("node 1 is not ready", "warn", Some(2)));
        assert_eq!(said(&|all| all[0].reachable = false), is("1 of 3 nodes down", "warn", Some(2)));
        let none = is("no leader: no writes", "bad", None);
        assert_eq!(said(&|all| all[1].reachable = false), none);
        assert_eq!(said(&|all| all[1].checks[0].ok = false), none, "its own check of a leader fails");
        assert_eq!(said(&|all| all[1].leader = None), none, "it names no leader");
        assert_eq!(said(&|all| all.iter_mut().for_each(|node| node.role = v1::Role::Candidate.into())), none);
        // Of two that say so, the one of the newer term.
        let both = |all: &mut Vec<v1::NodeStatus>| all[2] = v1::NodeStatus { id: 3, leader: Some(3), term: 9, ..all[1].clone() };
        assert_eq!(said(&both).2, Some(3));
    }

    #[test]
    fn content_is_shown_as_what_it_is() {
        let large = r#"{"b":9007199254740993,"a":1e400, "a":0.10}"#;
        assert_eq!(content(large.as_bytes()), json!({ "text": large }));
        assert_eq!(content("<b>ü".as_bytes()), json!({ "text": "<b>ü" }));
        assert_eq!(content(&[0xff, 0, 1, 2, 3]), json!({ "hex": "ff00010203", "bytes": 5 }));
        assert_eq!(content(&[b'a', 0xc3]), json!({ "hex": "61c3", "bytes": 2 }));
        let cut = ["x".repeat(CONTENT_BYTES_MAX - 1).as_bytes(), &[0xc3]].concat();
        assert_eq!(content(&cut)["text"].as_str().map(str::len), Some(CONTENT_BYTES_MAX - 1));
        let value = shown(Content::Value("plain".into()), None);
        assert_eq!((&value["kind"], &value["value"]["text"], &value["version"]), (&json!("value"), &json!("plain"), &json!(3)));
    }

    #[test]
    fn a_long_transcript_comes_in_parts_and_no_part_is_empty() {
        let messages: Vec<Bytes> = (0..1200).map(|n| Bytes::from(format!("{{\"n\":{n}}}"))).collect();
        let transcript = |messages: Vec<Bytes>| Content::Transcript { messages, head: "{}".into(), counters: Counters::default() };
        let last = shown(transcript(messages.clone()), None);
        assert_eq!((&last["from"], &last["total"]), (&json!(700), &json!(1200)));
        assert_eq!(last["messages"][499]["text"], json!("{\"n\":1199}"));
        let first = shown(transcript(messages), Some(0));
        assert_eq!((first["messages"].as_array().unwrap().len(), &first["messages"][0]["text"]), (500, &json!("{\"n\":0}")));
        let large = vec![Bytes::from(vec![b'x'; CONTENT_BYTES_MAX + 1]); 3];
        let part = shown(transcript(large.clone()), Some(1));
        assert_eq!((&part["from"], part["messages"].as_array().unwrap().len()), (&json!(1), 1));
        assert_eq!(shown(transcript(large), None)["from"], json!(2));
        assert_eq!(shown(transcript(vec![]), None)["messages"], json!([]));
        assert_eq!(shown(transcript(vec![]), Some(7))["messages"], json!([]));
    }
}
