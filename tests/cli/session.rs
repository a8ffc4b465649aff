//! `session` and `status` where nothing listens, and where the call is wrong as written.

use crate::{assert_refused, quorate, run, run_with_input};

/// Port 1 is nobody's on a machine that runs tests; a connection is refused at once.
const NOBODY: &[&str] = &["--endpoints", "127.0.0.1:1", "--timeout", "300ms"];

fn with_nobody(args: &[&'static str]) -> Vec<&'static str> {
    args.iter().chain(NOBODY).copied().collect()
}

#[test]
fn a_cluster_that_is_not_there_is_unavailable_for_every_command() {
    for args in [&["session", "get", "a"][..], &["session", "rm", "a"], &["session", "ls"], &["status"]] {
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
