//! Writing results: everything goes through here, since `println!` panics when the reader has gone.

use std::io::{self, Write};

use comfy_table::{Row, Table, presets};
use serde_json::Value;

use crate::args::Output;
use crate::failure::{Code, Failure};

/// Writes a JSON document and a line end to stdout. Errors: `BrokenPipe` when the reader has gone.
pub fn json(document: &Value) -> io::Result<()> {
    line(&document.to_string())
}

/// Writes a line to stdout.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes a result as the user asked for it.
pub fn print<T: AsRef<str>>(how: Output, json: impl FnOnce() -> Value, text: impl FnOnce() -> T) -> io::Result<()> {
    match how {
        Output::Json => self::json(&json()),
        Output::Table => line(text().as_ref()),
    }
}

/// Writes the result of a change, which `done` says in words. Errors: as [`after`].
pub fn changed(how: Output, done: &str, json: impl FnOnce() -> Value) -> Result<(), Failure> {
    after(done, print(how, json, || done).map_err(Failure::from))
}

/// Writes named values: one JSON object, or a line each with the names as wide as that.
pub fn fields(fields: &[(&str, Value)], width: usize, how: Output) -> Result<(), Failure> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let lines = || fields.iter().map(|(name, value)| format!("{name:<width$} {}", plain(value))).collect::<Vec<_>>().join("\n");
    let object = || fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Ok(print(how, object, lines)?)
}

/// A table without lines, for people.
pub fn table<T: Into<comfy_table::Cell>>(header: impl IntoIterator<Item = T>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(Row::from(header));
    table
}

/// Writes bytes to stdout as they are.
pub fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// The result of printing a change's result. Errors: it could not be printed; the error says that the change was made, since a user who
/// sees only a failed command would repeat it. A closed pipe is no failure.
pub fn after(done: &str, printed: Result<(), Failure>) -> Result<(), Failure> {
    printed.map_err(|failure| match failure.code {
        Code::OutputClosed => failure,
        _ => Failure { message: format!("{done}; only the result is not shown: {}", failure.message), ..failure },
    })
}

/// A session id for a terminal: nothing in it can move the cursor, colour the line, or turn the order of what stands around it.
pub fn printable(id: &str) -> String {
    id.chars().flat_map(|c| if is_acting(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Whether a character acts instead of being seen: a control character; what turns the direction of text (Unicode Standard Annex #9) or
/// breaks a line; what takes no room, so that two ids look alike. The joiners of some scripts are letters to them, and stay.
pub fn is_acting(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    let hides = matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || turns || breaks || hides
}

/// Several lines for a terminal, each as [`printable`].
pub fn lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Milliseconds since the Unix epoch, for people.
pub fn time(ms: u64) -> String {
    // The formatter takes four digits of a year.
    const YEAR_10000_S: u64 = 253_402_300_800;
    if ms / 1000 >= YEAR_10000_S {
        return "-".into();
    }
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms)).to_string()
}

/// Bytes, for people.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_control_characters_is_escaped_and_other_text_is_not() {
        assert_eq!(printable("a\u{1b}[31m\nb/ü"), "a\\u{1b}[31m\\nb/ü");
    }

    #[test]
    fn an_id_that_turns_the_direction_of_text_is_escaped_and_letters_of_any_script_are_not() {
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{2069}\u{200f}"), "a\\u{202e}b\\u{2066}c\\u{2069}\\u{200f}");
        assert_eq!(printable("a\u{200b}\u{feff}\u{2028}"), "a\\u{200b}\\u{feff}\\u{2028}");
        let letters = "שלום سلام क्\u{200d}ष 🧑\u{200d}🚀";
        assert_eq!(printable(letters), letters);
    }

    /// The page of a node has the same rule, and its test the same list.
    #[test]
    fn what_acts_is_this_and_nothing_else() {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for at in ('\0'..=char::MAX).filter(|c| is_acting(*c)).map(u32::from) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == at => *last = at,
                _ => runs.push((at, at)),
            }
        }
        let runs: Vec<String> = runs.into_iter().map(|(first, last)| format!("{first:x}-{last:x}")).collect();
        assert_eq!(
            runs.join(" "),
            "0-1f 7f-9f ad-ad 61c-61c 180e-180e 200b-200b 200e-200f 2028-202e 2060-206f feff-feff fff9-fffb e0000-e007f"
        );
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(u64::MAX), "-");
    }
}
