//! The command line without a cluster: what is refused, with which exit code, and whether the one line says how to mend it.

mod bench;
mod contents;
mod deploy;
mod dev;
mod files;
#[path = "../process/ports.rs"]
mod ports;
mod serve;
mod session;

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The binary, with nothing of the caller's environment that it would listen to.
pub fn quorate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for variable in ["CONFIG", "ENDPOINTS", "LOG", "LOG_FORMAT", "ADMIN", "CA", "CERT", "KEY", "TOKEN", "TOKEN_FILE"] {
        command.env_remove(format!("QUORATE_{variable}"));
    }
    command.env_remove("NOTIFY_SOCKET");
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    quorate(args).output().expect("the binary runs")
}

/// Runs it with something on stdin.
pub fn run_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child =
        quorate(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    // The process may end without reading: that is for the test to judge by its exit code.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("the binary ends")
}

/// The exit code and what was said on stderr.
pub fn ended(output: &Output) -> (i32, String) {
    (output.status.code().expect("an exit code, not a signal"), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Asserts the exit code, and that stderr is one line that holds all of `parts`.
pub fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let (actual, message) = ended(output);
    assert_eq!(actual, code, "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "one line: {message:?}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn an_unknown_flag_or_command_is_wrong_usage() {
    for args in [&["--nonsense"][..], &["frobnicate"], &["session", "frobnicate"], &["dev", "--nodes", "4"], &["serve"], &[]] {
        let (code, message) = ended(&run(args));
        assert_eq!(code, 2, "{args:?}: {message}");
        assert!(!message.is_empty(), "{args:?} says why");
    }
}

#[test]
fn help_and_version_are_no_failure_and_help_names_the_exit_codes() {
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert_eq!(help.status.code(), Some(0));
    for part in ["dev", "serve", "session", "status", "3 conflict", "4 unavailable", "QUORATE_ENDPOINTS"] {
        assert!(text.contains(part), "{part:?} is not in the help");
    }
    let version = run(&["--version"]);
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), concat!("quorate ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_into_a_closed_pipe_ends_quietly() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = quorate(&["--help"]).stdout(writer).stderr(Stdio::piped()).output().expect("the binary runs");
    assert_eq!(ended(&output), (0, String::new()));
}

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(ended(&output), (0, String::new()), "{shell}");
        assert!(script.contains("session") && script.contains("check-config"), "{shell}: {script}");
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = quorate(&["completions", "bash"]).stdout(writer).stderr(Stdio::piped()).output().expect("the binary runs");
    assert_eq!(ended(&output), (0, String::new()), "a closed pipe is no failure");
}

#[test]
fn a_log_filter_that_is_none_is_wrong_usage() {
    let output = quorate(&["status"]).env("QUORATE_LOG", "loud=[").output().expect("the binary runs");
    assert_refused(&output, 2, &["QUORATE_LOG"]);
}
