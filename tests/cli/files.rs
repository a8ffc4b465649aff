//! Files that commands write: whole or not there, for the owner alone, nothing that exists is touched, and no token is lost.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::cli::{assert_refused, ended, quorate, run};

fn path(dir: &Path, name: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let text = path.to_str().expect("UTF-8").to_owned();
    (path, text)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a listing")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// Runs it with a stdout that takes nothing.
fn run_without_room(args: &[&str]) -> Output {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    quorate(args).stdout(full).stderr(Stdio::piped()).output().expect("the binary runs")
}

#[test]
fn a_token_that_can_not_be_shown_is_not_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, tokens) = path(dir.path(), "tokens.toml");
    let new = |name| ["token", "new", name, "--scopes", "read", "--file", tokens.as_str()];
    let lost = new("lost");
    assert_refused(&run_without_room(&lost), 1, &["can't write the output", "nothing was changed", "tokens.toml"]);
    assert_eq!(names(dir.path()), Vec::<String>::new());
    assert_eq!(ended(&run(&new("kept"))), (0, String::new()));
    assert_eq!(mode(&file), 0o600);
    let before = fs::read_to_string(&file).expect("it was made");
    assert_refused(&run_without_room(&lost), 1, &["nothing was changed"]);
    // Nobody reads it any more: that is no success either.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = quorate(&lost).stdout(writer).stderr(Stdio::piped()).output().expect("the binary runs");
    assert_refused(&output, 1, &["nothing was changed"]);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), before);
    assert_eq!(names(dir.path()), ["tokens.toml"]);
}

/// A node that runs as another user must be able to read it afterwards, and a link that a deployment made stays one.
#[test]
fn a_token_is_added_in_place_with_owner_mode_and_link_kept_whatever_was_left_beside_it() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("real")).expect("writable");
    let (file, _) = path(dir.path(), "real/tokens.toml");
    let (link, tokens) = path(dir.path(), "tokens.toml");
    let (victim, _) = path(dir.path(), "victim");
    fs::write(&victim, "victim").expect("writable");
    fs::write(&file, "# ours\n").expect("writable");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("it is ours");
    // Only root can give a file away; for others the owner is kept because there is but one.
    let is_root = std::os::unix::fs::chown(&file, Some(4711), Some(4712)).is_ok();
    symlink("real/tokens.toml", &link).expect("a link");
    symlink(&victim, dir.path().join("tokens.toml.new")).expect("a link");
    symlink(&victim, dir.path().join("real/tokens.toml.new")).expect("a link");
    let left = "tokens.toml.00112233aabbccdd.partial";
    fs::write(dir.path().join("real").join(left), "half").expect("writable");

    let output = run(&["token", "new", "a", "--scopes", "read", "--file", &tokens]);
    let (code, said) = ended(&output);
    assert_eq!((code, said.contains("rest of an interrupted run"), said.contains(left)), (0, true, true), "{said}");
    assert_eq!(ended(&run(&["token", "new", "b", "--scopes", "read", "--file", &tokens])), (0, String::new()));
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    let text = fs::read_to_string(&file).expect("it is there");
    assert!(text.starts_with("# ours\n") && text.contains("\"a\"") && text.contains("\"b\""), "{text}");
    assert_eq!(mode(&file), 0o640);
    if is_root {
        use std::os::unix::fs::MetadataExt as _;
        let found = fs::metadata(&file).expect("it is there");
        assert_eq!((found.uid(), found.gid()), (4711, 4712));
    }
    assert_eq!(fs::read_to_string(&victim).expect("it is there"), "victim");
    assert_eq!(names(&dir.path().join("real")), ["tokens.toml", "tokens.toml.new"]);
}

/// Typed by root, a new file is root's alone, and nodes that run as another user could not start.
#[test]
fn a_new_file_of_tokens_in_another_users_directory_says_who_can_read_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, tokens) = path(dir.path(), "tokens.toml");
    let is_root = std::os::unix::fs::chown(dir.path(), Some(4711), None).is_ok();
    let new = |name: &str| ended(&run(&["token", "new", name, "--scopes", "read", "--file", &tokens]));
    let (code, said) = new("first");
    assert_eq!((code, said.contains("chown") && said.contains("directory_owner=4711")), (0, is_root), "{said}");
    assert_eq!(new("second"), (0, String::new()), "its former owner knows");
}

#[test]
fn a_file_of_tokens_that_is_none_is_named_and_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, tokens) = path(dir.path(), "tokens.toml");
    let new = || run(&["token", "new", "a", "--scopes", "read", "--file", &tokens]);
    for (bytes, part) in [(&b"[[tokne]]\n"[..], "unknown field"), (b"\xff", "no text")] {
        fs::write(&file, bytes).expect("writable");
        assert_refused(&new(), 2, &[part, "nothing was changed", "tokens.toml"]);
        assert_eq!(fs::read(&file).expect("it is there"), bytes);
    }
    fs::remove_file(&file).expect("it is there");
    symlink("nowhere", &file).expect("a link");
    assert_refused(&new(), 2, &["a link to a file that is not there", "nothing was changed"]);
    fs::remove_file(&file).expect("it is there");
    fs::create_dir(&file).expect("writable");
    assert_refused(&new(), 2, &["no regular file", "nothing was changed"]);
    let nowhere = run(&["token", "new", "a", "--scopes", "read", "--file", "/nonexistent/tokens.toml"]);
    assert_refused(&nowhere, 2, &["/nonexistent/tokens.toml", "nothing was changed"]);
}

/// All or none: a certificate that is there already stops the others too.
#[test]
fn certificates_are_made_all_or_none_and_keys_are_for_the_owner_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (certs, text) = path(dir.path(), "certs");
    fs::create_dir(&certs).expect("writable");
    symlink("nowhere", certs.join("node-3.pem")).expect("a link");
    assert_refused(&run(&["cert", "dev", &text]), 2, &["already", "nothing was written", "node-3.pem"]);
    assert_eq!(names(&certs), ["node-3.pem"]);
    fs::remove_file(certs.join("node-3.pem")).expect("it is there");
    let made = run(&["cert", "dev", &text, "--nodes", "1"]);
    assert_eq!(ended(&made), (0, String::new()));
    assert!(String::from_utf8_lossy(&made.stdout).contains("a CA, a certificate for node 1, and one for a client"));
    assert_eq!(names(&certs), ["ca-key.pem", "ca.pem", "client-key.pem", "client.pem", "node-1-key.pem", "node-1.pem"]);
    for name in names(&certs).iter().filter(|name| name.ends_with("-key.pem")) {
        assert_eq!(mode(&certs.join(name)), 0o600, "{name}");
    }
    let further = run(&["cert", "dev", &text, "--nodes", "4"]);
    assert_eq!(String::from_utf8_lossy(&further.stdout).trim(), format!("{text}: a certificate for node 4"));
}

#[test]
fn tokens_are_shown_tested_and_revoked_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, tokens) = path(dir.path(), "tokens.toml");
    fs::write(&file, "# ours\n").expect("writable");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("it is ours");
    let new = |args: &[&str]| {
        let output = run(&[&["token", "new"][..], args, &["--file", &tokens]].concat());
        assert_eq!(ended(&output), (0, String::new()));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let agents = new(&["agents", "--scopes", "write,read", "--prefix", "a/", "--prefix", "b\u{1b}/"]);
    let operator = new(&["operator", "--scopes", "admin", "--ttl", "1h"]);
    let before = fs::read_to_string(&file).expect("it is there");

    let shown = run(&["token", "ls", "--file", &tokens]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(ended(&shown), (0, String::new()));
    for part in ["agents", "read,write", "a/ b\\u{1b}/", "never", "operator", "admin", "all ids"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("qrt_") && !text.contains(&before.split("sha256 = \"").nth(1).expect("a hash")[..64]), "{text}");
    let shown = run(&["token", "ls", "--file", &tokens, "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["tokens"][0]["prefixes"], serde_json::json!(["a/", "b\u{1b}/"]));
    assert_eq!((&shown["tokens"][1]["name"], &shown["tokens"][1]["expired"]), (&"operator".into(), &false.into()));

    let test = |token: &str, more: &[&str]| {
        let args = [&["token", "test", "--file", &tokens][..], more].concat();
        quorate(&args).env("QUORATE_TOKEN", token).output().expect("the binary runs")
    };
    let tested = test(&agents, &["--id", "a/1"]);
    let text = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(text.contains("agents") && text.contains("that id   yes"), "{text}");
    let tested = test(&agents, &["--id", "c", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&tested.stdout).expect("JSON");
    assert_eq!((&document["covers_id"], &document["scopes"]), (&false.into(), &serde_json::json!(["read", "write"])));
    assert_refused(&test("qrt_wrong", &[]), 1, &["does not know this token", "tokens.toml"]);
    assert_refused(&run(&["token", "test", "--file", &tokens]), 2, &["no token to be tested", "QUORATE_TOKEN"]);
    let year = before.find("expires = \"").expect("it ends") + "expires = \"".len();
    fs::write(&file, format!("{}2001{}", &before[..year], &before[year + 4..])).expect("writable");
    assert_refused(&test(&operator, &[]), 1, &["no longer valid", "operator"]);
    fs::write(&file, &before).expect("writable");

    assert_refused(&run(&["token", "revoke", "nobody", "--file", &tokens]), 2, &["no token of this name", "nothing was changed"]);
    assert_refused(
        &run(&["token", "revoke", "agents", "--file", "/nonexistent/tokens"]),
        2,
        &["/nonexistent/tokens", "nothing was changed"],
    );
    assert_eq!(fs::read_to_string(&file).expect("it is there"), before);
    let revoked = run(&["token", "revoke", "operator", "--file", &tokens]);
    assert_eq!(String::from_utf8_lossy(&revoked.stdout).trim(), format!("revoked name=operator left=1 file={tokens}"));
    assert_refused(&test(&operator, &[]), 1, &["does not know this token"]);
    assert_eq!(test(&agents, &[]).status.code(), Some(0));
    let after = fs::read_to_string(&file).expect("it is there");
    assert!(before.starts_with(&after) && after.starts_with("# ours\n"), "only its lines went: {after}");
    assert_eq!(mode(&file), 0o640);
    // What was done is done, whether or not it is read of.
    let output = run_without_room(&["token", "revoke", "agents", "--file", &tokens]);
    assert_refused(&output, 1, &["revoked name=agents left=0", "only the result is not shown"]);
    assert_refused(&test(&agents, &[]), 1, &["does not know this token"]);
}
