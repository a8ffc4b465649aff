//! Histories for the checkers of others: an outside opinion.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::jsonl::{argument, events, function, result};
use super::{Answer, Ask, Op};

/// Writes the history as Jepsen has it: one EDN map per line, values as `[key value]` for `jepsen.independent`.
///
/// A process that never learned its answer is never heard of again there: its later operations are another's. Expiries and stale reads
/// have no place in such a history and are left out.
pub fn edn(ops: &[Op], to: &mut impl Write) -> io::Result<()> {
    let processes = processes(ops);
    let seen = events(ops).into_iter().filter(|(at, _)| is_answered(&ops[*at]));
    for (index, (at, is_completion)) in seen.enumerate() {
        let op = &ops[at];
        let kind = match (is_completion, op.answer) {
            (false, _) => "invoke",
            (true, Answer::Refused) => "fail",
            (true, _) if is_open(op) => "info",
            (true, _) => "ok",
        };
        let time = if is_completion { op.returned } else { op.invoked };
        let value = if is_completion { result(op.answer) } else { argument(op) };
        let (process, function) = (processes[&at], function(op.ask).replace('_', "-"));
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX as u64);
        write!(to, "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f :{function}, :value [\"k{}\" ", op.key)?;
        edn_value(&value, to)?;
        writeln!(to, "]}}")?;
    }
    Ok(())
}

/// JSON as EDN: `null` is `nil`, names of fields are keywords. Histories hold maps of numbers, texts and flags only.
fn edn_value(value: &Value, to: &mut impl Write) -> io::Result<()> {
    match value {
        Value::Null => write!(to, "nil"),
        Value::Object(fields) => {
            write!(to, "{{")?;
            for (at, (name, value)) in fields.iter().enumerate() {
                write!(to, "{}:{name} ", if at > 0 { ", " } else { "" })?;
                edn_value(value, to)?;
            }
            write!(to, "}}")
        }
        other => write!(to, "{other}"),
    }
}

/// Writes the history as events of porcupine, one JSON object per line with the fields of its `Event`; `Kind` false is a call.
///
/// Refused operations are left out. Ambiguous ones return at the very end with a null: the model must let those do either.
pub fn porcupine(ops: &[Op], to: &mut impl Write) -> io::Result<()> {
    let processes = processes(ops);
    let seen = |at: &usize| is_answered(&ops[*at]) && ops[*at].answer != Answer::Refused;
    let (open, known): (Vec<_>, Vec<_>) =
        events(ops).into_iter().filter(|(at, _)| seen(at)).partition(|(at, is_completion)| *is_completion && is_open(&ops[*at]));
    for (at, is_completion) in known.into_iter().chain(open) {
        let op = &ops[at];
        let value = if is_completion {
            result(op.answer)
        } else {
            json!({ "op": function(op.ask), "key": format!("k{}", op.key), "arg": argument(op) })
        };
        writeln!(to, "{}", json!({ "ClientId": processes[&at], "Kind": is_completion, "Value": value, "Id": at }))?;
    }
    Ok(())
}

fn is_answered(op: &Op) -> bool {
    !matches!(op.ask, Ask::Expire | Ask::LoadStale)
}

/// Whether its caller learned nothing.
fn is_open(op: &Op) -> bool {
    op.late || op.answer == Answer::Unknown
}

/// The process of each operation, a new one after each that never learned its answer.
fn processes(ops: &[Op]) -> BTreeMap<usize, usize> {
    let mut next = 0;
    let mut current: BTreeMap<usize, usize> = BTreeMap::new();
    let mut processes = BTreeMap::new();
    for (at, is_completion) in events(ops).into_iter().filter(|(at, _)| is_answered(&ops[*at])) {
        let op = &ops[at];
        if !is_completion {
            let process = *current.entry(op.client).or_insert_with(|| {
                next += 1;
                next - 1
            });
            processes.insert(at, process);
        } else if is_open(op) {
            current.remove(&op.client);
        }
    }
    processes
}
