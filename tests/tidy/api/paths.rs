//! Modules, and what a path in one of them stands for.

use std::collections::BTreeMap;

use super::items::{Item, Kind, is_hidden, items};
use super::tokens::{Token, tokens};
use crate::source::Source;

/// The names from the root of the crate.
pub type Path = Vec<String>;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning {
    Module(Path),
    /// An item: the module that declares it, and its name.
    Item(Path, String),
    /// Of another crate.
    Foreign(Path),
}

/// All modules of the library that are compiled for a dependent, macros expanded.
pub struct Modules {
    pub by_path: BTreeMap<Path, Vec<Item>>,
}

impl Modules {
    pub fn new(sources: &[Source]) -> Self {
        let mut modules = Self { by_path: BTreeMap::new() };
        let root = sources.iter().find(|source| source.path == "src/lib.rs").expect("a root");
        modules.add(sources, Path::new(), items(&tokens(root)));
        modules
    }

    fn add(&mut self, sources: &[Source], path: Path, found: Vec<Item>) {
        let found: Vec<Item> = expanded(found).into_iter().filter(|item| !is_for_tests(&item.attributes)).collect();
        for item in &found {
            let Kind::Module(inside) = &item.kind else { continue };
            let below = [&path[..], std::slice::from_ref(&item.name)].concat();
            let inside = match inside {
                Some(inside) => inside.clone(),
                None => {
                    let stem = format!("src/{}", below.join("/"));
                    let is_it = |source: &&Source| source.path == format!("{stem}.rs") || source.path == format!("{stem}/mod.rs");
                    let file = sources.iter().find(is_it).unwrap_or_else(|| panic!("no file for the module {stem}"));
                    items(&tokens(file))
                }
            };
            self.add(sources, below, inside);
        }
        self.by_path.insert(path, found);
    }

    /// The items of one name in a module: a function and a type can share one.
    pub fn named<'a>(&'a self, module: &Path, name: &'a str) -> impl Iterator<Item = &'a Item> + 'a {
        let declares = move |item: &&Item| item.name == name && !matches!(item.kind, Kind::Macro { .. } | Kind::Call(_));
        self.by_path.get(module).into_iter().flatten().filter(declares)
    }

    /// What a path means that stands in this module. `None`: nothing of this crate, as far as can be seen.
    pub fn meaning(&self, module: &Path, path: &[String]) -> Option<Meaning> {
        self.resolve(module, path, 0)
    }

    fn resolve(&self, module: &Path, path: &[String], depth: usize) -> Option<Meaning> {
        // Globs can lead in circles.
        if depth > 16 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let start = match &first[..] {
            "crate" => Meaning::Module(Path::new()),
            "self" => Meaning::Module(module.clone()),
            "super" => Meaning::Module(module[..module.len().checked_sub(1)?].to_vec()),
            name => self.name(module, name, depth)?,
        };
        self.below(start, rest, depth)
    }

    /// What the rest of a path means below its beginning.
    fn below(&self, start: Meaning, rest: &[String], depth: usize) -> Option<Meaning> {
        let mut at = start;
        for segment in rest {
            at = match at {
                Meaning::Module(module) if segment == "super" => Meaning::Module(module[..module.len().checked_sub(1)?].to_vec()),
                Meaning::Module(module) => self.name(&module, segment, depth)?,
                Meaning::Foreign(path) => Meaning::Foreign([&path[..], std::slice::from_ref(segment)].concat()),
                Meaning::Item(..) => return None,
            };
        }
        Some(at)
    }

    /// What a name means in a module: declared there, or brought there.
    fn name(&self, module: &Path, name: &str, depth: usize) -> Option<Meaning> {
        let found = self.by_path.get(module)?;
        if let Some(item) = self.named(module, name).next() {
            return Some(match item.kind {
                Kind::Module(_) => Meaning::Module([&module[..], &[name.to_owned()]].concat()),
                _ => Meaning::Item(module.clone(), name.to_owned()),
            });
        }
        let uses = || found.iter().filter_map(|item| if let Kind::Use(names) = &item.kind { Some(names) } else { None }).flatten();
        if let Some((_, path)) = uses().find(|(brought, _)| brought == name) {
            // A crate and an import of it can have one name: `use tokio::x as tokio` is not here.
            let is_foreign = path.first().is_some_and(|first| self.is_foreign(module, first, name));
            return if is_foreign { Some(Meaning::Foreign(path.clone())) } else { self.resolve(module, path, depth + 1) };
        }
        let globs = uses().filter(|(brought, _)| brought == "*");
        globs.into_iter().find_map(|(_, path)| match self.resolve(module, path, depth + 1)? {
            Meaning::Module(other) if other != *module => self.name(&other, name, depth + 1),
            _ => None,
        })
    }

    /// Whether the first segment of an import names another crate.
    fn is_foreign(&self, module: &Path, first: &str, brought: &str) -> bool {
        if ["crate", "self", "super"].contains(&first) || self.named(module, first).next().is_some() {
            return false;
        }
        let by_use = self.by_path[module].iter().any(|item| match &item.kind {
            Kind::Use(names) => names.iter().any(|(name, _)| name == first && name != brought),
            _ => false,
        });
        !by_use
    }
}

fn is_for_tests(attributes: &[Vec<Token>]) -> bool {
    attributes.iter().any(|attribute| attribute[0].is("cfg") && is_hidden(std::slice::from_ref(attribute)))
}

/// What the macros of a file make where it uses them. One that takes more than a name stays.
fn expanded(found: Vec<Item>) -> Vec<Item> {
    let macros: BTreeMap<String, (Vec<Token>, Vec<Token>)> = found
        .iter()
        .filter_map(|item| match &item.kind {
            Kind::Macro { takes, makes } => Some((item.name.clone(), (takes.clone(), makes.clone()))),
            _ => None,
        })
        .collect();
    let mut all = Vec::new();
    for item in found {
        let Kind::Call(given) = &item.kind else {
            all.push(item);
            continue;
        };
        let Some((takes, makes)) = macros.get(&item.name) else { continue };
        match argument(takes, given) {
            Some((place, name)) => all.extend(items(&filled(makes, &place, &name))),
            // What a reader of the interface would miss there is an error, if it is public.
            None if makes.iter().any(|token| token.is("pub")) => all.push(Item { is_public: true, ..item }),
            None => {}
        }
    }
    all
}

/// The name that `$(#[$doc:meta])* $name:ident` takes, and what is given for it.
fn argument(takes: &[Token], given: &[Token]) -> Option<(String, Token)> {
    let [.., dollar, place, colon, ident] = takes else { return None };
    let is_name = dollar.is("$") && colon.is(":") && ident.is("ident") && takes.iter().filter(|token| token.is("$")).count() <= 3;
    (is_name && given.len() == 1).then(|| (place.0.clone(), given[0].clone()))
}

/// The body of a macro with the name in its place, and without the repetition of attributes.
fn filled(makes: &[Token], place: &str, name: &Token) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < makes.len() {
        let is = |ahead: usize, text: &str| makes.get(at + ahead).is_some_and(|token| token.is(text));
        if is(0, "$") && is(1, place) {
            out.push(name.clone());
            at += 2;
        } else if is(0, "$") && is(1, "(") {
            let end = makes[at..].iter().position(|token| token.is("*")).expect("a repetition ends");
            at += end + 1;
        } else {
            out.push(makes[at].clone());
            at += 1;
        }
    }
    out
}
