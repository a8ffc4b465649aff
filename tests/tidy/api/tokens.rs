//! The tokens of a Rust file, and how a part of them is written on one line, however the file breaks it.

use crate::source::Source;

/// One token, comments aside. A string is one token, with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(pub String);

impl Token {
    pub fn is(&self, text: &str) -> bool {
        self.0 == text
    }

    /// A name, a keyword, a number.
    pub fn is_word(&self) -> bool {
        self.0.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn is_lifetime(&self) -> bool {
        self.0.starts_with('\'')
    }
}

/// Marks of more than one character, longest first.
const LONG: [&str; 6] = ["..=", "...", "->", "=>", "::", ".."];

/// All tokens of a file. What is blanked in `code` and is no comment is a literal.
pub fn tokens(source: &Source) -> Vec<Token> {
    let (code, text) = (&source.code, &source.text);
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let c = rest.chars().next().expect("at a character");
        let len = if c.is_whitespace() {
            let blank = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
            if let Some(literal) = literal(&text[at..at + blank]) {
                tokens.push(Token(literal.to_owned()));
            }
            blank
        } else if let Some(long) = LONG.iter().find(|long| rest.starts_with(**long)) {
            tokens.push(Token((*long).to_owned()));
            long.len()
        } else {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let first = c.len_utf8();
            let more =
                if is_part(c) || c == '\'' { rest[first..].find(|c: char| !is_part(c)).unwrap_or(rest.len() - first) } else { 0 };
            tokens.push(Token(rest[..first + more].to_owned()));
            first + more
        };
        at += len;
    }
    tokens
}

/// The string in a stretch of blanks: of one line, which those of attributes are.
fn literal(stretch: &str) -> Option<&str> {
    stretch.lines().map(str::trim).find(|line| line.len() > 1 && line.starts_with('"') && line.ends_with('"'))
}

/// The tokens on one line, spaced as `rustfmt` would, without commas before what closes.
pub fn written(tokens: &[Token]) -> String {
    let mut line = String::new();
    let mut before: Option<&Token> = None;
    for (at, token) in tokens.iter().enumerate() {
        let closes = tokens.get(at + 1).is_none_or(|next| [")", "]", "}", ">"].iter().any(|close| next.is(close)));
        if token.is(",") && closes {
            continue;
        }
        if before.is_some_and(|before| has_space(before, token)) {
            line.push(' ');
        }
        line.push_str(&token.0);
        before = Some(token);
    }
    line
}

fn has_space(before: &Token, token: &Token) -> bool {
    const ALONE: [&str; 7] = ["->", "=>", "=", "+", "|", "{", "}"];
    const KEYWORDS: [&str; 7] = ["mut", "where", "in", "dyn", "as", "const", "for"];
    let one_of = |token: &Token, list: &[&str]| list.iter().any(|text| token.is(text));
    if one_of(before, &ALONE) || one_of(token, &ALONE) || one_of(before, &[",", ":", ";"]) && !token.is("]") {
        return !(one_of(token, &[",", ":", ";"]));
    }
    let starts = token.is_word() || token.is_lifetime();
    let ends = before.is_word() || before.is_lifetime() || one_of(before, &[">", ")", "]"]);
    let opens = one_of(token, &["(", "[", "&", "*"]);
    ends && starts || opens && (before.is_lifetime() || one_of(before, &KEYWORDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        written(&tokens(&Source::new("src/a.rs", text)))
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
