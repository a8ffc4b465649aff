//! A Rust file as the rules see it: comments and literals blanked, the part that is only compiled for tests distinguished.

use proc_macro2::Ident;
use syn::{ItemUse, UseTree};

/// Names from the first of a path to the last.
pub type Path = Vec<String>;

/// A path that code names.
pub struct Named {
    /// The offset in the code; for one of a `use`, that of the `use`.
    pub at: usize,
    pub path: Path,
    /// The name that a `use` brings, and whether it is for others too.
    pub brings: Option<(String, bool)>,
}

/// One file.
pub struct Source {
    /// Its path from the root of the repository, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// The same length and lines, comments and the insides of literals blanked.
    pub code: String,
}

impl Source {
    /// Blanks what is no code.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// Whether all of it is only compiled for tests.
    pub fn is_test(&self) -> bool {
        !self.path.starts_with("src/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The code that ships: what stands before the `mod tests` of the file.
    pub fn shipped(&self) -> &str {
        if self.is_test() {
            return "";
        }
        let mut end = self.code.len();
        let mut from = 0;
        while let Some(at) = self.code[from..].find("#[cfg(test)]") {
            let start = from + at;
            let rest = self.code[start + "#[cfg(test)]".len()..].trim_start();
            if rest.starts_with("mod ") && rest.find('{') < rest.find(';').or(Some(usize::MAX)) && rest.contains('{') {
                end = start;
                break;
            }
            from = start + 1;
        }
        &self.code[..end]
    }

    /// Every path that the shipped code names, those of each `use` first, on its own where a list has many.
    pub fn paths(&self) -> Vec<Named> {
        let mut found = Vec::new();
        let mut rest = self.shipped().to_owned();
        for at in words(self.shipped(), "use") {
            let Some(len) = rest[at..].find(';') else { continue };
            let Ok(item) = syn::parse_str::<ItemUse>(&rest[at..=at + len]) else { continue };
            let before = rest[..at].trim_end();
            let is_public = before.ends_with("pub")
                || before.ends_with(')') && before.rfind("pub(").is_some_and(|start| !before[start..].contains('\n'));
            let mut names = Vec::new();
            leaves(&item.tree, &Path::new(), &mut names);
            found.extend(names.into_iter().map(|(name, path)| Named { at, path, brings: Some((name, is_public)) }));
            rest.replace_range(at..at + len, &" ".repeat(len));
        }
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let mut end = 0;
        while let Some(start) = rest[end..].find(is_part).map(|start| end + start) {
            end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |len| start + len);
            if !rest[..start].ends_with('>') {
                let segments = rest[start..end].split(':').filter(|segment| !segment.is_empty());
                found.push(Named { at: start, path: segments.map(str::to_owned).collect(), brings: None });
            }
        }
        found
    }

    /// A violation at a byte offset of `code`.
    pub fn at(&self, offset: usize, what: &str) -> String {
        let line = 1 + self.code[..offset].matches('\n').count();
        format!("{}:{line}: {what}", self.path)
    }
}

/// Where `word` stands in `code` as a whole word.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let ends_in_word = word.chars().next_back().is_some_and(part);
        let starts_in_word = word.chars().next().is_some_and(part);
        !(starts_in_word && before.is_some_and(part) || ends_in_word && after.is_some_and(part))
    })
}

/// The names of a tree of a `use` with their paths; the name `*` for all of a module.
pub fn leaves(tree: &UseTree, before: &Path, found: &mut Vec<(String, Path)>) {
    let child = |name: &Ident| [&before[..], &[name.to_string()]].concat();
    let path_to = |name: &Ident| if name == "self" { before.clone() } else { child(name) };
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &child(&path.ident), found),
        UseTree::Name(name) => found.extend(path_to(&name.ident).last().cloned().map(|last| (last, path_to(&name.ident)))),
        UseTree::Rename(rename) => found.push((rename.rename.to_string(), path_to(&rename.ident))),
        UseTree::Glob(_) => found.push(("*".to_owned(), before.clone())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, before, found)),
    }
}

/// Replaces comments and the insides of string and character literals by spaces; line ends stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end,
            None => {
                at += 1;
                continue;
            }
        };
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(out).expect("whole literals were blanked")
}

/// The end of the comment or literal that starts at `at`, if one does.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + comment_len(rest)),
        [b'"', ..] => Some(at + quoted_len(rest)),
        [b'r', b'"' | b'#', ..] if !after_word => raw_len(&rest[1..]).map(|len| at + 1 + len),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !after_word => raw_len(&rest[2..]).map(|len| at + 2 + len),
        [b'\'', b'\\', ..] => Some(at + 3 + rest[3..].iter().position(|byte| *byte == b'\'').map_or(0, |len| len + 1)),
        [b'\'', ..] => char_len(rest).map(|len| at + len),
        _ => None,
    }
}

fn comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    rest.len().min(at + 1)
}

/// From the first `#` or quote of a raw string. `None`: a raw identifier.
fn raw_len(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[hashes + 1..];
    let len = body.windows(close.len()).position(|window| window == close).map_or(body.len(), |at| at + close.len());
    Some(hashes + 1 + len)
}

/// `None`: a lifetime.
fn char_len(rest: &[u8]) -> Option<usize> {
    let text =
        std::str::from_utf8(&rest[1..rest.len().min(6)]).or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]));
    let len = text.ok()?.chars().next()?.len_utf8();
    (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_not() {
    let text = "let a = \"x::y\\\"\"; // use z::q\n/* b /* c */ d */ let r = r#\"e::f\"#; let 'a' = g::<'a>(b'\\'', '\\n', 'ü');";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    for gone in ["x::y", "z::q", " d ", "e::f", "ü"] {
        assert!(!code.contains(gone), "{gone:?} is left in {code:?}");
    }
    for kept in ["let a =", "let r =", "g::<'a>(b"] {
        assert!(code.contains(kept), "{kept:?} is gone from {code:?}");
    }
}

#[test]
fn the_shipped_part_ends_at_the_tests() {
    let source = Source::new("src/x/y.rs", "#[cfg(test)]\nmod helper;\nfn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\n");
    assert!(source.shipped().contains("fn a") && !source.shipped().contains("fn b"));
    assert_eq!(Source::new("tests/x.rs", "fn a() {}").shipped(), "");
}

#[test]
fn a_word_is_found_whole_or_not_at_all() {
    assert_eq!(words("abc ab ab_ ab::x", "ab").collect::<Vec<_>>(), [4, 11]);
}
