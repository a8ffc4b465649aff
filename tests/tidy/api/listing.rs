//! The lines of the interface.

use std::collections::{BTreeMap, BTreeSet};

use super::items::{Item, Kind, Member, is_hidden, split};
use super::paths::{Meaning, Modules, Path};
use super::tokens::{Token, written};
use crate::source::Source;

/// Modules that the program, tests and simulations of ours see and no dependent should name, besides those that are `#[doc(hidden)]`.
const INTERNAL: [&str; 1] = ["docs"];

/// Every public item of the library, in order of its path.
pub fn of(sources: &[Source]) -> String {
    let modules = Modules::new(sources);
    let mut walk = Walk { modules: &modules, known: BTreeMap::new(), lines: Vec::new(), seen: BTreeSet::new() };
    walk.module(&Path::new(), &Path::new(), false);
    walk.module(&Path::new(), &Path::new(), true);
    walk.implementations();
    // What belongs to a type stands behind it: its fields and variants in their order, then the rest by name.
    walk.lines.sort_by(|a, b| a.0.cmp(&b.0));
    let mut listing = String::new();
    for (_, line) in walk.lines {
        listing.push_str(&line);
        listing.push('\n');
    }
    listing
}

/// The public path of the item a line is about, what it is of that item, its place, and its text.
type Key = (String, u8, usize, String);

struct Walk<'a> {
    modules: &'a Modules,
    /// Where each item that is public is, by the module that declares it and its name.
    known: BTreeMap<(Path, String), String>,
    lines: Vec<(Key, String)>,
    /// Modules by the path they were listed at, so that a re-export of a parent ends.
    seen: BTreeSet<(String, bool)>,
}

impl Walk<'_> {
    /// What a module declares, and what it gives from elsewhere: the second on its own, when all that is declared is known.
    fn module(&mut self, module: &Path, at: &Path, re_exports: bool) {
        if !self.seen.insert((at.join("::"), re_exports)) {
            return;
        }
        let modules = self.modules;
        let is_internal = |item: &Item| module.is_empty() && INTERNAL.contains(&&item.name[..]);
        let public = |item: &&Item| item.is_public && !is_hidden(&item.attributes) && !is_internal(item);
        for item in modules.by_path[module].iter().filter(public) {
            match &item.kind {
                Kind::Module(_) => {
                    let below = [&at[..], std::slice::from_ref(&item.name)].concat();
                    if !re_exports {
                        self.push(&below.join("::"), 0, 0, format!("{}pub mod {}", conditions(&item.attributes), below.join("::")));
                    }
                    self.module(&[&module[..], std::slice::from_ref(&item.name)].concat(), &below, re_exports);
                }
                Kind::Use(names) if re_exports => {
                    for (name, path) in names {
                        self.re_export(module, at, name, path, &item.attributes);
                    }
                }
                Kind::Call(_) => panic!("a macro that can't be followed makes public items: {}::{}", at.join("::"), item.name),
                Kind::Use(_) | Kind::Macro { .. } | Kind::Impl { .. } => {}
                _ if !re_exports => self.declared(module, at, item),
                _ => {}
            }
        }
    }

    /// An item at a path of the module that declares it: the first such path is the item's.
    fn declared(&mut self, module: &Path, at: &Path, item: &Item) {
        let path = [&at[..], std::slice::from_ref(&item.name)].concat().join("::");
        match self.known.get(&(module.clone(), item.name.clone())).filter(|known| **known != path) {
            Some(known) => {
                let line = format!("pub use {path} = {known}");
                self.push(&path, 0, 0, line);
            }
            None => self.item(module, at, item),
        }
    }

    fn re_export(&mut self, module: &Path, at: &Path, name: &str, path: &[String], attributes: &[Vec<Token>]) {
        let public = [&at[..], &[name.to_owned()]].concat();
        let alias = |target: &str| format!("{}pub use {} = {target}", conditions(attributes), public.join("::"));
        match self.modules.meaning(module, path) {
            Some(Meaning::Module(target)) => {
                let line = format!("{}pub mod {}", conditions(attributes), public.join("::"));
                self.push(&public.join("::"), 0, 0, line);
                self.module(&target, &public, false);
                self.module(&target, &public, true);
            }
            Some(Meaning::Item(declared, item)) => {
                if let Some(known) = self.known.get(&(declared.clone(), item.clone())) {
                    let line = alias(known);
                    return self.push(&public.join("::"), 0, 0, line);
                }
                let modules = self.modules;
                for found in modules.named(&declared, &item).filter(|found| !is_hidden(&found.attributes)) {
                    let attributes = [&found.attributes[..], attributes].concat();
                    self.item(&declared, at, &Item { name: name.to_owned(), attributes, ..found.clone() });
                    self.known.insert((declared.clone(), item.clone()), public.join("::"));
                }
            }
            Some(Meaning::Foreign(_)) | None => self.push(&public.join("::"), 0, 0, alias(&path.join("::"))),
        }
    }

    /// One line, or for a type one for each part of it.
    fn item(&mut self, module: &Path, at: &Path, item: &Item) {
        let path = [&at[..], std::slice::from_ref(&item.name)].concat().join("::");
        self.known.insert((module.clone(), item.name.clone()), path.clone());
        let conditions = conditions(&item.attributes);
        match &item.kind {
            Kind::Plain(head, tail) => {
                self.push(&path, 0, 0, format!("{conditions}pub {} {}", written(head), joined(&path, without_body(tail))));
            }
            Kind::Struct { head, fields, is_tuple, tail } => {
                let is_shown = |field: &&Member| field.is_public && !is_hidden(&field.attributes);
                let tuple: Vec<String> = fields
                    .iter()
                    .map(|field| if is_shown(&field) { format!("pub {}", written(&field.tokens)) } else { "_".to_owned() })
                    .collect();
                let fields_shown = if *is_tuple {
                    format!("({})", tuple.join(", "))
                } else if fields.iter().all(|field| is_shown(&field)) {
                    String::new()
                } else {
                    // Nobody else can make one.
                    " { .. }".to_owned()
                };
                let tail = if tail.is_empty() { String::new() } else { format!(" {}", written(tail)) };
                self.push(&path, 0, 0, format!("{conditions}pub struct {}{fields_shown}{tail}", joined(&path, head)));
                for (place, field) in fields.iter().enumerate().filter(|(_, field)| !is_tuple && is_shown(field)) {
                    self.push(
                        &path,
                        1,
                        place,
                        format!("{}pub {path}.{}", self::conditions(&field.attributes), written(&field.tokens)),
                    );
                }
            }
            Kind::Enum { head, variants } => {
                self.push(&path, 0, 0, format!("{conditions}pub enum {}", joined(&path, head)));
                for (place, variant) in variants.iter().enumerate().filter(|(_, variant)| !is_hidden(&variant.attributes)) {
                    self.push(
                        &path,
                        1,
                        place,
                        format!(
                            "{}pub {path}::{}",
                            self::conditions(&variant.attributes),
                            written(&without_attributes(&variant.tokens))
                        ),
                    );
                }
            }
            Kind::Trait { head, items } => {
                self.push(&path, 0, 0, format!("{conditions}pub trait {}", joined(&path, head)));
                self.members(&path, items.iter(), true);
            }
            Kind::Module(_) | Kind::Use(_) | Kind::Impl { .. } | Kind::Macro { .. } | Kind::Call(_) => {}
        }
        for name in derived(&item.attributes) {
            self.push(&path, 3, 0, format!("impl {name} for {path}"));
        }
    }

    /// Functions, constants and types of a trait or a type.
    fn members<'b>(&mut self, path: &str, items: impl Iterator<Item = &'b Item>, of_a_trait: bool) {
        for item in items.filter(|item| !is_hidden(&item.attributes)) {
            let Kind::Plain(head, tail) = &item.kind else { continue };
            let name = format!("{path}::{}", item.name);
            let tail = if of_a_trait { tail } else { without_body(tail) };
            self.push(path, 2, 0, format!("{}pub {} {}", conditions(&item.attributes), written(head), joined(&name, tail)));
        }
    }

    /// What is implemented for types that are listed, wherever it stands.
    fn implementations(&mut self) {
        let modules = self.modules;
        for (module, items) in &modules.by_path {
            for item in items.iter().filter(|item| !is_hidden(&item.attributes)) {
                let Kind::Impl { before, of_a_trait, target, after, items } = &item.kind else { continue };
                let Some(Meaning::Item(declared, name)) = modules.meaning(module, target) else { continue };
                let Some(path) = self.known.get(&(declared, name)).cloned() else { continue };
                if *of_a_trait {
                    self.push(
                        &path,
                        3,
                        0,
                        format!(
                            "{}{}",
                            conditions(&item.attributes),
                            written(&[&before[..], &[Token(path.clone())], after].concat())
                        ),
                    );
                } else {
                    self.members(&path, items.iter().filter(|item| item.is_public), false);
                }
            }
        }
    }

    fn push(&mut self, path: &str, what: u8, place: usize, line: String) {
        self.lines.push(((path.to_owned(), what, place, line.clone()), line));
    }
}

/// A signature: that a function has a body is of interest in a trait alone.
fn without_body(tail: &[Token]) -> &[Token] {
    let body = ["{", "..", "}"];
    let has_body = tail.len() >= 3 && tail[tail.len() - 3..].iter().zip(body).all(|(token, text)| token.is(text));
    &tail[..tail.len() - if has_body { 3 } else { 0 }]
}

/// A name with what follows it.
fn joined(name: &str, tail: &[Token]) -> String {
    let tail = written(tail);
    let is_apart = tail.starts_with(|c: char| c.is_alphabetic() || c == '{' || c == '=');
    format!("{name}{}{tail}", if is_apart { " " } else { "" })
}

/// What decides whether an item is there, and what a dependent must know of it beyond its signature.
fn conditions(attributes: &[Vec<Token>]) -> String {
    let shown =
        attributes.iter().filter(|attribute| ["cfg", "non_exhaustive", "deprecated"].iter().any(|name| attribute[0].is(name)));
    shown.map(|attribute| format!("#[{}] ", written(attribute))).collect()
}

/// Traits that `#[derive]` implements.
fn derived(attributes: &[Vec<Token>]) -> Vec<String> {
    let lists = attributes.iter().filter(|attribute| attribute[0].is("derive"));
    let names = lists.flat_map(|attribute| split(&attribute[2..attribute.len() - 1]));
    names.filter_map(|path| path.last()).map(|name| name.0.clone()).collect()
}

/// Attributes inside of a variant are documentation, or hide a field.
fn without_attributes(tokens: &[Token]) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is("#") {
            let mut depth = 0_i32;
            while at < tokens.len() {
                depth += i32::from(tokens[at].is("[")) - i32::from(tokens[at].is("]"));
                at += 1;
                if depth == 0 && tokens[at - 1].is("]") {
                    break;
                }
            }
        } else {
            out.push(tokens[at].clone());
            at += 1;
        }
    }
    out
}
