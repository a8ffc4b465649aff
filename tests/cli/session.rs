//! `session` and `status` where nothing listens, and where the call is wrong as written.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use crate::cli::{assert_refused, ended, quorate, run, run_with_input};

/// Port 1 is nobody's on a machine that runs tests; a connection is refused at once.
const NOBODY: &[&str] = &["--endpoints", "127.0.0.1:1", "--timeout", "300ms"];

fn with_nobody(args: &[&'static str]) -> Vec<&'static str> {
    args.iter().chain(NOBODY).copied().collect()
}

#[test]
fn a_cluster_that_is_not_there_is_unavailable_for_every_command() {
    for args in [
        &["session", "get", "a"][..],
        &["session", "rm", "a"],
        &["session", "prune", "--prefix", "a", "--idle-for", "1h"],
        &["session", "ls"],
        &["session", "copy", "a", "b"],
        &["session", "rm", "a", "--steal"],
        &["lease", "ls"],
        &["lease", "show", "a"],
        &["lease", "release", "a", "--fence", "5"],
        &["status"],
    ] {
        assert_refused(&run(&with_nobody(args)), 4, &["error: "]);
    }
    for args in [&["session", "put", "a"][..], &["session", "cas", "a", "--expect", "0"]] {
        assert_refused(&run_with_input(&with_nobody(args), b"x"), 4, &["nothing changed"]);
    }
}

#[test]
fn endpoints_come_from_the_environment_and_a_flag_goes_before_it() {
    let output = quorate(&["status", "--timeout", "300ms"]).env("QUORATE_ENDPOINTS", "no port").output().expect("the binary runs");
    assert_refused(&output, 2, &["--endpoints"]);
    let output = quorate(&with_nobody(&["status"])).env("QUORATE_ENDPOINTS", "no port").output().expect("the binary runs");
    assert_refused(&output, 4, &[]);
}

#[test]
fn an_id_above_the_limit_is_wrong_usage() {
    let long = "x".repeat(1025);
    let args = ["session", "get", &long, "--endpoints", "127.0.0.1:1", "--timeout", "300ms"];
    assert_refused(&run(&args), 2, &["1024"]);
}

#[test]
fn an_id_and_content_can_not_both_come_from_stdin() {
    assert_refused(&run_with_input(&with_nobody(&["session", "put", "-"]), b"x"), 2, &["--file"]);
}

#[test]
fn an_id_from_stdin_that_is_no_text_is_wrong_usage() {
    assert_refused(&run_with_input(&with_nobody(&["session", "get", "-"]), b"\xff\xfe"), 2, &["not UTF-8"]);
}

#[test]
fn a_content_file_that_is_not_there_changes_nothing() {
    let args = with_nobody(&["session", "put", "a", "--file", "/nonexistent/content"]);
    assert_refused(&run(&args), 2, &["/nonexistent/content", "nothing changed"]);
}

#[test]
fn a_timeout_of_nothing_or_beyond_the_limit_is_wrong_usage() {
    for timeout in ["0s", "1h", "soon"] {
        let output = run(&["status", "--timeout", timeout]);
        assert_eq!(output.status.code(), Some(2), "{timeout}");
    }
}

/// What others' habits type, and what is out of range: one look at the message says what to type instead.
#[test]
fn what_is_typed_wrong_is_answered_with_what_to_type() {
    let cases: [(&[&str], &[&str]); 23] = [
        (&["session", "put", "a", "b"], &["the content comes from stdin or --file", "nothing changed"]),
        (&["session", "cas", "a", "b", "--expect", "0"], &["the content comes from stdin or --file"]),
        (&["session", "put", ""], &["the id is empty", "--id="]),
        (&["session", "get", ""], &["the id is empty"]),
        (&["session", "rm", "a", ""], &["the id is empty"]),
        (&["session", "put", "a", "--ttl", "0s"], &["--ttl", "must be 1ms to 10 years"]),
        (&["session", "put", "a", "--ttl", "4000d"], &["must be 1ms to 10 years"]),
        (&["session", "cas", "a", "--expect", "abc"], &["a version is a number; 0: must not exist"]),
        (&["session", "cas", "a", "--expect", "-1"], &["a version is a number; 0: must not exist"]),
        (&["session", "rm", "--prefix", ""], &["every session", "nothing was deleted"]),
        (&["session", "rm", "a", "b", "--expect", "1"], &["--expect"]),
        (&["session", "rm", "a", "--prefix", "b"], &["--prefix"]),
        (&["session", "get", "a", "b"], &["pass `-o json`"]),
        (&["session", "get", "a", "--last", "0"], &["--last", "must be a number of messages from 1 to 100000"]),
        (&["session", "get", "a", "--from", "3", "--limit", "100001"], &["from 1 to 100000"]),
        (&["session", "get", "a", "--limit", "3"], &["--from"]),
        (&["session", "get", "a", "--last", "3", "--head"], &["--last", "--head"]),
        (&["session", "rm", "a", "b", "--steal"], &["--steal takes the lease of one session", "nothing was deleted"]),
        (&["session", "rm", "--prefix", "a", "--steal"], &["--prefix"]),
        (&["lease", "release", "a", "--fence", "x"], &["a fence is a number, as `quorate lease show` prints it"]),
        (&["lease", "show", ""], &["the id is empty"]),
        (&["get", "a"], &["did you mean `quorate session get`?"]),
        (&["set", "a"], &["did you mean `quorate session set`?"]),
    ];
    for (args, parts) in cases {
        let (code, message) = ended(&run(args));
        assert_eq!(code, 2, "{args:?}: {message}");
        for part in parts {
            assert!(message.contains(part), "{args:?}: {part:?} is not in {message}");
        }
        assert!(message.matches("tip: ").count() <= 1, "one guess, the likely one: {message}");
    }
}

#[test]
fn the_empty_id_is_for_who_means_it() {
    for args in [&["session", "get", "--id="][..], &["session", "rm", "--id="]] {
        assert_refused(&run(&with_nobody(args)), 4, &["error: "]);
    }
    assert_refused(&run_with_input(&with_nobody(&["session", "put", "--id="]), b"x"), 4, &["nothing changed"]);
}

#[test]
fn help_names_the_limits_and_the_exit_codes() {
    for (command, parts) in [
        ("put", &["64 MiB", "16 MiB", "1024 bytes", "10 years"][..]),
        ("get", &["Exit code 5", "--info", "--raw", "--last", "--from", "--limit", "--head", "first_item"]),
        ("copy", &["5 there is no session FROM", "Counters begin at 0"]),
        ("rm", &["nothing to delete", "exit code 0", "exit code 3", "--dry-run", "--rate", "--steal", "loses the work"]),
        ("ls", &["--after", "--count", "ids"]),
        ("import", &["stdin", "64 sessions", "--if-absent"]),
    ] {
        let output = run(&["session", command, "--help"]);
        let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in the help of {command}: {text}");
        }
    }
    for command in ["put", "cas", "get", "rm", "ls", "copy", "export", "import"] {
        let text = String::from_utf8_lossy(&run(&["session", command, "--help"]).stdout).into_owned();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("Exit codes: 0 ") && text.contains("4 unavailable; "), "{command}: {text}");
    }
    for (command, parts) in [
        ("ls", &["every other write is refused", "LEFT", "Exit codes: 0 "][..]),
        ("show", &["5 nobody has the turn", "--stale"]),
        ("release", &["Fenced", "10 minutes", "--fence", "nothing changed", "4 unavailable; "]),
    ] {
        let text = String::from_utf8_lossy(&run(&["lease", command, "--help"]).stdout).into_owned();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(parts.iter().all(|part| text.contains(part)), "{command}: {text}");
    }
    let help = String::from_utf8_lossy(&run(&["--help"]).stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("5 there is no such session") && help.contains("130 interrupted"), "{help}");
}

#[test]
fn content_above_the_limit_is_refused_with_the_limit_in_mebibytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("large");
    std::fs::File::create(&file).and_then(|file| file.set_len((64 << 20) + 1)).expect("a sparse file");
    let file = file.to_str().expect("UTF-8");
    let output = run(&["session", "put", "a", "--file", file, "--endpoints", "127.0.0.1:1", "--timeout", "300ms"]);
    assert_refused(&output, 2, &["larger than 64 MiB", "nothing changed"]);
}

/// A node that takes connections and never answers: what is begun stays open.
struct Silent(std::net::TcpListener);

impl Silent {
    fn new() -> Self {
        Self(std::net::TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let endpoint = self.0.local_addr().expect("bound").to_string();
        let args = [args, &["--endpoints", &endpoint, "--timeout", "100s"]].concat();
        quorate(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    }
}

fn interrupt(child: &Child) {
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
}

#[test]
fn an_interrupted_export_leaves_no_file_of_its_name_and_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sessions.jsonl");
    let silent = Silent::new();
    let child = silent.spawn(&["session", "export", "--file", file.to_str().expect("UTF-8")]);
    // It asks once it listens for signals and has made its file.
    let connection = silent.0.accept().expect("it connects");
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    drop(connection);
    assert_refused(&output, 130, &["interrupted", "no file was made"]);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
}

/// The first signal waits for what was begun, since only then the count is true; the second ends at once.
#[test]
fn an_interrupted_delete_of_several_says_what_is_not_known() {
    let silent = Silent::new();
    let mut child = silent.spawn(&["session", "rm", "a", "b", "c"]);
    let connection = silent.0.accept().expect("it connects");
    interrupt(&child);
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert!(line.contains("another Ctrl-C ends at once"), "{line}");
    interrupt(&child);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    let output = child.wait_with_output().expect("it ends");
    drop(connection);
    assert_eq!(output.status.code(), Some(130), "{rest}");
    assert!(rest.contains("interrupted") && rest.contains("deleted=0 unknown=3"), "{rest}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "deleted=0 absent=0\n");
}
