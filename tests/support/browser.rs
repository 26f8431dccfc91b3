//! A real browser: Chromium, driven over W3C WebDriver by its `chromedriver`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Appliance, Process, eventually, has};

/// How long a page may take to show what it should, s.
const PATIENCE: u64 = 30;
/// Width and height of the window, px.
const SIZE: (u32, u32) = (1440, 900);

/// Keys by their code points in `WebDriver`.
pub const RIGHT: &str = "\u{e014}";
pub const DOWN: &str = "\u{e015}";
pub const ENTER: &str = "\u{e007}";
pub const END: &str = "\u{e010}";

/// One window of a browser with a profile of its own; closed when dropped.
pub struct Browser {
    /// Address of the session.
    session: String,
    agent: ureq::Agent,
    _driver: Process,
}

impl Browser {
    /// Starts it, if it is installed.
    pub fn start() -> Option<Self> {
        if !has("chromium") || !has("chromedriver") {
            return None;
        }
        let driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn().expect("starts");
        let mut driver = Process(driver);
        // Its output stays open: it writes to it later, too.
        let mut lines = BufReader::new(driver.0.stdout.as_mut().expect("stdout")).lines().map_while(Result::ok);
        let told = |line: String| Some(line.split_once("successfully on port ")?.1.trim_end_matches('.').to_owned());
        let port = lines.find_map(told).expect("chromedriver tells its port");
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"];
        let size = format!("--window-size={},{}", SIZE.0, SIZE.1);
        let options = json!({ "args": arguments.into_iter().chain([size.as_str()]).collect::<Vec<_>>() });
        let mut browser = Self { session: format!("http://127.0.0.1:{port}/session"), agent, _driver: driver };
        let wanted = json!({ "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } });
        let session = browser.command("", &json!({ "capabilities": wanted }));
        browser.session = format!("{}/{}", browser.session, session["sessionId"].as_str().expect("a session"));
        browser.resize(SIZE);
        Some(browser)
    }

    /// Gives pages so much room; the window's frame does not count.
    pub fn resize(&self, (width, height): (u32, u32)) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": screen });
        self.command("/goog/cdp/execute", &command);
    }

    /// What came of a command.
    fn answer(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.agent.post(format!("{}{path}", self.session)).content_type("application/json");
        let mut response = request.send(body.to_string()).expect("chromedriver answers");
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().expect("a body");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let value = value["value"].clone();
        if response.status().is_success() { Ok(value) } else { Err(format!("{path} {body}: {}", value["message"])) }
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.answer(path, body).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Opens a page of the appliance, logged in with the token.
    pub fn open(&self, appliance: &Appliance, path: &str, token: &str) {
        self.visit(&format!("{}{path}#token={token}", appliance.url));
    }

    /// Opens any address, anew also if it differs from the present one in its fragment only.
    pub fn visit(&self, address: &str) {
        self.command("/url", &json!({ "url": "about:blank" }));
        self.command("/url", &json!({ "url": address }));
    }

    /// What a script returns.
    pub fn eval(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns something other than `null`, `false`, `0` or an empty text.
    pub fn until(&self, what: &str, script: &str) -> Value {
        eventually(PATIENCE, what, || {
            let value = self.eval(script);
            let nothing = value.is_null() || value == false || value == 0 || value == "";
            (!nothing).then_some(value)
        })
    }

    /// The document as it is now.
    pub fn html(&self) -> String {
        self.eval("return document.documentElement.outerHTML").as_str().expect("text").to_owned()
    }

    /// The document, once it has had each of these.
    pub fn shows(&self, texts: &[&str]) -> String {
        for text in texts {
            eventually(PATIENCE, &format!("`{text}` in the page"), || self.html().contains(text).then_some(()));
        }
        self.html()
    }

    /// The reference of the first element that a CSS selector finds, once it is there.
    fn element(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = eventually(PATIENCE, selector, || self.answer("/element", &wanted).ok());
        let reference = found.as_object().and_then(|own| own.values().next()?.as_str());
        reference.expect("a reference").to_owned()
    }

    /// Clicks where a person would; what moves at present is tried again.
    pub fn click(&self, selector: &str) {
        eventually(PATIENCE, selector, || {
            let element = self.element(selector);
            self.answer(&format!("/element/{element}/click"), &json!({})).ok()
        });
    }

    /// Types into whatever has the focus.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        self.command("/actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": strokes }] }));
    }

    /// Keeps the window as a PNG.
    pub fn picture(&self, path: &str) {
        let mut response = self.agent.get(format!("{}/screenshot", self.session)).call().expect("chromedriver answers");
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().expect("a body");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let file = File::create(path).expect("a file");
        let decoder = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(file).spawn();
        let mut decoder = decoder.expect("base64 runs");
        let picture = value["value"].as_str().expect("a picture");
        decoder.stdin.take().expect("stdin").write_all(picture.as_bytes()).expect("written");
        assert!(decoder.wait().expect("wait").success(), "a PNG");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium outlives a `chromedriver` that is killed.
        let _ = self.agent.delete(&self.session).call();
    }
}
