//! What one token may hold of the cluster, so that it can't take it from the others.

use std::time::Duration;

use quorate::client::{Client, Content, ErrorKind, WriteOptions};
use quorate::types::{Applied, Nonce, Refusal, RefusalKind, Verdict, Write};
use quorate::wire::{self, v1, v1::sessions_client::SessionsClient};
use tonic::Request;
use tonic::transport::Channel;

use crate::security::nodes::{Nodes, PATIENCE, TOKENS, tokens_file};
use crate::security::pki::Good;
use crate::security::wire as port;

/// With small shares for one tenant, and the default for another.
const SHARES: [(&str, &str, &str); 2] = [
    (
        "greedy",
        "tokensecret-greedy",
        "scopes = [\"read\", \"write\"]\nprefixes = [\"g/\"]\nshares = { clients = 3, sessions = 4, outcomes = 6, large_bytes_per_second = 1024 }",
    ),
    ("modest", "tokensecret-modest", "scopes = [\"read\", \"write\"]\nprefixes = [\"m/\"]"),
];

async fn start(count: usize) -> Nodes {
    let tokens: Vec<_> = TOKENS.into_iter().chain(SHARES).collect();
    let nodes = Nodes::start_with(count, &tokens_file(&tokens));
    let patient = client(&nodes, "modest");
    nodes.until("the nodes serve", async || patient.load("m/none").await.is_ok()).await;
    patient.close().await;
    nodes
}

fn client(nodes: &Nodes, name: &str) -> Client {
    let patient = nodes.builder().read_deadline(PATIENCE).write_deadline(PATIENCE);
    patient.tls(nodes.tls()).token(format!("tokensecret-{name}")).build().expect("well formed")
}

/// One node's port for clients, without the retries of a client.
async fn raw(nodes: &Nodes, node: usize) -> SessionsClient<Channel> {
    let shown = nodes.ca.client(Good::Now);
    let channel = port::channel(&nodes.client_address(node), &nodes.ca, Some(&shown)).await;
    SessionsClient::new(channel.expect("the node serves"))
}

/// Opens a client under a token, as a caller would that fills the table.
async fn open(port: &mut SessionsClient<Channel>, name: &str, nonce: u8) -> Result<(), Refusal> {
    let write = wire::write_to(&Write::OpenClient { nonce: Nonce([nonce; 16]) });
    let operation = Some(v1::submit_request::Operation::Write(write));
    let mut request = Request::new(v1::SubmitRequest { tag: 1, timeout_ms: 30_000, operation, ..Default::default() });
    let token = format!("Bearer tokensecret-{name}");
    request.metadata_mut().insert("authorization", token.parse().expect("ASCII"));
    let answer = port.write(request).await.map_err(|status| wire::refusal_from_status(&status))?;
    match answer.into_inner().answer {
        Some(v1::submit_response::Answer::Outcome(outcome)) => {
            let outcome = wire::outcome_from(outcome).expect("well formed");
            assert!(matches!(outcome.verdict, Verdict::ClientOpened { .. }), "{:?}", outcome.verdict);
            Ok(())
        }
        other => panic!("no outcome: {other:?}"),
    }
}

/// One token's line of a metric, by one of its shares.
async fn gauge(nodes: &Nodes, metric: &str, token: &str, share: &str) -> f64 {
    let (_, text) = port::get(&nodes.admin_address(1), &nodes.ca, "/metrics", Some("tokensecret-admin")).await;
    let start = format!("{metric}{{token=\"{token}\",share=\"{share}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{start} is not in\n{text}"));
    line.parse().expect("a number")
}

/// Whichever node it asks: the leader counts, by the token's name.
#[tokio::test]
async fn one_token_takes_its_share_of_the_clients_by_whatever_node_and_leaves_the_others_theirs() {
    let nodes = start(3).await;
    let mut ports = Vec::new();
    for node in 1..=3 {
        ports.push(raw(&nodes, node).await);
    }
    for (nonce, port) in (1..).zip(&mut ports) {
        open(port, "greedy", nonce).await.expect("within its share");
    }
    for (nonce, port) in (11..).zip(&mut ports) {
        let refusal = open(port, "greedy", nonce).await.expect_err("beyond its share");
        assert!(matches!(refusal.kind, RefusalKind::Overloaded { .. }) && refusal.applied == Applied::No, "{refusal:?}");
        let says = "token=\"greedy\" share=clients used=3 limit=3";
        assert!(refusal.message.contains("nothing changed") && refusal.message.ends_with(says), "{refusal}");
        open(port, "modest", nonce + 10).await.expect("another token's share is its own");
    }
}

#[tokio::test]
async fn sessions_beyond_a_tokens_share_are_refused_by_name_and_count_until_their_tombstones_end() {
    let nodes = start(1).await;
    let greedy = client(&nodes, "greedy");
    let save =
        async |client: &Client, id: &str| client.save(id, Content::Value("x".into()), WriteOptions::default()).await.map(drop);
    for n in 0..4 {
        save(&greedy, &format!("g/{n}")).await.expect("within its share");
    }
    greedy.delete("g/0", None).await.expect("deleting is always possible");
    // What was there is counted within a second of the start; until then nothing is refused for it.
    nodes.until("what was there is counted", async || gauge(&nodes, "quorate_token_used", "greedy", "sessions").await == 4.0).await;
    let doctor = nodes.run(&["doctor"], "tokensecret-admin");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let finding = "check shares fails nearly used up: token=greedy share=sessions used=4 limit=4";
    assert!(said.contains(finding) && said.contains("security.md, \"Shares\""), "{said}");
    let (_, ready) = port::get(&nodes.admin_address(1), &nodes.ca, "/readyz?verbose", None).await;
    assert!(ready.contains("[!] shares nearly used up: `quorate doctor` says which") && !ready.contains("greedy"), "{ready}");
    // It does not wait for long: its own clients would try again until the deadline.
    let hurried = nodes.builder().write_deadline(Duration::from_millis(1500)).read_deadline(PATIENCE);
    let hurried = hurried.tls(nodes.tls()).token("tokensecret-greedy").build().expect("well formed");
    hurried.load("g/1").await.expect("it is connected");
    let error = save(&hurried, "g/9").await.expect_err("beyond its share");
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error}");
    let why = error.to_string();
    assert!(why.contains("token=\"greedy\" share=sessions used=4 limit=4") && why.contains("nothing changed"), "{why}");
    assert!(gauge(&nodes, "quorate_token_refused_total", "greedy", "sessions").await >= 1.0);
    save(&greedy, "g/0").await.expect("it takes the place of its own tombstone");
    let modest = client(&nodes, "modest");
    save(&modest, "m/1").await.expect("another token's share is its own");
    greedy.close().await;
    hurried.close().await;
    modest.close().await;
}

/// Large writes of one token are paid for at its rate while another calls; its small ones, and all of the other's, pass them.
#[tokio::test]
async fn a_large_write_waits_for_its_tokens_rate_while_another_token_calls_and_is_refused_before_its_deadline() {
    use quorate::env::Random as _;
    let nodes = start(1).await;
    let mut large = vec![0; 300 << 10];
    quorate::testing::inline::SeededRandom::new(1).fill(&mut large);
    let large = Content::Value(large.into());
    let [greedy, modest] = ["greedy", "modest"].map(|name| client(&nodes, name));
    let small = Content::Value("x".into());
    let save = async |client: &Client, id: &str, content: &Content| {
        client.save(id, content.clone(), WriteOptions::default()).await.map(drop)
    };
    save(&modest, "m/1", &small).await.expect("another token calls");
    save(&greedy, "g/1", &large).await.expect("the first one is due, whatever its size");
    let hurried = nodes.builder().write_deadline(Duration::from_secs(3)).read_deadline(PATIENCE);
    let hurried = hurried.tls(nodes.tls()).token("tokensecret-greedy").build().expect("well formed");
    save(&hurried, "g/2", &small).await.expect("a small one");
    let (held, passed) = tokio::join!(save(&hurried, "g/1", &large), save(&greedy, "g/3", &small));
    passed.expect("a small one passes a large one that waits");
    let error = held.expect_err("300 KiB at 1 KiB a second");
    let why = error.to_string();
    assert!(matches!(error.kind(), ErrorKind::Refused { .. }) && why.contains("nothing changed"), "{error:?} {why}");
    assert!(why.contains("token=\"greedy\" share=large_bytes_per_second used=307") && why.contains("limit=1024"), "{why}");
    save(&modest, "m/1", &large).await.expect("another token's rate is its own");
    assert!(gauge(&nodes, "quorate_token_refused_total", "greedy", "large_bytes_per_second").await >= 1.0);
    for client in [greedy, modest, hurried] {
        client.close().await;
    }
}

/// What an operator does about a tenant that holds too much: look who it is, and end its clients.
#[tokio::test]
async fn an_operator_sees_whose_the_clients_are_and_ends_those_of_one_token() {
    let nodes = start(1).await;
    let mut port = raw(&nodes, 1).await;
    for nonce in 1..=3 {
        open(&mut port, "greedy", nonce).await.expect("within its share");
    }
    open(&mut port, "modest", 9).await.expect("its own share");
    open(&mut port, "greedy", 4).await.expect_err("beyond its share");
    let run = |args: &[&str]| {
        let output = nodes.run(&[&["admin", "clients"], args].concat(), "tokensecret-admin");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, listed) = run(&["ls", "-o", "json", "--of", "greedy", "--limit", "2"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect(&listed);
    assert_eq!(code, Some(0));
    assert_eq!(listed["tokens"], serde_json::json!([{ "token": "greedy", "clients": 3, "outcomes": 0 }]));
    assert_eq!((&listed["clients_total"], &listed["outcomes_total"]), (&serde_json::json!(4), &serde_json::json!(0)));
    assert_eq!((listed["clients"].as_array().map(Vec::len), &listed["clients_limit"]), (Some(2), &serde_json::json!(100_000)));
    let (code, refused) = run(&["drop"]);
    assert!(code == Some(2) && refused.contains("say which clients"), "{refused}");
    let writer = nodes.run(&["admin", "clients", "drop", "--of", "greedy"], "tokensecret-writer");
    assert!(!writer.status.success(), "it needs the scope admin");
    let (code, dropped) = run(&["drop", "--of", "greedy"]);
    assert!(code == Some(0) && dropped.contains("ended clients=3 outcomes=0"), "{dropped}");
    let table = nodes.run(&["admin", "clients", "ls"], "tokensecret-admin");
    let (table, said) = (String::from_utf8_lossy(&table.stdout), String::from_utf8_lossy(&table.stderr));
    assert!(table.contains("modest") && !table.contains("greedy"), "{table}");
    let totals = "in all: clients=1 limit=100000 outcomes=0 limit=1000000";
    assert!(table.lines().last() == Some(totals) && said.is_empty(), "the totals are part of the result: {table} {said}");
    open(&mut port, "greedy", 4).await.expect("there is room again");
}
