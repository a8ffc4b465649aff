//! Markdown as these pages use it, laid out for a terminal: paragraphs wrapped, tables as entries, code as it is. Pure.

/// Fits the terminal of the smallest rescue console.
const WIDTH: usize = 80;

/// A piece of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    Heading(String),
    Paragraph(String),
    /// Its mark, and what stands behind it.
    Item(String, String),
    Code(Vec<String>),
    /// The table's header, and one row.
    Row(Vec<String>, Vec<String>),
}

impl Block {
    /// Everything in it, to search through.
    pub fn words(&self) -> String {
        match self {
            Self::Heading(text) | Self::Paragraph(text) | Self::Item(_, text) => text.clone(),
            Self::Code(lines) => lines.join(" "),
            Self::Row(_, cells) => cells.join(" "),
        }
    }
}

/// The pieces of a text, in order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    let mut header: Vec<String> = Vec::new();
    let mut is_open = false;
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            // Lines that `cargo doc` hides are no help here either.
            let is_hidden = |line: &&str| language.starts_with("rust") && (line.starts_with("# ") || *line == "#");
            let code = lines.by_ref().take_while(|line| !line.starts_with("```")).filter(|line| !is_hidden(line));
            blocks.push(Block::Code(code.map(str::to_owned).collect()));
            is_open = false;
        } else if line.starts_with('|') {
            let cells = cells(line);
            if lines.peek().is_some_and(|next| next.starts_with("|--")) {
                lines.next();
                header = cells;
            } else {
                blocks.push(Block::Row(header.clone(), cells));
            }
            is_open = false;
        } else if line.starts_with('#') {
            blocks.push(Block::Heading(spoken(line.trim_start_matches('#'))));
            is_open = false;
        } else if line.trim().is_empty() {
            is_open = false;
        } else if let Some((mark, rest)) = item(line) {
            blocks.push(Block::Item(mark.to_owned(), spoken(rest)));
            is_open = true;
        } else if is_open && let Some(Block::Paragraph(text) | Block::Item(_, text)) = blocks.last_mut() {
            *text = spoken(&format!("{text} {line}"));
        } else {
            blocks.push(Block::Paragraph(spoken(line)));
            is_open = true;
        }
    }
    blocks
}

/// `- text` and `1. text`.
fn item(line: &str) -> Option<(&str, &str)> {
    let (mark, rest) = line.split_once(' ')?;
    let is_number =
        mark.strip_suffix('.').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    (mark == "-" || is_number).then_some((mark, rest))
}

/// A `|` within code is written `\|`, or stands between backquotes.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut is_code, mut is_escaped) = (Vec::new(), String::new(), false, false);
    for c in line.trim().trim_start_matches('|').chars() {
        match c {
            '\\' if !is_escaped => {
                is_escaped = true;
                continue;
            }
            '`' => is_code ^= true,
            '|' if !is_code && !is_escaped => {
                cells.push(spoken(&std::mem::take(&mut cell)));
                continue;
            }
            _ => {}
        }
        if is_escaped && c != '|' {
            cell.push('\\');
        }
        is_escaped = false;
        cell.push(c);
    }
    cells
}

/// Without the marks for emphasis and links; code keeps its backquotes, since it is to be typed.
fn spoken(text: &str) -> String {
    let mut text = text.trim().replace("**", "");
    while let Some(middle) = text.find("](") {
        let (Some(start), Some(end)) = (text[..middle].rfind('['), text[middle..].find(')')) else { break };
        text = format!("{}{}{}", &text[..start], &text[start + 1..middle], &text[middle + end + 1..]);
    }
    text
}

/// A heading with blocks below it, each line ended.
pub fn text(heading: &str, blocks: &[Block]) -> String {
    let mut out = format!("{heading}\n{}\n", "=".repeat(heading.chars().count()));
    for (index, block) in blocks.iter().enumerate() {
        let is_table = |block: Option<&Block>| matches!(block, Some(Block::Row(..)));
        let is_list = |block: Option<&Block>| matches!(block, Some(Block::Item(..)));
        let (before, this) = (index.checked_sub(1).and_then(|before| blocks.get(before)), Some(block));
        if !(is_list(before) && is_list(this)) || is_table(this) {
            out.push('\n');
        }
        match block {
            Block::Heading(text) => out.push_str(&format!("{text}\n{}\n", "-".repeat(text.chars().count()))),
            Block::Paragraph(text) => wrap(&mut out, text, "", ""),
            Block::Item(mark, text) => wrap(&mut out, text, &format!("{mark} "), &" ".repeat(mark.chars().count() + 1)),
            Block::Code(lines) => lines.iter().for_each(|line| out.push_str(&format!("    {line}\n"))),
            Block::Row(header, cells) => {
                for (column, cell) in cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
                    let label = header.get(column).filter(|label| column > 0 && header.len() > 2 && !label.is_empty());
                    let first = label.map_or_else(String::new, |label| format!("{label}: "));
                    let (start, rest) = if column == 0 { ("  ", "    ") } else { ("      ", "      ") };
                    wrap(&mut out, &format!("{first}{cell}"), start, rest);
                }
            }
        }
    }
    out
}

fn wrap(out: &mut String, text: &str, first: &str, rest: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = rest.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_text_for_a_narrow_terminal() {
        let page = "A **bold** [link](x.md#y)\nthat continues.\n\n- one\n  more\n- two\n\n```rust\n# hidden\ncode\n```\n\n\
                    | what | means | do |\n|---|---|---|\n| `a|b` | x | y |\n\n### Part\n";
        let expected = "Heading\n=======\n\nA bold link that continues.\n\n- one more\n- two\n\n    code\n\n  `a|b`\n      means: x\n      do: y\n\n\
                        Part\n----\n";
        assert_eq!(text("Heading", &blocks(page)), expected);
    }

    #[test]
    fn lines_are_no_wider_than_the_terminal() {
        let long = "word ".repeat(100);
        let laid = text("H", &[Block::Paragraph(long.clone()), Block::Row(Vec::new(), vec!["a".into(), long])]);
        assert!(laid.lines().all(|line| line.chars().count() <= WIDTH), "{laid}");
        assert_eq!(laid.matches("word").count(), 200);
    }
}
