//! Leases of turns with real processes at the next cluster version: a holder that stands still, and the operator's commands.

use std::process::Stdio;

use bob_core::ports::SessionStore as _;
use bob_core::types::Role;
use quorate::client::{Content, ErrorKind, TurnOptions, Wait, WriteOptions};
use quorate::testing::processes::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::harness::Cluster;
use super::upgrade::{NEXT, wait_in_force};
use super::value;

#[path = "../../examples/bob_turns.rs"]
/// The example, whose turns these are.
#[allow(dead_code, clippy::duplicate_mod, reason = "the example's main; its agent is that of `racing` too")]
mod bob_turns;

use bob_turns::{TTL, bob_agent};

const SESSION: &str = "conversation";
/// The endpoints, for the process that holds a turn and stands still.
const HOLDER: &str = "QUORATE_TEST_HOLDER";

async fn start() -> Cluster {
    let mut cluster = Cluster::prepare(3);
    (1..=3).for_each(|node| cluster.restart_with(node, &[NEXT]));
    cluster.leader().await;
    wait_in_force(&cluster, 2).await;
    cluster
}

fn options(wait: Wait) -> TurnOptions {
    TurnOptions { holder: "test".to_owned(), ttl: TTL, wait }
}

/// The process that holds a turn: it says so, waits for a line, and goes on as if nothing had been.
async fn hold(endpoints: &str) {
    let client = quorate::client::Client::builder().endpoints(endpoints.split(',')).build().expect("endpoints");
    let runtime = bob_turns::runtime(&client);
    let turn = client.turn(SESSION, options(Wait::Reject)).await.expect("nobody has it");
    bob_agent::turn(&*runtime, SESSION, "first").await.expect("in its turn");
    println!("\nheld");
    let mut line = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await.expect("a line");
    let late = bob_agent::turn(&*runtime, SESSION, "late").await.expect_err("its turn is over");
    println!("\nlate {late:?}");
    turn.lost().await;
    let lost = turn.save(value("late"), WriteOptions::default()).await.expect_err("its turn is over");
    println!("\nlost {:?}", lost.kind());
}

/// The next line of a process that begins so.
async fn line(of: &mut BufReader<ChildStdout>, begins: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(of.read_line(&mut line).await.expect("text") > 0, "it ended without {begins:?}");
        if line.starts_with(begins) {
            return line;
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().expect("it runs") as i32).expect("no process 0");
    rustix::process::kill_process(pid, signal).expect("it runs");
}

/// A holder is stopped for longer than its lease lives. Another takes over and works; the first wakes, and goes on with its turn: what it saves is
/// fenced, and the conversation is the other's, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_stood_still_past_its_lease_writes_nothing_and_nothing_is_lost() {
    if let Ok(endpoints) = std::env::var(HOLDER) {
        return hold(&endpoints).await;
    }
    let cluster = start().await;
    let mut holder = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "process::leases::a_holder_that_stood_still_past_its_lease_writes_nothing_and_nothing_is_lost",
            "--nocapture",
        ])
        .env(HOLDER, cluster.endpoints().join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("this program");
    let mut said = BufReader::new(holder.stdout.take().expect("a pipe"));
    line(&mut said, "held").await;

    let client = cluster.client();
    let held = client.turn(SESSION, options(Wait::Reject)).await.expect_err("the holder has it");
    assert!(matches!(held.kind(), ErrorKind::Leased { .. }), "{held}");
    let unaware = client.save(SESSION, value("beside"), WriteOptions::default()).await.expect_err("the holder has it");
    assert!(matches!(unaware.kind(), ErrorKind::Leased { .. }), "{unaware}");
    signal(&holder, Signal::STOP);
    // It waits until the lease has ended.
    let runtime = bob_turns::runtime(&client);
    bob_turns::turn(&client, &*runtime, SESSION, "second").await.expect("a turn after the holder's");
    signal(&holder, Signal::CONT);
    holder.stdin.take().expect("a pipe").write_all(b"go on\n").await.expect("it reads");
    let late = line(&mut said, "late ").await;
    assert!(late.contains("Fenced") || late.contains("take another turn"), "{late}");
    assert!(line(&mut said, "lost ").await.contains("Fenced"));
    assert!(holder.wait().await.expect("it ends").success());

    bob_turns::turn(&client, &*runtime, SESSION, "third").await.expect("nobody has it");
    let state = cluster.client().session_store().load(&SESSION.to_owned()).await.expect("a load").expect("a session");
    let said = state.messages.iter().filter(|message| message.role == Role::User).map(|message| message.content.as_str());
    assert_eq!(said.collect::<Vec<_>>(), ["first", "second", "third"]);
    assert_eq!((state.version, state.total_usage.prompt_tokens), (3, 30));
    cluster.assert_equal_digests().await;
}

fn json(cluster: &Cluster, args: &[&str]) -> (Option<i32>, Value) {
    let output = cluster.run(args);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error} {output:?}"));
    (output.status.code(), document)
}

fn refused(cluster: &Cluster, args: &[&str], code: i32, parts: &[&str]) {
    let output = cluster.run(args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(code) && parts.iter().all(|part| message.contains(part)), "{args:?}: {output:?}");
}

/// The commands of an operator whose session nobody can write as a holder is gone: who has it, take it away, delete it all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_leases_and_ends_them() {
    let cluster = start().await;
    let client = cluster.client();
    let held = client.turn("a/1", options(Wait::Reject)).await.expect("nobody has it");
    let other = client.turn("a/2", options(Wait::Reject)).await.expect("nobody has it");
    held.save(value("text"), WriteOptions::default()).await.expect("in its turn");

    let (code, listed) = json(&cluster, &["lease", "ls", "--prefix", "a/", "-o", "json"]);
    let leases = listed["leases"].as_array().expect("a list");
    assert_eq!((code, leases.len(), &leases[0]["id"], &leases[1]["fence"]), (Some(0), 2, &"a/1".into(), &other.fence().into()));
    let table = String::from_utf8(cluster.run(&["lease", "ls"]).stdout).expect("text");
    assert!(table.contains("FENCE") && table.contains("a/1") && table.contains("test"), "{table}");
    let (code, listed) = json(&cluster, &["lease", "ls", "--limit", "1", "-o", "json"]);
    assert_eq!((code, listed["leases"].as_array().map(Vec::len)), (Some(0), Some(1)));
    let (code, shown) = json(&cluster, &["lease", "show", "a/1", "-o", "json"]);
    assert_eq!((code, &shown["fence"], &shown["holder"]), (Some(0), &held.fence().into(), &"test".into()));
    assert!(shown["left_ms"].as_u64().is_some_and(|left| left <= TTL.as_millis() as u64), "{shown}");
    let (code, absent) = json(&cluster, &["lease", "show", "a/", "-o", "json"]);
    assert_eq!((code, &absent["found"]), (Some(5), &false.into()), "the id, not what begins with it");
    let (_, info) = json(&cluster, &["session", "get", "a/1", "--info", "-o", "json"]);
    assert_eq!(info["lease"]["holder"], "test", "{info}");

    refused(&cluster, &["session", "rm", "a/1"], 1, &["leased, nothing changed", "quorate lease show"]);
    refused(&cluster, &["lease", "release", "a/1", "--fence", "1"], 5, &["nothing changed"]);
    let (code, released) = json(&cluster, &["lease", "release", "a/1", "-o", "json"]);
    assert_eq!((code, &released["fence"]), (Some(0), &held.fence().into()));
    refused(&cluster, &["lease", "release", "a/1"], 5, &["nobody has the turn", "nothing changed"]);
    let fenced = held.save(value("late"), WriteOptions::default()).await.expect_err("it was taken away");
    assert_eq!(fenced.kind(), ErrorKind::Fenced);

    let again = client.turn("a/1", options(Wait::Reject)).await.expect("nobody has it");
    let (code, deleted) = json(&cluster, &["session", "rm", "a/1", "--steal", "--expect", "1", "-o", "json"]);
    assert_eq!((code, &deleted["version"]), (Some(0), &2.into()));
    assert!(client.load("a/1").await.expect("a load").is_none());
    let fenced = again.save(value("late"), WriteOptions::default()).await.expect_err("it was taken away");
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
    client.save("a/1", Content::Value("new".into()), WriteOptions::default()).await.expect("the lease was given back");
    other.release().await.expect("an answer");
}
