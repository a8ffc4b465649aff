//! `quorate token revoke`: takes the lines of one token out of a file, and nothing else.

use quorate::server::auth::Tokens;

use super::{open, prepare, text_of, unusable};
use crate::args;
use crate::failure::Failure;
use crate::output;

/// How each token begins in a file.
const HEADER: &str = "[[token]]";

/// Errors: there is no token of this name, or its lines can't be distinguished from the others'; nothing was changed.
pub fn run(args: &args::TokenRevoke) -> Result<(), Failure> {
    let path = args.file.display();
    let file = open(&args.file)?;
    if file.before().is_none() {
        return Err(Failure::usage(format!("there is no such file; nothing was changed file={path}")));
    }
    let text = text_of(&file, &args.file)?;
    let tokens = Tokens::parse(text).map_err(|error| Failure::usage(format!("{path}: {error}; nothing was changed")))?;
    if tokens.named(&args.name).is_none() {
        return Err(Failure::usage(format!(
            "the file holds no token of this name, see `quorate token ls`; nothing was changed name={:?} file={path}",
            args.name
        )));
    }
    let without = without(text, &tokens, &args.name).ok_or_else(|| {
        Failure::usage(format!(
            "the token's lines can't be distinguished from the others': take them out by hand; nothing was changed name={:?} file={path}",
            args.name
        ))
    })?;
    let prepared = prepare(&file, &args.file, &without)?;
    file.replace(prepared).map_err(|error| unusable(&error))?;
    let done = format!("revoked name={} left={} file={path}", args.name, tokens.len() - 1);
    output::after(&done, output::line(&done).map_err(Failure::from))
}

/// The text without the token's lines: those from its header to the next one's, or to what is written right above that. `None`: what is
/// left would not be the other tokens as they were.
fn without(text: &str, tokens: &Tokens, name: &str) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_header = |line: &&str| line.trim_start().starts_with('[');
    let starts: Vec<usize> = (0..lines.len()).filter(|at| is_header(&lines[*at])).collect();
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    let expected = tokens.without(name);
    starts.iter().zip(ends).filter(|(start, _)| lines[**start].trim_start().starts_with(HEADER)).find_map(|(start, next)| {
        // Comments right above the next token are about that one.
        let above = lines[*start..next].iter().rev().take_while(|line| line.trim_start().starts_with('#')).count();
        let end = if next == lines.len() { next } else { next - above };
        let rest: String = lines[..*start].iter().chain(&lines[end..]).copied().collect();
        Tokens::parse(&rest).is_ok_and(|left| left == expected).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, rest: &str) -> String {
        let digit = name.len();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{}\"\nscopes = [\"read\"]\n{rest}", digit.to_string().repeat(64))
    }

    fn taken(text: &str, name: &str) -> Option<String> {
        without(text, &Tokens::parse(text).expect(text), name)
    }

    #[test]
    fn only_the_lines_of_the_token_go() {
        let (one, two, three) = (entry("a", "\n"), entry("bb", "\n# of the third\n"), entry("ccc", "# at the end\n"));
        let text = format!("# ours\n\n{one}{two}{three}");
        assert_eq!(taken(&text, "a"), Some(format!("# ours\n\n{two}{three}")));
        assert_eq!(taken(&text, "bb"), Some(format!("# ours\n\n{one}# of the third\n{three}")));
        assert_eq!(taken(&text, "ccc"), Some(format!("# ours\n\n{one}{two}")));
        assert_eq!(taken(&one, "a"), Some(String::new()), "the last one");
    }

    /// A header-like line that is no header, or a form that no lines can be taken out of: refused rather than guessed.
    #[test]
    fn a_file_of_another_form_is_left_alone() {
        let hash = "1".repeat(64);
        let inline = format!("token = [{{ name = \"a\", sha256 = \"{hash}\", scopes = [\"read\"] }}]\n");
        assert_eq!(taken(&inline, "a"), None);
        let tricky = entry("a", "prefixes = [\"\"\"\n[[token]]\n\"\"\"]\n");
        assert_eq!(taken(&tricky, "a"), None);
        assert_eq!(taken(&format!("{tricky}{}", entry("bb", "")), "bb"), Some(tricky));
    }
}
