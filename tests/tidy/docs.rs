//! Rules about the wording of item docs and messages in `src`: each stands alone, and its subject is a noun.

use crate::Violations;
use crate::source::Source;

/// First words of a doc that is empty where only the doc is seen, as in an editor.
const REFERENCES: [&str; 4] = ["The same", "See the module", "See [", "It "];
/// First words of a sentence without a noun as its subject.
const PRONOUNS: [&str; 4] = ["Who", "Whom", "Whose", "What"];
/// Phrases with a plainer one, in docs and messages.
const PHRASES: [(&str, &str); 6] = [
    (concat!("of its", " own"), "its own, a separate one"),
    (concat!("of their", " own"), "their own, separate ones"),
    (concat!("goes", " on"), "continues"),
    (concat!("like", "wise"), "the words that are meant"),
    (concat!("some", "body"), "a noun: a caller, a node"),
    (concat!("any", "body"), "a noun: a caller, a node"),
];

/// Docs that refer to another text or begin a sentence with a pronoun, and plain phrases that have a plainer one.
pub fn violations(source: &Source) -> Violations {
    if source.is_test() {
        return Violations::new();
    }
    let mut violations = Violations::new();
    let mut before = String::new();
    for (number, line) in source.text.lines().enumerate() {
        let at = |what: String| format!("{}:{}: {what}", source.path, number + 1);
        let doc = doc_of(line);
        if let Some(doc) = doc {
            if before.is_empty() {
                let reference = REFERENCES.iter().find(|words| doc.starts_with(**words));
                violations.extend(reference.map(|words| at(format!("a doc begins with `{words}`: say what it is"))));
            }
            let pronoun = sentences(&before, doc).find(|word| PRONOUNS.contains(word));
            violations.extend(pronoun.map(|word| at(format!("a sentence begins with `{word}`: name its subject"))));
        }
        if doc.is_some() || line.contains('"') || before.ends_with('\\') {
            let found = PHRASES.iter().find(|(phrase, _)| line.to_lowercase().contains(phrase));
            violations.extend(found.map(|(phrase, instead)| at(format!("`{phrase}`: say {instead}"))));
        }
        before = match doc {
            Some("") => " .".to_owned(),
            Some(doc) => doc.to_owned(),
            None if line.ends_with('\\') => "\\".to_owned(),
            None => String::new(),
        };
    }
    violations
}

/// The text of a doc comment's line.
fn doc_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let doc = line.strip_prefix("///").or(line.strip_prefix("//!"))?;
    Some(doc.strip_prefix(' ').unwrap_or(doc))
}

/// The first words of the sentences that begin in `doc`, the line behind `before`.
fn sentences<'a>(before: &str, doc: &'a str) -> impl Iterator<Item = &'a str> {
    let word = |text: &'a str| text.split(|c: char| !c.is_alphabetic()).next().unwrap_or("");
    let first = before.is_empty() || before.ends_with(['.', '?', '!']);
    first.then(|| word(doc)).into_iter().chain(doc.split(". ").skip(1).map(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doc_that_does_not_stand_alone_is_caught() {
        let caught = |text: &str| violations(&Source::new("src/a.rs", text));
        for (text, line) in [
            ("/// What a node says.\nfn a() {}", 1),
            ("//! Who leads.", 1),
            ("/// The leader. Whose disk is full, hands over.\nfn a() {}", 1),
            ("/// The leader.\n/// What it says is true.\nfn a() {}", 2),
            ("/// The leader.\n///\n/// Whom it follows.\nfn a() {}", 3),
            ("/// The same, by name.\nfn a() {}", 1),
            ("struct A;\n/// See the module.\nstruct B;", 2),
            ("    /// See [`A`].\n    a: A,", 1),
            ("    /// It may have happened.\n    Unknown,", 1),
            (concat!("/// Like", "wise.\nfn a() {}"), 1),
            (concat!("/// A file of its", " own.\nfn a() {}"), 1),
            (concat!("let a = \"the node goes", " on\";"), 1),
            (concat!("let a = \"the node \\\n    goes", " on\";"), 2),
            (concat!("let a = \"some", "body\";"), 1),
        ] {
            let found = caught(text);
            assert!(found.len() == 1 && found[0].starts_with(&format!("src/a.rs:{line}: ")), "{text}: {found:?}");
        }
        for text in [
            "/// The leader. It may be unknown.\n/// Decides what to do and who\n/// What follows in the same sentence.\nfn a() {}",
            "/// Whatever fails. Itself.\nfn a() {}",
            concat!("// A file of its", " own: no doc and no message.\nfn a() {}"),
            "/// As [`A`], for tests. The same size.\nfn a() {}",
        ] {
            assert_eq!(caught(text), [""; 0], "{text}");
        }
        assert_eq!(violations(&Source::new("tests/a.rs", "/// What it does.")), [""; 0], "a test's doc tells a story");
    }
}
