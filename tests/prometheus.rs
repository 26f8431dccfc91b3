//! The dashboard in Prometheus' terms: a real Prometheus scrapes the running binary, and every panel's query is run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Appliance, eventually, has, is_root};

struct Prometheus {
    process: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(appliance: &Appliance) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let target = appliance.url.trim_start_matches("http://");
        let config = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: wiretag\n    authorization: {{ credentials: {} }}\n    static_configs: [{{ targets: ['{target}'] }}]\n",
            appliance.token
        );
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, config).expect("written");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus starts");
        Self { process, url: format!("http://127.0.0.1:{port}"), _directory: directory }
    }

    /// Series that a query gives now.
    fn series(&self, query: &str) -> Option<usize> {
        let mut answer = ureq::get(format!("{}/api/v1/query", self.url)).query("query", query).call().ok()?;
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?;
        Some(answer["data"]["result"].as_array()?.len())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Title and queries of each panel, rows included.
fn panels(dashboard: &Value) -> Vec<(String, Vec<String>)> {
    let mut panels = Vec::new();
    let mut todo: Vec<&Value> = dashboard["panels"].as_array().expect("panels").iter().collect();
    while let Some(panel) = todo.pop() {
        todo.extend(panel["panels"].as_array().into_iter().flatten());
        let targets = panel["targets"].as_array().into_iter().flatten();
        let queries: Vec<_> = targets.filter_map(|target| target["expr"].as_str().map(str::to_owned)).collect();
        if !queries.is_empty() {
            panels.push((panel["title"].as_str().unwrap_or("?").to_owned(), queries));
        }
    }
    panels
}

/// Grafana's variables as Prometheus would get them.
fn expanded(query: &str) -> String {
    let plain = query.replace("$__rate_interval", "10s").replace("$__interval", "10s").replace("$__range", "1m");
    plain.replace("$node", ".*").replace("$instance", ".*")
}

#[test]
fn every_panel_has_data_and_every_metric_is_documented() {
    if !is_root() || !has("prometheus") || !has("promtool") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let appliance = Appliance::start(directory.path(), &["--demo", "--interface", "wtdemo*"]);
    let prometheus = Prometheus::start(&appliance);
    // A new series is 0 for more than a minute.
    for counted in ["wiretag_flows_total{server=\"demo/web\"}", "wiretag_dns_responses_total{rcode=\"NXDOMAIN\"}"] {
        let some = format!("{counted} > 0");
        eventually(120, &some, || prometheus.series(&some).filter(|series| *series > 0));
    }
    for family in ["wiretag_flows_total", "wiretag_flow_bytes_total", "wiretag_handshake_rtt_seconds_count"] {
        let late = format!("min_over_time({family}{{server=~\"demo/.*\"}}[10m]) > 0");
        assert_eq!(prometheus.series(&late), Some(0), "what a series begins with is in no rate: {late}");
    }
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards/wiretag.json"))
        .expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = panels(&dashboard);
    assert!(panels.len() >= 10, "{} panels", panels.len());
    for (title, queries) in &panels {
        for query in queries {
            let chosen = query.matches("node=~\"$node\"").count() + query.matches("instance=~\"$instance\"").count();
            assert_eq!(chosen, query.matches("wiretag_").count(), "{title}: of the nodes that are chosen: {query}");
            eventually(20, &format!("data in panel `{title}`: {query}"), || {
                prometheus.series(&expanded(query)).filter(|series| *series > 0)
            });
        }
    }
    lint(&appliance.get("/metrics"));
    appliance.stop();
}

/// `promtool check metrics`: names, units, help.
fn lint(metrics: &str) {
    use std::io::Write;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    promtool.stdin.take().expect("stdin").write_all(metrics.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Where a proxy on this host hides who asks, loopback is no reason to answer.
#[test]
fn metrics_want_a_token_from_everybody_where_that_is_configured() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("closed.toml");
    std::fs::write(&config, "open_metrics = false\n").expect("written");
    let nothing = ["--interface", "none-such*"];
    let open = Appliance::start(directory.path(), &nothing);
    assert_eq!(open.request("/metrics", None).0, 200);
    open.stop();
    let config = ["--config", config.to_str().expect("a path")];
    let closed = Appliance::start(directory.path(), &[nothing, config].concat());
    assert_eq!(closed.request("/metrics", None).0, 401);
    assert_eq!(closed.request("/metrics", Some(&closed.token)).0, 200);
    closed.stop();
}
