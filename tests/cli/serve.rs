//! `serve` and `dev` that can't start: exit 2, and one line that says what to fix.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

use quorate::testing::processes::Ports;

use crate::cli::{assert_refused, ended, quorate, run, run_with_input};

/// The configuration of one node, whose ports nobody else takes while this program runs.
pub fn config(dir: &Path, edit: impl Fn(String) -> String) -> String {
    static RESERVED: Mutex<Vec<Ports>> = Mutex::new(Vec::new());
    let mut reserved = Ports::reserve().expect("a block");
    let ports = reserved.take(3).expect("three ports");
    RESERVED.lock().expect("nobody panics with it").push(reserved);
    let text = format!(
        "name = \"test\"\n[[node]]\nid = 1\nclient = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\nadmin = \"127.0.0.1:{}\"\n",
        ports[0], ports[1], ports[2]
    );
    write(dir, &edit(text))
}

fn write(dir: &Path, text: &str) -> String {
    let path = dir.join("cluster.toml");
    std::fs::write(&path, text).expect("a writable directory");
    path.to_str().expect("UTF-8").to_owned()
}

pub fn serve(config: &str, data_dir: &Path, more: &[&str]) -> std::process::Output {
    let data_dir = data_dir.to_str().expect("UTF-8");
    run(&[&["serve", "--config", config, "--node", "1", "--data-dir", data_dir][..], more].concat())
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = run(&["serve", "--config", "/nonexistent/cluster.toml", "--node", "1"]);
    assert_refused(&output, 2, &["/nonexistent/cluster.toml", "--config"]);
}

#[test]
fn a_bad_key_is_named_with_file_and_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text + "[raft]\nheartbeet = \"1s\"\n");
    assert_refused(&serve(&path, dir.path(), &[]), 2, &[&path, "line 8", "heartbeet"]);
    let path = config(dir.path(), |text| text + "[raft]\nheartbeat_interval = \"1s\"\n");
    assert_refused(&serve(&path, dir.path(), &[]), 2, &["raft.election_timeout_min=1s", "raft.heartbeat_interval=1s"]);
}

/// A warning, and no more: it may be a host on which nobody else has an account.
#[test]
fn what_every_user_of_the_machine_may_read_is_warned_of_when_the_configuration_is_checked() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let own = dir.path().join("data").join("1");
    std::fs::create_dir_all(&own).expect("writable");
    let mode = |mode| std::fs::set_permissions(&own, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    let path = config(dir.path(), |text| text);
    let check = || {
        let args = [
            "serve",
            "--config",
            &path,
            "--node",
            "1",
            "--data-dir",
            dir.path().join("data").to_str().expect("UTF-8"),
            "--check-config",
        ]
        .map(str::to_owned);
        ended(&run(&args.each_ref().map(|arg| &arg[..])))
    };
    mode(0o755);
    let (code, text) = check();
    assert_eq!(code, 0, "{text}");
    let expected = "warning: every user of this machine may read the data directory, which holds every session: chmod -R go-rwx ";
    assert!(text.starts_with(expected) && text.contains("mode=0755"), "{text}");
    mode(0o700);
    assert_eq!(check(), (0, String::new()));
}

#[test]
fn a_node_that_is_not_configured_is_refused_with_those_that_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    assert_refused(&run(&["serve", "--config", &path, "--node", "7"]), 2, &["id=7", "configured=1"]);
}

#[test]
fn a_configuration_is_checked_and_printed_without_starting_anything() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    let checked = serve(&path, dir.path(), &["--check-config"]);
    assert_eq!(ended(&checked), (0, String::new()));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("valid node=1 members=1 name=test"));
    assert_refused(&run(&["serve", "--config", &path, "--node", "2", "--check-config"]), 2, &["id=2"]);

    let printed = serve(&path, &dir.path().join("elsewhere"), &["--print-config"]);
    assert_eq!(ended(&printed), (0, String::new()));
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(text.contains("election_timeout_min = \"1s\"") && text.contains("elsewhere"), "defaults and flags count: {text}");
    let again = write(dir.path(), &text);
    assert_eq!(String::from_utf8_lossy(&serve(&again, &dir.path().join("elsewhere"), &["--print-config"]).stdout), text);
    assert!(!dir.path().join("1").exists() && !dir.path().join("elsewhere").exists(), "nothing was made");
}

#[test]
fn an_address_others_can_reach_is_refused_unless_insecure_is_allowed() {
    let dir = tempfile::tempdir().expect("a directory");
    // Nobody can connect to every address.
    let path = config(dir.path(), |text| text.replacen("127.0.0.1", "0.0.0.0", 1));
    assert_refused(
        &serve(&path, dir.path(), &["--insecure", "--check-config"]),
        2,
        &["node 1: client", "client_listen", "0.0.0.0"],
    );
    let path = config(dir.path(), |text| text + "client_listen = \"0.0.0.0:7460\"\n");
    assert_refused(&serve(&path, dir.path(), &["--bootstrap"]), 2, &["node 1: client_listen=0.0.0.0:7460", "--insecure"]);
    let path = config(dir.path(), |text| text.replacen("127.0.0.1", "192.0.2.1", 1));
    assert_refused(&serve(&path, dir.path(), &["--bootstrap"]), 2, &["node 1: client=192.0.2.1", "--insecure"]);
    // Allowed now, it goes on to the next thing that is wrong.
    assert_refused(&serve(&path, dir.path(), &["--insecure"]), 2, &["--bootstrap"]);
}

#[test]
fn a_data_directory_that_is_not_there_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    let missing = dir.path().join("elsewhere");
    assert_refused(&serve(&path, &missing, &[]), 2, &["--bootstrap", "--join", "--data-dir", "elsewhere/1"]);
    assert!(!missing.exists(), "nothing was made");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("a writable directory");
    let output = serve(&path, &file, &["--bootstrap"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let dev = run(&["dev", "--data-dir", file.to_str().expect("UTF-8")]);
    assert_refused(&dev, 2, &["--data-dir"]);
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let path = config(dir.path(), |text| {
        let client = text.lines().find_map(|line| line.strip_prefix("client = ")).expect("a client address").to_owned();
        text.replace(&client, &format!("\"{address}\""))
    });
    let output = serve(&path, dir.path(), &["--bootstrap"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.lines().last().is_some_and(|line| line.starts_with("error: ") && line.contains(&address)), "{message}");
}

#[test]
fn dev_refuses_ports_that_do_not_exist_and_data_of_another_cluster() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().to_str().expect("UTF-8");
    assert_refused(&run(&["dev", "--data-dir", data_dir, "--base-port", "65530"]), 2, &["--base-port", "65535"]);
    config(dir.path(), |text| text);
    assert_refused(&run(&["dev", "--data-dir", data_dir]), 2, &["another cluster", "--nodes 1"]);
}

/// A node started by hand; killed when dropped.
pub struct Node(pub std::process::Child);

impl Node {
    pub fn start(config: &str, data_dir: &Path, more: &[&str]) -> Self {
        let data_dir = data_dir.to_str().expect("UTF-8");
        let args = [&["serve", "--config", config, "--node", "1", "--data-dir", data_dir][..], more].concat();
        Self(quorate(&args).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn client_address(config: &str) -> String {
    let text = std::fs::read_to_string(config).expect("a configuration");
    text.split('"').find(|part| part.starts_with("127.0.0.1:")).expect("an address").to_owned()
}

#[test]
fn a_service_manager_hears_when_the_ports_are_open_and_when_the_node_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    let socket = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a timeout");
    let heard = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).expect("the node says something");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let data_dir = dir.path().to_str().expect("UTF-8");
    let args = ["serve", "--config", &path, "--node", "1", "--data-dir", data_dir, "--bootstrap", "--parent-pipe"];
    let mut command = quorate(&args);
    let child = command.env("NOTIFY_SOCKET", &socket).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let mut node = Node(child);
    assert_eq!(heard(), "READY=1\n");
    std::net::TcpStream::connect(client_address(&path)).expect("who is ready listens");
    drop(node.0.stdin.take());
    assert_eq!(heard(), "STOPPING=1\n");
    assert_eq!(node.0.wait().expect("it ends").code(), Some(0));
}

/// The client's own retries wait for the node: no test needs to.
pub fn put(endpoint: &str, content: &[u8]) -> std::process::Output {
    run_with_input(&["session", "put", "a", "--timeout", "60s", "--endpoints", endpoint], content)
}

#[test]
fn a_node_locks_its_directory_ends_with_its_parent_and_restarts_without_a_flag() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), |text| text);
    let endpoint = client_address(&path);
    let mut node = Node::start(&path, dir.path(), &["--bootstrap", "--parent-pipe"]);
    assert_eq!(ended(&put(&endpoint, b"one")), (0, String::new()));
    // The save is made, though nobody could read its result: who makes it again because of that would make it twice.
    for (args, done) in [(&["put", "unseen", "--file", &path][..], "saved version=1"), (&["rm", "unseen"], "deleted version=2")] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let mut command = quorate(&[&["session"][..], args, &["--timeout", "60s", "--endpoints", &endpoint]].concat());
        let output = command.stdout(full).stderr(Stdio::piped()).output().expect("the binary runs");
        assert_refused(&output, 1, &[done, "only the result is not shown", "can't write the output"]);
    }

    let elsewhere = tempfile::tempdir().expect("a directory");
    let other_ports = config(elsewhere.path(), |text| text);
    let second = serve(&other_ports, dir.path(), &[]);
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{message}");
    assert!(message.contains("another process uses this data directory"), "{message}");

    drop(node.0.stdin.take());
    assert_eq!(node.0.wait().expect("it ends").code(), Some(0), "the end of the parent's pipe is a wish to stop");
    let mut again = Node::start(&path, dir.path(), &[]);
    let kept = run(&["session", "get", "a", "--timeout", "60s", "--endpoints", &endpoint]);
    assert_eq!((kept.stdout.as_slice(), ended(&kept)), (&b"one"[..], (0, String::new())));
    let status = std::process::Command::new("kill").args(["-TERM", &again.0.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()));
    assert_eq!(again.0.wait().expect("it ends").code(), Some(0), "SIGTERM is a wish to stop");
}
