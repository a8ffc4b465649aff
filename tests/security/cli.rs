//! From nothing to three secured nodes with the command line alone, and what their logs then hold.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use crate::security::nodes::Nodes;
use crate::security::wire;

fn quorate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).stdin(Stdio::null()).output().expect("the binary under test")
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn done(output: Output) -> String {
    let (code, out, err) = text(&output);
    assert_eq!(code, Some(0), "{out}{err}");
    out
}

async fn served(nodes: &Nodes, args: &[&str], token: &str) -> String {
    done(nodes.answer(args, token).await)
}

fn open_to_all(path: &str, open: bool) {
    let mode = if open { 0o644 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[track_caller]
fn refused(output: Output, parts: &[&str]) {
    let (code, out, err) = text(&output);
    assert_ne!(code, Some(0), "{out}");
    assert!(parts.iter().all(|part| err.contains(part)), "{parts:?} are not in {err}");
    assert!(!err.contains("tokensecret"), "{err}");
}

#[track_caller]
fn assert_holds_no_secret(what: &str, text: &str) {
    let as_numbers = b"contentsecret".iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    for secret in ["idsecret", "contentsecret", "tokensecret", "PRIVATE KEY", &as_numbers] {
        let found = text.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{what} holds {secret}");
    }
}

#[tokio::test]
async fn three_secured_nodes_serve_the_command_line_and_log_nothing_secret() {
    let nodes = Nodes::start(3, "trace").await;
    let file = nodes.path("content");
    std::fs::write(&file, "contentsecret of a session").expect("a writable directory");
    let file = file.to_str().expect("UTF-8");
    let (writer, admin) = ("tokensecret-writer", "tokensecret-admin");
    for endpoint in nodes.endpoints() {
        // Two of the three forward.
        served(&nodes, &["session", "put", "a/idsecret", "--file", file, "--endpoints", &endpoint], writer).await;
        let got = served(&nodes, &["session", "get", "a/idsecret", "--endpoints", &endpoint], writer).await;
        assert_eq!(got, "contentsecret of a session");
        refused(nodes.answer(&["session", "get", "b/idsecret", "--endpoints", &endpoint], writer).await, &["other beginnings"]);
    }
    assert!(served(&nodes, &["session", "ls", "--prefix", "a/"], writer).await.contains("a/idsecret"));
    nodes.until("a leader is shown", async || served(&nodes, &["status"], admin).await.contains("leader")).await;
    let backup = nodes.path("backup");
    served(&nodes, &["snapshot", "save", backup.to_str().expect("UTF-8")], admin).await;
    refused(nodes.answer(&["status"], writer).await, &["lacks a scope", "needs=admin"]);
    refused(nodes.answer(&["session", "get", "a/idsecret"], "tokensecret-unknown").await, &["not known here"]);
    let tested = async |token, id| {
        let text = served(&nodes, &["token", "test", "--id", id, "-o", "json"], token).await;
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let scopes = |read, write, list, admin| serde_json::json!({ "read": read, "write": write, "list": list, "admin": admin });
    assert_eq!(tested(writer, "a/idsecret").await, scopes(true, true, true, false));
    assert_eq!(tested(writer, "b/idsecret").await, scopes(false, false, false, false));
    assert_eq!(tested(admin, "a/idsecret").await, scopes(false, false, true, true));
    let got = served(&nodes, &["session", "get", "a/idsecret"], writer).await;
    assert_eq!(got, "contentsecret of a session", "trying a token changes nothing");
    refused(nodes.answer(&["token", "test"], "tokensecret-unknown").await, &["not known here"]);
    let shown = [
        served(&nodes, &["events", "-o", "json"], admin).await,
        served(&nodes, &["status", "-o", "json"], admin).await,
        served(&nodes, &["member", "list", "-o", "json"], admin).await,
        text(&nodes.answer(&["doctor", "-o", "json"], admin).await).1,
    ];
    assert_holds_no_secret("what an operator is shown", &shown.concat());
    served(&nodes, &["session", "rm", "a/idsecret"], writer).await;
    for node in 1..=3 {
        let log = nodes.log(node);
        // By the umask of who runs the tests.
        if std::fs::metadata(nodes.path(&format!("node-{node}-key.pem"))).expect("it is there").permissions().mode() & 0o004 != 0 {
            assert!(log.contains("every user of this machine may read the private key: chmod o-rwx "), "it warns");
        }
        assert!(log.contains("TRACE") && log.lines().count() > 100, "it logs everything");
        assert_holds_no_secret(&format!("the log of node {node}"), &log);
        for path in ["/metrics", "/readyz?verbose", "/version", "/api/status"] {
            let (code, text) = wire::get(&nodes.admin_address(node), &nodes.ca, path, Some(admin)).await;
            assert!(matches!(code, 200 | 503), "{path}: {text}");
            assert_holds_no_secret(path, &text);
        }
    }
}

#[test]
fn throw_away_certificates_and_tokens_make_a_configuration_that_is_good() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let made = done(quorate(&["cert", "dev", &path("certs")]));
    for part in ["[tls]", "[auth]", "quorate serve", "quorate session put", "QUORATE_CA="] {
        assert!(made.contains(part), "{part} is not in {made}");
    }
    let tokens = path("tokens.toml");
    let token =
        done(quorate(&["token", "new", "me", "--scopes", "read,write", "--prefix", "a/", "--ttl", "1h", "--file", &tokens]));
    assert!(token.starts_with("qrt_") && token.trim().len() == 68, "{}", token.len());
    let file = std::fs::read_to_string(&tokens).expect("it was made");
    assert!(!file.contains(token.trim()) && file.contains("name = \"me\"") && file.contains("expires = "), "{file}");
    refused(quorate(&["token", "new", "me", "--scopes", "read", "--file", &tokens]), &["its name or its hash is also that of"]);
    let before = std::fs::read(path("certs/ca.pem")).expect("it was made");
    refused(quorate(&["cert", "dev", &path("certs")]), &["already", "nothing was written", "node-1-key.pem"]);
    let more = done(quorate(&["cert", "dev", &path("certs"), "--nodes", "4,5"]));
    assert_eq!(more.trim(), format!("{}: certificates for nodes 4, 5", path("certs")));
    assert_eq!(std::fs::read(path("certs/ca.pem")).expect("it was made"), before, "nothing is overwritten");

    let certs = path("certs");
    let config = format!(
        "name = \"x\"\n[[node]]\nid = 1\nclient = \"192.0.2.1:1\"\npeer = \"127.0.0.1:2\"\nadmin = \"192.0.2.1:3\"\n\
         [tls]\ncert = \"{certs}/node-{{node}}.pem\"\nkey = \"{certs}/node-{{node}}-key.pem\"\nca = \"{certs}/ca.pem\"\n\
         [auth]\ntokens = \"{tokens}\"\n"
    );
    let check = |config: &str, more: &[&str]| {
        std::fs::write(path("cluster.toml"), config).expect("a writable directory");
        quorate(&[&["serve", "--check-config", "--node", "1", "--config", &path("cluster.toml")], more].concat())
    };
    let checked = check(&config, &[]);
    assert_eq!(text(&checked).2, "", "what was made for its owner alone is nothing to warn of");
    done(checked);
    for (name, what) in [("certs/node-1-key.pem", "the private key"), ("tokens.toml", "the file of tokens")] {
        open_to_all(&path(name), true);
        let (code, _, warned) = text(&check(&config, &[]));
        assert!(code == Some(0) && warned.contains(what) && warned.contains(name) && warned.contains("mode=0644"), "{warned}");
        open_to_all(&path(name), false);
    }
    refused(check(&config.replace("127.0.0.1:2", "10.9.8.7:2"), &[]), &["no member's", "host=10.9.8.7"]);
    refused(check(&config.replace("{node}-key", "2-key"), &[]), &["not that of the certificate", "node-1.pem"]);
    refused(check(&config.replace("node-{node}", "client"), &[]), &["no member's"]);
    refused(check(&config.replace("node-{node}", "node-2"), &[]), &["another node's", "named={2} node=1", "node-2.pem"]);
    refused(check(&config, &["--tls-ca", &path("certs/client-key.pem")]), &["no certificate in PEM", "client-key.pem"]);
    refused(check(&config, &["--tokens", &path("none.toml")]), &["can't read", "none.toml"]);
    let open = config.split("[tls]").next().expect("the first part");
    refused(check(open, &[]), &["client=192.0.2.1:1", "[tls]", "--insecure"]);
    done(check(open, &["--insecure"]));
    refused(check(&format!("{open}[auth]\ntokens = \"{tokens}\"\n"), &["--insecure"]), &["[auth] needs [tls]"]);
}
