//! Modules with their items, and what a path in one of them stands for.

use std::collections::BTreeMap;

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Item, Visibility};

pub use crate::source::Path;
use crate::source::{Source, leaves};

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning {
    Module(Path),
    /// An item: the module that declares it, and its name.
    Item(Path, String),
    /// Of another crate.
    Foreign(Path),
}

/// One item, without its attributes.
#[derive(Clone)]
pub struct Named {
    /// Empty for an `impl` and a `use`.
    pub name: String,
    pub attributes: Vec<Attribute>,
    pub is_public: bool,
    /// Each name that a `use` brings, and the path it stands for; the name `*` for all of a module.
    pub uses: Vec<(String, Path)>,
    pub item: Item,
}

impl Named {
    fn new(mut item: Item) -> Self {
        macro_rules! parts {
            ($($kind:ident),*) => {
                match &mut item {
                    $(Item::$kind(it) => (it.ident.to_string(), &mut it.attrs, is_public(&it.vis)),)*
                    Item::Fn(it) => (it.sig.ident.to_string(), &mut it.attrs, is_public(&it.vis)),
                    Item::Use(it) => (String::new(), &mut it.attrs, is_public(&it.vis)),
                    Item::Impl(it) => (String::new(), &mut it.attrs, false),
                    Item::Macro(it) => (it.ident.as_ref().map_or_else(String::new, Ident::to_string), &mut it.attrs, false),
                    _ => panic!("an item of a kind that is not known here"),
                }
            };
        }
        let (name, attributes, is_public) = parts!(Const, Enum, Mod, Static, Struct, Trait, Type);
        let (attributes, mut uses) = (std::mem::take(attributes), Vec::new());
        if let Item::Use(tree) = &item {
            leaves(&tree.tree, &Path::new(), &mut uses);
        }
        Self { name, attributes, is_public, uses, item }
    }
}

pub fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether an attribute has a name and says one of `words`.
fn says(attribute: &Attribute, name: &str, words: &[&str]) -> bool {
    let text = || attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default();
    attribute.path().is_ident(name) && text().split([' ', '(', ')', ',']).any(|word| words.contains(&word))
}

/// Whether an attribute says that the item is no part of the interface.
pub fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| says(attribute, "doc", &["hidden"]) || is_for_tests(attribute))
}

fn is_for_tests(attribute: &Attribute) -> bool {
    says(attribute, "cfg", &["test", "\"mutants\""])
}

pub fn child(path: &Path, name: &str) -> Path {
    [&path[..], &[name.to_owned()]].concat()
}

/// All modules of the library that are compiled for a dependent, macros expanded.
pub struct Modules {
    pub by_path: BTreeMap<Path, Vec<Named>>,
}

impl Modules {
    pub fn new(sources: &[Source]) -> Self {
        let mut modules = Self { by_path: BTreeMap::new() };
        modules.add(sources, Path::new(), parsed(sources, "src/lib"));
        modules
    }

    fn add(&mut self, sources: &[Source], path: Path, found: Vec<Item>) {
        let mut found = expanded(found);
        found.retain(|named| !named.attributes.iter().any(is_for_tests));
        for named in &found {
            let Item::Mod(module) = &named.item else { continue };
            let below = child(&path, &named.name);
            let inside = match &module.content {
                Some((_, inside)) => inside.clone(),
                None => parsed(sources, &format!("src/{}", below.join("/"))),
            };
            self.add(sources, below, inside);
        }
        self.by_path.insert(path, found);
    }

    /// The items of one name in a module: a function and a type can share one.
    pub fn named<'a>(&'a self, module: &Path, name: &'a str) -> impl Iterator<Item = &'a Named> + 'a {
        let declares = move |named: &&Named| named.name == name && !matches!(named.item, Item::Macro(_));
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
        let parent = |module: &Path| Some(Meaning::Module(module[..module.len().checked_sub(1)?].to_vec()));
        let (first, rest) = path.split_first()?;
        let start = match &first[..] {
            "crate" => Meaning::Module(Path::new()),
            "self" => Meaning::Module(module.clone()),
            "super" => parent(module)?,
            name => self.name(module, name, depth)?,
        };
        rest.iter().try_fold(start, |at, segment| match at {
            Meaning::Module(module) if segment == "super" => parent(&module),
            Meaning::Module(module) => self.name(&module, segment, depth),
            Meaning::Foreign(path) => Some(Meaning::Foreign(child(&path, segment))),
            Meaning::Item(..) => None,
        })
    }

    /// What a name means in a module: declared there, or brought there.
    fn name(&self, module: &Path, name: &str, depth: usize) -> Option<Meaning> {
        let found = self.by_path.get(module)?;
        let uses = found.iter().flat_map(|named| &named.uses);
        if let Some(named) = self.named(module, name).next() {
            return Some(match named.item {
                Item::Mod(_) => Meaning::Module(child(module, name)),
                _ => Meaning::Item(module.clone(), name.to_owned()),
            });
        }
        if let Some((_, path)) = uses.clone().find(|(brought, _)| brought == name) {
            // A crate and an import of it can have one name: `use tokio::x as tokio` is not here.
            let is_ours = |first: &String| {
                ["crate", "self", "super"].contains(&&first[..])
                    || self.named(module, first).next().is_some()
                    || uses.clone().any(|(brought, _)| brought == first && brought != name)
            };
            let is_foreign = path.first().is_some_and(|first| !is_ours(first));
            return if is_foreign { Some(Meaning::Foreign(path.clone())) } else { self.resolve(module, path, depth + 1) };
        }
        let mut globs = uses.filter(|(brought, _)| brought == "*");
        globs.find_map(|(_, path)| match self.resolve(module, path, depth + 1)? {
            Meaning::Module(other) if other != *module => self.name(&other, name, depth + 1),
            _ => None,
        })
    }
}

/// The items of the file that a module is.
fn parsed(sources: &[Source], stem: &str) -> Vec<Item> {
    let is_it = |source: &&Source| source.path == format!("{stem}.rs") || source.path == format!("{stem}/mod.rs");
    let file = sources.iter().find(is_it).unwrap_or_else(|| panic!("no file for the module {stem}"));
    // What is compiled for tests only need not be read.
    syn::parse_file(&file.text[..file.shipped().len()]).unwrap_or_else(|error| panic!("{}: {error}", file.path)).items
}

/// What the macros of a file make where it uses them. One that takes more than a name stays: it is an error if it makes public items,
/// which a reader of the interface would miss.
fn expanded(found: Vec<Item>) -> Vec<Named> {
    let rules = |item: &Item| match item {
        Item::Macro(rules) => Some((rules.ident.clone()?, rules.mac.tokens.clone().into_iter().collect())),
        _ => None,
    };
    let macros: BTreeMap<Ident, Vec<TokenTree>> = found.iter().filter_map(rules).collect();
    let mut all = Vec::new();
    for item in found {
        let call = match &item {
            Item::Macro(call) if call.ident.is_none() => call.mac.path.get_ident().and_then(|name| Some((call, macros.get(name)?))),
            _ => None,
        };
        let Some((call, [TokenTree::Group(takes), _, _, TokenTree::Group(makes), ..])) =
            call.map(|(call, rules)| (call, &rules[..]))
        else {
            all.push(Named::new(item));
            continue;
        };
        let takes_a_name = takes.to_string().ends_with("name : ident)");
        let given = |input: ParseStream<'_>| input.call(Attribute::parse_outer).and_then(|_| input.parse::<Ident>());
        if let Some(name) = given.parse2(call.mac.tokens.clone()).ok().filter(|_| takes_a_name) {
            let made: syn::File = syn::parse2(filled(makes.stream(), &name)).expect("items");
            all.extend(made.items.into_iter().map(Named::new));
        } else {
            let is_public = makes.to_string().split_whitespace().any(|word| word == "pub");
            all.push(Named { is_public, ..Named::new(item) });
        }
    }
    all
}

/// The body of a macro with the name in its place, and without the repetition of attributes.
fn filled(makes: TokenStream, name: &Ident) -> TokenStream {
    let mut made: Vec<TokenTree> = Vec::new();
    let mut trees = makes.into_iter();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Punct(mark) if mark.as_char() == '$' => match trees.next() {
                Some(TokenTree::Ident(_)) => made.push(name.clone().into()),
                // A group, with the star behind it.
                _ => drop(trees.next()),
            },
            TokenTree::Group(group) => made.push(Group::new(group.delimiter(), filled(group.stream(), name)).into()),
            tree => made.push(tree),
        }
    }
    made.into_iter().collect()
}
