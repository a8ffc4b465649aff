//! The page before a node that says what a test wants: the word on the cluster, and the way past a token.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::browser::Browser;

/// What the node says, and the token it asks for.
struct Said {
    token: Option<&'static str>,
    status: Value,
    /// Paths asked for, with the token.
    asked: Vec<String>,
}

/// A node that serves the page's files and answers what it was given. It ends with the process.
#[derive(Clone)]
struct Node(Arc<Mutex<Said>>);

impl Node {
    fn start(token: Option<&'static str>) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let page = format!("http://{}/", listener.local_addr().expect("an address"));
        let node = Self(Arc::new(Mutex::new(Said { token, status: status("good", "healthy", Some(2)), asked: Vec::new() })));
        let serving = node.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let node = serving.clone();
                std::thread::spawn(move || node.answer(&stream));
            }
        });
        (node, page)
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// One request, one answer.
    fn answer(&self, mut stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let path = request.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let mut token = String::new();
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            if let Some(given) = line.strip_prefix("authorization: Bearer ") {
                given.clone_into(&mut token);
            }
        }
        let (code, kind, body) = self.what(&path, &token);
        let head =
            format!("HTTP/1.1 {code} x\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        // Until the other side has it all.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 1024]);
    }

    fn what(&self, path: &str, token: &str) -> (u16, &'static str, Vec<u8>) {
        let file =
            |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/admin").join(name)).expect("a file");
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            "/" => return (200, "text/html", file("page.html")),
            "/page.css" => return (200, "text/css", file("page.css")),
            "/page.js" | "/conversation.js" => return (200, "text/javascript", file(&path[1..])),
            "/icon.svg" => return (200, "image/svg+xml", file("icon.svg")),
            _ => said.asked.push(format!("{path} {token}")),
        }
        if said.token.is_some_and(|known| known != token) {
            let error = if token.is_empty() { "a token is needed" } else { "the token is not known here" };
            return (401, "application/json", json!({ "error": error }).to_string().into_bytes());
        }
        match path {
            "/api/status" => (200, "application/json", said.status.to_string().into_bytes()),
            _ => (200, "application/json", json!({ "now_ms": 1, "more": false, "sessions": [] }).to_string().into_bytes()),
        }
    }
}

fn status(state: &str, text: &str, leader: Option<u64>) -> Value {
    let role = |id| if id == 2 { "leader" } else { "follower" };
    let node = |id: u64| json!({ "id": id, "client": "10.0.0.1:7460", "reachable": true, "role": role(id), "term": 4, "sessions": 1, "clients": 1, "checks": [], "samples": [] });
    let nodes: Vec<Value> = (1..=3).map(node).collect();
    json!({ "cluster_id": "aa", "cluster_name": "prod", "asked": 1, "now_ms": 1, "health": { "state": state, "text": text }, "leader": leader, "nodes": nodes })
}

const PILL: &str = "const pill = document.getElementById('health'); return [pill.textContent, pill.className]";
const PROBLEM: &str = "return document.getElementById('token-error').innerText";

#[test]
fn the_word_on_the_cluster_is_the_nodes_and_the_same_above_every_view() {
    let Some(browser) = Browser::start() else { return };
    let (node, page) = Node::start(None);
    browser.open(&page);
    for (state, text, leader) in
        [("good", "healthy", Some(2)), ("warn", "1 of 3 nodes down", Some(2)), ("bad", "no leader: no writes", None)]
    {
        node.change(|said| said.status = status(state, text, leader));
        let wanted = json!([text, format!("pill {state}")]);
        for view in ["#overview", "#sessions", "#session=a"] {
            browser.run(&format!("location.hash = '{view}'"));
            browser.wait(PILL, |pill| *pill == wanted);
        }
        assert_eq!(browser.run("return document.title.startsWith('⚠')"), state != "good");
    }
    // The node that takes itself for the leader is shown for what it is.
    browser.run("location.hash = '#overview'");
    browser
        .wait("return document.getElementById('tiles').innerText", |text| text.as_str().is_some_and(|text| text.contains("none")));
    assert_eq!(browser.run("return document.querySelector('[data-node=\"2\"] .badge').textContent"), "leads without a majority");
    browser.looks("no-leader", |_| ());
}

#[test]
fn a_token_that_is_not_good_is_refused_in_words_and_one_that_is_stays_for_the_tab() {
    let Some(browser) = Browser::start() else { return };
    let (node, page) = Node::start(Some("good"));
    browser.open(&page);
    browser.wait("return document.getElementById('ask').open", |open| *open == true);
    assert_eq!(browser.run(PROBLEM), "", "nobody has tried yet");
    let submit = |token: &str| {
        browser.run(&format!(
            "document.getElementById('token').value = '{token}'; document.getElementById('token-form').requestSubmit()"
        ));
    };
    submit("wrong");
    browser.wait(PROBLEM, |text| text == "This token is not known to the node. Paste the contents of a token file.");
    browser.looks("sign-in", |_| ());
    submit("two words");
    browser.wait(PROBLEM, |text| text == "A token is one line without spaces. Paste the contents of a token file.");
    submit(" good\\n");
    browser.wait("return document.getElementById('ask').open", |open| *open == false);
    browser.wait(PILL, |pill| pill[0] == "healthy");
    // One question decides, and nobody asks while no token is there.
    node.change(|said| {
        let tried = |token: &str| said.asked.iter().filter(|asked| asked.ends_with(&format!(" {token}"))).count();
        assert_eq!((tried("wrong"), tried("")), (1, 1), "{:?}", said.asked);
    });
    browser.run("location.reload()");
    browser.wait(PILL, |pill| pill[0] == "healthy");
    browser.looks("signed-in", |width| {
        assert!(browser.run("return document.querySelector('header').offsetHeight").as_u64() <= Some(80), "at {width} px");
    });
    // Withdrawn meanwhile.
    node.change(|said| said.token = Some("another"));
    browser.wait(PROBLEM, |text| text.as_str().is_some_and(|text| text.starts_with("This token is not known")));
    browser.run("document.getElementById('ask').close()");
    browser.wait(PILL, |pill| pill[0] == "signed out");
}
