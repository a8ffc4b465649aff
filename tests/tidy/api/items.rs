//! The items of a Rust file, as far as the interface shows them: no bodies, no documentation.

use super::tokens::Token;

/// One item.
#[derive(Clone, Debug)]
pub struct Item {
    /// Each without `#[` and `]`.
    pub attributes: Vec<Vec<Token>>,
    pub is_public: bool,
    /// Empty for an `impl` and a `use`.
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// With its items, if they stand there; else in a file.
    Module(Option<Vec<Item>>),
    /// Each name it brings, and the path it stands for; the name `*` for all of a module.
    Use(Vec<(String, Vec<String>)>),
    /// What stands in front of the name, and behind it up to a body.
    Plain(Vec<Token>, Vec<Token>),
    Struct {
        head: Vec<Token>,
        fields: Vec<Member>,
        is_tuple: bool,
        tail: Vec<Token>,
    },
    Enum {
        head: Vec<Token>,
        variants: Vec<Member>,
    },
    Trait {
        head: Vec<Token>,
        items: Vec<Item>,
    },
    /// What stands in front of the path of its type, that path, and what stands behind it.
    Impl {
        before: Vec<Token>,
        of_a_trait: bool,
        target: Vec<String>,
        after: Vec<Token>,
        items: Vec<Item>,
    },
    /// A macro that this file defines: what it takes, and what it makes.
    Macro {
        takes: Vec<Token>,
        makes: Vec<Token>,
    },
    /// The use of a macro where items stand.
    Call(Vec<Token>),
}

/// A field or a variant.
#[derive(Clone, Debug)]
pub struct Member {
    pub attributes: Vec<Vec<Token>>,
    pub is_public: bool,
    pub tokens: Vec<Token>,
}

/// The items of a file or of a module's braces.
pub fn items(tokens: &[Token]) -> Vec<Item> {
    let mut cursor = Cursor { tokens, at: 0 };
    let mut items = Vec::new();
    while cursor.at < tokens.len() {
        let from = cursor.at;
        items.extend(cursor.item());
        assert!(cursor.at > from, "no item: {}", super::tokens::written(&tokens[from..tokens.len().min(from + 20)]));
    }
    items
}

/// Whether an attribute says that the item is no part of the interface.
pub fn is_hidden(attributes: &[Vec<Token>]) -> bool {
    let word = |attribute: &[Token], text: &str| attribute.iter().any(|token| token.is(text));
    attributes.iter().any(|attribute| {
        attribute[0].is("doc") && word(attribute, "hidden")
            || attribute[0].is("cfg") && (word(attribute, "test") || word(attribute, "\"mutants\""))
    })
}

/// Parts at the commas outside of brackets.
pub fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_i32, 0);
    for (at, token) in tokens.iter().enumerate() {
        depth += change(token);
        if token.is(",") && depth == 0 {
            parts.push(&tokens[from..at]);
            from = at + 1;
        }
    }
    parts.push(&tokens[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

fn change(token: &Token) -> i32 {
    match &token.0[..] {
        "(" | "[" | "{" | "<" => 1,
        ")" | "]" | "}" | ">" => -1,
        _ => 0,
    }
}

struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| &token.0)
    }

    /// The next token is this one, and is behind us now.
    fn took(&mut self, text: &str) -> bool {
        let is = self.peek(0) == text;
        self.at += usize::from(is);
        is
    }

    /// What stands before the first of `ends` outside of brackets, which is next.
    fn until(&mut self, ends: &[&str]) -> &'a [Token] {
        let (from, mut depth) = (self.at, 0_i32);
        while let Some(token) = self.tokens.get(self.at) {
            if depth == 0 && ends.iter().any(|end| token.is(end)) {
                break;
            }
            depth += change(token);
            self.at += 1;
        }
        &self.tokens[from..self.at]
    }

    /// What is inside the bracket that is next; behind its end.
    fn group(&mut self) -> &'a [Token] {
        let open = self.peek(0).to_owned();
        let close = match &open[..] {
            "(" => ")",
            "[" => "]",
            "{" => "}",
            other => panic!("no bracket: {other:?}"),
        };
        let (from, mut depth) = (self.at + 1, 0_i32);
        while let Some(token) = self.tokens.get(self.at) {
            depth += i32::from(token.is(&open)) - i32::from(token.is(close));
            self.at += 1;
            if depth == 0 {
                return &self.tokens[from..self.at - 1];
            }
        }
        panic!("a bracket has no end: {open:?}");
    }

    fn attributes(&mut self) -> Vec<Vec<Token>> {
        let mut attributes = Vec::new();
        while self.peek(0) == "#" {
            let skipped = if self.peek(1) == "!" { 2 } else { 1 };
            self.at += skipped;
            let attribute = self.group();
            if skipped == 1 && !attribute.is_empty() {
                attributes.push(attribute.to_vec());
            }
        }
        attributes
    }

    /// Whether what follows is public to all.
    fn visibility(&mut self) -> bool {
        if !self.took("pub") {
            return false;
        }
        let is_restricted = self.peek(0) == "(" && ["crate", "super", "self", "in"].contains(&self.peek(1));
        if is_restricted {
            self.group();
        }
        !is_restricted
    }

    /// `None`: nothing follows but attributes of the file.
    fn item(&mut self) -> Option<Item> {
        let attributes = self.attributes();
        if self.at == self.tokens.len() {
            return None;
        }
        let is_public = self.visibility();
        let (name, kind) = match (self.peek(0), self.peek(1)) {
            ("mod", _) => self.module(),
            ("use", _) => self.import(),
            ("struct" | "union", _) => self.structure(),
            ("enum", _) => self.enumeration(),
            ("trait", _) | ("unsafe", "trait") => self.contract(),
            ("impl", _) | ("unsafe", "impl") => (String::new(), self.implementation()),
            ("macro_rules", "!") => self.rules(),
            ("const", "fn" | "async" | "unsafe" | "extern") | ("fn" | "async" | "unsafe" | "extern", _) => self.plain(&["fn"]),
            ("const" | "static" | "type", _) => self.plain(&["const", "static", "type"]),
            _ => self.call(),
        };
        Some(Item { attributes, is_public, name, kind })
    }

    fn name(&mut self) -> String {
        let name = self.peek(0).to_owned();
        self.at += 1;
        name
    }

    fn module(&mut self) -> (String, Kind) {
        self.took("mod");
        let name = self.name();
        let inside = if self.took(";") { None } else { Some(items(self.group())) };
        (name, Kind::Module(inside))
    }

    fn import(&mut self) -> (String, Kind) {
        self.took("use");
        let tree = self.until(&[";"]);
        self.took(";");
        let mut found = Vec::new();
        leaves(tree, &[], &mut found);
        (String::new(), Kind::Use(found))
    }

    /// The name stands behind the first of `words`; the rest ends at a body, a value, or a semicolon.
    fn plain(&mut self, words: &[&str]) -> (String, Kind) {
        let from = self.at;
        while !words.contains(&self.peek(0)) {
            self.at += 1;
        }
        let is_function = self.took("fn");
        let is_type = !is_function && self.peek(0) == "type";
        self.at += usize::from(!is_function);
        self.took("mut");
        let head = self.tokens[from..self.at].to_vec();
        let name = self.name();
        let mut tail = self
            .until(if is_function {
                &["{", ";"]
            } else if is_type {
                &[";"]
            } else {
                &["=", ";"]
            })
            .to_vec();
        if self.peek(0) == "{" {
            self.group();
            tail.extend(["{", "..", "}"].map(|text| Token(text.to_owned())));
        } else {
            self.skip_value();
        }
        (name, Kind::Plain(head, tail))
    }

    /// Up to behind the next semicolon. `<` is no bracket in a value.
    fn skip_value(&mut self) {
        while !self.took(";") {
            match self.peek(0) {
                "(" | "[" | "{" => drop(self.group()),
                _ => self.at += 1,
            }
        }
    }

    fn structure(&mut self) -> (String, Kind) {
        self.at += 1;
        let name = self.name();
        let head = self.until(&["{", "(", ";"]).to_vec();
        let is_tuple = self.peek(0) == "(";
        let fields = if self.peek(0) == ";" { Vec::new() } else { members(self.group()) };
        let is_open = is_tuple || self.peek(0) == ";";
        let tail = if is_open { self.until(&[";"]).to_vec() } else { Vec::new() };
        if is_open {
            self.took(";");
        }
        (name, Kind::Struct { head, fields, is_tuple, tail })
    }

    fn enumeration(&mut self) -> (String, Kind) {
        self.took("enum");
        let name = self.name();
        let head = self.until(&["{"]).to_vec();
        (name, Kind::Enum { head, variants: members(self.group()) })
    }

    fn contract(&mut self) -> (String, Kind) {
        self.took("unsafe");
        self.took("trait");
        let name = self.name();
        let head = self.until(&["{"]).to_vec();
        (name, Kind::Trait { head, items: items(self.group()) })
    }

    fn implementation(&mut self) -> Kind {
        let head = self.until(&["{"]);
        let inside = items(self.group());
        let mut rest = Cursor { tokens: head, at: head.iter().position(|token| token.is("impl")).expect("an impl") + 1 };
        if rest.took("<") {
            rest.until(&[">"]);
            rest.took(">");
        }
        let generic = rest.at;
        rest.until(&["for", "where"]);
        let of_a_trait = rest.took("for");
        // A trait goes by its name: how the file imports it says nothing.
        let name = if of_a_trait { start_of_name(&head[..rest.at], generic) } else { generic };
        let (start, end) = path_in(head, if of_a_trait { rest.at } else { generic });
        let target = head[start..end].iter().filter(|token| !token.is("::")).map(|token| token.0.clone()).collect();
        let before = [&head[..generic], &head[name..start]].concat();
        Kind::Impl { before, of_a_trait, target, after: head[end..].to_vec(), items: inside }
    }

    fn rules(&mut self) -> (String, Kind) {
        self.at += 2;
        let name = self.name();
        let mut arms = Cursor { tokens: self.group(), at: 0 };
        let takes = arms.group().to_vec();
        arms.took("=>");
        let makes = arms.group().to_vec();
        (name, Kind::Macro { takes, makes })
    }

    fn call(&mut self) -> (String, Kind) {
        let path = self.until(&["!", ";"]);
        let name = path.last().map_or_else(String::new, |token| token.0.clone());
        if !self.took("!") {
            self.took(";");
            return (name, Kind::Call(Vec::new()));
        }
        let given = self.group().to_vec();
        self.took(";");
        (name, Kind::Call(given))
    }
}

/// Fields or variants.
fn members(tokens: &[Token]) -> Vec<Member> {
    let one = |tokens: &[Token]| {
        let mut cursor = Cursor { tokens, at: 0 };
        let attributes = cursor.attributes();
        let is_public = cursor.visibility();
        Member { attributes, is_public, tokens: tokens[cursor.at..].to_vec() }
    };
    split(tokens).into_iter().map(one).collect()
}

/// The names of a tree of `use`, each with its path.
fn leaves(tree: &[Token], before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let mut path = before.to_vec();
    let mut cursor = Cursor { tokens: tree, at: 0 };
    while cursor.at < tree.len() {
        match cursor.peek(0) {
            "::" => cursor.at += 1,
            "{" => {
                for part in split(cursor.group()) {
                    leaves(part, &path, found);
                }
                return;
            }
            "as" => {
                found.push((cursor.peek(1).to_owned(), path));
                return;
            }
            "self" if !path.is_empty() => cursor.at += 1,
            segment => {
                path.push(segment.to_owned());
                cursor.at += 1;
            }
        }
    }
    if path.last().is_some_and(|last| last == "*") {
        path.pop();
        found.push(("*".to_owned(), path));
    } else if let Some(last) = path.last().cloned() {
        found.push((last, path));
    }
}

/// Where the last segment of the path begins that stands here.
fn start_of_name(tokens: &[Token], at: usize) -> usize {
    let (_, end) = path_in(tokens, at);
    end.saturating_sub(1).max(at)
}

/// Where the next path of a type begins and ends, without what it is generic over.
fn path_in(tokens: &[Token], at: usize) -> (usize, usize) {
    let is_prefix =
        |token: &Token| ["&", "mut", "dyn", "*", "const", "(", "["].iter().any(|text| token.is(text)) || token.0.starts_with('\'');
    let start = at + tokens[at..].iter().take_while(|token| is_prefix(token)).count();
    let is_part = |token: &&Token| token.is("::") || token.is_word() && !token.is("where") && !token.is("for");
    (start, start + tokens[start..].iter().take_while(is_part).count())
}
