//! Who may use what, by the table of `src/docs/architecture.md`.

use std::sync::LazyLock;

use crate::Violations;
use crate::source::{Named, Source, words};

/// What one part may name. `std` is free.
struct Part {
    /// Paths below `src` that belong to it; the longest match decides.
    path: &'static str,
    /// Modules of this crate.
    modules: Vec<&'static str>,
    /// Crates of others.
    crates: Vec<&'static str>,
}

static PARTS: LazyLock<Vec<Part>> = LazyLock::new(|| parts(include_str!("../../src/docs/architecture.md")));

/// The rows of the table whose first column is a path.
fn parts(page: &'static str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let table = page.lines().skip_while(|line| !line.starts_with("| path |")).skip(2);
    for line in table.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [path, _, modules, crates] = cells[..] else { panic!("no four columns: {line}") };
        let path = path.trim_matches('`');
        let names = |cell: &'static str, of: fn(&Part) -> &[&'static str]| match cell.strip_prefix("as `") {
            Some(other) => {
                let other = parts.iter().find(|part| part.path == other.trim_end_matches('`'));
                of(other.unwrap_or_else(|| panic!("no row above: {line}"))).to_vec()
            }
            None => cell.split(", ").filter(|name| *name != "–").collect(),
        };
        let (mut modules, crates) = (names(modules, |part| &part.modules), names(crates, |part| &part.crates));
        modules.extend(path.split('/').next());
        parts.push(Part { path, modules, crates });
    }
    assert!(parts.len() > 20, "the table has only {} rows", parts.len());
    parts
}

/// Paths a file names that its part may not.
pub fn violations(source: &Source) -> Violations {
    if source.is_test() || source.path == "src/lib.rs" {
        return Vec::new();
    }
    // Crates of their own.
    if source.path.starts_with("src/stand_ins/") {
        return Vec::new();
    }
    let below = source.path.trim_start_matches("src/");
    let part = PARTS.iter().filter(|part| below.starts_with(part.path)).max_by_key(|part| part.path.len());
    let Some(part) = part else { return vec![format!("{}: belongs to no part of the table", source.path)] };
    let code = source.shipped();
    let mut violations = Vec::new();
    for Named { at, path, brings } in source.paths() {
        let refuse = |what: &str| source.at(at, &format!("{what} is not for {}", part.path));
        match path.first().map(String::as_str) {
            // The binary's own modules are its own business.
            Some("crate") if part.path.starts_with("bin/") => {}
            Some(root @ ("crate" | "quorate")) if path.len() > 1 => {
                let name = path[1].as_str();
                let is_macro = code[at..].split([';', '\n']).next().is_some_and(|line| line.contains(&format!("{name}!")));
                let is_allowed = part.modules.contains(&name) || is_macro;
                violations.extend((!is_allowed).then(|| refuse(&format!("`{root}::{name}`"))));
            }
            Some(name) if path.len() > 1 || brings.is_some() => {
                let is_allowed = part.crates.contains(&name) || !known_crates().any(|known| known == name);
                violations.extend((!is_allowed).then(|| refuse(&format!("crate `{name}`"))));
            }
            _ => {}
        }
    }
    let is_top = source.path.ends_with("/mod.rs") && source.path.matches('/').count() == 2 || source.path.matches('/').count() == 1;
    if is_top {
        violations.extend(words(code, "super::").map(|at| source.at(at, "`super::` hides what is used here: write `crate::`")));
    }
    violations
}

/// Where openraft's traits of storage and network are named: nobody but the adapter need know them.
const ADAPTER: &str = "src/raft/adapter/";

/// Names of openraft's traits outside the adapter.
pub fn traits_outside_the_adapter(source: &Source) -> Violations {
    if source.is_test() || source.path.starts_with(ADAPTER) || source.path.starts_with("src/stand_ins/") {
        return Vec::new();
    }
    let code = source.shipped();
    let named =
        |module: &'static str| words(code, module).map(move |at| source.at(at, &format!("`{module}` is for {ADAPTER} only")));
    ["openraft::storage", "openraft::network"].into_iter().flat_map(named).collect()
}

/// Dependencies of the manifest that no part may use.
pub fn dependencies_without_owner(manifest: &str) -> Violations {
    let section = manifest.split("\n[").find(|section| section.starts_with("dependencies]")).unwrap_or("");
    let names = section.lines().skip(1).filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim().replace('-', "_"));
    names
        .filter(|name| !known_crates().any(|known| known == name))
        .map(|name| format!("Cargo.toml: `{name}` has no owner"))
        .collect()
}

fn known_crates() -> impl Iterator<Item = &'static str> {
    PARTS.iter().flat_map(|part| part.crates.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Violations {
        violations(&Source::new(path, text))
    }

    #[test]
    fn a_module_that_is_not_allowed_is_caught_in_every_form_of_a_path() {
        assert_eq!(found("src/machine/a.rs", "use crate::storage::Log;").len(), 1);
        assert_eq!(found("src/machine/a.rs", "use crate::{types::{Version, raft}, env::Clock,\n  limits};").len(), 1);
        assert_eq!(found("src/machine/a.rs", "fn a() { crate::raft::start() }").len(), 1);
        assert_eq!(found("src/bin/quorate/a.rs", "use quorate::raft::Node; use crate::anything;").len(), 1);
        assert!(found("src/machine/a.rs", "use crate::{types::Version, limits, codec};").is_empty());
    }

    #[test]
    fn a_crate_that_is_not_allowed_is_caught() {
        assert_eq!(found("src/machine/a.rs", "use tokio::sync::mpsc;").len(), 1);
        assert_eq!(found("src/server/a.rs", "#[openraft::x]\nfn a(b: redb::Database) {}").len(), 2);
        assert_eq!(found("src/server/a.rs", "use prost::Message;\nuse bincode;").len(), 2);
        assert_eq!(found("src/client/a.rs", "serde_json::to_vec(x)").len(), 1);
        assert!(found("src/client/bob.rs", "serde_json::to_vec(x)").is_empty());
        assert!(found("src/machine/a.rs", "// tokio::spawn\nlet a = \"tokio::spawn\"; b.tokio; types::tokio::c()").is_empty());
    }

    #[test]
    fn openrafts_traits_outside_the_adapter_are_caught() {
        let found = |path: &str, text: &str| traits_outside_the_adapter(&Source::new(path, text)).len();
        assert_eq!(
            found("src/raft/peer/a.rs", "use openraft::storage::RaftLogStorage;\nfn a(b: openraft::network::RPCOption) {}"),
            2
        );
        assert_eq!(found("src/raft/adapter/a.rs", "use openraft::storage::RaftLogStorage;"), 0);
        assert_eq!(found("src/raft/a.rs", "use openraft::raft::VoteRequest;"), 0);
    }

    #[test]
    fn tests_beside_the_code_may_use_more() {
        assert!(found("src/machine/a.rs", "#[cfg(test)]\nmod tests {\n    use tokio::spawn;\n}\n").is_empty());
    }

    #[test]
    fn a_file_of_no_part_and_a_hidden_path_are_caught() {
        assert_eq!(found("src/misc.rs", "").len(), 1);
        assert_eq!(found("src/machine/mod.rs", "use super::raft;").len(), 1);
        assert!(found("src/machine/deep.rs", "use super::Machine;").is_empty());
    }

    #[test]
    fn a_dependency_without_owner_is_caught() {
        let manifest =
            "[package]\nname = \"x\"\n\n[dependencies]\nbytes = \"1\"\nleft-pad = \"1\"\n\n[dev-dependencies]\nother = \"1\"\n";
        assert_eq!(dependencies_without_owner(manifest), ["Cargo.toml: `left_pad` has no owner"]);
    }
}
