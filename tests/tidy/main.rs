//! What no compiler checks: who may use what, how large a file may be, which words have no place in the code.
//!
//! The table of [`imports`] is the one of `src/docs/architecture.md`. Every rule is a function from a file to its violations, and has a
//! test that shows it failing: a rule that can't fail checks nothing.

mod api;
mod circles;
mod cited;
mod claims;
mod docs;
mod generated;
mod headings;
mod imports;
mod laws;
mod metadata;
mod peers;
mod source;
mod words;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use source::Source;

/// A file above this is two files.
const LINES_MAX: usize = 800;

/// What is wrong where.
type Violations = Vec<String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours below `dir`, in order; generated ones are not ours, nor is what a build of the fuzz targets leaves.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() && !path.ends_with("generated") && !path.ends_with("target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Every text of ours, with its path from the root: code, scripts, documents, what tests compare with. Not what was written before.
fn texts() -> Vec<(String, String)> {
    const DIRS: [&str; 9] = [".cargo", ".ci", "benches", "examples", "findings", "proto", "scripts", "src", "tests"];
    const FOREIGN: [&str; 6] = ["target", "generated", "seeds", "corpus", "node_modules", "CHANGELOG.md"];
    let mut texts = Vec::new();
    let mut dirs: Vec<PathBuf> =
        DIRS.iter().map(|dir| root().join(dir)).filter(|dir| dir.is_dir()).chain([root().to_owned()]).collect();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a readable directory") {
            let path = entry.expect("a readable directory").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
            if FOREIGN.contains(&&name[..]) || name.starts_with("LICENSE") || name.ends_with(".lock") {
                continue;
            }
            if path.is_dir() {
                dirs.extend((path.parent() != Some(root())).then_some(path));
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                texts.push((path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8").to_owned(), text));
            }
        }
    }
    texts
}

/// Every Rust file of ours.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let dirs = ["src", "tests", "examples", "benches"];
        let paths = dirs.iter().flat_map(|dir| rust_files(&root().join(dir)));
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).expect("a readable source file");
            Source::new(path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8"), &text)
        };
        let sources: Vec<Source> = paths.map(read).collect();
        assert!(sources.len() > 20, "the walk found only {} files", sources.len());
        sources
    });
    &SOURCES
}

/// The text of one file, by its path from the root.
fn text_of(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn none(violations: impl IntoIterator<Item = String>) {
    let violations: Violations = violations.into_iter().collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn check(rule: impl Fn(&Source) -> Violations) {
    none(sources().iter().flat_map(rule));
}

#[test]
fn modules_use_only_what_the_architecture_allows() {
    check(imports::violations);
}

#[test]
fn openrafts_traits_are_named_in_the_adapter_only() {
    check(imports::traits_outside_the_adapter);
}

#[test]
fn no_three_files_of_a_module_import_each_other_in_a_circle() {
    none(circles::violations(sources()));
}

#[test]
fn the_interface_is_the_one_that_was_agreed_on() {
    let path = root().join("tests/tidy/api.txt");
    let sources = sources();
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, api::listing(sources)).expect("a writable file");
    }
    let violations = api::violations(sources, &text_of("tests/tidy/api.txt"));
    let what_to_do = "The public interface is not the one of tests/tidy/api.txt (- gone, + new). If that is meant, write it again and \
        commit it with the reason:\n\n    REWRITE=1 cargo test --locked --test tidy the_interface";
    assert!(violations.is_empty(), "\n{}\n\n{what_to_do}\n", violations.join("\n"));
}

#[test]
fn every_dependency_has_an_owner() {
    let manifest = text_of("Cargo.toml");
    none(imports::dependencies_without_owner(&manifest));
}

#[test]
fn no_file_is_too_long() {
    check(|source| words::too_long(source, LINES_MAX));
}

#[test]
fn no_word_stands_for_work_that_is_not_done() {
    check(words::unfinished);
}

#[test]
fn no_word_stands_where_a_plainer_one_would() {
    let texts = texts();
    assert!(texts.len() > 100, "the walk found only {} files", texts.len());
    none(texts.iter().flat_map(|(path, text)| words::banned(path, text)));
}

#[test]
fn every_item_doc_stands_alone_and_its_subject_is_a_noun() {
    check(docs::violations);
}

#[test]
fn nothing_cites_a_text_that_is_not_here() {
    none(texts().iter().flat_map(|(path, text)| words::foreign_citations(path, text)));
}

#[test]
fn features_are_distinguished_on_module_lines_only() {
    check(words::misplaced_features);
}

#[test]
fn clocks_files_and_threads_are_touched_in_env_only() {
    check(words::outside_world);
}

#[test]
fn the_machine_names_no_map_whose_order_differs_between_replicas() {
    check(words::unordered);
}

#[test]
fn output_never_panics_because_its_reader_has_gone() {
    check(words::panicking_output);
}

#[test]
fn every_test_that_the_documents_name_is_there() {
    let document = text_of("src/docs/testing.md");
    let ours = sources().iter().filter(|source| source.path.starts_with("src/") || source.path.starts_with("tests/"));
    none(claims::violations(&document, &ours.map(|source| &source.text[..]).collect::<String>()));
}

#[test]
fn every_law_is_kept_by_code_that_cites_it_and_checked_and_no_other_is_cited() {
    none(laws::violations(&text_of("src/docs/invariants.md"), sources(), &text_of("tests/sim/mutants.txt")));
}

fn names_in(directory: &str) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(root().join(directory)).expect("a readable directory");
    entries.map(|entry| entry.expect("a readable directory").file_name().into_string().expect("UTF-8"))
}

/// The pages at the top and those of `src/docs` with its notes, decisions aside.
fn pages() -> Vec<headings::Page> {
    let mut paths = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for directory in ["src/docs", "src/docs/notes"] {
        paths.extend(names_in(directory).filter(|name| name.ends_with(".md")).map(|name| format!("{directory}/{name}")));
    }
    let guide = text_of("src/bin/quorate/commands/help/guide.rs");
    let read = |path: String| {
        let is_printed = path.strip_prefix("src/").is_some_and(|page| guide.contains(&format!("/{page}\")")));
        headings::Page { text: text_of(&path), path, is_printed }
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_chapter_that_the_program_sends_a_reader_to_is_there() {
    let pages = pages();
    assert!(pages.len() > 10, "the walk found only {} pages", pages.len());
    let shipped = sources().iter().filter(|source| !source.is_test());
    none(shipped.flat_map(|source| headings::missing_chapters(&source.path, &source.text, &pages)));
}

/// The names of the decisions' files.
fn decisions() -> Vec<String> {
    let names: Vec<String> = names_in("src/docs/decisions").collect();
    assert!(names.len() > 20, "the walk found only {} decisions", names.len());
    names
}

#[test]
fn every_file_test_constant_and_decision_that_is_cited_is_there() {
    let (pages, texts, names) = (pages(), texts(), decisions());
    let paths: Vec<String> = texts.iter().map(|(path, _)| path.clone()).collect();
    let limits = text_of("src/limits.rs");
    // What the history tells of may be gone.
    let current = pages.iter().filter(|page| !page.path.contains("/notes/"));
    let files = current.flat_map(|page| cited::missing_files(&page.path, &page.text, &paths));
    let constants = pages.iter().filter(|page| page.path.ends_with("limits.md"));
    let constants = constants.flat_map(|page| cited::missing_constants(&page.path, &page.text, &limits));
    let code: String = sources().iter().map(|source| &source.text[..]).collect();
    let tests = pages.iter().filter(|page| page.path == "CONTRIBUTING.md");
    let tests = tests.flat_map(|page| cited::missing_tests(&page.path, &page.text, &code));
    let decisions = texts.iter().filter(|(path, _)| !path.starts_with("tests/tidy/"));
    let decisions = decisions.flat_map(|(path, text)| cited::missing_decisions(path, text, &names));
    none(files.chain(tests).chain(constants).chain(decisions));
}

#[test]
fn every_decision_is_in_the_documentation() {
    let listing = text_of("src/docs/mod.rs");
    none(headings::unlisted_decisions(&listing, &decisions()));
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let pages = pages();
    let exists = |path: &str| root().join(path).exists();
    none(pages.iter().flat_map(|page| headings::broken_links(page, &pages, exists)));
}
