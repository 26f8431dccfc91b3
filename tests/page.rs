//! The page in a real browser: Chromium shows the demonstration, and is clicked.
//!
//! `WIRETAG_SCREENSHOT=docs/screenshot.png cargo nextest run …` also keeps the picture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::browser::{Browser, DOWN, END, ENTER, RIGHT};
use support::{Appliance, eventually, is_root};

/// The token of a reader, in base64.
const READER: &str = "0123456789abcdef0123456789abcd+/";
/// Texts of the rows, cells apart by tabs.
const ROWS: &str = "return [...document.querySelectorAll('section tbody tr')].map((row) => row.innerText)";
/// Flows between workloads, without what these tell everybody.
const NAMED: &str = "client_workload+exists+and+server_workload+exists";
/// The head of the details of an edge.
const EDGE: &str = "<bdi>demo/client</bdi> → <bdi>demo/web</bdi>";
/// What stands above followed flows, if they are.
const STATUS: &str = "return (document.querySelector('.follow')?.innerText ?? '')";

/// The demonstration, and somebody who may see one container's rows; a browser.
fn demonstration(directory: &Path) -> Option<(Appliance, Browser)> {
    if !is_root() {
        return None;
    }
    let browser = Browser::start()?;
    let (config, secret) = (directory.join("wiretag.toml"), directory.join("secret"));
    let reader = format!("name = 'shop'\ntoken_file = '{}'\nrows = 'container == web'\n", secret.display());
    std::fs::write(&config, format!("[[readers]]\n{reader}")).expect("written");
    std::fs::write(&secret, READER).expect("written");
    let config = config.to_str().expect("a path");
    let appliance = Appliance::start(directory, &["--demo", "--interface", "wtdemo*", "--config", config]);
    Some((appliance, browser))
}

/// Logs in through the interface that the login form uses, and hands the session to the browser in a page of its own.
#[test]
fn the_page_shows_live_flows_in_chromium() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some((appliance, browser)) = demonstration(directory.path()) else { return };
    eventually(40, "a name that does not exist", || appliance.flows("dns_rcode == NXDOMAIN", &[]).pop());

    browser.visit(&appliance.url);
    browser
        .until("the page asks for the token first", "return document.querySelector('input[type=password]') !== null");

    let web = eventually(40, "a web flow", || {
        appliance.flows("container == web and tcp_state == SF and end_reason exists", &[]).into_iter().next()
    });
    let id = web["flow_id"].as_str().expect("an id").to_owned();
    browser.open(&appliance, &format!("/?range=5m&q={NAMED}&flow={id}"), &appliance.token);
    browser.shows(&["GET web.demo/ → 200", "client", "web", "SF", "NXDOMAIN", "Download packets", "server_rtt_us"]);
    let page = browser.shows(&["aria-pressed=\"true\">flows", "Transactions of this flow", "GET web.demo/"]);
    assert!(!page.contains(&appliance.token), "the token does not stay in the page");
    let address = browser.eval("return location.href").to_string();
    assert!(!address.contains(&appliance.token), "nor in the address: {address}");
    downloads_what_is_shown(&browser);
    if let Some((_, path)) = std::env::vars().find(|(name, _)| name == "WIRETAG_SCREENSHOT") {
        browser.until("a full page", &format!("{ROWS}.length > 90"));
        browser.picture(&path);
    }

    browser.open(&appliance, &format!("/?table=transactions&flow={id}"), &appliance.token);
    browser.shows(&["aria-pressed=\"true\">transactions", "aria-label=\"Transactions\"", "A missing.demo", "NXDOMAIN"]);
    browser.shows(&["200", "server_rtt_us"]);
    browser.open(&appliance, "/?flow=00000000000000ff", &appliance.token);
    browser.shows(&["This flow is not there yet"]);

    let long_ago = "range=custom&from=2001-01-01&to=2001-01-02";
    browser.open(&appliance, &format!("/?q=server_port+==+80&{long_ago}"), &appliance.token);
    browser.click(".empty button");
    browser.until("flows of another time", &format!("{ROWS}.length"));
    browser.open(&appliance, &format!("/?q=server_port+==+1&{long_ago}"), &appliance.token);
    browser.click(".empty button");
    browser.shows(&["No flows match in all that is kept"]);
    let offered = "return document.querySelector('.empty button') !== null";
    browser.click(".side label input");
    browser.until("nobody has looked for all observations of it yet", offered);
    browser.click(".empty button");
    browser.shows(&["No flows match in all that is kept"]);
    browser.click(".switch button:nth-child(2)");
    browser.until("nor for transactions", offered);
    browser.shows(&["No transactions match."]);
    a_page_goes_on_with_its_own_question(&appliance, &browser);

    browser.open(&appliance, "/?table=transactions", &appliance.token);
    let all = browser.shows(&["missing.demo"]);
    assert!(!all.contains("rows-seen"), "the owner sees every row: {all}");
    browser.open(&appliance, "/?table=transactions", READER);
    let page = browser.shows(&["missing.demo"]);
    assert!(!page.contains("rows-seen"), "a link takes no session's place: {page}");
    a_log_out_that_fails_says_so(&browser);
    // A link logs in where the page is shown already.
    browser.eval(&format!("location.hash = 'token={READER}'"));
    let page = browser.shows(&["only <code>container == web</code>", "Logged in as shop", "GET"]);
    assert!(!page.contains("missing.demo"), "a reader sees its own rows only: {page}");
    assert!(!appliance.log().contains(READER), "{}", appliance.log());
    appliance.stop();
}

/// The session is over when the appliance says so, and not before.
fn a_log_out_that_fails_says_so(browser: &Browser) {
    let leave = "[...document.querySelectorAll('button')].find(button => button.textContent === 'Log out').click()";
    answered(browser, "path.endsWith('/logout')", "new Response('', { status: 502 })");
    browser.eval(leave);
    browser.shows(&["you are still logged in"]);
    browser.eval("window.stubbed = false");
    browser.eval(leave);
    browser.until("the page asks for a token", "return document.querySelector('input[type=password]') !== null");
}

/// Has requests to some paths answered so, until `stubbed` is something else.
fn answered(browser: &Browser, paths: &str, answer: &str) {
    browser.eval(&format!(
        "const own = window.fetch; const paths = (window.stubbed = (path) => {paths}); window.fetch = async (path, init) => \
         window.stubbed === paths && paths(path) ? {answer} : own(path, init)"
    ));
}

/// A question that fails leaves the rows of the one before, whose next page is asked for.
fn a_page_goes_on_with_its_own_question(appliance: &Appliance, browser: &Browser) {
    browser.open(appliance, "/?q=server_port+==+80", &appliance.token);
    browser.until("flows", &format!("{ROWS}.length"));
    // Every page says that there is another.
    browser.eval(
        "const own = window.fetch; window.asked = []; window.fetch = async (path, ...rest) => { window.asked.push(path); \
         const answer = await own(path, ...rest); if (!answer.ok || !path.startsWith('/api/v1/flows?')) return answer; \
         return new Response(JSON.stringify({ ...(await answer.json()), next: 'more' })) }",
    );
    let focus = "document.querySelector('[aria-label=Query]').focus()";
    browser.eval(focus);
    browser.press(ENTER);
    browser.until("a further page", "return document.querySelector('.foot button') !== null");
    browser.eval(focus);
    browser.press(&format!("{END} and server_port =={ENTER}"));
    browser.until("a mistake", "return document.querySelector('#query-problem') !== null");
    browser.click(".foot button");
    let next = browser.until("the next page", "return window.asked.find((path) => path.includes('after=more'))");
    let next = next.as_str().expect("an address");
    assert!(next.contains("q=server_port+%3D%3D+80&"), "of what is shown: {next}");
}

/// Each link of the menu gives a file of its kind, with the session's rights.
fn downloads_what_is_shown(browser: &Browser) {
    browser.click(".downloads summary");
    let link = |name: &str| {
        format!("[...document.querySelectorAll('.downloads a')].find((own) => own.innerText === '{name}').href")
    };
    for (name, file, begin) in [
        ("Flows as CSV", "wiretag-flows.csv", "flow_id,"),
        ("Flows as JSON lines", "wiretag-flows.jsonl", "{"),
        ("Flows as Parquet", "wiretag-flows.parquet", "PAR1"),
        ("Flows as IPFIX", "wiretag-flows.ipfix", "\0\n"),
        ("Packets as pcapng", ".pcapng", "\n\r\r\n"),
    ] {
        let told = browser.eval(&format!(
            "return fetch({}).then(async (own) => [own.headers.get('content-disposition'), await own.text()])",
            link(name)
        ));
        let text = |at: usize| told[at].as_str().unwrap_or_default();
        assert!(text(0).contains(file) && text(1).starts_with(begin), "{name}: {} {:.40}", text(0), text(1));
    }
    browser.click(".brand");
    assert_eq!(browser.eval("return document.querySelector('.downloads').open"), false, "a click elsewhere closes it");
}

#[test]
fn the_map_leads_to_the_flows_behind_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some((appliance, browser)) = demonstration(directory.path()) else { return };
    eventually(40, "a web flow", || appliance.flows("server_workload == demo/web and end_reason exists", &[]).pop());

    browser.open(&appliance, &format!("/?view=map&q={NAMED}"), &appliance.token);
    let names = "return [...document.querySelectorAll('.map .name')].map((own) => own.textContent).sort().join()";
    eventually(30, "all of the demonstration is on the map", || {
        (browser.eval(names) == "demo/client,demo/dns,demo/web").then_some(())
    });
    let page = browser.shows(&["3 workloads, 2 edges", "no namespace"]);
    assert!(page.contains("demo/client in no namespace"), "a node says what it is: {page}");

    // By the mouse: a workload, its edge, the flows of this.
    browser.click(".map .node[aria-label^='demo/web ']");
    browser.shows(&["as server", "rtt to server, p50 · p95"]);
    browser.click(".peers button");
    browser.shows(&[EDGE, "HTTP requests"]);
    let link = browser.eval("return location.pathname + location.search");
    browser.click("aside button.main");
    browser.until("flows", &format!("{ROWS}.length"));
    let others = browser.eval(&format!("{ROWS}.filter((row) => !row.includes('web:80'))"));
    assert_eq!(others, json!([]), "only those of the edge");
    let query = browser.eval("return document.querySelector('[aria-label=Query]').value");
    for part in ["server_workload exists and client_cluster not exists", "server_workload == \"demo/web\""] {
        assert!(query.as_str().expect("text").contains(part), "no `{part}` in {query}");
    }

    // Back, and by a link, everything is as it was.
    browser.eval("history.back()");
    browser.shows(&[EDGE, "HTTP requests"]);
    browser.visit(&format!("{}{}", appliance.url, link.as_str().expect("text")));
    browser.shows(&[EDGE, "HTTP requests"]);

    figures_are_of_the_time_that_is_shown(&browser);

    // By the keyboard: from the first workload to the one on its right.
    browser.open(&appliance, &format!("/?view=map&q={NAMED}"), &appliance.token);
    let focus = "document.querySelector('.map .node[tabindex=\"0\"]')?.focus()";
    browser.until("the map", &format!("{focus}; return document.activeElement.classList.contains('node')"));
    let focused = "return document.activeElement.getAttribute('aria-label')";
    let first = browser.eval(focused);
    browser.press(RIGHT);
    let second = browser.eval(focused);
    assert_ne!(first, second, "the arrow goes on");
    browser.press(ENTER);
    browser.shows(&["aria-label=\"Workload\""]);

    browser.open(&appliance, "/?view=map&form=table", &appliance.token);
    let row = "(row) => row.includes('demo/client') && row.includes('demo/dns')";
    browser.until("the same as a table", &format!("{ROWS}.some({row})"));
    browser.open(&appliance, "/?view=map&q=server_port+==+1", &appliance.token);
    browser.shows(&["No flows match"]);
    browser.open(&appliance, "/?view=map&q=server_port+==", &appliance.token);
    browser.shows(&["expected a value"]);
    appliance.stop();
}

/// A week's figures come late; before they do, the time is another again.
fn figures_are_of_the_time_that_is_shown(browser: &Browser) {
    browser.click("[aria-label=Edge] .acts button:last-child");
    let figures =
        "return [...document.querySelectorAll('[aria-label=Workload] dt')].some((own) => own.innerText === 'flows')";
    browser.until("figures", figures);
    late(browser, "aggregate", "7d");
    during(browser, "7d");
    browser.until("they are asked for", "return window.waiting.length === 2");
    assert_eq!(browser.eval(figures), false, "none of another time are shown meanwhile");
    during(browser, "15m");
    browser.until("figures", figures);
    assert_eq!(browser.eval("return window.ended.length"), 2, "nobody waits for the others");
}

/// Has answers to questions about a range wait for half a minute; `waiting` are those that were asked, `ended` those that were given up.
fn late(browser: &Browser, path: &str, range: &str) {
    browser.eval(&format!(
        "const own = window.fetch; window.waiting = []; window.ended = []; window.fetch = (path, init) => {{ \
         if (!path.includes('{path}') || !path.includes('from=-{range}')) return own(path, init); \
         window.waiting.push(path); return new Promise((resolve, reject) => {{ \
         init.signal.addEventListener('abort', () => {{ window.ended.push(path); reject(init.signal.reason) }}); \
         setTimeout(() => resolve(own(path, init)), 30000) }}) }}"
    ));
}

/// Chooses a range of time.
fn during(browser: &Browser, range: &str) {
    browser.eval(&format!(
        "const own = document.querySelector('[aria-label=\"Time range\"]'); own.value = '{range}'; \
         own.dispatchEvent(new Event('change', {{ bubbles: true }}))"
    ));
}

#[test]
fn a_query_is_completed_by_keys_and_gives_way_to_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some((appliance, browser)) = demonstration(directory.path()) else { return };
    eventually(40, "a web flow", || appliance.flows("container == web and end_reason exists", &[]).pop());

    browser.open(&appliance, "/", &appliance.token);
    browser.click("[aria-label=Query]");
    let query = "return document.querySelector('[aria-label=Query]').value";
    eventually(20, "the column is offered", || {
        browser.eval("document.querySelector('[aria-label=Query]').select()");
        browser.press("contai");
        (browser.eval("return document.querySelectorAll('[role=option]').length") == 3).then_some(())
    });
    let active = "return document.getElementById(document.querySelector('[aria-label=Query]')\
                  .getAttribute('aria-activedescendant'))?.innerText ?? ''";
    assert_eq!(browser.eval(active), "", "Enter asks, as long as nothing is chosen");
    browser.press(DOWN);
    assert_eq!(browser.eval(active), "container Container name (either side).");
    browser.press(ENTER);
    browser.until("the column is in the query", &format!("{query} === 'container '"));
    browser.press(&format!("== {DOWN}"));
    let values = "return [...document.querySelectorAll('[role=option] b')].map((own) => own.innerText)";
    browser.until("values of the column", &format!("{values}.includes('web')"));
    browser.press(&format!("web and server_por{DOWN}{ENTER}== 80{ENTER}"));
    browser.until("rows", &format!("{ROWS}.length"));
    assert_eq!(browser.eval(query), "container == web and server_port == 80");
    assert_eq!(browser.eval(&format!("{ROWS}.filter((row) => !row.includes(':80')).length")), 0);

    // All columns, by what they mean.
    browser.click(".side button");
    browser.press("zeek");
    browser.until("one of them", "return document.querySelectorAll('.columns li').length === 1");
    browser.click(".columns li button");
    browser.until("it is in the query", &format!("{query} === 'container == web and server_port == 80 tcp_state '"));
    browser.eval("document.querySelector('[aria-label=Query]').select()");
    browser.press(&format!("container == web{ENTER}"));
    browser.until("rows", &format!("{ROWS}.length"));

    // Slow questions end with those that take their place.
    late(&browser, "/flows", "7d");
    during(&browser, "7d");
    browser.until("both are asked for", "return window.waiting.length === 2");
    during(&browser, "1h");
    browser.until("the next is answered", "return document.querySelector('main section').ariaBusy === 'false'");
    assert_eq!(browser.eval("return window.ended.length"), 2, "rows and bars");

    browser.eval(
        "const own = window.fetch; window.fetch = (path, init) => path !== '/api/v1/health' ? own(path, init) : \
         Promise.resolve(new Response(JSON.stringify({ status: 'degraded', problems: ['the disk is full'] })))",
    );
    browser.shows(&["The appliance is degraded: the disk is full"]);
    appliance.stop();
}

#[test]
fn flows_are_followed_as_they_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some((appliance, browser)) = demonstration(directory.path()) else { return };
    eventually(40, "a web flow", || appliance.flows("server_workload == demo/web and end_reason exists", &[]).pop());

    browser.open(&appliance, "/?q=server_port+==+80&follow=1", &appliance.token);
    browser.until("it follows", &format!("{STATUS}.includes('appear as they end')"));
    browser.until("flows so far", &format!("{ROWS}.length"));
    // Nothing else than the stream brings rows from here on.
    let asked = "return performance.getEntriesByType('resource').filter((own) => own.name.includes('/flows?')).length";
    let (before, newest) = (browser.eval(asked), browser.eval(&format!("{ROWS}[0].split('\\t')[0]")));
    let newest = newest.as_str().expect("a time").to_owned();
    browser.until("a later flow on top", &format!("{ROWS}[0].split('\\t')[0] > '{newest}'"));
    let others = browser.eval(&format!("{ROWS}.filter((row) => !row.includes(':80')).length"));
    assert_eq!(others, 0, "only what matches: {}", browser.eval(ROWS));
    assert_eq!(browser.eval(asked), before, "no search was made meanwhile");

    browser.until("enough rows to scroll", &format!("{ROWS}.length > 25"));
    browser.eval("window.scrollTo(0, 400)");
    browser.until("it waits for the reader", &format!("{STATUS}.includes('Paused while you read')"));
    let top = browser.eval(&format!("{ROWS}[0]"));
    browser.until("new flows are counted", &format!("{STATUS}.match(/Show \\d+ new/)?.[0]"));
    assert_eq!(browser.eval(&format!("{ROWS}[0]")), top, "what is read does not move");
    browser.click(".follow button");
    browser.until("they are shown", &format!("{ROWS}[0] !== {top}"));

    // Another query ends it; so does the appliance, which is told.
    let select = "document.querySelector('[aria-label=Query]').select()";
    browser.eval(select);
    browser.press(&format!("server_port == 53{ENTER}"));
    browser.until("it follows no longer", "return document.querySelector('.follow') === null");
    // What is typed is asked for, rows and stream.
    browser.eval(select);
    browser.press("server_port == 80");
    browser.click("label[title^='New flows'] input");
    browser.until("it follows again", &format!("{STATUS}.includes('appear as they end')"));
    browser.until("flows so far", &format!("{ROWS}.length"));
    let newest = browser.eval(&format!("{ROWS}[0].split('\\t')[0]"));
    browser.until("a later flow on top", &format!("{ROWS}[0].split('\\t')[0] > {newest}"));
    let others = browser.eval(&format!("{ROWS}.filter((row) => !row.includes(':80')).length"));
    assert_eq!(others, 0, "nothing of the query before: {}", browser.eval(ROWS));
    what_failed_is_asked_for_again(&browser);
    appliance.stop();
    browser.until("the end of the stream is told", &format!("{STATUS}.includes('broke off')"));
}

/// While flows are followed: details, and the list; and bars say what is missing by now.
fn what_failed_is_asked_for_again(browser: &Browser) {
    let busy = r#"new Response('{"error":{"message":"too busy"}}', { status: 503 })"#;
    let told = "return !document.body.innerText.includes('too busy')";
    answered(browser, r"/flows\/[0-9a-f]{16}$/.test(path)", busy);
    browser.click("section tbody tr button");
    browser.shows(&["too busy"]);
    browser.eval("window.stubbed = false");
    browser.until("details", "return document.querySelector('aside dt') !== null");
    browser.until("no error", told);

    answered(browser, "path.startsWith('/api/v1/flows?')", busy);
    for _ in ["off", "on"] {
        browser.click("label[title^='New flows'] input");
    }
    browser.shows(&["too busy", "The stream is opened"]);
    assert_eq!(browser.eval(&format!("{STATUS}.includes('appear as they end')")), false, "the list is not read");
    browser.eval("window.stubbed = false");
    browser.until("it is read", &format!("{STATUS}.includes('appear as they end')"));
    browser.until("no error", told);

    let lost = "own(path, init).then((answer) => answer.json()).then((told) => \
                new Response(JSON.stringify({ ...told, completeness: { ...told.completeness, unfinished_imports: 2 } })))";
    answered(browser, "path.includes('/histogram?')", lost);
    browser.shows(&["2 imports of files of this time"]);
}

#[test]
fn bars_of_transactions_are_what_the_interface_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some((appliance, browser)) = demonstration(directory.path()) else { return };
    let rows = eventually(60, "transactions of some seconds", || {
        let rows = appliance.flows("", &["--transactions"]);
        (rows.len() > 30).then_some(rows)
    });
    let starts = || rows.iter().map(|row| row["start"].as_str().expect("a time"));
    let range = format!("from={}&to={}", starts().min().expect("a row"), starts().max().expect("a row"));
    // Bars say their value in their title; the height is the share of the greatest.
    let bars = "return [...document.querySelectorAll('.histogram svg rect')].map((bar) => \
                [bar.querySelector('title').textContent.split(': ')[1], Number(bar.getAttribute('height'))])";
    eventually(60, "the bars and the interface agree", || {
        browser.open(&appliance, &format!("/?table=transactions&range=custom&{range}"), &appliance.token);
        browser.until("bars", &format!("{bars}.length"));
        let shown: Vec<Value> = browser.eval(bars).as_array().expect("bars").clone();
        let told = appliance.json(&format!("/api/v1/transactions/histogram?buckets=60&{range}"));
        let told: Vec<u64> =
            told["buckets"].as_array()?.iter().filter_map(|own| own["transactions"].as_u64()).collect();
        let values: Vec<u64> = shown.iter().filter_map(|bar| bar[0].as_str()?.parse().ok()).collect();
        let most = *told.iter().max()? as f64;
        let heights = shown
            .iter()
            .zip(&told)
            .all(|(bar, own)| bar[1].as_f64().is_some_and(|height| (height - 20.0 * *own as f64 / most).abs() < 1e-6));
        let sum: u64 = values.iter().sum();
        let total = browser.eval("return document.querySelector('.histogram b').innerText");
        (values == told && heights && sum >= 30 && total == format!("{sum} transactions")).then_some(())
    });
    // By keys: the second bar from the end, whose rows are asked for.
    let bar = "document.querySelector('.histogram svg')";
    browser.eval(&format!("{bar}.focus()"));
    browser.press(DOWN);
    let said = browser.eval(&format!("return {bar}.getAttribute('aria-valuetext')"));
    let start = browser.eval(&format!("return {bar}.querySelector('rect:nth-last-of-type(3) title').textContent"));
    assert_eq!(said.as_str(), Some(&*format!("{} transactions", start.as_str().expect("a title"))));
    browser.press(ENTER);
    let time = start.as_str().and_then(|title| title.split_once(": ")).expect("a time").0.replace(' ', "T");
    let from = "new URLSearchParams(location.search).get('from')";
    browser.until("its time is asked for", &format!("return {from}.startsWith('{time}')"));
    // On a phone nothing is wider than the screen.
    browser.resize((390, 844));
    browser.open(&appliance, "/?table=transactions", &appliance.token);
    browser.until("bars", &format!("{bars}.length"));
    assert_eq!(browser.eval("return document.documentElement.scrollWidth <= window.innerWidth"), true);
    appliance.stop();
}
