//! What every signal of a cluster says at one moment, in words that hold on any machine.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::harness::Cluster;
use crate::security::wire;

/// One row of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub readyz: String,
    pub has_leader: String,
    pub status: String,
    pub page: String,
    pub stale: String,
    pub doctor: String,
    /// `None`: promtool is not here to say.
    pub alerts: Option<String>,
}

impl Row {
    /// Where no disk is part of the outage, one of this machine that is nearly full says nothing of it.
    pub fn forget_the_machines_disk(&mut self) {
        let of_the_outage = |alerts: String| {
            let names: Vec<&str> = alerts.split(", ").filter(|name| *name != "QuorateDiskFills").collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        self.alerts = self.alerts.take().map(of_the_outage);
    }
}

/// A node that is looked at, and what the table calls it.
pub type Looked<'n> = (usize, &'n str);

/// The same words once, or `name: words` for each group of nodes.
fn by_node(said: &[(&str, String)]) -> String {
    let mut groups: Vec<(Vec<&str>, &str)> = Vec::new();
    for (name, words) in said {
        match groups.iter_mut().find(|(_, known)| known == words) {
            Some((names, _)) if names.contains(name) => {}
            Some((names, _)) => names.push(name),
            None => groups.push((vec![name], words)),
        }
    }
    // Which node has which id differs from run to run.
    groups.sort();
    match &groups[..] {
        [(_, words)] => (*words).to_owned(),
        _ => groups.iter().map(|(names, words)| format!("{}: {words}", names.join(", "))).collect::<Vec<_>>().join("; "),
    }
}

/// `GET path` of a node's admin port; nothing where nobody answers.
fn get(cluster: &Cluster, node: usize, path: &str) -> Option<String> {
    let address = cluster.admin(node);
    if let Some(ca) = &cluster.ca {
        let what = format!("GET {path}");
        let (_, answer) = tokio::runtime::Handle::current().block_on(wire::ask(&address, ca, &what, None, ""));
        return answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    }
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// `ready`, or the required checks that fail; warnings behind it.
fn readiness(body: &str) -> String {
    let named =
        |mark: &str| -> Vec<&str> { body.lines().filter_map(|line| line.strip_prefix(mark)?.split_whitespace().next()).collect() };
    let (failing, warnings) = (named("[-] "), named("[!] "));
    let mut said = if failing.is_empty() { "ready".to_owned() } else { format!("not ready ({})", failing.join(", ")) };
    if !warnings.is_empty() {
        let _ = write!(said, ", warns ({})", warnings.join(", "));
    }
    said
}

/// A metric without labels.
fn gauge(metrics: &str, name: &str) -> Option<String> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
}

/// What a finding is about, without the figures and names of this run.
fn about(what: &str) -> String {
    let words = what.split_whitespace().take_while(|word| !word.contains('=') && !word.starts_with(|c: char| c.is_ascii_digit()));
    let text = words.collect::<Vec<_>>().join(" ");
    text.split([':', '(']).next().unwrap_or("").trim().to_owned()
}

/// Findings that depend on the machine that the test runs on.
fn is_of_the_machine(what: &str) -> bool {
    ["little room is left", "syncs of", "a sync of", "far behind"].iter().any(|part| what.starts_with(part))
}

fn doctor(cluster: &Cluster) -> String {
    let output = cluster.run(&["doctor", "-o", "json", "--timeout", "2s"]);
    let Ok(found) = serde_json::from_slice::<Value>(&output.stdout) else {
        return format!("exit {}", output.status.code().unwrap_or(-1));
    };
    let mut said = BTreeSet::new();
    for finding in found["findings"].as_array().into_iter().flatten() {
        let (severity, what) = (finding["severity"].as_str().unwrap_or(""), finding["what"].as_str().unwrap_or(""));
        if severity != "note" && !is_of_the_machine(what) {
            said.insert(format!("{severity}: {}", about(what)));
        }
    }
    if said.is_empty() { "nothing".to_owned() } else { said.into_iter().collect::<Vec<_>>().join("; ") }
}

/// Whether the age that `--stale` prints is one of a cluster that serves, or grows.
fn stale(cluster: &Cluster, looked: &[Looked]) -> String {
    let mut said = Vec::new();
    for (node, name) in looked {
        let output = cluster.run(&["session", "get", "kept", "--stale", "--endpoints", &cluster.endpoints()[node - 1]]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = match output.status.code() {
            Some(0) => match message.split_once("until ").and_then(|(_, rest)| rest.split_once(" ago")).map(|(age, _)| age) {
                // Three election timeouts and more are no pause between two heartbeats.
                Some(age) if humantime_s(age).is_some_and(|age| age < 6.0) => "an age near 0".to_owned(),
                Some(_) => "an age that grows".to_owned(),
                None => "no age".to_owned(),
            },
            code => format!("exit {}", code.unwrap_or(-1)),
        };
        said.push((*name, words));
    }
    by_node(&said)
}

/// `3s`, `1m 2s`, `250ms`.
fn humantime_s(text: &str) -> Option<f64> {
    let mut total = 0.0;
    for part in text.split_whitespace() {
        let unit = part.find(|c: char| c.is_ascii_alphabetic())?;
        let number: f64 = part[..unit].parse().ok()?;
        total += number
            * match &part[unit..] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" | "day" | "days" => 86400.0,
                _ => 1e9,
            };
    }
    Some(total)
}

/// The alerts of the shipped rules that would fire if this went on for a quarter of an hour, by Prometheus' own word.
fn alerts(scraped: &[(usize, Option<String>)]) -> Option<String> {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/deploy/alerts.yaml");
    let mut text = format!("rule_files: [{rules}]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n");
    for (node, metrics) in scraped {
        let up = u8::from(metrics.is_some());
        let _ = writeln!(text, "      - series: 'up{{job=\"quorate\",instance=\"node-{node}\"}}'\n        values: '{up}x20'");
        for line in metrics.iter().flat_map(|metrics| metrics.lines()).filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            // `NaN` is no value that promtool's tests can hold.
            let Some(value) = value.parse::<f64>().ok().filter(|value| value.is_finite()) else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}');
            let comma = if labels.is_empty() { "" } else { "," };
            let series = format!("{name}{{{labels}{comma}job=\"quorate\",instance=\"node-{node}\"}}");
            let _ = writeln!(text, "      - series: '{series}'\n        values: '{value}x20'");
        }
    }
    text += "    promql_expr_test:\n      - expr: ALERTS{alertstate=\"firing\"}\n        eval_time: 15m\n        exp_samples: []\n";
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    std::fs::write(file.path(), text).expect("a writable file");
    let output = match Command::new("promtool").args(["test", "rules"]).arg(file.path()).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("QUORATE_PROMTOOL_REQUIRED").is_none(), "promtool: {error}");
            println!("SKIPPED: which alerts fire: promtool: {error}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let names = said.split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let names: BTreeSet<&str> = names.filter(|name| !["QuorateSlowSyncs", "QuorateFollowerBehind"].contains(name)).collect();
    // An error of the question is no alert.
    assert!(output.status.success() || said.contains("alertname="), "{said}");
    Some(if names.is_empty() { "none".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") })
}

/// Asks everything once.
pub fn look(cluster: &Cluster, count: usize, looked: &[Looked]) -> Row {
    let said = |path: &str, words: &dyn Fn(&str) -> String| {
        let of = looked.iter().filter_map(|(node, name)| get(cluster, *node, path).map(|body| (*name, words(&body))));
        by_node(&of.collect::<Vec<_>>())
    };
    let page = |body: &str| {
        let status: Value = serde_json::from_str(body).unwrap_or_default();
        let leads = status["nodes"].as_array().into_iter().flatten().any(|node| node["role"] == "leader");
        if leads { "a leader" } else { "no leader" }.to_owned()
    };
    let scraped: Vec<(usize, Option<String>)> = (1..=count)
        .map(|node| (node, looked.iter().any(|(at, _)| *at == node).then(|| get(cluster, node, "/metrics")).flatten()))
        .collect();
    Row {
        readyz: said("/readyz?verbose", &readiness),
        has_leader: said("/metrics", &|body| gauge(body, "quorate_has_leader").unwrap_or_else(|| "no figure".to_owned())),
        status: format!("exit {}", cluster.run(&["status", "--timeout", "2s"]).status.code().unwrap_or(-1)),
        page: said("/api/status", &page),
        stale: stale(cluster, looked),
        doctor: doctor(cluster),
        alerts: alerts(&scraped),
    }
}

#[test]
fn figures_and_names_of_one_run_are_left_out() {
    assert_eq!(about("a majority is missing answering=1 members=3: no writes"), "a majority is missing");
    assert_eq!(about("check leader fails no quorum: no leader is known"), "check leader fails no quorum");
    assert_eq!(by_node(&[("leader", "1".into()), ("others", "0".into()), ("others", "0".into())]), "leader: 1; others: 0");
    assert_eq!(by_node(&[("a", "1".into()), ("b", "1".into())]), "1");
    assert_eq!(readiness("[+] storage\n[-] leader no quorum\n[!] disk low\nnot ready\n"), "not ready (leader), warns (disk)");
    assert_eq!(humantime_s("1m 2s 500ms"), Some(62.5));
    for (fire, stay) in [("QuorateDiskFills", "none"), ("QuorateDiskFills, QuorateNodeDown", "QuorateNodeDown"), ("none", "none")] {
        let mut row = Row { alerts: Some(fire.to_owned()), ..Row::default() };
        row.forget_the_machines_disk();
        assert_eq!(row.alerts.as_deref(), Some(stay));
    }
}
