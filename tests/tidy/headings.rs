//! Where the documents and the program send a reader: the chapter is there, under that name.

use crate::Violations;

/// A page of `src/docs`, or the README: its path from the root, and its text.
pub struct Page {
    pub path: String,
    pub text: String,
    /// Whether `quorate help` prints its chapters.
    pub is_printed: bool,
}

impl Page {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    fn headings(&self) -> impl Iterator<Item = &str> {
        let mut is_within_code = false;
        self.text
            .lines()
            .filter(move |line| {
                is_within_code ^= line.starts_with("```");
                !is_within_code
            })
            .filter_map(|line| line.strip_prefix('#').map(|line| line.trim_start_matches('#').trim()))
    }

    fn has_anchor(&self, anchor: &str) -> bool {
        self.headings().any(|heading| anchor_of(heading) == anchor)
    }
}

/// As web pages of repositories make them of a heading.
fn anchor_of(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

/// Chapters that a file of Rust names as `NAME.md, "Chapter"` and that are not there, or as `quorate help "Chapter"` and that it does not print. A sentence may go over several lines.
pub fn missing_chapters(path: &str, text: &str, pages: &[Page]) -> Violations {
    let text = joined(text).replace("\\\"", "\"");
    let mut violations = Violations::new();
    for (at, _) in text.match_indices(".md, \"") {
        let start = text[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |before| before + 1);
        let file = &text[start..at + 3];
        let chapter = text[at + 6..].split('"').next().unwrap_or("");
        let is_there = pages.iter().any(|page| page.name() == file && page.headings().any(|heading| heading == chapter));
        if !is_there {
            violations.push(format!("{path}: {file} has no chapter {chapter:?}"));
        }
    }
    for (at, mark) in text.match_indices("quorate help \"") {
        let chapter = text[at + mark.len()..].split('"').next().unwrap_or("");
        if !pages.iter().any(|page| page.is_printed && page.headings().any(|heading| heading == chapter)) {
            violations.push(format!("{path}: no page that the program prints has a chapter {chapter:?}"));
        }
    }
    violations
}

/// A literal that goes on in the next line, as the compiler reads it.
fn joined(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let mut joined = parts.next().unwrap_or("").to_owned();
    for part in parts {
        joined.push_str(part.trim_start());
    }
    joined
}

/// Links of a page whose file or heading is not there, or that lead to a registry of packages: what is published there may be
/// another's, and nothing of ours is.
pub fn broken_links(page: &Page, pages: &[Page], exists: impl Fn(&str) -> bool) -> Violations {
    let mut violations = Violations::new();
    for (at, _) in page.text.match_indices("](") {
        let Some(target) = page.text[at + 2..].split(')').next().filter(|target| !target.contains([' ', '\n', '`'])) else {
            continue;
        };
        if target.starts_with("http") {
            if ["crates.io", "npmjs.com", "pypi.org"].iter().any(|registry| target.contains(registry)) {
                violations.push(format!("{}: {target} is a registry of packages: name the repository", page.path));
            }
            continue;
        }
        let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let (mut directory, mut file) = (page.path.rsplit_once('/').map_or("", |(directory, _)| directory), file);
        while let Some(rest) = file.strip_prefix("../") {
            (directory, file) = (directory.rsplit_once('/').map_or("", |(directory, _)| directory), rest);
        }
        let path =
            if file.is_empty() { page.path.clone() } else { format!("{directory}/{file}").trim_start_matches('/').to_owned() };
        let there = match anchor {
            Some(anchor) => pages.iter().any(|page| page.path == path && page.has_anchor(anchor)),
            None => exists(&path),
        };
        // Links of `cargo doc` are its own business.
        if !there && !target.contains("::") {
            violations.push(format!("{}: {target} is not there", page.path));
        }
    }
    violations
}

/// Decisions, by the names of their files, that `src/docs/mod.rs` does not show.
pub fn unlisted_decisions(listing: &str, names: &[String]) -> Violations {
    let is_listed = |name: &&String| listing.contains(&format!(": \"decisions/{name}\","));
    names.iter().filter(|name| !is_listed(name)).map(|name| format!("src/docs/mod.rs: decisions/{name} is not in it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, text: &str) -> Page {
        Page { path: path.into(), text: text.into(), is_printed: path.ends_with("operations.md") }
    }

    #[test]
    fn a_chapter_that_is_not_there_is_named_and_one_in_a_broken_sentence_is_found() {
        let pages = [
            page("src/docs/operations.md", "# Operations\n\n## Lost majority\n```sh\n# no heading\n```\n"),
            page("src/docs/testing.md", "# Testing\n\n## Simulation\n"),
        ];
        let good = "\"see \\\n    operations.md, \\\"Lost majority\\\"\" \"quorate help \\\"Lost majority\\\"\"";
        assert_eq!(missing_chapters("a.rs", good, &pages), [""; 0]);
        let bad = "\"operations.md, \\\"no heading\\\"\" \"security.md, \\\"Lost majority\\\"\" `quorate help \"x\"` `quorate help \"Simulation\"`";
        assert_eq!(missing_chapters("a.rs", bad, &pages).len(), 4);
    }

    #[test]
    fn a_decision_that_rustdoc_does_not_show_is_named() {
        let names = ["0001-a.md", "0002-b.md"].map(str::to_owned);
        let listing = "pages! {\n    d0001_a: \"decisions/0001-a.md\",\n}\n// decisions/0002-b.md\n";
        assert_eq!(unlisted_decisions(listing, &names), ["src/docs/mod.rs: decisions/0002-b.md is not in it"]);
    }

    #[test]
    fn a_link_to_nothing_or_to_a_registry_is_named() {
        let pages = || vec![page("README.md", "# A\n"), page("src/docs/b.md", "# B\n\n## What other stores do\n")];
        let links =
            |path: &str, text: &str| broken_links(&page(path, text), &pages(), |file| file == "LICENSE" || file == "src/docs/b.md");
        assert_eq!(links("README.md", "[a](LICENSE) [b](src/docs/b.md#what-other-stores-do) [c](https://example.org)"), [""; 0]);
        assert_eq!(links("src/docs/b.md", "[b](b.md) [c](b.md#b)"), [""; 0]);
        assert_eq!(links("src/docs/notes/c.md", "[b](../b.md#b) [c](../../../LICENSE)"), [""; 0]);
        assert_eq!(links("README.md", "[a](LICENCE) [b](src/docs/b.md#what) [c](https://crates.io/crates/x)").len(), 3);
        assert_eq!(links("src/docs/notes/c.md", "[b](b.md) [c](../../b.md)").len(), 2);
    }
}
