//! The release, and for a release build the commit, for `--version`. A debug build names none: each commit would compile it again.
//!
//! `QUORATE_COMMIT` in the environment goes first, for builds without a repository, as in a container. What can't be known is left out.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=QUORATE_COMMIT");
    let given = std::env::var("QUORATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| is_release.then(of_the_repository).flatten());
    let is_commit = |commit: &String| commit.len() <= 64 && commit.chars().all(|c| c.is_ascii_alphanumeric() || "-._+".contains(c));
    let commit = commit.filter(is_commit).map_or_else(String::new, |commit| format!(" ({commit})"));
    println!("cargo:rustc-env=QUORATE_VERSION={}{commit}", env!("CARGO_PKG_VERSION"));
}

/// The commit that is checked out, where this package is the top of a repository and not a copy inside another.
fn of_the_repository() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // Each commit, checkout and reset writes a line there.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
