//! The files operators install: they must fit the binary and the metrics of this version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{ended, run};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The unit with our binary and configuration in place of the installed ones, under its own name as systemd wants it.
fn installed_unit(dir: &Path) -> PathBuf {
    let unit = read("scripts/deploy/quorate.service")
        .replace("/usr/local/bin/quorate", env!("CARGO_BIN_EXE_quorate"))
        .replace("/etc/quorate/node.env", "-/nonexistent/node.env");
    let path = dir.join("quorate.service");
    std::fs::write(&path, unit).expect("a writable directory");
    path
}

#[test]
fn the_unit_starts_a_command_that_this_binary_takes() {
    let unit = read("scripts/deploy/quorate.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
    let config = top().join("cluster.toml");
    let line = line.replace("/etc/quorate/cluster.toml", config.to_str().expect("UTF-8")).replace("${QUORATE_NODE}", "2");
    let words: Vec<&str> = line.split_whitespace().skip(1).chain(["--check-config"]).collect();
    let output = run(&words);
    assert_eq!(ended(&output), (0, String::new()), "{words:?}");
    assert!(unit.contains("Type=notify"), "the node says when it is ready");
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let verify = |path: &Path| -> Option<Output> { Command::new("systemd-analyze").arg("verify").arg(path).output().ok() };
    let dir = tempfile::tempdir().expect("a directory");
    let unit = installed_unit(dir.path());
    let Some(output) = verify(&unit) else {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("quorate.service"), "{}", String::from_utf8_lossy(&output.stderr));
    // The control: a verdict that is always good would show nothing.
    let broken = read("scripts/deploy/quorate.service").replace("Type=notify", "Type=notified");
    std::fs::write(&unit, broken).expect("a writable directory");
    let output = verify(&unit).expect("it ran before");
    assert!(String::from_utf8_lossy(&output.stderr).contains("notified"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names like `quorate_term` in a text, without what Prometheus appends to histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    text.split(|c| !is_name(c))
        .filter(|word| word.len() > "quorate_".len() && word.starts_with("quorate_"))
        .map(|word| ["_bucket", "_sum", "_count"].iter().fold(word, |word, end| word.strip_suffix(end).unwrap_or(word)).to_owned())
        .collect()
}

#[test]
fn dashboard_alerts_and_docs_speak_of_the_metrics_there_are() {
    let exported = metrics_in(&read("src/server/metrics.rs"));
    assert!(exported.len() > 20, "{exported:?}");
    for path in ["scripts/deploy/grafana.json", "scripts/deploy/alerts.yaml", "src/docs/metrics.md"] {
        let unknown: Vec<_> = metrics_in(&read(path)).difference(&exported).cloned().collect();
        assert_eq!(unknown, [""; 0], "{path} names what is not exported");
    }
    let explained = metrics_in(&read("src/docs/metrics.md"));
    assert_eq!(exported.difference(&explained).collect::<Vec<_>>(), [""; 0], "src/docs/metrics.md must explain every metric");
    let dashboard: serde_json::Value = serde_json::from_str(&read("scripts/deploy/grafana.json")).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
}

#[test]
fn the_composed_cluster_has_a_configuration_this_binary_takes() {
    let compose = read("scripts/deploy/compose.yaml");
    let (_, content) = compose.split_once("content: |\n").expect("the configuration is within");
    let config: String = content.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cluster.toml");
    std::fs::write(&path, config).expect("a writable directory");
    for node in ["1", "2", "3"] {
        let command = compose
            .lines()
            .find_map(|line| line.trim().strip_prefix("command: [").filter(|line| line.contains(&format!("\"{node}\""))));
        let command = command.expect("each node has a command").trim_end_matches(']').replace('"', "");
        let mut words: Vec<&str> = command.split(", ").collect();
        words.extend(["--config", path.to_str().expect("UTF-8"), "--check-config"]);
        assert_eq!(ended(&run(&words)), (0, String::new()), "{words:?}");
    }
}
