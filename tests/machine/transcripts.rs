//! Transcripts: what the machine answers, as text. `REWRITE=1` updates them; commit a change only if you can explain it.

use std::path::Path;

use crate::machine::script::Runner;

/// A transcript is blocks: comments, commands, `----`, what they printed, an empty line.
fn rerun(text: &str) -> String {
    let mut runner = Runner::new();
    let mut out = String::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let input = block.split("----").next().unwrap_or("").trim();
        let comment_only = input.lines().all(|line| line.starts_with('#'));
        out.push_str(input);
        out.push('\n');
        if !comment_only {
            out.push_str("----\n");
            for line in input.lines().filter(|line| !line.starts_with('#')) {
                out.push_str(&runner.run(line));
            }
        }
        out.push('\n');
    }
    out
}

#[test]
fn transcripts_say_what_the_machine_answers() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine/testdata");
    let mut paths: Vec<_> = std::fs::read_dir(&directory).expect("testdata").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "transcripts are missing found={}", paths.len());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("transcript");
        let now = rerun(&text);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, now).expect("rewritten");
        } else {
            assert_eq!(text, now, "transcript={} (REWRITE=1 updates it)", path.display());
        }
    }
}
