//! What the page is given, as JSON. Pure. Numbers that may pass 53 bits go as text.

use serde_json::{Value, json};

use crate::client::{Content, Session};
use crate::types::{ListPage, NodeId, SessionId, SessionInfo};
use crate::wire::v1;

/// Content in one answer, in bytes, before what JSON adds; the page asks for more.
const CONTENT_BYTES_MAX: usize = 1 << 20;
/// Messages in one answer.
const MESSAGES_MAX: usize = 500;

/// The cluster, as the node `asked` sees it.
pub fn cluster(cluster: &v1::StatusResponse, asked: NodeId) -> Value {
    let id: String = cluster.cluster_id.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "cluster_id": id,
        "cluster_name": cluster.cluster_name,
        "asked": asked.0,
        "nodes": cluster.nodes.iter().map(node).collect::<Vec<_>>(),
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
        "writes": node.writes,
        "reads": node.reads,
        "syncs": node.syncs,
        "sync_us_total": node.sync_us_total,
        "sync_us_max": node.sync_us_max,
        "scrub_passes": node.scrub_passes,
        "scrubbed_ms": node.scrubbed_ms,
        "checks": checks.collect::<Vec<_>>(),
    })
}

/// One page of the list of sessions.
pub fn page(page: &ListPage) -> Value {
    let sessions = page.sessions.iter().map(|listed| info(&listed.id, &listed.info));
    json!({ "revision": page.revision.0, "more": page.more, "age_ms": page.age_ms, "sessions": sessions.collect::<Vec<_>>() })
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

/// One session; of a transcript the messages from `from` on, or the last ones. What is no JSON, or no text, is shown as such.
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
                "counters": format!("{counters:?}"),
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

/// Bytes for a person: JSON as it is, text as text, anything else by its first bytes in hex.
fn content(bytes: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        return json!({ "json": value });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(error) if error.valid_up_to() + 4 > bytes.len() => json!({ "text": String::from_utf8_lossy(bytes) }),
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

    #[test]
    fn content_is_shown_as_what_it_is() {
        assert_eq!(content(b"{\"a\":1}"), json!({ "json": { "a": 1 } }));
        assert_eq!(content("<b>ü".as_bytes()), json!({ "text": "<b>ü" }));
        assert_eq!(content(&[0xff, 0, 1, 2, 3]), json!({ "hex": "ff00010203", "bytes": 5 }));
        let value = shown(Content::Value("plain".into()), None);
        assert_eq!((&value["kind"], &value["value"]["text"], &value["version"]), (&json!("value"), &json!("plain"), &json!(3)));
    }

    #[test]
    fn a_long_transcript_comes_in_parts_and_no_part_is_empty() {
        let messages: Vec<Bytes> = (0..1200).map(|n| Bytes::from(format!("{{\"n\":{n}}}"))).collect();
        let transcript = |messages: Vec<Bytes>| Content::Transcript { messages, head: "{}".into(), counters: Counters::default() };
        let last = shown(transcript(messages.clone()), None);
        assert_eq!((&last["from"], &last["total"]), (&json!(700), &json!(1200)));
        assert_eq!(last["messages"][499]["json"]["n"], json!(1199));
        let first = shown(transcript(messages), Some(0));
        assert_eq!((first["messages"].as_array().unwrap().len(), &first["messages"][0]["json"]["n"]), (500, &json!(0)));
        let large = vec![Bytes::from(vec![b'x'; CONTENT_BYTES_MAX + 1]); 3];
        let part = shown(transcript(large.clone()), Some(1));
        assert_eq!((&part["from"], part["messages"].as_array().unwrap().len()), (&json!(1), 1));
        assert_eq!(shown(transcript(large), None)["from"], json!(2));
        assert_eq!(shown(transcript(vec![]), None)["messages"], json!([]));
        assert_eq!(shown(transcript(vec![]), Some(7))["messages"], json!([]));
    }
}
