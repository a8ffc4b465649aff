//! What `src/docs/testing.md` claims: every one of other people's bugs has a row, and every test that a row of any table names is there.

use super::Violations;

const HEADING: &str = "## Other people's bugs";
const POINTS: usize = 18;

/// What the document claims and the code, all of it in one text, does not have.
pub fn violations(document: &str, code: &str) -> Violations {
    let section = document.split_once(HEADING).map_or("", |(_, section)| section);
    let rows_of = |text: &'_ str| text.lines().filter(|line| line.starts_with("| ")).map(str::to_owned).collect::<Vec<_>>();
    let (all, rows) = (rows_of(document), rows_of(section));
    let mut violations = Violations::new();
    for point in 1..=POINTS {
        if !rows.iter().any(|row| row.starts_with(&format!("| {point} "))) {
            violations.push(format!("point {point} has no row"));
        }
    }
    // Names of tests are sentences; kinds of faults and files are none.
    let quoted = all.iter().flat_map(|row| row.split('`').skip(1).step_by(2));
    for name in quoted.filter(|name| name.matches('_').count() >= 2 && !name.contains('/')) {
        if !code.contains(&format!("fn {name}(")) {
            violations.push(format!("there is no test {name}"));
        }
    }
    violations
}

#[test]
fn a_point_without_a_row_and_a_test_that_is_not_there_are_named() {
    let row = |point: usize| format!("| {point} a bug | `it_does_not_happen`, chaos: `cut-one-way` |\n");
    let all: String = [HEADING.to_owned(), "\n".to_owned()].into_iter().chain((1..=POINTS).map(row)).collect();
    let code = "fn it_does_not_happen() {}";
    assert_eq!(violations(&all, code), [""; 0]);
    assert_eq!(violations(&all.replace("| 7 a bug", "| a bug"), code), ["point 7 has no row"]);
    assert_eq!(violations(&all, "fn another() {}").len(), POINTS);
    assert_eq!(violations("", code).len(), POINTS);
    assert_eq!(violations(&format!("| a claim | `it_never_does_so` |\n\n{all}"), code), ["there is no test it_never_does_so"]);
}
