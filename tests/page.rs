//! The page in a real browser: Chromium renders live flows of the demonstration.
//!
//! `WIRETAG_SCREENSHOT=docs/screenshot.png cargo nextest run …` also keeps the picture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::process::Command;

use support::{Appliance, eventually, has, is_root};

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1440,900",
    "--virtual-time-budget=8000",
];

/// The token of a reader.
const READER: &str = "0123456789abcdef0123456789abcdef";

/// Logs in through the interface that the login form uses, and hands the session to the browser in a page of its own.
#[test]
fn the_page_shows_live_flows_in_chromium() {
    if !is_root() || !has("chromium") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    // Beside the owner somebody who may see one container's rows.
    let (config, secret) = (directory.path().join("wiretag.toml"), directory.path().join("secret"));
    let reader = format!("name = 'shop'\ntoken_file = '{}'\nrows = 'container == web'\n", secret.display());
    std::fs::write(&config, format!("[[readers]]\n{reader}")).expect("written");
    std::fs::write(&secret, READER).expect("written");
    let config = config.to_str().expect("a path");
    let appliance = Appliance::start(directory.path(), &["--demo", "--interface", "wtdemo*", "--config", config]);
    eventually(40, "a name that does not exist", || appliance.flows("dns_rcode == NXDOMAIN", &[]).pop());

    let login = rendered(&appliance, "/");
    assert!(login.to_lowercase().contains("token"), "the page asks for the token first: {login}");

    let web = eventually(40, "a web flow", || {
        appliance.flows("container == web and tcp_state == SF and end_reason exists", &[]).into_iter().next()
    });
    let id = web["flow_id"].as_str().expect("an id").to_owned();
    let page = rendered(&appliance, &format!("/?flow={id}#token={}", appliance.token));
    for text in ["GET web.demo/ → 200", "client", "web", "SF", "NXDOMAIN", "Download packets", "server_rtt_us"] {
        assert!(page.contains(text), "no `{text}` in the page: {page}");
    }
    assert!(!page.contains(&appliance.token), "the token does not stay in the page");
    for text in ["aria-pressed=\"true\">flows", "Transactions of this flow", "GET web.demo/"] {
        assert!(page.contains(text), "no `{text}` in the page: {page}");
    }

    let page = rendered(&appliance, &format!("/?table=transactions&flow={id}#token={}", appliance.token));
    for text in
        ["aria-pressed=\"true\">transactions", "aria-label=\"Transactions\"", "A missing.demo", "NXDOMAIN", "200"]
    {
        assert!(page.contains(text), "no `{text}` in the page of transactions: {page}");
    }
    assert!(page.contains("server_rtt_us"), "a transaction's flow has its details: {page}");
    let page = rendered(&appliance, &format!("/?flow=00000000000000ff#token={}", appliance.token));
    assert!(page.contains("This flow is not there yet"), "a transaction may be there before its flow: {page}");

    let all = rendered(&appliance, &format!("/?table=transactions#token={}", appliance.token));
    assert!(all.contains("missing.demo") && !all.contains("rows-seen"), "the owner sees every row: {all}");
    let page = rendered(&appliance, &format!("/?table=transactions#token={READER}"));
    for text in ["only <code>container == web</code>", "Logged in as shop", "GET"] {
        assert!(page.contains(text), "no `{text}` in the page of a reader: {page}");
    }
    assert!(!page.contains("missing.demo"), "a reader sees its own rows only: {page}");
    assert!(!appliance.log().contains(READER), "{}", appliance.log());
    appliance.stop();
}

/// The page's document after its scripts ran.
fn rendered(appliance: &Appliance, path: &str) -> String {
    let profile = tempfile::tempdir().expect("a directory");
    let user = format!("--user-data-dir={}", profile.path().display());
    let picture = std::env::vars().find(|(name, _)| name == "WIRETAG_SCREENSHOT").map(|(_, path)| path);
    let url = format!("{}{path}", appliance.url);
    if let Some(picture) = picture {
        let picture = format!("--screenshot={picture}");
        Command::new("chromium").args(FLAGS).args([&user, &picture, &url]).output().expect("chromium runs");
    }
    let output =
        Command::new("chromium").args(FLAGS).args([&user, "--dump-dom", &url]).output().expect("chromium runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
