//! What the README has a reader type, typed: three secured nodes, one killed, one in its place, a backup, another cluster made of it, the
//! page. The text is read from the README, so that the two can't differ.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use quorate::testing::processes::Ports;
use tempfile::TempDir;

use crate::security::nodes::PATIENCE;
use crate::security::wire;

/// A fenced block of the text.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    language: &'a str,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) if !is_within => blocks.push(Block { language, lines: Vec::new() }),
            Some(_) => {}
            None if is_within => blocks.last_mut().expect("it has begun").lines.push(line),
            None => continue,
        }
        is_within ^= line.starts_with("```");
    }
    blocks
}

/// The reader, and the hosts of the text: each is a loopback address of its own.
struct Reader {
    dir: TempDir,
    ports: Ports,
    /// What holds for every line after it.
    prelude: String,
    /// Processes by the host they run on.
    running: Vec<(String, Child)>,
    /// What was typed, and what came of it.
    typed: Vec<(String, Output)>,
}

impl Reader {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, ports: Ports::reserve().expect("a block"), prelude: String::new(), running: Vec::new(), typed: Vec::new() }
    }

    /// The same with addresses and directories of this machine.
    fn here(&self, text: &str) -> String {
        let text = text.replace("10.0.0.", "127.0.0.").replace("/var/lib", &self.dir.path().display().to_string());
        (0..3).fold(text, |text, port| text.replace(&format!(":746{port}"), &format!(":{}", self.ports.first() + port)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file is named by its first line, a comment; or it goes to the end of one.
    fn write(&self, lines: &[&str]) {
        let name = lines[0].trim_start_matches("# at the end of").trim_start_matches('#').split(';').next().expect("a name").trim();
        let before = match lines[0].contains("at the end of") {
            true => std::fs::read_to_string(self.path(name)).expect("it was written before") + "\n",
            false => String::new(),
        };
        std::fs::write(self.path(name), before + &self.here(&lines.join("\n")) + "\n").expect("a writable directory");
    }

    fn type_line(&mut self, line: &str) {
        let (command, host) = match line.split_once("# on ") {
            Some((command, place)) => (command, place.split(';').next().map(|host| self.here(host.trim()))),
            None => (line, None),
        };
        let command = self.here(command.split(" #").next().expect("a command").trim());
        match host {
            Some(host) if command.starts_with("systemctl kill -s KILL") => self.kill(&host),
            Some(host) => self.serve(&command, host),
            None if command.starts_with("export ") || command.starts_with("umask ") => self.prelude += &format!("{command}\n"),
            None => self.run(command),
        }
    }

    fn shell(&self, command: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_quorate")).parent().expect("a directory");
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{}{command}", self.prelude)]).current_dir(&self.dir).env("PATH", path).stdin(Stdio::null());
        shell
    }

    /// A command to its end. Repeated as a person would where no node answers yet.
    fn run(&mut self, command: String) {
        let started = Instant::now();
        let output = loop {
            let output = self.shell(&command).output().expect("sh runs");
            if output.status.code() != Some(4) || started.elapsed() > PATIENCE {
                break output;
            }
        };
        assert!(output.status.success(), "{command}: {output:?}\n{}", self.logs());
        self.typed.push((command, output));
    }

    /// A node, until its clients' port is open.
    fn serve(&mut self, command: &str, host: String) {
        assert!(command.starts_with("quorate serve "), "{command}");
        let log = std::fs::File::create(self.path(&format!("{host}.log"))).expect("a log file");
        let child = self.shell(&format!("exec {command}")).stdout(Stdio::null()).stderr(log).spawn().expect("sh runs");
        let address = format!("{host}:{}", self.ports.first());
        self.running.push((host, child));
        let started = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(started.elapsed() < PATIENCE, "{command} does not serve\n{}", self.logs());
            std::thread::yield_now();
        }
    }

    fn kill(&mut self, host: &str) {
        let (_, child) = self.running.iter_mut().find(|(at, _)| at == host).expect("a node runs there");
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
    }

    /// What was printed by the last command that starts so.
    fn printed(&self, command: &str) -> String {
        let (_, output) = self.typed.iter().rfind(|(typed, _)| typed.contains(command)).unwrap_or_else(|| panic!("no {command}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn logs(&self) -> String {
        let log = |(host, _): &(String, Child)| {
            let text = std::fs::read_to_string(self.path(&format!("{host}.log"))).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(10).collect();
            format!("--- {host}\n{}\n", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        self.running.iter().map(log).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            // It may have ended by itself, which the test then says.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_what_the_readme_says_gives_three_secured_nodes_replaces_one_and_restores_elsewhere() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let (_, text) = readme.split_once("\n## Three hosts\n").expect("where it begins");
    let (text, _) = text.split_once("\n## Operate it\n").expect("where it ends");
    let mut reader = Reader::new();
    for block in blocks(text) {
        match block.language {
            "toml" => reader.write(&block.lines),
            "sh" => block.lines.iter().for_each(|line| reader.type_line(line)),
            other => panic!("a block of {other:?}"),
        }
    }
    assert_eq!(reader.typed.len(), 14, "{:#?}", reader.typed.iter().map(|(command, _)| command).collect::<Vec<_>>());
    let status = reader.printed("quorate status");
    assert!(status.contains("leader") && status.contains("follower"), "{status}");
    assert!(reader.printed("member list").contains("3 voters: 2 must answer, 1 may fail"), "{}", reader.printed("member list"));
    assert!(reader.printed("snapshot inspect").contains("sessions"), "{}", reader.printed("snapshot inspect"));
    assert_eq!(reader.printed("session get greeting --endpoints"), "hello\n", "of the other cluster");

    let ca = std::fs::read_to_string(reader.path("certs/ca.pem")).expect("it was made");
    let token = std::fs::read_to_string(reader.path("certs/me.token")).expect("it was made");
    let admin = format!("127.0.0.1:{}", reader.ports.first() + 2);
    let ask = async |method: &str, path: &str, token: Option<&str>, body: &str| {
        wire::ask(&admin, &ca, &format!("{method} {path}"), token, body).await
    };
    let (code, page) = ask("GET", "/", None, "").await;
    assert!(code == 200 && page.contains("</html>"), "{code} {page}");
    assert_eq!(ask("GET", "/api/status", None, "").await.0, 401, "the page asks for the token");
    let started = Instant::now();
    loop {
        // It may hear of the change a moment after the leader.
        let (code, status) = ask("GET", "/api/status", Some(token.trim()), "").await;
        if code == 200 && status.contains("127.0.0.4") && !status.contains("127.0.0.3") {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{code} {status}");
    }
    let (code, session) = ask("POST", "/api/session", Some(token.trim()), r#"{"id":"greeting"}"#).await;
    assert!(code == 200 && session.contains("hello"), "{code} {session}");
}

#[test]
fn blocks_are_found_with_their_languages() {
    let text = "a\n```toml\nx = 1\n```\nb\n```sh\nls # on x\n\n```\n";
    let expected = [Block { language: "toml", lines: vec!["x = 1"] }, Block { language: "sh", lines: vec!["ls # on x", ""] }];
    assert_eq!(blocks(text), expected);
}
