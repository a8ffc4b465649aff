//! How sessions, listings and the results of writes look on stdout.

use quorate::client::{Content, Session, Written};
use quorate::types::{Listed, SessionInfo};
use serde_json::{Value, json};

use super::explain::read_failure;
use crate::args::Output;
use crate::failure::Failure;
use crate::output;

/// Prints page by page, so that a listing of millions needs no memory for them.
pub struct ListPrinter {
    output: Output,
    count: u64,
}

impl ListPrinter {
    /// Nothing is printed yet.
    pub fn new(output: Output) -> Self {
        Self { output, count: 0 }
    }

    /// Whether a session was printed.
    pub fn has_begun(&self) -> bool {
        self.count > 0
    }

    /// Prints one page.
    pub fn page(&mut self, sessions: &[Listed]) -> std::io::Result<()> {
        let mut text = String::new();
        for listed in sessions {
            text += &match (self.output, self.count) {
                (Output::Table, 0) => format!("{LIST_HEADER}\n{}\n", list_line(listed)),
                (Output::Table, _) => format!("{}\n", list_line(listed)),
                (Output::Json, 0) => format!("{{\"sessions\":[{}", listed_json(listed)),
                (Output::Json, _) => format!(",\n{}", listed_json(listed)),
            };
            self.count += 1;
        }
        output::bytes(text.as_bytes())
    }

    /// Closes what the pages opened; of an empty listing prints that it is empty.
    pub fn end(self) -> std::io::Result<()> {
        match (self.output, self.count) {
            (Output::Table, 0) => output::line(LIST_HEADER),
            (Output::Table, _) => Ok(()),
            (Output::Json, 0) => output::line("{\"sessions\":[]}"),
            (Output::Json, _) => output::line("]}"),
        }
    }
}

const LIST_HEADER: &str = "   VERSION     ITEMS        SIZE               UPDATED               EXPIRES  ID";

fn list_line(listed: &Listed) -> String {
    let info = &listed.info;
    format!(
        "{:>10}  {:>8}  {:>10}  {:>20}  {:>20}  {}",
        info.version.0,
        info.items,
        output::size(info.raw_bytes),
        output::time(info.updated_ms),
        info.deadline_ms.map_or_else(|| "never".into(), output::time),
        output::printable(listed.id.as_str()),
    )
}

fn listed_json(listed: &Listed) -> Value {
    let mut document = info_json(&listed.info);
    document.insert("id".into(), json!(listed.id.as_str()));
    Value::Object(document)
}

fn info_json(info: &SessionInfo) -> serde_json::Map<String, Value> {
    let document = json!({
        "version": info.version.0,
        "create_revision": info.create_revision.0,
        "mod_revision": info.mod_revision.0,
        "items": info.items,
        "raw_bytes": info.raw_bytes,
        "stored_bytes": info.stored_bytes,
        "counters": info.counters.as_slice(),
        "created_ms": info.created_ms,
        "updated_ms": info.updated_ms,
        "deadline_ms": info.deadline_ms,
    });
    match document {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}

/// A transcript becomes `state`; a plain value `value`, or `value_base16` where it is no UTF-8.
pub fn session_json(id: &str, session: &Session) -> Result<Value, Failure> {
    let mut document = info_json(&session.info);
    document.insert("id".into(), json!(id));
    document.insert("revision".into(), json!(session.revision.0));
    let (key, value) = match &session.content {
        Content::Transcript { .. } => {
            let text = session.content.to_json().map_err(read_failure)?;
            let state: Value = serde_json::from_slice(&text)
                .map_err(|error| Failure::failed(format!("the stored transcript is no JSON: {error}")))?;
            ("state", state)
        }
        Content::Value(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => ("value", json!(text)),
            Err(_) => ("value_base16", json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())),
        },
    };
    document.insert(key.into(), value);
    Ok(Value::Object(document))
}

/// A plain value byte for byte; a line end is added only for people's eyes. Errors: a transcript that another program broke.
pub fn raw(session: &Session) -> Result<Vec<u8>, Failure> {
    use std::io::IsTerminal;
    let mut content = session.content.to_json().map_err(read_failure)?;
    let is_value = matches!(session.content, Content::Value(_));
    if (!is_value || std::io::stdout().is_terminal()) && content.last() != Some(&b'\n') {
        content.push(b'\n');
    }
    Ok(content)
}

/// The result of a write.
pub fn written(id: &str, written: &Written, how: Output) -> Result<(), Failure> {
    match how {
        Output::Json => output::json(&written_json(id, written))?,
        Output::Table => output::line(&format!("saved version={} revision={}", written.version, written.revision))?,
    }
    Ok(())
}

/// The same as JSON.
pub fn written_json(id: &str, written: &Written) -> Value {
    json!({
        "id": id,
        "version": written.version.0,
        "create_revision": written.create_revision.0,
        "revision": written.revision.0,
    })
}
