//! `quorate help`: the help of a command, or what the guides in this binary say about a topic. Needs no cluster and no network.

mod guide;
mod layout;

use clap::{CommandFactory, Parser};

use self::guide::{Chapter, Found};
use crate::args::{Cli, Help};
use crate::failure::Failure;
use crate::output;

/// Prints it. Errors: there is no command, chapter or word like it.
pub fn run(args: &Help) -> Result<(), Failure> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    if let Some(help) = of_command(&words) {
        return Ok(output::line(help.trim_end())?);
    }
    if words == ["topics"] {
        return Ok(output::line(&topics())?);
    }
    let text = match guide::find(&words.join(" ")) {
        Found::Chapters(chapters) => chapters.iter().map(Chapter::text).collect::<Vec<_>>().join("\n"),
        Found::Places(places) => places.join("\n"),
        Found::Nothing => {
            let what = words.join(" ");
            return Err(Failure::usage(format!(
                "no command, chapter or word like this; `quorate --help` lists the commands, `quorate help topics` the chapters topic={}",
                output::printable(&what)
            )));
        }
    };
    Ok(output::line(text.trim_end())?)
}

/// The `--help` text of the command with these words, if there is one.
fn of_command(words: &[&str]) -> Option<String> {
    let mut command = Cli::command();
    for word in words {
        command = command.find_subcommand(word)?.clone();
    }
    // The parser knows the whole name of a nested command.
    let line = ["quorate"].into_iter().chain(words.iter().copied()).chain(["--help"]);
    Cli::try_parse_from(line).err().map(|help| help.to_string())
}

fn topics() -> String {
    let mut text = String::from(
        "quorate help TOPIC prints one of these; a part of its name is enough. Any other word is looked for in all of them.\n",
    );
    let mut page = "";
    for chapter in guide::chapters() {
        if chapter.page != page {
            page = chapter.page;
            text.push_str(&format!("\n{page}\n"));
        }
        text.push_str(&format!("{}{}\n", "  ".repeat(chapter.level - 1), chapter.heading));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_explained_under_its_whole_name_also_by_an_alias() {
        let help = of_command(&["session", "put"]).expect("a command");
        assert!(help.contains("quorate session put") && help.contains("Connection:"), "{help}");
        assert!(of_command(&["session", "list"]).expect("an alias").contains("quorate session ls"));
        assert!(of_command(&[]).expect("all of it").contains("Exit codes"));
        assert_eq!(of_command(&["session", "frobnicate"]), None);
        assert_eq!(of_command(&["lost", "majority"]), None);
    }

    #[test]
    fn every_topic_that_is_listed_can_be_printed() {
        for chapter in guide::chapters() {
            let Found::Chapters(found) = guide::find(chapter.heading) else { panic!("{} is not found", chapter.heading) };
            assert!(found.iter().any(|found| found.heading == chapter.heading && !found.text().is_empty()));
            assert!(topics().contains(chapter.heading));
        }
    }
}
