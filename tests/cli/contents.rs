//! What was stored comes back as it was, and commands over many sessions, on a cluster of real processes.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::cli::dev::{Dev, signal};
use crate::cli::{ended, quorate};

/// All of it, on one cluster.
pub fn are_kept(dev: &Dev, dir: &Path) {
    json_is_the_text_it_was(dev, dir);
    a_depth_that_was_taken_is_exported_and_imported(dev, dir);
    a_session_that_is_not_there_has_an_exit_code(dev);
    sizes_are_the_users_bytes(dev);
    parts_are_printed(dev);
    several_are_listed_and_deleted(dev);
    an_interrupted_import_says_how_many(dev);
}

const MESSAGES: &str =
    r#"[{"wei":19876543210987654321,"score":0.22804233599890722},{"b":1,"a":2,"b":1e999},"\ud800",{ "x" : 1.0 }]"#;

/// The same text through every command that shows or moves it; the file may come from stdin.
fn json_is_the_text_it_was(dev: &Dev, dir: &Path) {
    let text = format!(r#"{{"z":7.10,"messages":{MESSAGES},"a":{{"k":1,"k":2}}}}"#);
    let pretty = "{\n  \"messages\": [\n    {\n      \"n\": 0.10,\n      \"n\": 1\n    }\n  ]\n}\n";
    dev.ok(&["session", "put", "exact/one"], text.as_bytes());
    dev.ok(&["session", "cas", "exact/two", "--expect", "0"], pretty.as_bytes());
    let is_kept = || {
        let one = dev.ok(&["session", "get", "exact/one"], b"");
        assert_eq!(String::from_utf8_lossy(&one), format!("{text}\n"));
        let two = dev.ok(&["session", "get", "exact/two"], b"");
        assert_eq!(String::from_utf8_lossy(&two), "{\"messages\":[{\n      \"n\": 0.10,\n      \"n\": 1\n    }]}\n");
    };
    is_kept();
    let json = String::from_utf8(dev.ok(&["session", "get", "exact/one", "-o", "json"], b"")).expect("text");
    assert!(json.contains(&format!(r#""state":{text}"#)) && json.starts_with(r#"{"found":true,"#), "{json}");

    let file = dir.join("exact.jsonl");
    let file = file.to_str().expect("UTF-8");
    let exported = dev.run(&["session", "export", "--prefix", "exact/", "--file", file], b"");
    assert!(ended(&exported).0 == 0 && ended(&exported).1.contains("sessions=2"), "{exported:?}");
    let lines = std::fs::read(file).expect("written");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 2, "one line each");
    assert_ne!(ended(&dev.run(&["session", "export", "--file", file], b"")).0, 0, "it is not written over");
    assert_eq!(std::fs::read(file).expect("as it was"), lines);
    dev.ok(&["session", "rm", "exact/one", "exact/two"], b"");
    let imported = dev.json(&["session", "import", "-"], &lines);
    assert_eq!((imported["imported"].as_u64(), imported["refused"].as_u64()), (Some(2), Some(0)));
    is_kept();
}

fn a_depth_that_was_taken_is_exported_and_imported(dev: &Dev, dir: &Path) {
    let file = dir.join("deep.jsonl");
    for depth in [126, 127, 128, 1000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        let text = format!(r#"{{"messages":[{deep}]}}"#);
        dev.ok(&["session", "put", "deep"], text.as_bytes());
        let lines = dev.ok(&["session", "export", "deep"], b"");
        std::fs::write(&file, lines).expect("written");
        dev.ok(&["session", "rm", "deep"], b"");
        assert_eq!(dev.json(&["session", "import", file.to_str().expect("UTF-8")], b"")["imported"], 1, "{depth}");
        assert_eq!(String::from_utf8_lossy(&dev.ok(&["session", "get", "deep"], b"")), format!("{text}\n"));
    }
}

fn a_session_that_is_not_there_has_an_exit_code(dev: &Dev) {
    for more in [&[][..], &["--info"], &["--stale"]] {
        let (code, message) = ended(&dev.run(&[&["session", "get", "nope"], more].concat(), b""));
        assert!(code == 5 && message.contains("there is no such session id=nope"), "{code} {message}");
    }
    let output = dev.run(&["session", "get", "nope", "-o", "json"], b"");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((ended(&output).0, &document["found"]), (5, &Value::Bool(false)));
    assert_eq!(ended(&dev.run(&["session", "export", "nope"], b"")).0, 5);
    let none = dev.run(&["session", "rm", "nope"], b"");
    assert_eq!((ended(&none).0, &none.stdout[..]), (0, &b"nothing to delete\n"[..]));
}

fn sizes_are_the_users_bytes(dev: &Dev) {
    dev.ok(&["session", "put", "size/six"], b"hello\n");
    dev.ok(&["session", "put", "size/zero"], b"");
    assert_eq!(dev.json(&["session", "get", "size/six"], b"")["raw_bytes"], 6);
    assert_eq!(dev.json(&["session", "get", "size/zero"], b"")["raw_bytes"], 0);
    let info = dev.json(&["session", "get", "size/six", "--info"], b"");
    assert_eq!((&info["raw_bytes"], &info["version"], &info["value"]), (&6.into(), &1.into(), &Value::Null));
    let plain = dev.ok(&["session", "get", "size/six", "--info"], b"");
    assert!(String::from_utf8_lossy(&plain).contains("deadline         never"), "{}", String::from_utf8_lossy(&plain));
    let listed = String::from_utf8(dev.ok(&["session", "ls", "--prefix", "size/"], b"")).expect("text");
    assert!(listed.contains(" 6 B ") && listed.contains(" 0 B "), "{listed}");
    let (code, message) = ended(&dev.run(&["session", "put", "size/large"], &noise(20_000_000)));
    assert!(code == 2 && message.contains("of at most 16 MiB") && message.contains("bytes=20000000"), "{code} {message}");
}

fn parts_are_printed(dev: &Dev) {
    dev.ok(&["session", "put", "part/t"], br#"{"messages":[0,1,2,3,4],"a":7}"#);
    dev.ok(&["session", "put", "part/v"], b"hello");
    for (args, text) in [
        (&["--last", "2"][..], r#"{"messages":[3,4],"a":7}"#),
        (&["--last", "9"], r#"{"messages":[0,1,2,3,4],"a":7}"#),
        (&["--from", "1", "--limit", "2"], r#"{"messages":[1,2],"a":7}"#),
        (&["--from", "3"], r#"{"messages":[3,4],"a":7}"#),
        (&["--from", "5"], r#"{"messages":[],"a":7}"#),
        (&["--head"], r#"{"messages":[],"a":7}"#),
    ] {
        let printed = dev.ok(&[&["session", "get", "part/t"], args].concat(), b"");
        assert_eq!(String::from_utf8_lossy(&printed), format!("{text}\n"), "{args:?}");
    }
    assert_eq!(dev.ok(&["session", "get", "part/v", "--last", "2"], b""), b"hello");
    dev.ok(&["session", "copy", "part/t", "part/copy", "--first", "2"], b"");
    assert_eq!(dev.ok(&["session", "get", "part/copy"], b""), b"{\"messages\":[0,1],\"a\":7}\n");
    assert_eq!(ended(&dev.run(&["session", "copy", "part/t", "part/copy"], b"")).0, 3);
    assert_eq!(ended(&dev.run(&["session", "copy", "nope", "part/new"], b"")).0, 5);
    several_are_printed(dev);
    what_is_idle_is_pruned(dev);
    let part = dev.ok(&["session", "get", "part/t", "--last", "2", "-o", "json"], b"");
    let document: Value = serde_json::from_slice(&part).expect("JSON");
    assert_eq!((&document["first_item"], &document["items"], &document["found"]), (&3.into(), &5.into(), &true.into()));
    assert_eq!(document["state"], serde_json::json!({ "messages": [3, 4], "a": 7 }));
    let (code, message) = ended(&dev.run(&["session", "import", "-"], &part));
    assert!(
        code == 1 && message.contains("it is a part of a session"),
        "a part is not stored in the place of the whole: {message}"
    );
}

/// By the cluster's time, which each write moves on.
fn what_is_idle_is_pruned(dev: &Dev) {
    for id in ["prune/a", "prune/b", "pruned"] {
        dev.ok(&["session", "put", id], b"x");
    }
    let prune = ["session", "prune", "--prefix", "prune/", "--idle-for"];
    let counts = |more: &[&str]| dev.json(&[&prune, more].concat(), b"");
    let none = counts(&["1h"]);
    assert_eq!((&none["seen"], &none["idle"], &none["deleted"]), (&2.into(), &0.into(), &0.into()));
    let would = dev.run(&[&prune[..], &["1ms", "--dry-run"]].concat(), b"");
    assert_eq!((ended(&would).0, &would.stdout[..]), (0, &b"prune/a\nprune/b\n"[..]));
    let would = counts(&["1ms", "--dry-run"]);
    assert_eq!((&would["would_delete"], &would["deleted"]), (&2.into(), &0.into()));
    let done = counts(&["1ms", "--rate", "1000"]);
    assert_eq!((&done["idle"], &done["deleted"], &done["changed"]), (&2.into(), &2.into(), &0.into()));
    assert_eq!(dev.ok(&["session", "ls", "--prefix", "prune", "-o", "ids"], b""), b"pruned\n");
    dev.ok(&["session", "rm", "pruned"], b"");
    let (code, message) = ended(&dev.run(&["session", "prune", "--prefix", "", "--idle-for", "1h"], b""));
    assert!(code == 2 && message.contains("every session; nothing was deleted"), "{code} {message}");
}

/// Of one instant, in the order in which they were typed.
fn several_are_printed(dev: &Dev) {
    let args = ["session", "get", "part/v", "part/none", "part/t", "-o", "json"];
    for (more, text) in [(&[][..], true), (&["--info"], false), (&["--stale"], true)] {
        let output = dev.run(&[&args, more].concat(), b"");
        let (code, message) = ended(&output);
        assert!(code == 5 && message.contains("part/none"), "{code} {message}");
        let lines: Vec<Value> =
            String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let shown: Vec<_> = lines.iter().map(|line| (line["id"].as_str().expect("an id"), &line["found"])).collect();
        assert_eq!(shown, [("part/v", &true.into()), ("part/none", &false.into()), ("part/t", &true.into())]);
        assert!(lines.iter().all(|line| line["revision"].is_u64() && line["revision"] == lines[0]["revision"]), "{lines:?}");
        assert_eq!(lines[0].get("value").is_some(), text, "{more:?}");
    }
    dev.ok(&["session", "get", "part/v", "part/t", "-o", "json"], b"");
}

/// Bytes that no compression makes less of.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn several_are_listed_and_deleted(dev: &Dev) {
    let text = |args: &[&str]| String::from_utf8(dev.ok(args, b"")).expect("text");
    for n in 0..5 {
        dev.ok(&["session", "put", &format!("many/{n}")], b"x");
    }
    let all = "many/0\nmany/1\nmany/2\nmany/3\nmany/4\n";
    assert_eq!(text(&["session", "ls", "--prefix", "many/", "-o", "ids"]), all);
    assert_eq!(text(&["session", "ls", "--prefix", "many/", "-o", "ids", "--after", "many/2"]), "many/3\nmany/4\n");
    assert_eq!(text(&["session", "ls", "--prefix", "many/", "--count"]), "5\n");
    assert_eq!(dev.json(&["session", "ls", "--prefix", "none/", "--count"], b"")["count"], 0);

    let dry = dev.run(&["session", "rm", "--prefix", "many/", "--dry-run"], b"");
    assert_eq!(String::from_utf8_lossy(&dry.stdout), all);
    assert!(ended(&dry).1.contains("nothing was deleted") && ended(&dry).1.contains("sessions=5"), "{dry:?}");
    assert_eq!(dev.json(&["session", "rm", "many/0", "nope", "--dry-run"], b"")["would_delete"], 1);
    let two = dev.json(&["session", "rm", "many/0", "many/1", "nope"], b"");
    assert_eq!((&two["deleted"], &two["absent"]), (&2.into(), &1.into()));
    assert_eq!(text(&["session", "rm", "--prefix", "many/", "--rate", "1000"]), "deleted=3 absent=0\n");
    assert_eq!(text(&["session", "ls", "--prefix", "many/", "--count"]), "0\n");
}

/// More than one page, saved up to 64 at once; the last line for an id wins. What an interrupted import says is true.
fn an_interrupted_import_says_how_many(dev: &Dev) {
    let mut lines: String = (0..1200).map(|n| format!("{{\"id\":\"bulk/{n}\",\"value\":\"{n}\"}}\n")).collect();
    lines += "{\"id\":\"bulk/7\",\"value\":\"seven\"}\n{\"id\":\"bulk/7\",\"value\":\"sieben\"}\n";
    assert_eq!(dev.json(&["session", "import", "-"], lines.as_bytes())["imported"], 1202);
    assert_eq!(dev.ok(&["session", "get", "bulk/7"], b""), b"sieben");
    assert_eq!(dev.json(&["session", "rm", "--prefix", "bulk/"], b"")["deleted"], 1200);

    let args = ["session", "import", "-", "--endpoints", &dev.endpoints];
    let mut child =
        quorate(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"{\"id\":\"cut/1\",\"value\":\"x\"}\n{\"id\":\"cut/2\",\"value\":\"x\"}\n").expect("it reads");
    while dev.ok(&["session", "ls", "--prefix", "cut/", "--count"], b"") != b"2\n" {}
    signal("-INT", child.id());
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    let (code, message) = ended(&output);
    assert!(code == 130 && message.contains("imported=2 unknown=0") && message.contains("again is safe"), "{code} {message}");
}
