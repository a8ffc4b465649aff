//! Directories that are not what they are taken for: named for what they are, refused, and nothing is made or changed in them.

use std::path::Path;

use crate::cli::serve::{Node, client_address, config, put, serve};
use crate::cli::{assert_refused, ended, run};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A node that has begun, or goes on, in `data`, and has ended again.
fn began(config: &str, data: &Path, flags: &[&str]) {
    let mut node = Node::start(config, data, &[&["--parent-pipe"], flags].concat());
    assert_eq!(ended(&put(&client_address(config), b"one")), (0, String::new()));
    drop(node.0.stdin.take());
    assert_eq!(node.0.wait().expect("it ends").code(), Some(0));
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a listing");
    let mut names: Vec<String> = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A mount point whose disk is missing is an empty directory: a node that took it for its own would draw another identity there.
#[test]
fn an_empty_directory_is_as_good_as_a_missing_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    let own = dir.path().join("data").join("1");
    for inside in [&[][..], &["lost+found"], &["lost+found", "LOCK"]] {
        std::fs::create_dir_all(&own).expect("writable");
        for name in inside {
            let _ = std::fs::create_dir(own.join(name));
        }
        let parts = ["the data directory is empty", "mount", "--bootstrap", "--join", "--data-dir", "data/1"];
        assert_refused(&serve(&path, &dir.path().join("data"), &[]), 2, &parts);
        assert_eq!(
            names(&own),
            {
                let mut names = inside.to_vec();
                names.sort_unstable();
                names
            },
            "nothing was made"
        );
    }
    std::fs::remove_dir(own.join("LOCK")).expect("it is there");
    // Asked to, it begins there, and then goes on without a flag.
    began(&path, &dir.path().join("data"), &["--bootstrap"]);
    let identity = std::fs::read(own.join("identity")).expect("it has begun");
    began(&path, &dir.path().join("data"), &[]);
    assert!(identity.starts_with(b"quorate identity 1\n"));
}

/// The one and the same node's directory, by every name that is not what a command takes.
#[test]
fn a_wrong_directory_is_named_for_what_it_is_whatever_the_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    let (data, own) = (dir.path().join("data"), dir.path().join("data").join("1"));
    began(&path, &data, &["--bootstrap"]);
    let before = names(&own);

    // Where `serve` takes the parent it is given the node's own directory, or one above the parent.
    for flags in [&[][..], &["--bootstrap"], &["--join"]] {
        let parts = ["node 1's own directory", "nothing was made", &format!("--data-dir {}", text(&data))];
        assert_refused(&serve(&path, &own, flags), 2, &parts);
        assert_refused(&serve(&path, &own.join("log"), flags), 2, &["node 1's own directory"]);
    }
    let above = dir.path().join("above");
    std::fs::create_dir(&above).expect("writable");
    std::os::unix::fs::symlink(&data, above.join("1")).expect("a link");
    assert_refused(&serve(&path, &above, &["--bootstrap"]), 2, &["a directory of each node", "above/1", "nodes=1"]);
    let photos = dir.path().join("photos");
    std::fs::create_dir_all(photos.join("1").join("2025")).expect("writable");
    assert_refused(&serve(&path, &photos, &["--bootstrap"]), 2, &["\"2025\"", "nothing of a node", "photos/1"]);
    assert_refused(&run(&["dev", "--data-dir", text(&own)]), 2, &["node 1's own directory"]);
    assert_eq!(names(&own), before, "nothing was made");
    assert_eq!(names(&photos.join("1")), ["2025"]);

    // Where `offline` and `recover` take the node's own directory.
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).expect("writable");
    let cases = [
        (dir.path().join("nope"), "there is no such directory"),
        (empty, "the directory is empty"),
        (data.clone(), "name one of them"),
        (own.join("log"), "inside node 1's own directory"),
        (photos, "no node's directory"),
        (dir.path().join("cluster.toml"), "a file and no directory"),
    ];
    let new = dir.path().join("new");
    for (wrong, part) in &cases {
        for command in ["inspect", "verify", "export"] {
            let output = run(&["offline", command, "--data-dir", text(wrong)]);
            assert_refused(&output, 1, &[part, text(wrong)]);
            assert!(!ended(&output).1.contains("wipe"), "{}", ended(&output).1);
        }
        let output = run(&["recover", "--from", text(wrong), "--config", &path, "--data-dir", text(&new), "--accept-loss"]);
        assert_refused(&output, 1, &[part, text(wrong), "nothing was changed"]);
        assert!(!ended(&output).1.contains("wipe") && !new.exists(), "{}", ended(&output).1);
    }
    // The new cluster would lie in the old node's directory.
    let output = run(&["recover", "--from", text(&own), "--config", &path, "--data-dir", text(&own), "--accept-loss"]);
    assert_refused(&output, 2, &["node 1's own directory", "nothing was changed"]);
    assert_eq!(names(&own), before, "nothing was made");

    // Its data without its identity: that is its data all the same, and maybe the last copy.
    std::fs::rename(own.join("identity"), dir.path().join("lost")).expect("it is there");
    for output in [run(&["offline", "inspect", "--data-dir", text(&own)]), serve(&path, &data, &["--bootstrap"])] {
        let (code, message) = ended(&output);
        assert!(code != 0 && message.contains("no identity") && message.contains("keep this one"), "{message}");
        assert!(!message.contains("wipe") && !own.join("identity").exists(), "{message}");
    }
}
