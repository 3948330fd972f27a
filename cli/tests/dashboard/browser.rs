//! Chromium without a window, driven through its DevTools protocol: keys, clicks and letters of a
//! user, and what the page shows.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Where Debian's package puts it.
const CHROMIUM: &str = "/usr/bin/chromium";
/// For anything that a person would wait for, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Browser {
    socket: WebSocketStream<TcpStream>,
    session: String,
    last: u64,
    /// Events that the page sent.
    events: Vec<Value>,
    /// Of what a test has opened.
    origins: Vec<String>,
    _process: Child,
    _folder: TempDir,
}

impl Browser {
    /// A new browser that has never seen anything.
    pub(super) async fn start() -> Self {
        assert!(
            Path::new(CHROMIUM).exists(),
            "{CHROMIUM} is missing: e2e/run dashboard installs it"
        );
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new(CHROMIUM)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                "--window-size=1280,800",
            ])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (port, path) = address(folder.path()).await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let mut browser = Self {
            socket,
            session: String::new(),
            last: 0,
            events: Vec::new(),
            origins: Vec::new(),
            _process: process,
            _folder: folder,
        };
        let target = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        attached["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        let size = json!({"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        browser
            .call("Emulation.setDeviceMetricsOverride", size)
            .await;
        browser
    }

    /// One command of the protocol.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.socket
            .send(Message::text(command.to_string()))
            .await
            .unwrap();
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let message = next
                .unwrap_or_else(|_| panic!("{method}: no answer"))
                .unwrap()
                .unwrap();
            let Message::Text(text) = message else {
                continue;
            };
            let reply: Value = serde_json::from_str(&text).unwrap();
            if reply["id"] == self.last {
                assert!(reply["error"].is_null(), "{method}: {reply}");
                return reply["result"].clone();
            }
            if reply["id"].is_null() {
                self.events.push(reply);
            }
        }
    }

    pub(super) async fn open(&mut self, url: &str) {
        self.origins.push(origin(url));
        self.call("Page.navigate", json!({"url": url})).await;
        self.wait("document.readyState === 'complete'").await;
    }

    /// The value of an expression of the page.
    pub(super) async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params).await;
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Until an expression is true.
    pub(super) async fn wait(&mut self, expression: &str) {
        let started = Instant::now();
        while self.eval(&format!("Boolean({expression})")).await != true {
            if started.elapsed() > PATIENCE {
                let seen = self.eval("document.body.innerText.slice(0, 1500)").await;
                panic!(
                    "never came: {expression}\n{}",
                    seen.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Until the text of the page has this.
    pub(super) async fn see(&mut self, text: &str) {
        self.wait(&format!(
            "document.body.textContent.includes({})",
            json!(text)
        ))
        .await;
    }

    /// The text of the first element that a selector finds.
    pub(super) async fn text(&mut self, selector: &str) -> String {
        let found = format!("document.querySelector({})?.textContent", json!(selector));
        self.eval(&found)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(super) async fn count(&mut self, selector: &str) -> u64 {
        let found = format!("document.querySelectorAll({}).length", json!(selector));
        self.eval(&found).await.as_u64().unwrap()
    }

    /// A click of the mouse in the middle of it, once it is there.
    pub(super) async fn click(&mut self, selector: &str) {
        self.wait(&format!("document.querySelector({})", json!(selector)))
            .await;
        let center = format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; \
             e.scrollIntoView({{block: 'center', inline: 'center'}}); const r = e.getBoundingClientRect(); \
             return {{x: r.x + r.width / 2, y: r.y + r.height / 2}}; }})()",
            json!(selector)
        );
        let center = self.eval(&center).await;
        assert!(center.is_object(), "nothing is {selector}");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": center["x"], "y": center["y"], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// A key, by its name or its letter.
    pub(super) async fn key(&mut self, name: &str) {
        let (code, text) = match name {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            "Escape" => (27, None),
            "End" => (35, None),
            "Home" => (36, None),
            "ArrowLeft" => (37, None),
            "ArrowUp" => (38, None),
            "ArrowRight" => (39, None),
            "ArrowDown" => (40, None),
            letter => (0, Some(letter)),
        };
        let mut event =
            json!({"type": "keyDown", "key": name, "code": name, "windowsVirtualKeyCode": code});
        if let Some(text) = text {
            event["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", event.clone()).await;
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", event).await;
    }

    /// Letters, as from a keyboard.
    pub(super) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// What has the keyboard: its tag and its name for a screen reader.
    pub(super) async fn focused(&mut self) -> String {
        let script = "(() => { const e = document.activeElement; \
                    return `${e.tagName.toLowerCase()} ${e.getAttribute('aria-label') ?? e.id ?? ''} ${e.textContent.slice(0, 200)}`; })()";
        self.eval(script).await.as_str().unwrap().to_owned()
    }

    /// A picture of what is in the window, as PNG.
    pub(super) async fn picture(&mut self) -> Vec<u8> {
        let screenshot = self
            .call(
                "Page.captureScreenshot",
                json!({"format": "png", "optimizeForSpeed": false}),
            )
            .await;
        STANDARD
            .decode(screenshot["data"].as_str().unwrap())
            .unwrap()
    }

    /// Faults that the page had: exceptions, refused scripts, what the policy forbids.
    pub(super) async fn faults(&mut self) -> Vec<String> {
        // Events that are on their way arrive before this response.
        self.eval("1").await;
        let bad = |event: &&Value| {
            event["method"] == "Runtime.exceptionThrown"
                || (event["method"] == "Log.entryAdded"
                    && event["params"]["entry"]["source"] == "security")
        };
        let found = self.events.iter().filter(bad);
        found.map(ToString::to_string).collect()
    }

    /// Addresses that the page has requested.
    pub(super) fn requested(&self) -> Vec<String> {
        let requests = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        let urls = requests.map(|event| {
            event["params"]["request"]["url"]
                .as_str()
                .unwrap()
                .to_owned()
        });
        urls.collect()
    }
}

/// No page sends a request to another origin than its own, whatever a test does with it.
impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut others = self.requested();
        // Pictures in the browser's own page for what it cannot reach need no request.
        let is_internal = |url: &str| url == "about:blank" || url.starts_with("data:");
        others.retain(|url| !is_internal(url) && !self.origins.contains(&origin(url)));
        assert!(others.is_empty(), "other origins were asked: {others:?}");
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> String {
    let parts: Vec<&str> = url.split('/').take(3).collect();
    parts.join("/")
}

/// Where the browser listens; it writes that down.
async fn address(folder: &Path) -> (u16, String) {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let written = std::fs::read_to_string(folder.join("DevToolsActivePort"));
        if let Some((port, path)) = written
            .ok()
            .as_deref()
            .and_then(|text| text.split_once('\n'))
        {
            return (port.parse().unwrap(), path.trim().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{CHROMIUM} did not start");
}
