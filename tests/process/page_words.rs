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
    /// The only session, once there is one.
    session: Option<Value>,
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
        let node = Self(Arc::new(Mutex::new(Said {
            token,
            status: status("good", "healthy", Some(2)),
            session: None,
            asked: Vec::new(),
        })));
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
            "/api/session" => (200, "application/json", json!(said.session).to_string().into_bytes()),
            _ => {
                let sessions: Vec<&Value> = said.session.iter().collect();
                (200, "application/json", json!({ "now_ms": 1, "more": false, "sessions": sessions }).to_string().into_bytes())
            }
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

/// A name that is shown in another order than it has, and with less than it has, unless what acts in it is made visible.
const TURNED: &str = "a\u{202e}b\u{2066}c\u{200f}d\u{200b}e";
/// The same as a name, and within JSON.
const SHOWN: [&str; 2] = [r"a\u{202e}b\u{2066}c\u{200f}d\u{200b}e", r"a\u202eb\u2066c\u200fd\u200be"];
/// What of it acts anywhere on the page, and how often the name is read.
const ACTS: &str = "const text = [document.title, document.body.textContent, ...[...document.querySelectorAll('*')].flatMap(one => [...one.attributes].map(of => of.value))].join(' ');
    const found = (what) => text.split(what).length - 1;
    return [[...text.matchAll(/[\\u202e\\u2066\\u200f\\u200b]/g)].length, found(arguments[0]), found(arguments[1])]";

/// Ids, names of the cluster, addresses, errors, and what stands in an item beside what people say to each other.
#[test]
fn what_turns_text_around_acts_nowhere_on_the_page_and_letters_of_any_script_stay() {
    let Some(browser) = Browser::start() else { return };
    let (node, page) = Node::start(None);
    let item = |item: Value| json!({ "text": item.to_string() });
    let messages = [
        item(json!({ "role": TURNED, "name": TURNED, "content": "words", TURNED: [TURNED] })),
        item(
            json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": TURNED, "type": TURNED, "name": TURNED, "arguments": { TURNED: TURNED } }] }),
        ),
        item(json!({ TURNED: [{ "a": TURNED }] })),
    ];
    node.change(|said| {
        said.status["cluster_name"] = json!(TURNED);
        said.status["health"]["text"] = json!(TURNED);
        said.status["nodes"][0]["client"] = json!(TURNED);
        said.status["nodes"][0]["checks"] = json!([{ "name": TURNED, "ok": false, "required": false, "detail": TURNED }]);
        said.status["nodes"][2]["reachable"] = json!(false);
        said.status["nodes"][2]["error"] = json!(TURNED);
        said.session = Some(json!({
            "now_ms": 1, "found": true, "id": TURNED, "kind": "transcript", "version": 1, "items": 3, "raw_bytes": 1, "stored_bytes": 1,
            "created_ms": 1, "updated_ms": 1, "deadline_ms": null, "from": 0, "total": 3, "messages": messages,
            "head": { "text": json!({ TURNED: TURNED }).to_string() }, "counters": [],
        }));
    });
    let acts = || {
        browser
            .run(&ACTS.replace("arguments[0]", &json!(SHOWN[0]).to_string()).replace("arguments[1]", &json!(SHOWN[1]).to_string()))
    };
    browser.open(&page);
    browser.wait("return document.querySelectorAll('.node .checks li').length", |count| count == 1);
    let found = acts();
    assert_eq!(found[0], 0, "{found}");
    assert!(found[1].as_u64() >= Some(6), "{found}");
    browser.run(&format!("location.hash = '#session=' + encodeURIComponent({})", json!(TURNED)));
    browser.wait("return document.querySelectorAll('.message').length", |count| count == 3);
    browser.wait("return document.querySelectorAll('#rows a').length", |count| count == 1);
    browser.run("document.querySelectorAll('.message .raw').forEach(button => button.click())");
    let found = acts();
    assert_eq!(found[0], 0, "{found}");
    assert!(found[1].as_u64() >= Some(10) && found[2].as_u64() >= Some(10), "{found}");
    // The rule of the command line, whose test has the same list.
    let rule = browser.run(
        "const runs = [];
         for (let at = 0; at <= 0x10ffff; at++) {
           const c = String.fromCodePoint(at);
           if ((at >= 0xd800 && at <= 0xdfff) || visible(c) === c) continue;
           if (runs.length && runs.at(-1)[1] === at - 1) runs.at(-1)[1] = at; else runs.push([at, at]);
         }
         return runs.map(run => run.map(at => at.toString(16)).join('-')).join(' ')",
    );
    assert_eq!(rule, "0-1f 7f-9f ad-ad 61c-61c 180e-180e 200b-200b 200e-200f 2028-202e 2060-206f feff-feff fff9-fffb e0000-e007f");
    let letters = "שלום سلام क\u{94d}\u{200d}ष 🧑\u{200d}🚀";
    assert_eq!(browser.run(&format!("return visible({})", json!(letters))), letters);
    assert!(browser.complaints().is_empty());
}
