//! A small vocabulary for driving the binary from outside.
#![allow(dead_code, unreachable_pub, reason = "each test target uses its own part of the vocabulary")]

pub mod browser;
pub mod docker;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

#[path = "../../enrich/tests/wait/mod.rs"]
mod wait;
pub use wait::eventually;

/// Whether the test may go on without `need`: outside CI it says why it is skipped, in CI its absence is a failure.
pub fn require(need: &str, there: bool) -> bool {
    let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    assert!(there || !in_ci, "CI must have {need}");
    if !there {
        eprintln!("skipped: no {need}");
    }
    there
}

/// Root: network namespaces, packet sockets.
pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    require("root", output.stdout.starts_with(b"0"))
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("sh runs");
    require(program, found.status.success())
}

/// Runs a program that must succeed; its stdout.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The corpus beside the clone, if it is there.
pub fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    require("the corpus `../shared/corpus`", path.join("index.jsonl").exists()).then_some(path)
}

/// Runs `wiretag` with arguments to its end.
pub fn wiretag<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wiretag")).args(arguments).output().expect("wiretag runs")
}

/// stdout of a `wiretag` that must succeed.
pub fn wiretag_ok<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let output = wiretag(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Exit code and stderr of a `wiretag` that must fail.
pub fn wiretag_fails<S: AsRef<OsStr>>(arguments: &[S]) -> (i32, String) {
    let output = wiretag(arguments);
    let code = output.status.code().expect("an exit code, not a signal");
    assert_ne!(code, 0, "{}", String::from_utf8_lossy(&output.stdout));
    (code, String::from_utf8(output.stderr).expect("text"))
}

/// JSON lines.
pub fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Another process; killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running appliance; killed when dropped.
pub struct Appliance {
    child: Child,
    pub log: Arc<Mutex<String>>,
    pub data: PathBuf,
    pub url: String,
    pub token: String,
}

impl Appliance {
    /// Starts `wiretag run` on `data` with more arguments, and waits until it answers.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        let _ = std::fs::remove_file(data.join("run.json"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_wiretag"))
            .args(["run", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("wiretag starts");
        let run = eventually(30, "the appliance starts", || {
            if let Some(status) = child.try_wait().expect("wait") {
                let mut text = String::new();
                let _ = child.stderr.take().expect("stderr").read_to_string(&mut text);
                panic!("wiretag run ended with {status}: {text}");
            }
            serde_json::from_slice::<Value>(&std::fs::read(data.join("run.json")).ok()?).ok()
        });
        let url = run["url"].as_str().expect("url").to_owned();
        let token = std::fs::read_to_string(data.join("token")).expect("token").trim().to_owned();
        // What it logs goes on to the test's own stderr.
        let lines = BufReader::new(child.stderr.take().expect("stderr"));
        let log = Arc::new(Mutex::new(String::new()));
        let copy = log.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let mut copy = copy.lock().expect("the log");
                copy.push_str(&line);
                copy.push('\n');
            }
        });
        Self { child, log, data: data.to_owned(), url, token }
    }

    /// Its process.
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// GET with the token, as JSON.
    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path)).expect("JSON")
    }

    /// GET with the token; the body of a success.
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.request(path, Some(&self.token));
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// GET with or without a token; status and body.
    pub fn request(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let mut request = ureq::Agent::new_with_config(config).get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().expect("the appliance answers");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("a body"))
    }

    /// Value of a metric, summed over the series whose line contains `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.get("/metrics");
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(labels));
        let own = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        own.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Value of a metric that counts, over all series.
    pub fn count(&self, name: &str) -> usize {
        self.metric(name, "") as usize
    }

    /// Rows of `wiretag flows QUERY --format json`.
    pub fn flows(&self, query: &str, more: &[&str]) -> Vec<Value> {
        flows(&self.data, query, more)
    }

    /// SIGTERM, and wait for a clean end.
    pub fn stop(self) {
        self.stop_by("-TERM");
    }

    /// A signal, and wait for a clean end.
    pub fn stop_by(mut self, signal: &str) {
        run("kill", &[signal, &self.pid()]);
        let status = eventually(30, "the appliance stops", || self.child.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rows of `wiretag flows QUERY --format json` on a data directory.
pub fn flows(data: &Path, query: &str, more: &[&str]) -> Vec<Value> {
    let data = data.to_str().expect("a path");
    let mut arguments = vec!["flows", query, "--format", "json", "--data", data];
    arguments.extend(more);
    rows(&wiretag_ok(&arguments))
}
