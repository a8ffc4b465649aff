//! How a part of a file is written on one line, however the file breaks it.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

/// The tokens on one line, spaced as `rustfmt` would, without commas before what closes.
pub fn written(part: impl ToTokens) -> String {
    let mut marks = Vec::new();
    flatten(part.to_token_stream(), &mut marks);
    let mut line = String::new();
    let mut before = "";
    for (at, mark) in marks.iter().enumerate() {
        if mark == "," && marks.get(at + 1).is_none_or(|next| [")", "]", "}", ">"].contains(&&next[..])) {
            continue;
        }
        if !before.is_empty() && has_space(before, mark) {
            line.push(' ');
        }
        line.push_str(mark);
        before = mark;
    }
    line
}

/// Names, literals and marks; those of more than one character together.
fn flatten(tokens: TokenStream, marks: &mut Vec<String>) {
    const LONG: [&str; 4] = ["->", "=>", "::", ".."];
    let mut start = None;
    for tree in tokens {
        let is_joined = matches!(&tree, TokenTree::Punct(mark) if mark.spacing() == Spacing::Joint);
        match (tree, start.take()) {
            (TokenTree::Group(group), _) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                marks.push(open.to_owned());
                flatten(group.stream(), marks);
                marks.push(close.to_owned());
            }
            (tree, Some(start)) if start == "'" || LONG.contains(&&format!("{start}{tree}")[..]) => {
                marks.pop();
                marks.push(format!("{start}{tree}"));
            }
            (tree, _) => marks.push(tree.to_string()),
        }
        start = is_joined.then(|| marks.last().cloned()).flatten();
    }
}

fn has_space(before: &str, mark: &str) -> bool {
    const ALONE: [&str; 7] = ["->", "=>", "=", "+", "|", "{", "}"];
    const KEYWORDS: [&str; 7] = ["mut", "where", "in", "dyn", "as", "const", "for"];
    const ENDS: [&str; 3] = [",", ":", ";"];
    let is_word = |mark: &str| mark.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '\'');
    if ALONE.contains(&before) || ALONE.contains(&mark) || ENDS.contains(&before) && mark != "]" {
        return !ENDS.contains(&mark);
    }
    let ends = is_word(before) || [">", ")", "]"].contains(&before);
    let opens = ["(", "[", "&", "*"].contains(&mark) && (before.starts_with('\'') || KEYWORDS.contains(&before));
    ends && is_word(mark) || opens || before == "pub" && mark != "("
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        written(text.parse::<TokenStream>().expect("tokens"))
    }

    #[test]
    fn a_signature_is_written_alike_however_it_is_broken() {
        let short = "pub async fn a<'a, T: Clone + 'a>(&'a mut self, b: &[u8], c: impl Fn(&str) -> Option<u8>) -> Result<Vec<[u8; 4]>, Error> where T: Send";
        let long = "pub async fn a<\n    'a,\n    T: Clone + 'a,\n>( // why\n    &'a mut self,\n    b: &[u8],\n    c: impl Fn(&str) -> Option<u8>,\n)\n    -> Result<\n    Vec<[u8; 4]>,\n Error,\n>\nwhere\n    T: Send,";
        assert_eq!(line(short), short);
        assert_eq!(line(long), short);
    }

    #[test]
    fn each_form_keeps_its_text() {
        for text in [
            "#[cfg(feature = \"bob\")]",
            "pub(crate) fn a(self: Arc<Self>)",
            "pub type A = Box<dyn for<'a> Fn(&'a mut [u8]) -> std::io::Result<()> + Send>",
            "pub const A: &'static [&str]",
            "impl<T: ?Sized> Send for *const T",
            "pub fn a((b, c): (u8, u8), d: fn(u8) -> u8, e: &mut [u8], f: &(u8, u8))",
        ] {
            assert_eq!(line(text), text);
        }
    }
}
