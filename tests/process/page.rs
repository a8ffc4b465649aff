//! The admin port's page in a real browser: what a person sees, and that content stays content.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use quorate::client::{Client, Content, WriteOptions};
use quorate::types::Counters;
use serde_json::{Value, json};

use super::browser::Browser;
use super::harness::Cluster;

const ATTACK: &str = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";

/// A number that no floating-point number holds, and one whose digits mean something.
const NUMBERS: [&str; 2] = ["9007199254740993", "46.94800000"];

async fn save(client: &Client, id: &str, items: &[&str]) {
    let messages = items.iter().map(|item| Bytes::copy_from_slice(item.as_bytes())).collect();
    let head = Bytes::from(json!({ "session_id": id }).to_string());
    let transcript = Content::Transcript { messages, head, counters: Counters::default() };
    client.save(id, transcript, WriteOptions::default()).await.expect("a save");
}

/// Eleven sessions of the shapes that agents write, of shapes that nobody does, and of nothing but bytes; sixty plain ones.
async fn fill(cluster: &Cluster) {
    let client = cluster.client();
    let attack = json!({ "role": "user", "content": ATTACK }).to_string();
    let bob = [
        r#"{"role":"System","content":"You are a helpful assistant."}"#,
        r#"{"role":"User","content":"Do I need an umbrella in Bern?"}"#,
        r#"{"role":"Assistant","content":"","tool_calls":[{"name":"weather.now","arguments":{"city":"Bern"}}]}"#,
        r#"{"role":"Tool","content":"14 °C, light rain","tool_name":"weather.now"}"#,
        r#"{"role":"Assistant","content":"Yes: it rains lightly, at 14 °C."}"#,
        &attack,
    ];
    save(&client, "agent/umbrella", &bob).await;
    let stock: Vec<Value> = (0..30).map(|n| json!({ "sku": format!("SKU-{n}"), "stock": n })).collect();
    let result = json!({ "role": "tool", "tool_call_id": "call_1", "content": json!({ "items": stock }).to_string() }).to_string();
    let openai = [
        r#"{"role":"user","content":[{"type":"text","text":"Charged twice?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAA"}}]}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"payments.list","arguments":"{\"customer\":9007199254740993}"}},{"id":"call_2","type":"function","function":{"name":"kb.search","arguments":"no JSON {"}}]}"#,
        &result,
        r#"{"role":"assistant","content":"One of them drops off."}"#,
    ];
    save(&client, "shape/openai", &openai).await;
    let anthropic = [
        r#"{"role":"assistant","content":[{"type":"text","text":"I look it up."},{"type":"tool_use","id":"toolu_1","name":"geo.find","input":{"lat":46.94800000}}]}"#,
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","is_error":true,"content":[{"type":"text","text":"not found"},{"type":"image","source":{"type":"base64","media_type":"image/jpeg","data":"AAAA"}}]}]}"#,
    ];
    save(&client, "shape/anthropic", &anthropic).await;
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let odd = [
        r#"{"role":"assistant","content":[{"type":"hologram","beam":1},7,null,{"type":"text","text":9},{"type":"tool_use","name":5}]}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[null,"call me",{"function":"odd-function"},{"name":{"a":"odd-name"}},{"type":"odd-type","name":"odd-typed"}]}"#,
        r#"{"role":"user","content":"twice","role":"odd-admin"}"#,
        r#"{"role":"tool","tool_call_id":"of-nobody","content":{"odd-content":true}}"#,
        r#"{"role":"__proto__","content":"odd-role","__proto__":{"polluted":1}}"#,
        r#"{"unknown":[1,2,3]}"#,
        "no JSON at all",
        &deep,
        r#"{"role":"user","content":"still here","tool_calls":"odd-calls"}"#,
    ];
    save(&client, "shape/odd", &odd).await;
    client.save(ATTACK, Content::Value(ATTACK.into()), WriteOptions::default()).await.expect("a save");
    for n in 0..6 {
        // Siblings differ in the middle only, where a narrow column would cut.
        let id = format!("long/support/2026-11/{n:08}-customer-9f3a/thread-main/turns-of-the-conversation");
        save(&client, &id, &[]).await;
    }
    for n in 0..60 {
        client
            .save(&format!("agent/{n:03}"), Content::Value(format!("value {n}").into()), WriteOptions::default())
            .await
            .expect("a save");
    }
    client.close().await;
}

const HEALTH: &str = "return document.getElementById('health').textContent";

fn read(browser: &Browser, id: &str, items: usize) -> String {
    let encoded = id.replace('/', "%2F");
    browser.run(&format!("location.hash = '#session={encoded}&prefix=shape%2F'"));
    browser.wait("return document.querySelector('#reader-head h2')?.textContent", |shown| shown == id);
    browser.wait("return document.querySelectorAll('.message').length", |count| count == items);
    browser.run("return document.getElementById('transcript').innerText").as_str().expect("text").to_owned()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

fn the_overview(browser: &Browser, leader: usize) {
    browser.wait(HEALTH, |text| text == "healthy" || text.as_str().is_some_and(|text| text.contains("warning")));
    let tiles = browser.run("return document.getElementById('tiles').innerText");
    has(tiles.as_str().expect("text"), &[&format!("Node {leader}"), "71", "the slowest node"]);
    assert_eq!(browser.run("return document.querySelectorAll('.node').length"), 3);
    assert_eq!(browser.run(&format!("return document.querySelector('[data-node=\"{leader}\"] .badge').textContent")), "leader");
    let node = browser.run("return document.querySelector('.node').innerText");
    has(node.as_str().expect("text"), &["Last scrub", "Cluster version"]);
    // What the nodes counted before: latency is the leader's, on a follower's page, and lag is known of each.
    browser.wait("return document.querySelectorAll('#chart-latency path').length", |count| count.as_u64() >= Some(2));
    browser.wait("return document.querySelectorAll('#chart-lag path').length", |count| count.as_u64() >= Some(3));
    // Reads are dashed: where they are as many as the writes, both are seen.
    assert_eq!(browser.run("return document.querySelectorAll('#chart-throughput path[stroke-dasharray]').length"), 1);
    browser.looks("overview", |width| {
        let header = browser.run("return document.querySelector('header').offsetHeight");
        assert!(header.as_u64() <= Some(60), "the header takes {header} px at {width} px");
        assert!(
            browser
                .run("return document.getElementById('theme').getAttribute('aria-label')")
                .as_str()
                .is_some_and(|l| l.ends_with(" theme"))
        );
    });
    // A page that is opened later shows what came before.
    const POINTS: &str = "return series.sync.get(1).length && series.writes.filter(value => value != null).length";
    browser.wait(POINTS, |count| count.as_u64() >= Some(4));
    browser.run("location.reload()");
    browser.wait("return document.body.dataset.ready", |ready| ready == "1");
    assert!(browser.run(POINTS).as_u64() >= Some(4), "the history began with the page");
}

fn the_list(browser: &Browser) {
    browser.run("location.hash = '#sessions'");
    browser.wait("return document.querySelectorAll('#rows tr').length", |count| count == 50);
    browser.run("document.getElementById('next').click()");
    browser.wait("return document.querySelectorAll('#rows tr').length", |count| count == 21);
    browser.run("document.getElementById('prefix').value = 'nobody/'; document.getElementById('search').requestSubmit()");
    browser.wait("return document.getElementById('empty').innerText", |text| text == "No session has this prefix.");
    browser.run("document.getElementById('prefix').value = 'long/'; document.getElementById('search').requestSubmit()");
    browser.wait("return document.querySelectorAll('#rows tr').length", |count| count == 6);
    browser.looks("sessions", |width| {
        let ids = browser.run("return [...new Set([...document.querySelectorAll('#rows a')].map(id => id.textContent))]");
        assert_eq!(ids.as_array().map(Vec::len), Some(6), "siblings look alike at {width} px: {ids}");
        let cut = browser.run(
            "const right = document.getElementById('scroll').getBoundingClientRect().right;
             return [...document.querySelectorAll('#rows td:last-child')].filter(cell => !cell.textContent.endsWith(' ago') || cell.getBoundingClientRect().right > right + 1).length",
        );
        assert_eq!(cut, 0, "when a session was updated is cut at {width} px");
        let wide = browser.run("return getComputedStyle(document.querySelector('th.wide')).display");
        assert!(width > 600 || wide == "none", "{wide}");
    });
}

fn conversations(browser: &Browser) {
    let text = read(browser, "agent/umbrella", 6);
    has(&text, &["Do I need an umbrella in Bern?", "weather.now", "\"city\": \"Bern\"", "14 °C, light rain", "onerror="]);
    assert_eq!(browser.run("return [...document.querySelectorAll('.message')].map(m => m.className)")[1], "message user");
    // Bob's calls have no ids: the name ties the result.
    assert_eq!(
        browser.run("return [...document.querySelectorAll('.tie')].map(tie => tie.innerText)"),
        json!(["result ↓", "call ↑"])
    );
    assert_eq!(browser.run("return document.querySelector('.tool-box b').innerText"), "weather.now", "names stay as they are");
    let times = browser.run("return document.getElementById('reader-head').innerText");
    let utc = |word: &str| word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
    assert_eq!(times.as_str().expect("text").split_whitespace().filter(|word| utc(word)).count(), 2, "{times}");
    browser.looks("bob", |_| ());

    let text = read(browser, "shape/openai", 4);
    let image = "image · image/png · 6 B";
    has(
        &text,
        &[
            "Charged twice?",
            image,
            NUMBERS[0],
            "payments.list",
            "kb.search",
            "no JSON {",
            "call_1",
            "result of",
            "no result yet",
            "One of them drops off.",
        ],
    );
    has(&text, &["\"sku\": \"SKU-0\"", "Show all "]);
    assert!(!text.contains("SKU-29"), "a long result is folded");
    browser.run("document.querySelector('.result .fold').click()");
    browser.wait("return document.getElementById('transcript').innerText", |text| {
        text.as_str().is_some_and(|text| text.contains("SKU-29"))
    });
    browser.run("document.querySelector('.result .tie').click()");
    assert_eq!(browser.run("return document.querySelector('.tool-box.shown b').innerText"), "payments.list");
    browser.run("document.querySelector('.message .raw').click()");
    has(
        browser.run("return document.querySelector('.message').innerText").as_str().expect("text"),
        &[r#"{"role":"user","content":[{"#],
    );
    browser.looks("openai", |_| ());

    let text = read(browser, "shape/anthropic", 2);
    has(&text, &["I look it up.", "geo.find", NUMBERS[1], "error of", "toolu_1", "not found", "image · image/jpeg · 3 B"]);
    browser.looks("anthropic", |_| ());

    let text = read(browser, "shape/odd", 9);
    has(
        &text,
        &[
            "hologram",
            "\"text\": 9",
            "\"name\": 5",
            "call me",
            "odd-function",
            "odd-name",
            "odd-typed",
            "also: type",
            "odd-admin",
            "odd-content",
            "its call is not shown here",
        ],
    );
    has(
        &text,
        &["odd-role", "also: __proto__", "\"unknown\": [1, 2, 3]", "no JSON at all", "[[[[", "still here", "also: tool_calls"],
    );
    browser.looks("odd", |_| ());
}

/// The address behind the `#` names what is shown: it can be given on, and survives a reload.
fn addresses(browser: &Browser) {
    browser.wait("return document.querySelector('#rows a')?.title", |id| id == "shape/anthropic");
    browser.run("document.querySelector('#rows tr').click()");
    let first = browser.wait("return document.querySelector('#reader-head h2')?.textContent", |id| id == "shape/anthropic");
    assert_eq!(browser.run("return location.hash"), "#session=shape%2Fanthropic&prefix=shape%2F", "{first}");
    assert_eq!(browser.run("return location.href.split('#')[0].includes('shape')"), false, "an id is in what a browser sends");
    browser.run("location.reload()");
    browser.wait("return document.querySelectorAll('.message').length", |count| count == 2);
    assert_eq!(browser.run("return document.getElementById('prefix').value"), "shape/");
    browser.wait("return document.querySelector('#rows tr[aria-selected=true] a')?.title", |id| id == "shape/anthropic");
    browser.run("location.hash = '#session=%E0%A4%A&prefix=agent%2Fu'");
    browser.wait("return document.querySelector('#rows a')?.title", |id| id == "agent/umbrella");
    browser.run("location.hash = '#session=gone'");
    browser.wait("return document.getElementById('transcript').innerText", |text| text == "There is no session with this id.");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_the_cluster_its_sessions_and_a_transcript_and_content_stays_content() {
    let Some(browser) = Browser::start() else { return };
    let mut cluster = Cluster::start(3).await;
    fill(&cluster).await;
    let leader = cluster.leader().await;
    let asked = (1..=3).find(|node| *node != leader).expect("three nodes");
    browser.open(&format!("http://{}/", cluster.admin(asked)));
    the_overview(&browser, leader);
    the_list(&browser);
    conversations(&browser);
    addresses(&browser);

    browser.run("document.getElementById('prefix').value = '<'; document.getElementById('search').requestSubmit()");
    browser
        .wait("return document.querySelector('#rows a')?.textContent", |id| id.as_str().is_some_and(|id| id.starts_with("<img")));
    browser.run("document.querySelector('#rows tr').click()");
    browser.wait("return document.getElementById('transcript').textContent", |text| text == ATTACK);
    let markup = browser.run("return document.querySelectorAll('main img, main script').length");
    assert_eq!(markup, 0, "content became markup");
    assert_ne!(browser.run("return document.title"), "owned");

    cluster.kill(leader);
    // One truth, whatever is looked at.
    browser.wait(HEALTH, |text| text == "1 of 3 nodes down");
    assert_eq!(browser.run("return document.getElementById('health').className"), "pill warn");
    browser.run("location.hash = '#overview'");
    browser.wait("return document.querySelectorAll('.node .error').length", |count| count == 1);
    browser.wait("return document.getElementById('tiles').innerText", |text| {
        text.as_str().is_some_and(|text| text.contains("Node ") && !text.contains(&format!("Node {leader}\n")))
    });
    assert_eq!(browser.run(HEALTH), "1 of 3 nodes down");
    browser.looks("one-down", |_| ());
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Nothing of the page, and nothing it asks, is let into another page, and it may load nothing from elsewhere.
#[tokio::test]
async fn every_answer_of_the_page_forbids_what_it_does_not_need() {
    let cluster = Cluster::start(1).await;
    for path in ["/", "/page.js", "/conversation.js", "/page.css", "/icon.svg", "/api/status"] {
        let mut stream = TcpStream::connect(cluster.admin(1)).expect("the admin port listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).expect("sent");
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
