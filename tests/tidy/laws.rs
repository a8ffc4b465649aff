//! The laws of `src/docs/invariants.md`: each is kept by a file that cites it and checked by something that is there, and nothing cites
//! a law that is not on the page.

use super::Violations;
use super::source::Source;

/// What the page says of one law.
struct Law {
    number: usize,
    kept_by: Vec<String>,
    checked_by: Vec<String>,
}

/// What the page claims and the code does not have, and what the code cites and the page does not have. `mutants` lists the planted bugs.
pub fn violations(page: &str, sources: &[Source], mutants: &str) -> Violations {
    let laws: Vec<Law> = page.lines().filter_map(law).collect();
    let mut violations = Violations::new();
    for (law, expected) in laws.iter().zip(1..) {
        if law.number != expected {
            violations.push(format!("L{} stands where L{expected} should", law.number));
        }
        if law.kept_by.is_empty() || law.checked_by.is_empty() {
            violations.push(format!("L{} names no file that keeps it, or nothing that checks it", law.number));
        }
        for file in &law.kept_by {
            let source = sources.iter().find(|source| source.path == format!("src/{file}"));
            match source {
                None => violations.push(format!("L{}: there is no file {file}", law.number)),
                Some(source) if !citations(&source.text).any(|(_, cited)| cited == law.number) => {
                    violations.push(format!("L{}: {file} does not cite it", law.number));
                }
                Some(_) => {}
            }
        }
        for check in &law.checked_by {
            let is_there = if check.contains('_') {
                sources.iter().any(|source| source.text.contains(&format!("fn {check}(")))
            } else {
                mutants.lines().any(|line| line.split_whitespace().next() == Some(check))
            };
            if !is_there {
                violations.push(format!("L{}: there is no planted bug or test {check}", law.number));
            }
        }
    }
    for source in sources.iter().filter(|source| !source.path.starts_with("tests/tidy/")) {
        for (line, cited) in citations(&source.text).filter(|(_, cited)| laws.iter().all(|law| law.number != *cited)) {
            violations.push(format!("{}:{line}: there is no law L{cited}", source.path));
        }
    }
    violations
}

/// A row `| L1 | what | kept by | checked by |`.
fn law(line: &str) -> Option<Law> {
    let cells: Vec<&str> = line.strip_prefix("| L")?.split(" | ").collect();
    let [number, .., kept_by, checked_by] = cells[..] else { return None };
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some(Law { number: number.parse().ok()?, kept_by: quoted(kept_by), checked_by: quoted(checked_by) })
}

/// The numbers that comments cite, as `L12`, with their lines.
fn citations(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.lines().zip(1..).filter_map(|(line, number)| Some((line.split_once("//")?.1, number))).flat_map(|(comment, number)| {
        let cited = |word: &str| word.strip_prefix('L')?.parse().ok();
        comment
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter_map(cited)
            .map(move |cited| (number, cited))
            .collect::<Vec<_>>()
    })
}

#[test]
fn a_law_that_nobody_keeps_or_checks_and_a_citation_of_none_are_named() {
    let page = "| law | what |\n| L1 | a | `a.rs` | `a-bug` |\n| L2 | b \\| c | `a.rs`, `b.rs` | `it_holds_true` |\n";
    let sources = || {
        vec![
            Source::new("src/a.rs", "/// As L1 and (L2) say.\nfn a() {}\n"),
            Source::new("src/b.rs", "// L2, in short.\nlet l3 = L3;"),
            Source::new("tests/b.rs", "fn it_holds_true() {}"),
        ]
    };
    assert_eq!(violations(page, &sources(), "# bugs\na-bug sim 1\n"), [""; 0]);
    assert_eq!(violations(page, &sources(), "other-bug sim 1"), ["L1: there is no planted bug or test a-bug"]);
    assert_eq!(violations(page, &sources()[..2], "a-bug sim 1"), ["L2: there is no planted bug or test it_holds_true"]);
    let uncited = page.replace("| `a.rs` |", "| `b.rs` |");
    assert_eq!(violations(&uncited, &sources(), "a-bug sim 1"), ["L1: b.rs does not cite it"]);
    let missing = page.replace("`a.rs`, `b.rs`", "`c.rs`");
    assert_eq!(violations(&missing, &sources(), "a-bug sim 1"), ["L2: there is no file c.rs"]);
    assert_eq!(violations(&page.replace("L2", "L3"), &sources(), "a-bug sim 1").len(), 5);
    let unchecked = page.replace("`a-bug`", "–");
    assert_eq!(violations(&unchecked, &sources(), ""), ["L1 names no file that keeps it, or nothing that checks it"]);
}
