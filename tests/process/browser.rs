//! A real browser, driven by the W3C WebDriver protocol.
//!
//! Without `chromium` and `chromedriver` a test says so loudly and passes, unless `QUORATE_PAGE_REQUIRED` is set, as the gate does once
//! it has installed them. `QUORATE_PAGE_SHOTS=DIR` keeps pictures.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::harness::PATIENCE;

/// A browser, and the process that drives it.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// `None`, and a word on stderr, where there is none.
    pub fn start() -> Option<Self> {
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

    pub fn open(&self, address: &str) {
        self.ask("POST", "/url", &json!({ "url": address }));
    }

    /// What a script gives.
    pub fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script gives what is wanted.
    pub fn wait(&self, script: &str, wanted: impl Fn(&Value) -> bool) -> Value {
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

    /// The window's inside is so large from now on.
    pub fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("POST", "/goog/cdp/execute", &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics }));
    }

    /// Looks at the page at 1280 and at 400 px, light and dark: nothing may stick out of the window, and nothing that is shown may be cut.
    /// `check` is what else must hold of each, with the width.
    pub fn looks(&self, name: &str, check: impl Fn(u32)) {
        for (width, height) in [(1280, 900), (400, 860)] {
            self.size(width, height);
            for theme in ["light", "dark"] {
                self.run(&format!("document.documentElement.dataset.theme = '{theme}'"));
                let found = self.run(STICKS_OUT);
                assert_eq!(found, json!([]), "{name} at {width} px, {theme}: these stick out or are cut");
                check(width);
                self.picture(&format!("{name}-{width}-{theme}"));
            }
        }
    }

    /// What the browser complained of: of markup that may not be, and of errors in scripts.
    pub fn complaints(&self) -> Vec<Value> {
        let log = self.ask("POST", "/se/log", &json!({ "type": "browser" }));
        let all = log.as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|entry| entry["source"] == "security" || entry["source"] == "javascript").collect()
    }

    pub fn picture(&self, name: &str) {
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

/// Elements that are seen and reach beyond the window, or whose own text does not fit into them.
const STICKS_OUT: &str = "
    const found = [];
    for (const node of document.querySelectorAll('body *')) {
        if (node.closest('svg') || node.closest('[hidden]') || node.classList.contains('sign')) continue;
        const box = node.getBoundingClientRect();
        if (!box.width || !box.height) continue;
        const text = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
        const cut = text && node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== 'inline' && !node.matches('.cluster');
        if (box.left < -1 || box.right > innerWidth + 1 || cut) found.push(`${node.tagName}.${node.className} ${node.textContent.slice(0, 60)}`);
    }
    return found;";
