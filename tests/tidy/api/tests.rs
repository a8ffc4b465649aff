use super::*;

fn listed(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    listing(&sources).lines().map(str::to_owned).collect()
}

fn of_root(text: &str) -> Vec<String> {
    listed(&[("src/lib.rs", text)])
}

#[test]
fn each_kind_of_item_is_listed_with_its_signature() {
    let cases: &[(&str, &[&str])] = &[
        (
            "pub fn a<T: Clone>(b: &[T]) -> Option<T> where T: Send { b.c() }",
            &["pub fn a<T: Clone>(b: &[T]) -> Option<T> where T: Send"],
        ),
        ("pub async fn a() {}", &["pub async fn a()"]),
        ("pub const fn a(b: [u8; 16]) -> u8 { b[0] }", &["pub const fn a(b: [u8; 16]) -> u8"]),
        ("pub const A: u64 = 1 << 20;\npub fn b() {}", &["pub const A: u64", "pub fn b()"]),
        ("pub static A: &str = \"b; {\";", &["pub static A: &str"]),
        ("pub type A<'a> = Box<dyn Fn(&'a str) -> u8>;", &["pub type A<'a> = Box<dyn Fn(&'a str) -> u8>"]),
        ("pub struct A;", &["pub struct A"]),
        ("pub struct A<T>(pub T, u8) where T: Send;", &["pub struct A<T>(pub T, _) where T: Send"]),
        ("pub struct A { pub b: u8, pub c: Vec<(u8, u8)> }", &["pub struct A", "pub A.b: u8", "pub A.c: Vec<(u8, u8)>"]),
        ("pub struct A { pub b: u8, c: u8 }", &["pub struct A { .. }", "pub A.b: u8"]),
        (
            "#[non_exhaustive]\npub enum A { B, C(u8), /** d */ D { e: u8 } }",
            &["#[non_exhaustive] pub enum A", "pub A::B", "pub A::C(u8)", "pub A::D { e: u8 }"],
        ),
        (
            "pub trait A: Send { type B; const C: u8; fn d(&self) -> Self::B; fn e(&self) {} }",
            &[
                "pub trait A: Send",
                "pub const A::C: u8",
                "pub fn A::d(&self) -> Self::B",
                "pub fn A::e(&self) { .. }",
                "pub type A::B",
            ],
        ),
        ("#[derive(Clone, std::fmt::Debug)]\npub struct A;", &["pub struct A", "impl Clone for A", "impl Debug for A"]),
        (
            "pub struct A;\nimpl<T> std::ops::Add<T> for A where T: for<'a> Fn(&'a u8) { fn add(self) {} }",
            &["pub struct A", "impl<T> Add<T> for A where T: for<'a> Fn(&'a u8)"],
        ),
        (
            "pub struct A<T>(T);\nimpl<T: Send> A<T> { pub fn b(&mut self) {} fn c() {} pub(crate) fn d() {} #[doc(hidden)] pub fn e() {} }",
            &["pub struct A<T>(_)", "pub fn A::b(&mut self)"],
        ),
        ("#[cfg(feature = \"bob\")]\npub mod a { pub fn b() {} }", &["#[cfg(feature = \"bob\")] pub mod a", "pub fn a::b()"]),
        (
            "macro_rules! number { ($(#[$doc:meta])* $name:ident) => { $(#[$doc])* pub struct $name(pub u64); impl $name { pub fn next(self) -> Self { self } } }; }\nnumber! { /// b\n A }",
            &["pub struct A(pub u64)", "pub fn A::next(self) -> Self"],
        ),
    ];
    for (text, lines) in cases {
        assert_eq!(of_root(text), *lines, "of {text}");
    }
}

#[test]
fn what_no_dependent_can_name_is_not_listed() {
    for text in [
        "fn a() {}",
        "pub(crate) fn a() {}",
        "mod a { pub fn b() {} }",
        "#[doc(hidden)]\npub mod a { pub fn b() {} }",
        "#[doc(hidden)]\npub fn a() {}",
        "#[cfg(test)]\npub mod a { pub fn b() {} }",
        "pub(crate) use a::b;\nmod a { pub fn b() {} }",
        "mod a { #[doc(hidden)] pub struct A; impl Clone for A {} }\npub use a::A;",
        "struct A;\nimpl Clone for A {}\nimpl A { pub fn b() {} }",
        "pub mod docs { pub fn a() {} }",
    ] {
        let lines = of_root(text);
        assert!(lines.is_empty(), "of {text}: {lines:?}");
    }
}

#[test]
fn an_item_stands_at_its_public_path_and_other_paths_lead_to_it() {
    let lines = listed(&[
        ("src/lib.rs", "pub mod types;\n#[cfg(feature = \"client\")]\npub mod client;"),
        ("src/types/mod.rs", "mod id;\npub use id::{Id, Id as Name};"),
        ("src/types/id.rs", "pub struct Id(pub u64);\npub struct Unseen;"),
        (
            "src/client.rs",
            "mod call;\nmod other;\npub use crate::types::Id;\npub use call::{Call, self as hidden};\n#[doc(hidden)]\npub use other::Other;\npub use tokio::time::Instant;",
        ),
        ("src/client/call.rs", "use super::other;\npub struct Call { id: super::Id }\nimpl other::Shown for Call {}"),
        ("src/client/other.rs", "use super::*;\npub struct Other;\npub trait Shown {}\nimpl Call { pub fn id(&self) -> Id {} }"),
    ]);
    let expected = [
        "#[cfg(feature = \"client\")] pub mod client",
        "pub struct client::Call { .. }",
        "pub fn client::Call::id(&self) -> Id",
        "impl Shown for client::Call",
        "pub use client::Id = types::Id",
        "pub use client::Instant = tokio::time::Instant",
        "pub mod client::hidden",
        "pub use client::hidden::Call = client::Call",
        "pub mod types",
        "pub struct types::Id(pub u64)",
        "pub use types::Name = types::Id",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn each_change_of_the_interface_is_a_violation() {
    let before = "pub struct A { pub b: u8 }\nimpl A { pub fn c(&self, d: u8) {} }\npub enum E { F }\n";
    let committed = listing(&[Source::new("src/lib.rs", before)]);
    assert!(violations(&[Source::new("src/lib.rs", before)], &committed).is_empty());
    let changes: &[(&str, &str, &[&str])] = &[
        ("impl A {", "pub fn added() {}\nimpl A {", &["+ pub fn added()"]),
        ("pub b: u8", "pub b: u16", &["- pub A.b: u8", "+ pub A.b: u16"]),
        ("pub b: u8", "pub b: u8, g: u8", &["- pub struct A", "+ pub struct A { .. }"]),
        ("pub fn c", "fn c", &["- pub fn A::c(&self, d: u8)"]),
        ("d: u8", "d: Option<u8>", &["- pub fn A::c(&self, d: u8)", "+ pub fn A::c(&self, d: Option<u8>)"]),
        ("{} }", "-> u8 {} }", &["- pub fn A::c(&self, d: u8)", "+ pub fn A::c(&self, d: u8) -> u8"]),
        ("{ F }", "{ F, G }", &["+ pub E::G"]),
        ("pub enum", "#[non_exhaustive] pub enum", &["- pub enum E", "+ #[non_exhaustive] pub enum E"]),
        ("pub enum", "#[derive(Clone)] pub enum", &["+ impl Clone for E"]),
        ("pub struct A", "#[doc(hidden)] pub struct A", &["- pub struct A", "- pub A.b: u8", "- pub fn A::c(&self, d: u8)"]),
    ];
    for (from, to, lines) in changes {
        let after = before.replacen(from, to, 1);
        assert_eq!(violations(&[Source::new("src/lib.rs", &after)], &committed), *lines, "{from} became {to}");
    }
    let body = before.replace("{} }", "{ self.b } }");
    assert!(violations(&[Source::new("src/lib.rs", &body)], &committed).is_empty(), "a body is no part of it");
}
