//! The lines of the interface.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenStream;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{Attribute, Field, Fields, Generics, ImplItem, Item, ItemTrait, Signature, Token, TraitItem, Type};

use super::paths::{Meaning, Modules, Named, Path, child, is_hidden, is_public};
use super::written::written;
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
    walk.lines.sort();
    walk.lines.into_iter().map(|(_, line)| line + "\n").collect()
}

/// The public path of the item a line is about, what it is of that item, and its place.
type Key = (String, u8, usize);

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
        let is_internal = |found: &Named| module.is_empty() && INTERNAL.contains(&&found.name[..]);
        let shown = |found: &&Named| found.is_public && !is_hidden(&found.attributes) && !is_internal(found);
        for found in modules.by_path[module].iter().filter(shown) {
            let below = child(at, &found.name);
            let path = below.join("::");
            match &found.item {
                Item::Mod(_) => {
                    if !re_exports {
                        self.push(&path, 0, 0, &found.attributes, format!("pub mod {path}"));
                    }
                    self.module(&child(module, &found.name), &below, re_exports);
                }
                Item::Use(_) if re_exports => {
                    for (name, path) in &found.uses {
                        self.re_export(module, &child(at, name), path, &found.attributes);
                    }
                }
                Item::Macro(_) => panic!("a macro that can't be followed makes public items: {path}"),
                Item::Use(_) => {}
                // The first path of the module that declares an item is the item's.
                _ if !re_exports => match self.known.get(&(module.clone(), found.name.clone())).filter(|known| **known != path) {
                    Some(known) => self.push(&path, 0, 0, &[], format!("pub use {path} = {known}")),
                    None => self.item(module, &path, found),
                },
                _ => {}
            }
        }
    }

    fn re_export(&mut self, module: &Path, public: &Path, path: &[String], attributes: &[Attribute]) {
        let at = public.join("::");
        match self.modules.meaning(module, path) {
            Some(Meaning::Module(target)) => {
                self.push(&at, 0, 0, attributes, format!("pub mod {at}"));
                self.module(&target, public, false);
                self.module(&target, public, true);
            }
            Some(Meaning::Item(declared, item)) => {
                if let Some(known) = self.known.get(&(declared.clone(), item.clone())) {
                    return self.push(&at, 0, 0, attributes, format!("pub use {at} = {known}"));
                }
                let modules = self.modules;
                for found in modules.named(&declared, &item).filter(|found| !is_hidden(&found.attributes)) {
                    let attributes = [&found.attributes[..], attributes].concat();
                    self.item(&declared, &at, &Named { attributes, ..found.clone() });
                }
            }
            Some(Meaning::Foreign(_)) | None => self.push(&at, 0, 0, attributes, format!("pub use {at} = {}", path.join("::"))),
        }
    }

    /// One line, or for a type one for each part of it.
    fn item(&mut self, module: &Path, path: &str, found: &Named) {
        self.known.insert((module.clone(), found.name.clone()), path.to_owned());
        let at: TokenStream = path.parse().expect("a path");
        let head = |word: TokenStream, Generics { params, where_clause, .. }: &Generics, inside: TokenStream| {
            let params = (!params.is_empty()).then(|| quote!(<#params>));
            quote!(pub #word #at #params #inside #where_clause)
        };
        let line = match &found.item {
            Item::Fn(function) => signature(&at, &function.sig),
            Item::Const(syn::ItemConst { ty, .. }) => quote!(pub const #at: #ty),
            Item::Static(syn::ItemStatic { ty, .. }) => quote!(pub static #at: #ty),
            Item::Type(alias) => {
                let ty = &alias.ty;
                head(quote!(type), &alias.generics, quote!(= #ty))
            }
            Item::Struct(structure) => {
                let is_shown = |field: &Field| is_public(&field.vis) && !is_hidden(&field.attrs);
                let is_open = structure.fields.iter().all(is_shown);
                let inside = match &structure.fields {
                    Fields::Unnamed(fields) => {
                        let fields = fields.unnamed.iter();
                        let fields = fields.map(|field| if is_shown(field) { bare(field) } else { quote!(_) });
                        quote!((#(#fields),*))
                    }
                    fields => {
                        for (place, field) in fields.iter().enumerate().filter(|(_, field)| is_shown(field)) {
                            let (name, ty) = (&field.ident, &field.ty);
                            self.push(path, 1, place, &field.attrs, format!("pub {path}.{}", written(quote!(#name: #ty))));
                        }
                        // Nobody else can make one.
                        if is_open { quote!() } else { quote!({ .. }) }
                    }
                };
                head(quote!(struct), &structure.generics, inside)
            }
            Item::Enum(choice) => {
                for (place, variant) in choice.variants.iter().enumerate().filter(|(_, variant)| !is_hidden(&variant.attrs)) {
                    let (name, fields) = (&variant.ident, variant.fields.iter().map(bare));
                    let fields = match &variant.fields {
                        Fields::Named(_) => quote!({ #(#fields),* }),
                        Fields::Unnamed(_) => quote!((#(#fields),*)),
                        Fields::Unit => quote!(),
                    };
                    self.push(path, 1, place, &variant.attrs, written(quote!(pub #at::#name #fields)));
                }
                head(quote!(enum), &choice.generics, quote!())
            }
            Item::Trait(contract) => {
                self.parts_of_trait(path, &at, contract);
                let (colon, bounds) = (&contract.colon_token, &contract.supertraits);
                head(quote!(trait), &contract.generics, quote!(#colon #bounds))
            }
            _ => return,
        };
        self.push(path, 0, 0, &found.attributes, written(line));
        for list in found.attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let derived = list.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated).expect("paths");
            for name in derived.iter().filter_map(|path| path.segments.last()) {
                self.push(path, 3, 0, &[], format!("impl {} for {path}", name.ident));
            }
        }
    }

    fn parts_of_trait(&mut self, path: &str, at: &TokenStream, contract: &ItemTrait) {
        for item in &contract.items {
            match item {
                TraitItem::Fn(function) => {
                    let body = function.default.as_ref().map(|_| quote!({ .. }));
                    let name = &function.sig.ident;
                    let signature = signature(&quote!(#at::#name), &function.sig);
                    self.member(path, &function.attrs, quote!(#signature #body));
                }
                TraitItem::Const(syn::TraitItemConst { attrs, ident, ty, .. }) => {
                    self.member(path, attrs, quote!(pub const #at::#ident: #ty));
                }
                TraitItem::Type(syn::TraitItemType { attrs, ident, colon_token, bounds, .. }) => {
                    self.member(path, attrs, quote!(pub type #at::#ident #colon_token #bounds));
                }
                _ => panic!("an item of the trait {path} is of a kind that is not known here"),
            }
        }
    }

    /// What is implemented for types that are listed, wherever it stands.
    fn implementations(&mut self) {
        let modules = self.modules;
        for (module, items) in &modules.by_path {
            for found in items.iter().filter(|found| !is_hidden(&found.attributes)) {
                let Item::Impl(implementation) = &found.item else { continue };
                let (mut target, generics) = (implementation.self_ty.clone(), &implementation.generics);
                let Some(named) = path_of(&mut target) else { continue };
                let segments: Path = named.segments.iter().map(|segment| segment.ident.to_string()).collect();
                let Some(Meaning::Item(declared, name)) = modules.meaning(module, &segments) else { continue };
                let Some(path) = self.known.get(&(declared, name)).cloned() else { continue };
                if let Some((bang, of, _)) = &implementation.trait_ {
                    let given = named.segments.last().map(|last| last.arguments.clone()).unwrap_or_default();
                    *named = syn::parse_str(&path).expect("a path");
                    named.segments.last_mut().expect("a name").arguments = given;
                    // A trait goes by its name: how the file imports it says nothing.
                    let (wheres, of) = (&generics.where_clause, of.segments.last());
                    self.push(&path, 3, 0, &found.attributes, written(quote!(impl #generics #bang #of for #target #wheres)));
                    continue;
                }
                let at: TokenStream = path.parse().expect("a path");
                for item in &implementation.items {
                    match item {
                        ImplItem::Fn(function) if is_public(&function.vis) => {
                            let name = &function.sig.ident;
                            self.member(&path, &function.attrs, signature(&quote!(#at::#name), &function.sig));
                        }
                        ImplItem::Const(syn::ImplItemConst { vis, attrs, ident, ty, .. }) if is_public(vis) => {
                            self.member(&path, attrs, quote!(pub const #at::#ident: #ty));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// A function, a constant or a type of a trait or a type.
    fn member(&mut self, path: &str, attributes: &[Attribute], line: TokenStream) {
        if !is_hidden(attributes) {
            self.push(path, 2, 0, attributes, written(line));
        }
    }

    /// With what decides whether the item is there, and what a dependent must know of it beyond its signature.
    fn push(&mut self, path: &str, what: u8, place: usize, attributes: &[Attribute], line: String) {
        let is_shown =
            |attribute: &&Attribute| ["cfg", "non_exhaustive", "deprecated"].iter().any(|name| attribute.path().is_ident(name));
        let shown = attributes.iter().filter(is_shown).map(|attribute| written(attribute) + " ");
        self.lines.push(((path.to_owned(), what, place), shown.chain([line]).collect()));
    }
}

fn signature(at: &TokenStream, signature: &Signature) -> TokenStream {
    let Signature { constness, asyncness, unsafety, abi, generics, inputs, output, .. } = signature;
    let wheres = &generics.where_clause;
    quote!(pub #constness #asyncness #unsafety #abi fn #at #generics (#inputs) #output #wheres)
}

/// A field without its documentation.
fn bare(field: &Field) -> TokenStream {
    let Field { vis, ident, colon_token, ty, .. } = field;
    quote!(#vis #ident #colon_token #ty)
}

/// The path that a type is, or that it refers to.
fn path_of(ty: &mut Type) -> Option<&mut syn::Path> {
    match ty {
        Type::Path(path) => Some(&mut path.path),
        Type::Reference(reference) => path_of(&mut reference.elem),
        Type::Ptr(pointer) => path_of(&mut pointer.elem),
        Type::Slice(slice) => path_of(&mut slice.elem),
        _ => None,
    }
}
