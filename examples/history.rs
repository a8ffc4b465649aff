//! Judges a recorded history, or hands it to the checkers of others.
//!
//! ```text
//! cargo run --example history -- check FILE          exit 0: linearizable, 1: not, 2: no whole history
//! cargo run --example history -- to-edn FILE         Jepsen, one operation per line
//! cargo run --example history -- to-porcupine FILE   porcupine, one event per line
//! ```

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::process::ExitCode;

use quorate::testing::history::{edn, porcupine, read, verdict};

/// Violations are shown up to here; the rest follow from the first as a rule.
const SHOWN_MAX: usize = 20;

fn run(action: &str, path: &str, out: &mut impl Write) -> io::Result<ExitCode> {
    let ops = match read(BufReader::new(File::open(path)?)) {
        Ok(ops) => ops,
        Err(broken) => return Err(io::Error::other(broken)),
    };
    match action {
        "check" => {
            let violations = verdict(&ops);
            for violation in violations.iter().take(SHOWN_MAX) {
                writeln!(out, "VIOLATION {violation}")?;
            }
            writeln!(out, "operations={} violations={}", ops.len(), violations.len())?;
            return Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        "to-edn" => edn(&ops, out)?,
        "to-porcupine" => porcupine(&ops, out)?,
        other => return Err(io::Error::other(format!("there is no action {other}: check, to-edn or to-porcupine"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.as_slice() {
        [action, path] => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            let result = run(action, path, &mut out);
            result.and_then(|code| out.flush().map(|()| code)).map_err(|error| format!("{path}: {error}"))
        }
        _ => Err("usage: history check|to-edn|to-porcupine FILE".to_owned()),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "{error}");
        ExitCode::from(2)
    })
}
