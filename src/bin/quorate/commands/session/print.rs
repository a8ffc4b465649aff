//! How sessions, listings and the results of writes look on stdout.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use quorate::client::{Content, Part, SessionPart, Written};
use quorate::types::{Lease, Listed, SessionInfo};
use serde_json::{Value, json};

use super::exact::content_json;
use crate::args::{GetOutput, LsOutput, Output};
use crate::failure::Failure;
use crate::output;

/// Prints page by page, so that a listing of millions needs no memory for them.
pub struct ListPrinter {
    output: LsOutput,
    /// Nothing but their number is printed.
    is_count: bool,
    count: u64,
}

impl ListPrinter {
    /// Nothing is printed yet.
    pub fn new(output: LsOutput, is_count: bool) -> Self {
        Self { output, is_count, count: 0 }
    }

    /// Whether there was a session.
    pub fn has_begun(&self) -> bool {
        self.count > 0
    }

    /// Prints one page.
    pub fn page(&mut self, sessions: &[Listed]) -> std::io::Result<()> {
        if self.is_count {
            self.count += sessions.len() as u64;
            return Ok(());
        }
        let mut text = String::new();
        for listed in sessions {
            text += &match (self.output, self.count) {
                (LsOutput::Table, 0) => format!("{LIST_HEADER}\n{}\n", list_line(listed)),
                (LsOutput::Table, _) => format!("{}\n", list_line(listed)),
                (LsOutput::Json, 0) => format!("{{\"sessions\":[{}", listed_json(listed)),
                (LsOutput::Json, _) => format!(",\n{}", listed_json(listed)),
                (LsOutput::Ids, _) => id_lines([listed.id.as_str()]),
            };
            self.count += 1;
        }
        output::bytes(text.as_bytes())
    }

    /// Closes what the pages opened; of an empty listing prints that it is empty.
    pub fn end(self) -> std::io::Result<()> {
        match (self.output, self.count) {
            (LsOutput::Json, count) if self.is_count => output::json(&json!({ "count": count })),
            (_, count) if self.is_count => output::line(&count.to_string()),
            (LsOutput::Table, 0) => output::line(LIST_HEADER),
            (LsOutput::Table | LsOutput::Ids, _) => Ok(()),
            (LsOutput::Json, 0) => output::line("{\"sessions\":[]}"),
            (LsOutput::Json, _) => output::line("]}"),
        }
    }
}

/// Ids, one a line: for another program as they are, for a terminal without what it would obey.
pub fn id_lines<'i>(ids: impl IntoIterator<Item = &'i str>) -> String {
    let is_terminal = std::io::stdout().is_terminal();
    ids.into_iter().map(|id| if is_terminal { output::printable(id) + "\n" } else { format!("{id}\n") }).collect()
}

/// A line for people where stdout may be the result itself; with stderr gone nobody is left to tell.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

const LIST_HEADER: &str = "   VERSION     ITEMS        SIZE               UPDATED               EXPIRES  ID";

fn list_line(listed: &Listed) -> String {
    let info = &listed.info;
    format!(
        "{:>10}  {:>8}  {:>10}  {:>20}  {:>20}  {}",
        info.version.0,
        info.items,
        output::size(info.content_bytes()),
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

pub fn info_json(info: &SessionInfo) -> serde_json::Map<String, Value> {
    let document = json!({
        "version": info.version.0,
        "create_revision": info.create_revision.0,
        "mod_revision": info.mod_revision.0,
        "items": info.items,
        "raw_bytes": info.content_bytes(),
        "stored_bytes": info.stored_bytes,
        "counters": info.counters.as_slice(),
        "created_ms": info.created_ms,
        "updated_ms": info.updated_ms,
        "deadline_ms": info.deadline_ms,
        "ttl_ms": info.remaining_ms,
        "idle_ttl_ms": info.idle_ttl_ms,
        "tombstone_ttl_ms": info.tombstone_ttl_ms,
        "label": Some(info.label.as_str()).filter(|label| !label.is_empty()),
    });
    match document {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}

/// The part of a session that was asked for. Errors: as [`raw`].
pub fn part(id: &str, asked: Part, part: &SessionPart, how: GetOutput) -> Result<Vec<u8>, Failure> {
    match (&part.content, how) {
        (None, how) => Ok(info(id, part, how)),
        (Some(content), GetOutput::Raw) => raw(content),
        (Some(content), GetOutput::Json) => {
            // Like a line of an export, and that there is one. Where it is not all of it, `first_item` says so, and no import takes it.
            let begin = match asked {
                Part::Whole => "{\"found\":true,".to_owned(),
                _ => format!("{{\"found\":true,\"first_item\":{},", part.first_item),
            };
            Ok((content_json(id, &part.info, part.revision, content).replacen('{', &begin, 1) + "\n").into_bytes())
        }
    }
}

/// A session's metadata, without its content.
fn info(id: &str, part: &SessionPart, how: GetOutput) -> Vec<u8> {
    let mut document = info_json(&part.info);
    if let Some(Lease { fence, holder, deadline_ms }) = &part.info.lease {
        let lease = json!({ "fence": fence.0, "holder": holder.as_str(), "deadline_ms": deadline_ms });
        document.insert("lease".into(), lease);
    }
    if how == GetOutput::Json {
        document.insert("revision".into(), json!(part.revision.0));
        document.insert("found".into(), json!(true));
        document.insert("id".into(), json!(id));
        return format!("{}\n", Value::Object(document)).into_bytes();
    }
    let mut text = format!("{:<16} {}\n", "id", output::printable(id));
    for (name, value) in &document {
        let value = match value.as_u64().filter(|_| name.ends_with("_ms")) {
            Some(ms) => output::time(ms),
            None if value.is_null() => "never".into(),
            None => value.to_string(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<16} {value}", name.trim_end_matches("_ms"));
    }
    text.into_bytes()
}

/// A plain value byte for byte; a line end is added only for people's eyes. Errors: a transcript that another program broke.
fn raw(stored: &Content) -> Result<Vec<u8>, Failure> {
    let mut content = stored.to_json().map_err(|error| {
        let text = "the session was stored by a program that packs transcripts otherwise, and can't be printed as JSON";
        Failure::failed(format!("{text}: {error}; `-o json` shows its parts"))
    })?;
    let is_value = matches!(stored, Content::Value(_));
    if (!is_value || std::io::stdout().is_terminal()) && content.last() != Some(&b'\n') {
        content.push(b'\n');
    }
    Ok(content)
}

/// Whether a terminal would do more than show this: move the cursor, change colours, ring.
pub fn is_obeyed(text: &[u8]) -> bool {
    match std::str::from_utf8(text) {
        // A terminal ends a line by both.
        Ok(text) => text.replace("\r\n", "\n").chars().any(|c| c.is_control() && c != '\n' && c != '\t'),
        Err(_) => true,
    }
}

/// The result of a write.
pub fn written(id: &str, written: &Written, how: Output) -> Result<(), Failure> {
    let done = format!("saved version={} revision={}", written.version, written.revision);
    output::changed(how, &done, || written_json(id, written))
}

/// A written version as JSON.
pub fn written_json(id: &str, written: &Written) -> Value {
    json!({
        "id": id,
        "version": written.version.0,
        "create_revision": written.create_revision.0,
        "revision": written.revision.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_noticed() {
        for text in ["\u{1b}[31mred", "a\u{9b}2J", "bell\u{7}", "over\rwritten", "\u{0}", "\u{7f}"] {
            assert!(is_obeyed(text.as_bytes()), "{text:?}");
        }
        assert!(is_obeyed(b"\xff\xfe"), "no text");
        for text in ["", "plain\ttext\n", "two\r\nlines\r\n", "ü \u{1f600}"] {
            assert!(!is_obeyed(text.as_bytes()), "{text:?}");
        }
    }
}
