//! Rules about single words and lines.

use crate::Violations;
use crate::source::{Source, words};

/// Files with more lines than fit in a head.
pub fn too_long(source: &Source, limit: usize) -> Violations {
    let lines = source.text.lines().count();
    if lines > limit { vec![format!("{}: lines={lines} limit={limit}", source.path)] } else { Vec::new() }
}

/// Promises instead of code, and tests that do not run or only wait.
pub fn unfinished(source: &Source) -> Violations {
    let in_code = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    let mut violations = find(source, &source.code, &in_code, "stands for work that is not done");
    let in_text = [concat!("FIX", "ME"), concat!("XX", "X")];
    violations.extend(find(source, &source.text, &in_text, "stands for work that is not done"));
    if !source.path.starts_with("src/env/") {
        violations.extend(find(
            source,
            &source.code,
            &["thread::sleep"],
            "waits for time to pass instead of for what should happen",
        ));
    }
    violations
}

/// Words with a plainer one beside them, which takes their place: in comments, names, texts and documents alike.
const BANNED: [(&[&str], &str); 7] = [
    (&[concat!("to", "ld"), concat!("unto", "ld")], "answered, reported, notified, distinguished"),
    (&[concat!("who", "ever"), concat!("whom", "ever")], "a noun: the caller, the node"),
    (&[concat!("me", "nd"), concat!("me", "nds"), concat!("me", "nded"), concat!("me", "nding")], "fix, repair"),
    (&[concat!("an", "ew")], "again"),
    (&[concat!("bu", "ry"), concat!("buri", "ed"), concat!("buri", "es")], "remove, delete"),
    (&[concat!("ro", "t"), concat!("ro", "ts"), concat!("ro", "tted"), concat!("ro", "tten")], "corruption, corrupt"),
    (&[concat!("author", "ity"), concat!("authorit", "ies")], "CA"),
];
/// Where such a word is another's name, or what people search for.
const NAMES: [&str; 5] =
    ["bit rot", "certificate authority", "uri().authority()", "use_authority_key_identifier_extension", "throw-away authority"];

/// Banned words in the text of any file, also as a part of a name.
pub fn banned(path: &str, text: &str) -> Violations {
    let mut violations = Violations::new();
    for (number, line) in text.lines().enumerate() {
        let line = NAMES.iter().fold(line.to_owned(), |line, name| line.replace(name, ""));
        for part in parts(&line) {
            if let Some((_, instead)) = BANNED.iter().find(|(banned, _)| banned.contains(&&part[..])) {
                violations.push(format!("{path}:{}: `{part}`: say {instead}", number + 1));
            }
        }
    }
    violations
}

/// Citations of a text that is not in the repository: a reader could not look them up.
pub fn foreign_citations(path: &str, text: &str) -> Violations {
    let cited = concat!("design", " §");
    let lines = text.lines().zip(1..).filter(|(line, _)| line.to_lowercase().contains(cited));
    lines
        .map(|(_, number)| format!("{path}:{number}: cites a text that is not here: cite a page of src/docs, a law or a decision"))
        .collect()
}

/// The words of a line, those that names are made of too, in small letters.
fn parts(line: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut was_small = false;
    for c in line.chars().chain([' ']) {
        if !part.is_empty() && (!c.is_alphabetic() || c.is_uppercase() && was_small) {
            parts.push(std::mem::take(&mut part));
        }
        if c.is_alphabetic() {
            part.extend(c.to_lowercase());
        }
        was_small = c.is_lowercase();
    }
    parts
}

/// `cfg(feature)` anywhere but before `mod` and `use`.
pub fn misplaced_features(source: &Source) -> Violations {
    let mut violations = find(source, &source.code, &["cfg!(feature", "cfg_attr(feature"], "belongs on a `mod` or `use` line");
    let lines: Vec<&str> = source.code.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if !line.contains("cfg(") || !line.contains("feature") || line.contains("#![") {
            continue;
        }
        let inline = line.rsplit(']').next().unwrap_or("").trim();
        let after = lines[number + 1..].iter().map(|line| line.trim()).find(|line| !line.is_empty() && !line.starts_with("#["));
        let item = if inline.is_empty() { after.unwrap_or("") } else { inline };
        let bare = item.strip_prefix("pub(crate) ").or(item.strip_prefix("pub ")).unwrap_or(item);
        if !bare.starts_with("mod ") && !bare.starts_with("use ") {
            violations.push(format!(
                "{}:{}: cfg(feature) belongs on a `mod` or `use` line, not on `{item}`",
                source.path,
                number + 1
            ));
        }
    }
    violations
}

/// Clocks, files and threads of the operating system, which a simulation must be able to own.
pub fn outside_world(source: &Source) -> Violations {
    let path = source.path.as_str();
    if path.starts_with("src/env/") || path.starts_with("src/bin/") {
        return Vec::new();
    }
    let code = source.shipped();
    let mut violations = find(source, code, &["SystemTime", "UNIX_EPOCH", "std::time::Instant", "std::thread"], "belongs to env");
    for at in words(code, "std::time::{") {
        let list = code[at..].split('}').next().unwrap_or("");
        violations.extend(words(list, "Instant").map(|_| source.at(at, "`std::time::Instant` belongs to env")));
    }
    // The lock is the operating system's by nature, the configuration is read before there is a node, and nodes that are processes keep
    // their files outside of this one.
    let is_exempt =
        ["src/server/config.rs", "src/storage/lock.rs", "src/testing/processes/"].iter().any(|file| path.starts_with(file));
    if !is_exempt {
        violations.extend(find(source, code, &["std::fs"], "belongs to env"));
    }
    violations
}

/// Maps and sets that iterate in another order on every replica.
pub fn unordered(source: &Source) -> Violations {
    if !source.path.starts_with("src/machine") {
        return Vec::new();
    }
    find(source, source.shipped(), &["HashMap", "HashSet"], "has another order on every replica")
}

/// Macros that panic when the reader of the output has gone.
pub fn panicking_output(source: &Source) -> Violations {
    find(source, source.shipped(), &["println!", "print!", "eprintln!", "eprint!"], "panics when its reader has gone")
}

fn find(source: &Source, within: &str, banned: &[&str], why: &str) -> Violations {
    let hits = |word: &&str| -> Vec<String> { words(within, word).map(|at| source.at(at, &format!("`{word}` {why}"))).collect() };
    banned.iter().flat_map(hits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path, text)
    }

    #[test]
    fn a_long_file_is_caught() {
        let long = source("src/a.rs", "x\nx\nx\n");
        assert_eq!(too_long(&long, 2), ["src/a.rs: lines=3 limit=2"]);
        assert!(too_long(&long, 3).is_empty());
    }

    #[test]
    fn unfinished_work_is_caught_with_its_line_and_not_in_strings() {
        let bad =
            source("tests/a.rs", concat!("fn a() {\n    to", "do!()\n}\n#[ig", "nore]\nfn b() { std::thread::sle", "ep(x) }"));
        assert_eq!(unfinished(&bad).len(), 3, "{:?}", unfinished(&bad));
        assert!(unfinished(&bad)[0].starts_with("tests/a.rs:2: "));
        assert!(unfinished(&source("src/a.rs", "let a = \"dbg!\"; mytodo!();")).is_empty());
        assert_eq!(unfinished(&source("src/a.rs", concat!("// FIX", "ME later"))).len(), 1);
    }

    #[test]
    fn a_banned_word_is_caught_in_comments_names_and_texts_and_not_within_another_word() {
        let bad =
            concat!("// was to", "ld\nfn is_to", "ld() {}\nstruct Me", "nd; const ME", "ND_IT: u8;\nlet a = CaAuthor", "ity;\n");
        assert_eq!(banned("a.rs", bad).len(), 5, "{:?}", banned("a.rs", bad));
        assert!(banned("a.rs", bad)[1].starts_with("a.rs:2: "));
        assert_eq!(banned("a.md", "a protocol, rotation, recommend, bit rot, a certificate authority"), [""; 0]);
    }

    #[test]
    fn a_citation_of_a_text_that_is_not_here_is_caught() {
        let violations = foreign_citations("src/a.rs", concat!("//! So it is.\n//! As it says (Design", " §5).\n"));
        assert!(violations.len() == 1 && violations[0].starts_with("src/a.rs:2: "), "{violations:?}");
        assert_eq!(foreign_citations("src/a.rs", "//! Raft dissertation §6.3, L5, decision 0001."), [""; 0]);
    }

    #[test]
    fn a_feature_on_anything_but_a_module_line_is_caught() {
        let bad = "#[cfg(feature = \"x\")]\n#[derive(Clone)]\npub struct A;\n#[cfg(all(test, feature = \"x\"))]\nfn b() {}\n";
        assert_eq!(misplaced_features(&source("src/a.rs", bad)).len(), 2);
        assert_eq!(misplaced_features(&source("src/a.rs", "if cfg!(feature = \"x\") {}")).len(), 1);
        let good = "#[cfg(feature = \"x\")]\n/// Doc.\npub mod a;\n#[cfg(feature = \"x\")]\npub use a::B;\n#[cfg(feature = \"x\")] mod c;\n";
        assert!(misplaced_features(&source("src/a.rs", good)).is_empty());
    }

    #[test]
    fn clocks_files_and_threads_outside_env_are_caught() {
        let bad =
            "use std::time::{Duration, Instant};\nlet t = std::time::SystemTime::now();\nstd::fs::read(x); std::thread::spawn(y);";
        assert_eq!(outside_world(&source("src/raft/a.rs", bad)).len(), 4);
        assert!(outside_world(&source("src/env/a.rs", bad)).is_empty());
        assert!(outside_world(&source("src/raft/a.rs", "use std::time::Duration; tokio::time::Instant::now();")).is_empty());
        assert!(outside_world(&source("src/server/config.rs", "std::fs::read(x)")).is_empty());
        assert_eq!(outside_world(&source("src/testing/cluster.rs", "std::fs::read(x)")).len(), 1);
    }

    #[test]
    fn unordered_maps_in_the_machine_are_caught() {
        assert_eq!(unordered(&source("src/machine/a.rs", "use std::collections::HashMap;")).len(), 1);
        assert!(unordered(&source("src/server/a.rs", "use std::collections::HashMap;")).is_empty());
    }

    #[test]
    fn output_that_can_panic_is_caught_and_a_test_may_print() {
        assert_eq!(panicking_output(&source("src/a.rs", "println!(); eprintln!()")).len(), 2);
        assert!(panicking_output(&source("tests/a.rs", "println!()")).is_empty());
    }
}
