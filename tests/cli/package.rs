//! The package, as cargo makes it of this tree: what a dependent builds, and what its documents lead to.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Above this, something has come in that nobody builds.
const BYTES_MAX: u64 = 4_000_000;

/// Cargo leaves out what has no source in the package.
const BENCH: &str = "[[bench]]\nname = \"peers\"\nharness = false\n";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Its files, by their paths in this tree. Nothing is fetched.
pub fn files() -> BTreeSet<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let list = ["package", "--list", "--locked", "--offline", "--allow-dirty"];
    let output = Command::new(cargo).args(list).current_dir(top()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let paths = String::from_utf8(output.stdout).expect("UTF-8");
    // Cargo writes these.
    let made = ["Cargo.toml.orig", ".cargo_vcs_info.json"];
    paths.lines().filter(|path| !made.contains(path)).map(PathBuf::from).collect()
}

/// Makes a directory hold it, without what cargo takes out of the manifest: the workspace, its stand-ins and the benchmark. What is the same already is
/// left alone, so that a build that was made of it still stands.
pub fn unpack(to: &Path) {
    let files = files();
    for path in &files {
        let target = to.join(path);
        let mut content = std::fs::read(top().join(path)).expect("a readable file");
        if path == Path::new("Cargo.toml") {
            let manifest = String::from_utf8(content).expect("UTF-8").replace(BENCH, "");
            content = manifest.split_once("\n[workspace]").expect("it ends with the workspace").0.as_bytes().to_vec();
        }
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a writable directory");
        if std::fs::read(&target).ok().as_ref() != Some(&content) {
            std::fs::write(target, content).expect("a writable directory");
        }
    }
    remove_others(to, to, &files);
}

/// Files of an earlier run, which could stand for what is missing now.
fn remove_others(top: &Path, dir: &Path, files: &BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            remove_others(top, &path, files);
        } else if !files.contains(path.strip_prefix(top).expect("below it")) {
            std::fs::remove_file(path).expect("a writable directory");
        }
    }
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

/// What stands between `start` and `end`, wherever it does.
fn between<'a>(text: &'a str, start: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split_once(end)).map(|(inside, _)| inside)
}

#[test]
fn the_package_holds_what_a_dependent_builds_and_reads_and_no_more() {
    let files = files();
    let read = |path: &Path| std::fs::read_to_string(top().join(path)).expect("a readable file");
    let holds = |path: &Path| files.contains(path) || files.iter().any(|file| file.starts_with(path));
    for name in
        ["Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "build.rs", "proto", "src/docs", "src/bin"]
    {
        assert!(holds(Path::new(name)), "{name} is missing");
    }
    // What the compiler reads besides modules.
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let (text, directory) = (read(path), path.parent().expect("a directory"));
        let included =
            ["include_str!(\"", "include_bytes!(\"", "include!(\""].into_iter().flat_map(|call| between(&text, call, '"'));
        for target in included {
            let target = plain(&directory.join(target));
            assert!(holds(&target), "{} includes {}, which is missing", path.display(), target.display());
        }
    }
    // What a reader is sent to.
    for page in ["README.md", "CONTRIBUTING.md"] {
        let text = read(Path::new(page));
        for link in between(&text, "](", ')').filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = link.split('#').next().unwrap_or_default();
            let repository_only = ["tests", "scripts", "benches", "findings"].iter().any(|dir| target.starts_with(dir));
            assert!(
                holds(Path::new(target)) || repository_only && page == "CONTRIBUTING.md",
                "{page} leads to {target}, which is missing"
            );
        }
    }
    for path in &files {
        let junk =
            ["tests", "benches", "findings", "target", "src/stand_ins", ".ci", ".cargo"].iter().any(|dir| path.starts_with(dir));
        assert!(!junk && !path.to_string_lossy().starts_with('.'), "{} is of no use to a dependent", path.display());
    }
    let bytes: u64 = files.iter().map(|path| std::fs::metadata(top().join(path)).expect("it is there").len()).sum();
    assert!(bytes <= BYTES_MAX, "{} files of {bytes} bytes", files.len());
}
