//! The admin port's page in a real browser, driven by the W3C WebDriver protocol: what a person sees, and that content stays content.
//!
//! Without `chromium` and `chromedriver` the test says so loudly and passes, unless `QUORATE_PAGE_REQUIRED` is set, as the gate does once
//! it has installed them. `QUORATE_PAGE_SHOTS=DIR` keeps pictures.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::client::{Content, WriteOptions};
use quorate::types::Counters;
use serde_json::{Value, json};

use super::harness::{Cluster, PATIENCE};

/// A browser, and the process that drives it.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// `None`, and a word on stderr, where there is none.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                assert!(std::env::var_os("QUORATE_PAGE_REQUIRED").is_none(), "chromedriver is required: {error}");
                let _ = writeln!(std::io::stderr(), "SKIPPED: the page was not looked at: no chromedriver: {error}");
                return None;
            }
        };
        let mut browser = Self { driver, port, session: String::new() };
        let started = Instant::now();
        while browser.call("GET", "/status", &Value::Null).is_none_or(|answer| answer["value"]["ready"] != true) {
            assert!(started.elapsed() < PATIENCE, "chromedriver does not become ready");
        }
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,1000"];
        let options = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" } } } });
        let answer = browser.call("POST", "/session", &options).expect("an answer");
        browser.session = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {answer}")).to_owned();
        Some(browser)
    }

    /// One call of the protocol. `None`: no answer.
    fn call(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut answer = Vec::new();
        // It ends with the connection, or with what was announced.
        let mut piece = [0; 16 * 1024];
        loop {
            if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
                if length.is_some_and(|length| answer.len() >= at + 4 + length) {
                    return serde_json::from_slice(&answer[at + 4..]).ok();
                }
            }
            match stream.read(&mut piece).ok()? {
                0 => return None,
                read => answer.extend_from_slice(&piece[..read]),
            }
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.call(method, &format!("/session/{}{path}", self.session), body).expect("an answer");
        assert!(answer["value"].get("error").is_none(), "{path}: {answer}");
        answer["value"].clone()
    }

    fn open(&self, address: &str) {
        self.ask("POST", "/url", &json!({ "url": address }));
    }

    /// What a script gives.
    fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script gives what is wanted.
    fn wait(&self, script: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let found = self.run(script);
            if wanted(&found) {
                return found;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain for {script}: {found}; {}",
                self.run("return document.body.innerText")
            );
        }
    }

    fn picture(&self, name: &str) {
        if let Some(dir) = std::env::var_os("QUORATE_PAGE_SHOTS") {
            let picture = self.ask("GET", "/screenshot", &Value::Null);
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.png.base64")), picture.as_str().unwrap_or_default())
                .expect("writable");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("DELETE", &format!("/session/{}", self.session), &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

const ATTACK: &str = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";

async fn fill(cluster: &Cluster) {
    let client = cluster.client();
    let message = |role: &str, content: &str| Bytes::from(json!({ "role": role, "content": content }).to_string());
    let called =
        json!({ "role": "assistant", "content": "", "tool_calls": [{ "name": "weather", "arguments": { "city": "Bern" } }] });
    let result = json!({ "role": "tool", "content": "14 °C, light rain", "tool_name": "weather" });
    let messages = vec![
        message("system", "You are a helpful assistant."),
        message("user", "Do I need an umbrella in Bern?"),
        Bytes::from(called.to_string()),
        Bytes::from(result.to_string()),
        message("assistant", "Yes: it rains lightly, at 14 °C."),
        message("user", ATTACK),
        Bytes::from_static(b"{\"unknown\":[1,2,3]}"),
        Bytes::from_static(b"no JSON at all"),
    ];
    let transcript =
        Content::Transcript { messages, head: Bytes::from_static(b"{\"session_id\":\"umbrella\"}"), counters: Counters::default() };
    client.save("agent/umbrella", transcript, WriteOptions::default()).await.expect("a save");
    client.save(ATTACK, Content::Value(ATTACK.into()), WriteOptions::default()).await.expect("a save");
    for n in 0..60 {
        client
            .save(&format!("agent/{n:03}"), Content::Value(format!("value {n}").into()), WriteOptions::default())
            .await
            .expect("a save");
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_the_cluster_its_sessions_and_a_transcript_and_content_stays_content() {
    let Some(browser) = Browser::start() else { return };
    let mut cluster = Cluster::start(3).await;
    fill(&cluster).await;
    let leader = cluster.leader().await;
    let asked = (1..=3).find(|node| *node != leader).expect("three nodes");
    let page = format!("http://{}/", cluster.admin(asked));

    browser.open(&page);
    browser.wait("return document.getElementById('health').textContent", |text| {
        text == "healthy" || text.as_str().is_some_and(|text| text.contains("warning"))
    });
    let tiles = browser.run("return document.getElementById('tiles').innerText");
    assert!(tiles.as_str().is_some_and(|text| text.contains(&format!("Node {leader}")) && text.contains("62")), "{tiles}");
    assert_eq!(browser.run("return document.querySelectorAll('.node').length"), 3);
    assert_eq!(browser.run(&format!("return document.querySelector('[data-node=\"{leader}\"] .badge').textContent")), "leader");
    // Plots appear once there are two looks, drawn as paths.
    browser.wait("return document.querySelectorAll('#chart-lag path').length", |count| count.as_u64() >= Some(3));
    browser.picture("overview-light");
    browser.run("document.getElementById('theme').click()");
    browser.picture("overview-dark");

    browser.run("location.hash = '#sessions'");
    browser.wait("return document.querySelectorAll('#rows tr').length", |count| count == 50);
    browser.run("document.getElementById('next').click()");
    browser.wait("return document.querySelectorAll('#rows tr').length", |count| count == 12);
    browser.run("document.getElementById('prefix').value = 'agent/u'; document.getElementById('search').requestSubmit()");
    browser.wait("return document.querySelectorAll('#rows tr').length", |count| count == 1);
    browser.run("document.querySelector('#rows tr').click()");
    browser.wait("return document.querySelectorAll('.message').length", |count| count == 8);
    let roles = browser.run("return [...document.querySelectorAll('.message')].map(m => m.className)");
    assert_eq!(roles[1], "message user");
    let text = browser.run("return document.getElementById('transcript').innerText");
    for part in ["Do I need an umbrella in Bern?", "weather(", "14 °C, light rain", "onerror=", "\"unknown\"", "no JSON at all"] {
        assert!(text.as_str().is_some_and(|text| text.contains(part)), "{part} is not in {text}");
    }
    browser.picture("transcript-dark");
    browser.run("document.getElementById('theme').click()");
    browser.picture("transcript-light");

    browser.run("document.getElementById('prefix').value = '<'; document.getElementById('search').requestSubmit()");
    browser.wait("return document.querySelector('#rows td').textContent", |id| id == ATTACK);
    browser.run("document.querySelector('#rows tr').click()");
    browser.wait("return document.getElementById('transcript').textContent", |text| text == ATTACK);
    let markup = browser.run("return document.querySelectorAll('main img, main script').length");
    assert_eq!(markup, 0, "content became markup");
    assert_ne!(browser.run("return document.title"), "owned");
    assert!(
        !browser.run("return location.href").as_str().is_some_and(|address| address.contains("umbrella")),
        "an id is in the address"
    );

    cluster.kill(leader);
    browser.run("location.hash = '#overview'");
    browser.wait("return document.querySelectorAll('.node .error').length", |count| count == 1);
    browser.wait("return document.getElementById('tiles').innerText", |text| {
        text.as_str().is_some_and(|text| text.contains("Node ") && !text.contains(&format!("Node {leader}\n")))
    });
    browser.picture("one-down");
    let errors = browser.ask("POST", "/se/log", &json!({ "type": "browser" }));
    let complaints: Vec<&Value> = errors
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["source"] == "security" || entry["source"] == "javascript")
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Nothing of the page, and nothing it asks, is let into another page, and it may load nothing from elsewhere.
#[tokio::test]
async fn every_answer_of_the_page_forbids_what_it_does_not_need() {
    let cluster = Cluster::start(1).await;
    for path in ["/", "/page.js", "/page.css", "/icon.svg", "/api/status"] {
        let mut stream = TcpStream::connect(cluster.admin(1)).expect("the admin port listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        for header in [
            "content-security-policy: default-src 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(answer.contains(header), "{path}: {header} is missing");
        }
        assert!(
            !answer.contains("http://")
                || path == "/api/status"
                || path == "/icon.svg"
                || answer.contains("http://www.w3.org/2000/svg"),
            "{path} names another place"
        );
    }
}
