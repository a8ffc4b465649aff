//! What pages and comments send a reader to by name: files, constants, decisions.

use super::Violations;

/// Files of Rust that a page names in code, `machine/write.rs`, and that end no path of `paths`.
pub fn missing_files(page: &str, text: &str, paths: &[String]) -> Violations {
    let is_file = |name: &&str| name.ends_with(".rs") && !name.contains([' ', '*', '<', '{']);
    let is_there = |name: &str| paths.iter().any(|path| path == name || path.ends_with(&format!("/{name}")));
    quoted(text).filter(is_file).filter(|name| !is_there(name)).map(|name| format!("{page}: there is no file {name}")).collect()
}

/// Names in capitals that a page gives in code, `SESSIONS_MAX`, and that `code` does not define.
pub fn missing_constants(page: &str, text: &str, code: &str) -> Violations {
    let is_constant = |name: &&str| name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let is_there = |name: &str| code.contains(&format!("const {name}:"));
    quoted(text)
        .filter(is_constant)
        .filter(|name| !is_there(name))
        .map(|name| format!("{page}: there is no constant {name}"))
        .collect()
}

/// Tests that a page names, `so_it_is_and_stays`, and that `code` does not have.
pub fn missing_tests(page: &str, text: &str, code: &str) -> Violations {
    let is_test = |name: &&str| {
        name.matches('_').count() >= 3 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let is_there = |name: &str| code.contains(&format!("fn {name}("));
    quoted(text).filter(is_test).filter(|name| !is_there(name)).map(|name| format!("{page}: there is no test {name}")).collect()
}

/// Decisions that a text cites, `decision 0001`, and that have no file of `names`.
pub fn missing_decisions(path: &str, text: &str, names: &[String]) -> Violations {
    let mut violations = Violations::new();
    for (at, _) in text.match_indices("decision") {
        let mut rest = text[at + "decision".len()..].trim_start_matches('s').trim_start();
        while let Some(number) = rest.get(..4).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            if !names.iter().any(|name| name.starts_with(&format!("{number}-"))) {
                violations.push(format!("{path}: there is no decision {number}"));
            }
            rest = rest[4..].strip_prefix(", ").or(rest[4..].strip_prefix(" and ")).unwrap_or("");
        }
    }
    violations
}

/// What stands in code within a line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_a_constant_that_is_not_there_is_named() {
        let paths = ["src/machine/write.rs".to_owned()];
        let page = "see `machine/write.rs`, `write.rs`, `rite.rs`, `a/<n>.rs` and `machine::write`";
        assert_eq!(missing_files("a.md", page, &paths), ["a.md: there is no file rite.rs"]);
        let code = "pub const SESSIONS_MAX: usize = 1;";
        assert_eq!(
            missing_constants("a.md", "`SESSIONS_MAX`, `CLIENTS_MAX`, `ENOSPC`", code),
            ["a.md: there is no constant CLIENTS_MAX"]
        );
    }

    #[test]
    fn a_test_that_is_not_there_is_named() {
        let page = "`it_is_so_indeed`, `it_is_not_so`, `data_bytes_max`, `it_is_so.rs`";
        assert_eq!(missing_tests("a.md", page, "fn it_is_so_indeed() {}"), ["a.md: there is no test it_is_not_so"]);
    }

    #[test]
    fn a_decision_that_is_not_there_is_named() {
        let names = ["0001-own-log.md".to_owned(), "0007-bootstrap.md".to_owned()];
        assert_eq!(missing_decisions("a.rs", "as decided (decision 0001; decisions 0001, 0007)", &names), [""; 0]);
        assert_eq!(missing_decisions("a.rs", "decision 0002 and decisions 0001 and 0003", &names).len(), 2);
    }
}
