//! The command line without a cluster: what is refused, with which exit code, and whether the one line says how to fix it.

mod bench;
mod contents;
mod deploy;
mod dev;
mod directories;
mod files;
mod package;
mod readme;
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

/// In builds that unwind too. Here the runtime panics, before there is a task; the hook is every thread's.
#[test]
fn a_panic_ends_the_process_and_not_a_task_alone() {
    use std::os::unix::process::ExitStatusExt as _;

    let output = quorate(&["status"]).env("TOKIO_WORKER_THREADS", "0").output().expect("the binary runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.signal(), output.status.code()), (Some(6), None), "{message}");
    assert!(message.contains("panicked at"), "{message}");
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

/// What cargo runs before it compiles: a release build names the commit, or what the environment says; a debug build names none, since
/// each commit would compile all of it again.
#[test]
fn a_release_build_names_the_commit_it_is_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let (top, script) = (env!("CARGO_MANIFEST_DIR"), dir.path().join("script"));
    let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    compiler.args(["--edition", "2024", "-o"]).arg(&script).arg("build.rs").current_dir(top);
    assert!(compiler.env("CARGO_PKG_VERSION", "1.2.3").status().expect("the compiler").success());
    let said = |place: &std::path::Path, profile: &str, given: &str| {
        let mut command = Command::new(&script);
        command.current_dir(place).env("PROFILE", profile).env("QUORATE_COMMIT", given);
        let output = command.output().expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let version =
        |text: &str| text.lines().find_map(|line| line.strip_prefix("cargo:rustc-env=QUORATE_VERSION=")).map(str::to_owned);
    let top = std::path::Path::new(top);
    assert_eq!(version(&said(top, "debug", "")).as_deref(), Some("1.2.3"));
    assert_eq!(version(&said(top, "debug", "0123abc")).as_deref(), Some("1.2.3 (0123abc)"));
    assert_eq!(version(&said(top, "debug", "two words")).as_deref(), Some("1.2.3"), "that is no commit");
    assert_eq!(version(&said(dir.path(), "release", "")).as_deref(), Some("1.2.3"), "no repository is no failure");
    let head = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(top).output();
    match head.ok().filter(|output| output.status.success()) {
        Some(head) => {
            let text = said(top, "release", "");
            let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
            assert_eq!(version(&text), Some(format!("1.2.3 ({head})")));
            assert!(text.lines().any(|line| line.starts_with("cargo:rerun-if-changed=") && line.ends_with("HEAD")), "{text}");
        }
        None => eprintln!("skipped: this is no repository, or there is no git"),
    }
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
