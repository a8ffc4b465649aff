//! The pages of `src/docs` that an operator needs, with their chapters, and how a topic is found in them. Pure.

use super::layout::{self, Block};

/// The pages, in the order in which they are listed.
const PAGES: [(&str, &str); 6] = [
    ("operations", include_str!("../../../../docs/operations.md")),
    ("security", include_str!("../../../../docs/security.md")),
    ("metrics", include_str!("../../../../docs/metrics.md")),
    ("failure model", include_str!("../../../../docs/failure_model.md")),
    ("not promised", include_str!("../../../../docs/not_promised.md")),
    ("glossary", include_str!("../../../../docs/glossary.md")),
];
/// More chapters than this are no answer to one question.
const CHAPTERS_MAX: usize = 4;

/// A heading with what stands below it.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// Which page it is on.
    pub page: &'static str,
    /// Its words.
    pub heading: &'static str,
    /// 1: the page, with what stands before its first chapter; 2: a chapter; 3: a part of one.
    pub level: usize,
    body: &'static str,
}

/// The pages and chapters on a topic.
pub enum Found {
    /// Chapters of this name.
    Chapters(Vec<Chapter>),
    /// Paragraphs and rows that hold all the words, below their headings.
    Places(Vec<String>),
    Nothing,
}

impl Chapter {
    /// For a terminal, with its parts.
    pub fn text(&self) -> String {
        layout::text(self.heading, &layout::blocks(self.body))
    }
}

/// All chapters. A chapter of level 2 holds its parts, which are listed behind it.
pub fn chapters() -> Vec<Chapter> {
    PAGES.iter().flat_map(|(page, text)| chapters_of(page, text)).collect()
}

fn chapters_of(page: &'static str, text: &'static str) -> Vec<Chapter> {
    let mut starts = Vec::new();
    let (mut at, mut is_within_code) = (0, false);
    for line in text.split_inclusive('\n') {
        is_within_code ^= line.starts_with("```");
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if level > 0 && !is_within_code {
            starts.push((at, at + line.len(), level, line[level..].trim()));
        }
        at += line.len();
    }
    let end_of = |index: usize, level: usize| {
        // What stands before the first chapter is the page's own.
        let ends = |(_, _, other, _): &&(usize, usize, usize, &str)| *other <= level.max(2);
        starts[index + 1..].iter().find(ends).map_or(text.len(), |(start, ..)| *start)
    };
    let chapter = |(index, (_, body, level, heading)): (usize, &(usize, usize, usize, &'static str))| {
        let body = &text[*body..end_of(index, *level)];
        Chapter { page, heading, level: *level, body }
    };
    starts.iter().enumerate().map(chapter).collect()
}

/// Chapters by their whole heading, else by the beginning of words of it; else every place with all the words.
pub fn find(topic: &str) -> Found {
    let topic = plain(topic);
    let all = chapters();
    let named: Vec<Chapter> = all.iter().filter(|chapter| plain(chapter.heading) == topic).copied().collect();
    if !named.is_empty() {
        return Found::Chapters(named);
    }
    if topic.is_empty() {
        return Found::Nothing;
    }
    let begins = |heading: &str| format!(" {}", plain(heading)).contains(&format!(" {topic}"));
    let near: Vec<Chapter> = all.iter().filter(|chapter| begins(chapter.heading)).copied().collect();
    if (1..=CHAPTERS_MAX).contains(&near.len()) {
        return Found::Chapters(near);
    }
    let places = places(&all, &topic);
    if places.is_empty() { Found::Nothing } else { Found::Places(places) }
}

/// Blocks that hold the phrase; where none does, those that hold each word of it.
fn places(all: &[Chapter], topic: &str) -> Vec<String> {
    let words: Vec<&str> = topic.split(' ').collect();
    let phrase = |text: &str| format!(" {text}").contains(&format!(" {topic}"));
    let each = |text: &str| words.iter().all(|word| format!(" {text}").contains(&format!(" {word}")));
    for holds in [&phrase as &dyn Fn(&str) -> bool, &each] {
        let mut places = Vec::new();
        for chapter in all {
            // Parts are looked through by themselves.
            let own = chapter.body.split("\n### ").next().unwrap_or("");
            let found: Vec<Block> = layout::blocks(own).into_iter().filter(|block| holds(&plain(&block.words()))).collect();
            if !found.is_empty() {
                places.push(layout::text(&format!("{}: {}", chapter.page, chapter.heading), &found));
            }
        }
        if !places.is_empty() {
            return places;
        }
    }
    Vec::new()
}

/// Words alone, in small letters, one space between them: `replace-a-node` is "Replace a node".
fn plain(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(topic: &str) -> Vec<&'static str> {
        match find(topic) {
            Found::Chapters(chapters) => chapters.iter().map(|chapter| chapter.heading).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_chapter_is_found_by_its_heading_a_part_of_it_and_in_any_writing() {
        assert_eq!(headings("Lost majority"), ["Lost majority"]);
        assert_eq!(headings("lost-majority"), ["Lost majority"]);
        assert_eq!(headings("replace"), ["Membership: add, remove, replace", "Replace a node"]);
        assert_eq!(headings("troubleshooting"), ["Troubleshooting"]);
        assert_eq!(headings("renewal"), ["Renewal"]);
    }

    #[test]
    fn a_chapter_holds_its_parts_and_ends_where_the_next_one_begins() {
        let text = "# P\n\nintro\n\n## A\n\na\n\n### A1\n\na1\n```sh\n# no heading\n```\n\n## B\n\nb\n";
        let chapters = chapters_of("p", text);
        let seen: Vec<(&str, usize, &str)> = chapters.iter().map(|c| (c.heading, c.level, c.body.trim())).collect();
        let a1 = "a1\n```sh\n# no heading\n```";
        let a = format!("a\n\n### A1\n\n{a1}");
        assert_eq!(seen, [("P", 1, "intro"), ("A", 2, &a[..]), ("A1", 3, a1), ("B", 2, "b")]);
    }

    /// Words that operators search for, each answered by something to do.
    #[test]
    fn the_words_of_the_field_are_found() {
        let words = "disk full,no leader,lost quorum,slow follower,expired certificate,clock skew,ntp,too many open files,log level,\
                     ports,systemctl,journalctl,cron,token rotation,decommission,rollback,downgrade,fsync,corruption,repair,upgrade,\
                     backup,restore,QUORATE_LOG,node down,wiped disk,firewall,rolling restart";
        for topic in words.split(',') {
            assert!(!matches!(find(topic.trim()), Found::Nothing), "{topic}");
        }
        assert!(matches!(find("frobnicate"), Found::Nothing));
        assert!(matches!(find(""), Found::Nothing));
        let Found::Places(places) = find("disk full") else { panic!("no heading") };
        assert!(places.iter().any(|place| place.contains("free room")), "{places:#?}");
    }
}
