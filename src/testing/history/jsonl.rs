//! Histories as files: one JSON object per line, for invocation and completion, and a last line that says it is whole.
//!
//! ```text
//! {"index":17,"time":123456789,"process":3,"type":"invoke","f":"save_if_version","key":"k4","value":{"expect":6,"val":"c3s91"},"rid":"3-91"}
//! {"index":18,"time":123459999,"process":3,"type":"ok","f":"save_if_version","key":"k4","value":{"version":7,"revision":4711}}
//! {"index":19,"type":"end"}
//! ```
//!
//! `time` is in nanoseconds. `info` is ambiguous, with a value if the committed log knew more; `fail` did not happen. A conflict is `ok` with `actual` instead of `version`; a delete
//! that found nothing has `"version":null`; a load that found nothing has `"val":null` and the tombstone's version. A save that lets its
//! session expire carries `"ttl":true`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Answer, Ask, Op, Request};

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// Why a file is no history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Broken {
    /// Counted from 1.
    pub line: u64,
    /// The problem.
    pub reason: String,
}

/// Writes a history, in the order of time. Calls that never returned are written as ambiguous at the end.
pub fn write(ops: &[Op], to: &mut impl Write) -> io::Result<()> {
    let mut index = 0_u64;
    for (at, is_completion) in events(ops) {
        let op = &ops[at];
        let time = if is_completion { op.returned } else { op.invoked };
        let kind = match (is_completion, op.answer) {
            (false, _) => "invoke",
            (true, Answer::Refused) => "fail",
            (true, Answer::Unknown) => "info",
            (true, _) if op.late => "info",
            (true, _) => "ok",
        };
        let mut line = Map::new();
        line.insert("index".into(), index.into());
        line.insert("time".into(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into());
        line.insert("process".into(), process(op.client));
        line.insert("type".into(), kind.into());
        line.insert("f".into(), function(op.ask).into());
        line.insert("key".into(), format!("k{}", op.key).into());
        line.insert("value".into(), if is_completion { result(op.answer) } else { argument(op) });
        if let Some(Request { client, sequence }) = op.request {
            line.insert("rid".into(), format!("{client}-{sequence}").into());
        }
        serde_json::to_writer(&mut *to, &line)?;
        writeln!(to)?;
        index += 1;
    }
    writeln!(to, "{}", json!({ "index": index, "type": "end" }))
}

/// Invocations and completions in order. Of one instant, whatever can begin does before anything ends: they were at once.
pub(super) fn events(ops: &[Op]) -> Vec<(usize, bool)> {
    let mut events: Vec<(Duration, u8, usize, bool)> = Vec::with_capacity(2 * ops.len());
    let mut last: BTreeMap<usize, Duration> = BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        // A process begins nothing before it has ended what it did.
        let is_free = last.insert(op.client, op.returned).is_none_or(|returned| returned < op.invoked);
        events.push((op.invoked, if is_free { 0 } else { 2 }, at, false));
        events.push((op.returned, if is_free && op.invoked < op.returned { 1 } else { 2 }, at, true));
    }
    events.sort_unstable();
    events.into_iter().map(|(_, _, at, is_completion)| (at, is_completion)).collect()
}

/// JSON numbers of processes; expiries are nobody's.
fn process(client: usize) -> Value {
    if client == usize::MAX { Value::Null } else { client.into() }
}

/// The name of a call.
pub(super) fn function(ask: Ask) -> &'static str {
    match ask {
        Ask::Load => "load",
        Ask::LoadStale => "load_stale",
        Ask::Save { .. } => "save",
        Ask::SaveIf { .. } => "save_if_version",
        Ask::Delete => "delete",
        Ask::Expire => "expire",
    }
}

/// `c3s91`.
pub(super) fn name(value: u64) -> String {
    format!("c{}s{}", value >> 32, value & u64::from(u32::MAX))
}

/// The argument of a call.
pub(super) fn argument(op: &Op) -> Value {
    let mut argument = match op.ask {
        Ask::Save { value } => json!({ "val": name(value) }),
        Ask::SaveIf { expected, value } => json!({ "expect": expected, "val": name(value) }),
        Ask::Load | Ask::LoadStale | Ask::Delete | Ask::Expire => return Value::Null,
    };
    if op.expires {
        argument["ttl"] = true.into();
    }
    argument
}

/// The result in an answer.
pub(super) fn result(answer: Answer) -> Value {
    match answer {
        Answer::Found { version, value, revision } => json!({ "version": version, "val": name(value), "revision": revision }),
        Answer::NotFound { tombstone, revision } => json!({ "version": tombstone, "val": null, "revision": revision }),
        Answer::Written { version, revision } => json!({ "version": version, "revision": revision }),
        Answer::Conflict { actual, revision } => json!({ "actual": actual, "revision": revision }),
        Answer::NothingThere => json!({ "version": null }),
        Answer::Refused | Answer::Unknown => Value::Null,
    }
}

/// Reads a whole history. Anything else is refused, with the line: a verdict over half a history would be worth nothing.
pub fn read(from: impl BufRead) -> Result<Vec<Op>, Broken> {
    let mut reader = Reader::default();
    let mut from = from;
    loop {
        reader.line += 1;
        let mut bytes = Vec::new();
        let mut limited = io::Read::take(&mut from, LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut bytes).map_err(|error| reader.broken(format!("it can't be read: {error}")))?;
        if bytes.is_empty() {
            break;
        }
        if bytes.pop() != Some(b'\n') {
            return Err(reader.broken("it is cut off, or too long".to_owned()));
        }
        reader.take(&bytes).map_err(|reason| reader.broken(reason))?;
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    ops: Vec<Op>,
    /// By process: the operation it waits for, and the line that began it.
    open: BTreeMap<usize, (usize, u64)>,
    values: BTreeSet<u64>,
    line: u64,
    index: u64,
    time: u64,
    has_ended: bool,
}

impl Reader {
    fn broken(&self, reason: String) -> Broken {
        Broken { line: self.line, reason }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.has_ended {
            return Err("it stands behind the end".to_owned());
        }
        let line: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
        let index = number(&line, "index")?;
        if index != self.index {
            return Err(format!("index={index} where {} is next: lines are missing or in disorder", self.index));
        }
        self.index += 1;
        let kind = text(&line, "type")?;
        if kind == "end" {
            self.has_ended = true;
            return Ok(());
        }
        let time = number(&line, "time")?;
        if time < self.time {
            return Err(format!("time={time} goes back from {}", self.time));
        }
        self.time = time;
        let time = if time == u64::MAX { Duration::MAX } else { Duration::from_nanos(time) };
        let key = text(&line, "key")?.strip_prefix('k').and_then(plain).ok_or("key is no k and number")?;
        let key = usize::try_from(key).map_err(|_| "key is out of range")?;
        let function = text(&line, "f")?;
        if function == "expire" {
            return self.expire(key, kind, &line);
        }
        let process = usize::try_from(number(&line, "process")?).map_err(|_| "process is out of range")?;
        let request = line.get("rid").map(request).transpose()?;
        if kind == "invoke" {
            let (ask, expires) = ask(function, &line["value"])?;
            if ask.value().is_some_and(|value| !self.values.insert(value)) {
                return Err("the value was stored before: values must differ".to_owned());
            }
            if let Some((_, since)) = self.open.insert(process, (self.ops.len(), self.line)) {
                return Err(format!("process={process} still waits for what it began on line {since}"));
            }
            self.ops.push(Op { expires, request, ..Op::invoke(process, key, ask, time) });
            return Ok(());
        }
        let (at, _) = self.open.remove(&process).ok_or_else(|| format!("process={process} waits for nothing"))?;
        let op = &mut self.ops[at];
        if op.key != key || self::function(op.ask) != function {
            return Err(format!("process={process} waits for {} of k{}", self::function(op.ask), op.key));
        }
        op.answer = match kind {
            "ok" => answer(op.ask, &line["value"])?,
            "fail" => Answer::Refused,
            "info" if line["value"].is_null() => Answer::Unknown,
            "info" => answer(op.ask, &line["value"])?,
            other => return Err(format!("type={other} is unknown")),
        };
        op.late = kind == "info" && op.answer != Answer::Unknown;
        op.returned = time;
        op.request = op.request.or(request);
        Ok(())
    }

    /// Expiries are known from the log: they have a place and no time.
    fn expire(&mut self, key: usize, kind: &str, line: &Value) -> Result<(), String> {
        if kind == "ok" {
            let answer =
                Answer::Written { version: number(&line["value"], "version")?, revision: number(&line["value"], "revision")? };
            self.ops.push(Op { answer, ..Op::invoke(usize::MAX, key, Ask::Expire, Duration::ZERO) });
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Op>, Broken> {
        if let Some((process, (_, line))) = self.open.iter().next() {
            return Err(Broken { line: *line, reason: format!("process={process} never got an answer: the history is cut off") });
        }
        if !self.has_ended {
            return Err(self.broken("the end is missing: the history is cut off".to_owned()));
        }
        Ok(self.ops)
    }
}

fn number(line: &Value, field: &str) -> Result<u64, String> {
    line.get(field).and_then(Value::as_u64).ok_or_else(|| format!("{field} is no number"))
}

fn text<'a>(line: &'a Value, field: &str) -> Result<&'a str, String> {
    line.get(field).and_then(Value::as_str).ok_or_else(|| format!("{field} is no text"))
}

/// A decimal number and nothing else: not the sign that `parse` takes.
fn plain(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn request(rid: &Value) -> Result<Request, String> {
    let parts = rid.as_str().and_then(|rid| rid.split_once('-'));
    let parts = parts.and_then(|(client, sequence)| Some((plain(client)?, plain(sequence)?)));
    let (client, sequence) = parts.ok_or("rid is no client and sequence")?;
    Ok(Request { client, sequence })
}

/// `c3s91`, as [`name`] writes it.
fn value(of: &Value) -> Result<u64, String> {
    let parts = of.as_str().and_then(|text| text.strip_prefix('c')).and_then(|text| text.split_once('s'));
    let parts = parts.and_then(|(client, sequence)| Some((plain(client)?, plain(sequence)?)));
    let (client, sequence) = parts.ok_or("val is no c, client, s and sequence")?;
    if client > u64::from(u32::MAX) || sequence > u64::from(u32::MAX) {
        return Err("val is out of range".to_owned());
    }
    Ok(client << 32 | sequence)
}

fn ask(function: &str, argument: &Value) -> Result<(Ask, bool), String> {
    let expires = argument.get("ttl").is_some_and(|ttl| ttl == &Value::Bool(true));
    let ask = match function {
        "load" => Ask::Load,
        "load_stale" => Ask::LoadStale,
        "save" => Ask::Save { value: value(&argument["val"])? },
        "save_if_version" => Ask::SaveIf { expected: number(argument, "expect")?, value: value(&argument["val"])? },
        "delete" => Ask::Delete,
        other => return Err(format!("f={other} is unknown")),
    };
    Ok((ask, expires))
}

fn answer(ask: Ask, result: &Value) -> Result<Answer, String> {
    if ask == Ask::Delete && result.get("version") == Some(&Value::Null) {
        return Ok(Answer::NothingThere);
    }
    let revision = number(result, "revision")?;
    if matches!(ask, Ask::SaveIf { .. }) && result.get("actual").is_some() {
        return Ok(Answer::Conflict { actual: number(result, "actual")?, revision });
    }
    let version = number(result, "version")?;
    if !ask.is_read() {
        return Ok(Answer::Written { version, revision });
    }
    match result.get("val") {
        Some(Value::Null) => Ok(Answer::NotFound { tombstone: version, revision }),
        Some(found) => Ok(Answer::Found { version, value: value(found)?, revision }),
        None => Err("a load without val".to_owned()),
    }
}
