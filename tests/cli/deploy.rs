//! The files operators install: they must fit the binary and the metrics of this version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::cli::{ended, run};

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
    let mounted = compose.matches("\"./compose.toml:/etc/quorate/cluster.toml:ro,z\"").count();
    assert_eq!(mounted, 3, "each node has the configuration where its image looks for it");
    assert!(read("scripts/deploy/Dockerfile").contains("ENV QUORATE_CONFIG=/etc/quorate/cluster.toml"));
    let path = format!("{}/scripts/deploy/compose.toml", env!("CARGO_MANIFEST_DIR"));
    for node in ["1", "2", "3"] {
        let command = compose
            .lines()
            .find_map(|line| line.trim().strip_prefix("command: [").filter(|line| line.contains(&format!("\"{node}\""))));
        let command = command.expect("each node has a command").trim_end_matches(']').replace('"', "");
        let mut words: Vec<&str> = command.split(", ").collect();
        words.extend(["--config", &path, "--check-config"]);
        assert_eq!(ended(&run(&words)), (0, String::new()), "{words:?}");
    }
    // Each address that people use is published, at the port it names, and asked by the health check.
    let config: toml::Table = read("scripts/deploy/compose.toml").parse().expect("TOML");
    for node in config["node"].as_array().expect("nodes") {
        for key in ["client", "admin"] {
            let port = node[key].as_str().and_then(|address| address.strip_prefix("localhost:")).expect("this machine");
            assert!(compose.contains(&format!("\"127.0.0.1:{port}:{port}\"")), "{key} {port} is not published");
            assert_eq!(node[format!("{key}_listen")].as_str(), Some(&format!("0.0.0.0:{port}")[..]));
        }
        let admin = node["admin"].as_str().expect("text").replace("localhost", "127.0.0.1");
        assert!(compose.contains(&format!("QUORATE_ADMIN: \"{admin}\"")), "{admin} is not asked");
    }
    assert!(
        !compose.contains("restart: unless-stopped") && !compose.contains("restart: always"),
        "a removed node would run for ever"
    );
}

/// The instructions of the Dockerfile, each with the lines it goes on for.
fn instructions() -> Vec<String> {
    let text = read("scripts/deploy/Dockerfile").replace("\\\n", " ");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_image_is_built_of_what_is_sent_and_of_no_more() {
    let kept: BTreeSet<String> =
        read(".dockerignore").lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect();
    assert!(read(".dockerignore").lines().any(|line| line == "*"), "all else stays here");
    for name in ["target", ".git", "quorate-data", "tests"] {
        assert!(!kept.contains(name), "{name} is sent");
    }
    let instructions = instructions();
    let copied = instructions.iter().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    for source in copied.flat_map(|line| line.split(' ').rev().skip(1)).filter(|source| *source != ".") {
        assert!(kept.contains(source.split('/').next().unwrap_or_default()), "{source} is not sent");
        assert!(top().join(source).exists(), "there is no {source}");
    }
    // What `include_str!` and the manifest name.
    for name in ["README.md", "src", "Cargo.toml", "Cargo.lock", ".cargo", "build.rs", "benches"] {
        assert!(kept.contains(name) && top().join(name).exists(), "{name}");
    }
    let strips = instructions.iter().any(|line| line.contains("scripts/deploy/dist.sh")) && kept.contains("scripts/deploy/dist.sh");
    assert!(strips, "the binary has 105 MB of debug information");
    let probe = instructions.iter().find_map(|line| line.split_once(" CMD ").filter(|_| line.starts_with("HEALTHCHECK")));
    let probe: Vec<String> = serde_json::from_str(probe.expect("a health check").1).expect("a list of words");
    assert_eq!(probe[0], "quorate");
    let words: Vec<&str> = probe[1..].iter().map(String::as_str).chain(["--help"]).collect();
    assert_eq!(ended(&run(&words)), (0, String::new()), "{words:?}");
}

/// The layer of dependencies is compiled with empty sources: what stands there must be a package to cargo.
#[test]
fn the_layer_of_dependencies_is_a_package_that_cargo_takes() {
    let dir = tempfile::tempdir().expect("a directory");
    let shell = |line: &str, place: &Path| {
        let output = Command::new("sh").args(["-ec", line]).current_dir(place).output().expect("a shell");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let instructions = instructions();
    let layer = instructions.iter().take_while(|line| !line.contains("cargo build"));
    for line in layer {
        match line.split_once(' ') {
            Some(("COPY", what)) => {
                let (sources, target) = what.rsplit_once(' ').expect("from and to");
                for source in sources.split(' ') {
                    let target = if target == "./" { source } else { target };
                    let to = dir.path().join(target);
                    std::fs::create_dir_all(to.parent().expect("a parent")).expect("writable");
                    shell(&format!("cp -r '{}' '{}'", top().join(source).display(), to.display()), top());
                }
            }
            Some(("RUN", command)) => shell(command, dir.path()),
            _ => {}
        }
    }
    let metadata = ["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(metadata).current_dir(dir.path()).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let package: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names = package.to_string();
    assert!(
        names.contains("src/bin/quorate/main.rs") && names.contains("src/lib.rs") && names.contains("base2histogram"),
        "{names}"
    );
}
