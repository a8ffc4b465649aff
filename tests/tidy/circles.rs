//! Circles of imports: three or more files of one module of which each needs the others can't be read or tested alone.
//!
//! An edge leads from a file to each file whose items it names, by `use` or by a path, outside its tests. A `pub use` is none: it gives
//! an item another name, and who imports that name needs the file that defines the item. Circles of two are fine: a parent and its child.

use std::collections::{BTreeMap, BTreeSet};

use crate::Violations;
use crate::source::{Named, Path, Source};

/// Circles that are there. One that has changed or has gone is an error too, so that this list only shrinks.
const KNOWN: &[&[&str]] = &[
    // A parent and its children.
    &["src/machine/invariants.rs", "src/machine/meter.rs", "src/machine/mod.rs", "src/machine/rows.rs", "src/machine/tables.rs"],
    // A parent and its children.
    &[
        "src/storage/log/live.rs",
        "src/storage/log/mod.rs",
        "src/storage/log/recover.rs",
        "src/storage/log/shared.rs",
        "src/storage/log/writer.rs",
    ],
];

/// Files by their number.
type Edges = BTreeMap<usize, BTreeSet<usize>>;

/// Circles that are not known, and known ones that are none any more.
pub fn violations(sources: &[Source]) -> Violations {
    judge(&circles(sources), KNOWN)
}

fn judge(found: &BTreeSet<Vec<String>>, known: &[&[&str]]) -> Violations {
    let known: BTreeSet<Vec<String>> = known.iter().map(|files| files.iter().map(ToString::to_string).collect()).collect();
    let new = found.difference(&known).map(|files| format!("these files import each other in a circle: {}", files.join(", ")));
    let gone =
        known.difference(found).map(|files| format!("this circle is none any more, take it off the list: {}", files.join(", ")));
    new.chain(gone).collect()
}

/// All circles of three or more files, each in order of paths.
fn circles(sources: &[Source]) -> BTreeSet<Vec<String>> {
    let tree = Tree::new(sources);
    let edges: Edges = (0..tree.files.len()).map(|file| (file, tree.imports(file))).collect();
    let reach: BTreeMap<usize, BTreeSet<usize>> = edges.keys().map(|file| (*file, reached(*file, &edges))).collect();
    let circle = |file: &usize| -> BTreeSet<usize> {
        reach[file].iter().copied().filter(|other| reach[other].contains(file)).chain([*file]).collect()
    };
    let all: BTreeSet<BTreeSet<usize>> = edges.keys().map(circle).filter(|files| files.len() > 2).collect();
    let named = |files: BTreeSet<usize>| files.into_iter().map(|file| tree.files[file].path.clone()).collect::<BTreeSet<_>>();
    all.into_iter().map(|files| named(files).into_iter().collect()).collect()
}

fn reached(from: usize, edges: &Edges) -> BTreeSet<usize> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(edges[&file].iter().copied().filter(|other| found.insert(*other)));
    }
    found
}

struct Tree<'a> {
    files: Vec<&'a Source>,
    /// The module each file is, below the directory of its crate.
    modules: Vec<(&'static str, Path)>,
    by_module: BTreeMap<(&'static str, Path), usize>,
    /// What each file names.
    paths: Vec<Vec<Named>>,
    /// What each file gives another name, and what that is; as the file writes it.
    facades: Vec<BTreeMap<String, Path>>,
}

impl<'a> Tree<'a> {
    fn new(sources: &'a [Source]) -> Self {
        let files: Vec<&Source> = sources.iter().filter(|source| source.path.starts_with("src/") && !source.is_test()).collect();
        let modules: Vec<_> = files.iter().map(|source| module_of(&source.path)).collect();
        let by_module = modules.iter().cloned().enumerate().map(|(file, module)| (module, file)).collect();
        let paths: Vec<Vec<Named>> = files.iter().map(|source| source.paths()).collect();
        let given =
            |found: &Named| found.brings.clone().filter(|(_, is_public)| *is_public).map(|(name, _)| (name, found.path.clone()));
        let facades = paths.iter().map(|paths| paths.iter().filter_map(given).collect()).collect();
        Self { files, modules, by_module, paths, facades }
    }

    /// The files of the same top module that one needs.
    fn imports(&self, file: usize) -> BTreeSet<usize> {
        let mut paths: Vec<Path> = Vec::new();
        for found in &self.paths[file] {
            match &found.brings {
                Some((_, true)) => {}
                Some((name, false)) if name == "*" => paths.push([&found.path[..], &["*".to_owned()]].concat()),
                // A module by its name: what is used of it counts.
                Some((name, false)) if self.module(file, &found.path).is_some() => {
                    let used = self.paths[file].iter().filter(|used| used.path.len() > 1 && used.path[0] == *name);
                    paths.extend(used.map(|used| [&found.path[..], &used.path[1..2]].concat()));
                }
                Some(_) => paths.push(found.path.clone()),
                None if found.path.len() > 1 && ["crate", "super", "self"].contains(&&found.path[0][..]) => {
                    paths.push(found.path.clone());
                }
                None => {}
            }
        }
        let of_one = |other: &usize| *other != file && self.modules[*other].1.first() == self.modules[file].1.first();
        paths.iter().filter_map(|path| self.defining(file, path, 0)).filter(of_one).collect()
    }

    /// The module that a path of a file names, if it is one.
    fn module(&self, file: usize, path: &Path) -> Option<usize> {
        let (root, at) = self.absolute(file, path)?;
        self.by_module.get(&(root, at)).copied()
    }

    /// The file that defines what a path of a file names; through every other name it was given.
    fn defining(&self, file: usize, path: &Path, depth: usize) -> Option<usize> {
        let (root, full) = self.absolute(file, path)?;
        let (at, len) = (0..=full.len()).rev().find_map(|len| Some((*self.by_module.get(&(root, full[..len].to_vec()))?, len)))?;
        let renamed = full.get(len).and_then(|item| self.facades[at].get(item));
        match renamed.filter(|_| depth < 8) {
            Some(target) => self.defining(at, &[&target[..], &full[len + 1..]].concat(), depth + 1),
            None => Some(at),
        }
    }

    /// A path of a file from the root of its crate; `None`: it leads elsewhere.
    fn absolute(&self, file: usize, path: &Path) -> Option<(&'static str, Path)> {
        let (root, here) = &self.modules[file];
        let mut at = here.clone();
        let mut segments = path.iter().map(String::as_str).peekable();
        match *segments.peek()? {
            "crate" => at.clear(),
            "self" | "super" => {}
            child => {
                let below = [&here[..], &[child.to_owned()]].concat();
                self.by_module.get(&(*root, below))?;
            }
        }
        for segment in segments {
            match segment {
                "crate" | "self" => {}
                "super" => drop(at.pop()?),
                name => at.push(name.to_owned()),
            }
        }
        Some((root, at))
    }
}

/// The directory of a file's crate, and the module that the file is.
fn module_of(path: &str) -> (&'static str, Path) {
    let root = if path.starts_with("src/bin/quorate/") { "src/bin/quorate/" } else { "src/" };
    let inside = path.strip_prefix(root).unwrap_or(path).trim_end_matches(".rs");
    let mut module: Path = inside.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    (root, module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles(&sources).into_iter().map(|files| files.join(" ")).collect()
    }

    #[test]
    fn three_files_that_need_each_other_are_named_and_two_are_not() {
        let three = [
            ("src/raft/a.rs", "use super::b::B;"),
            ("src/raft/b.rs", "fn f() { crate::raft::c::g() }"),
            ("src/raft/c.rs", "use crate::{raft::{a::{A, Other}}, types};"),
            ("src/raft/d.rs", "use super::a::A;"),
        ];
        assert_eq!(found(&three), ["src/raft/a.rs src/raft/b.rs src/raft/c.rs"]);
        assert!(found(&[("src/raft/a.rs", "use super::b::B;"), ("src/raft/b.rs", "use super::a;\nfn f() { a::g() }")]).is_empty());
    }

    #[test]
    fn a_name_that_was_given_to_an_item_leads_to_where_it_is_defined() {
        let face = |user| {
            found(&[
                ("src/raft/mod.rs", "pub mod a;\npub use a::A;\npub(super) use self::b::{B, C as D};\npub struct Own;"),
                ("src/raft/a.rs", user),
                ("src/raft/b.rs", "use super::c::C;"),
                ("src/raft/c.rs", "use super::A;"),
            ])
        };
        assert_eq!(face("use super::D;"), ["src/raft/a.rs src/raft/b.rs src/raft/c.rs"]);
        assert!(face("use super::Own;").is_empty(), "the face needs nobody");
    }

    #[test]
    fn of_a_module_that_is_imported_what_is_used_counts() {
        let through = |user| {
            found(&[
                ("src/raft/deep/mod.rs", "pub use inner::run;\npub fn own() {}"),
                ("src/raft/deep/inner.rs", "use crate::raft::a::A;"),
                ("src/raft/a.rs", user),
                ("src/raft/b.rs", "use super::deep;\nfn f() { deep::run() }"),
            ])
        };
        assert_eq!(through("use super::b::f;"), ["src/raft/a.rs src/raft/b.rs src/raft/deep/inner.rs"]);
        assert!(through("use super::deep::own;").is_empty());
    }

    #[test]
    fn tests_and_other_modules_do_not_count() {
        let tests = "#[cfg(test)]\nmod tests {\n    use super::super::b::B;\n}\n";
        assert!(
            found(&[("src/raft/a.rs", tests), ("src/raft/b.rs", "use super::c::C;"), ("src/raft/c.rs", "use super::a::A;")])
                .is_empty()
        );
        let across = [("src/x/a.rs", "use crate::y::b;"), ("src/y/b.rs", "use crate::z::c;"), ("src/z/c.rs", "use crate::x::a;")];
        assert!(found(&across).is_empty(), "the table of who may use what is for those");
    }

    #[test]
    fn a_known_circle_is_none_of_our_business_until_it_changes() {
        let circle = |files: &[&str]| BTreeSet::from([files.iter().map(ToString::to_string).collect::<Vec<_>>()]);
        assert!(judge(&circle(&["a", "b", "c"]), &[&["a", "b", "c"]]).is_empty());
        assert_eq!(judge(&circle(&["a", "b", "c", "d"]), &[&["a", "b", "c"]]).len(), 2, "it has grown");
        let gone = judge(&BTreeSet::new(), &[&["a", "b", "c"]]);
        assert_eq!(gone, ["this circle is none any more, take it off the list: a, b, c"]);
        assert_eq!(judge(&circle(&["a", "b", "c"]), &[]), ["these files import each other in a circle: a, b, c"]);
    }
}
