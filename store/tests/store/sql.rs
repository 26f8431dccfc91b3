//! SQL from outside: what it sees, what it refuses, what it may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::sync::Arc;

use crate::rows::{self, START, flow, transaction};
use serde_json::{Value, json};
use wiretag_enrich::timeline::Timeline;
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::RowFilter;
use wiretag_store::sql::{SqlAnswer, SqlRequest};
use wiretag_store::{LimitReached, Role, Store, StoreConfig, StoreError};

const HOUR: i64 = 3_600_000_000_000;

async fn store(dir: &std::path::Path) -> Store {
    Store::open(StoreConfig::new(dir, Role::Appliance)).await.unwrap().0
}

pub(crate) async fn ask(store: &Store, text: &str) -> Result<SqlAnswer, StoreError> {
    ask_within(store, text, None).await
}

/// Somebody asks who may see some rows only.
async fn ask_within(store: &Store, text: &str, rows: Option<&str>) -> Result<SqlAnswer, StoreError> {
    let rows = rows.map(|rows| RowFilter::parse(rows).unwrap());
    let request = SqlRequest { text: text.into(), limit: 1_000, memory: DEFAULT_MEMORY, rows };
    store.sql(&request, Arc::new(Timeline::new().view())).await
}

/// Cells of the answer, row by row.
pub(crate) async fn lines(store: &Store, text: &str) -> Vec<Vec<Value>> {
    let answer = ask(store, text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    answer.rows.iter().map(|row| row.values().cloned().collect()).collect()
}

/// Twenty flows, an hour apart, in files, in memory, and one open.
pub(crate) async fn filled() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    for number in 0..20_u64 {
        let mut row = flow(number);
        row.record.start = START + number as i64 * HOUR;
        row.record.end = row.record.start + 1;
        rows::name(&mut row.client, &format!("pod-{}", number % 4), &[("app", "shop")]);
        match number {
            19 => store.flows.show_open(&[Arc::new(row)]).await,
            _ => store.flows.append(vec![row]).await.unwrap(),
        }
        if number == 14 {
            store.flush().await.unwrap();
        }
    }
    store.transactions.append(vec![transaction(3, 0), transaction(3, 1)]).await.unwrap();
    (dir, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_seen_in_memory_and_in_files() {
    let (_dir, store) = filled().await;
    assert_eq!(lines(&store, "select count(*) from flows").await, [[json!(20)]]);
    let by_pod = lines(&store, "select client_pod, count(*), sum(client_bytes) from flows group by 1 order by 1").await;
    assert_eq!(by_pod[0], [json!("pod-0"), json!(5), json!(1_500)]);
    assert_eq!(by_pod.len(), 4);
    let times = "select flow_id from flows where start >= '2026-03-01T03:00:00Z' and start < '2026-03-01T06:00:00Z' order by start";
    let ids: Vec<String> = lines(&store, times).await.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (3..6).map(|id| format!("{id:016x}")).collect::<Vec<_>>());
    let label = lines(&store, "select client_labels['app'], max(\"end\") from flows group by 1").await;
    assert_eq!(label, [[json!("shop"), json!(wiretag_store::json::time(START + 19 * HOUR + 1))]]);
    let joined = "select count(*) from transactions t join flows f on f.flow_id = t.flow_id";
    assert_eq!(lines(&store, joined).await, [[json!(2)]]);
    let row = &ask(&store, "select * from flows order by start limit 1").await.unwrap().rows[0];
    assert_eq!(row["client_labels"], json!({"app": "shop"}));
    assert_eq!(row["start"], json!("2026-03-01T00:00:00.000000000Z"));
    assert_eq!(lines(&store, "select count(*) from identities").await, [[json!(0)]]);
    assert_eq!(lines(&store, "select count(*) from segments").await, [[json!(0)]]);
    let tables = ask(&store, "show tables").await.unwrap();
    let names: Vec<&Value> = tables.rows.iter().map(|row| &row["table_name"]).collect();
    for name in ["flows", "transactions", "identities", "segments"] {
        assert!(names.contains(&&json!(name)), "{names:?}");
    }
}

/// Its name may have what stands for a pattern elsewhere, or what URLs mean something by.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_found_whatever_the_data_directory_is_called() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a[1]", "a*b", "a?b", "a b", "a%20b", "a#b", "a{b}", "a'b", "ä"] {
        let store = store(&dir.path().join(name)).await;
        store.flows.append((0..10).map(flow).collect()).await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(
            lines(&store, "select count(*), count(flow_id) from flows").await,
            [[json!(10), json!(10)]],
            "{name}"
        );
    }
}

/// Files of other times are not read.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_times_are_left_out() {
    let (_dir, store) = filled().await;
    for (condition, files) in [
        ("start >= '2026-03-01T03:00:00Z' and start < '2026-03-01T06:00:00Z'", 3),
        ("start between '2026-03-01T03:00:00Z' and '2026-03-01T03:30:00Z'", 1),
        ("'2026-03-01T02:00:00Z' > start", 2),
        ("start < '2026-03-01T08:00:00Z' and client_pod = 'pod-1'", 8),
        ("start > '2027-01-01'", 0),
    ] {
        let plan = lines(&store, &format!("explain select flow_id from flows where {condition}")).await;
        let text = plan.iter().flatten().map(|cell| cell.as_str().unwrap_or_default()).collect::<String>();
        assert_eq!(text.matches(".parquet").count(), files, "{condition}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_does_not_fail_the_rest() {
    let (dir, store) = filled().await;
    let file = dir.path().join("flows/date=2026-03-01/hour=03");
    let file = std::fs::read_dir(file).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, "no longer Parquet").unwrap();
    assert_eq!(lines(&store, "select count(client_ip) from flows").await, [[json!(19)]]);
    assert_eq!(store.flows.counters().unreadable_files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_questions_is_answered() {
    let (dir, store) = filled().await;
    let outside = dir.path().join("outside.csv");
    std::fs::write(&outside, "secret\nthing\n").unwrap();
    let (outside, parquet) = (outside.display(), dir.path().join("out.parquet"));
    let into = parquet.display();
    for text in [
        "drop table flows",
        "create table mine as select * from flows",
        "create view mine as select * from flows",
        &format!("create external table mine stored as csv location '{outside}'"),
        &format!("copy flows to '{into}'"),
        &format!("copy (select 1) to '{into}' stored as csv"),
        "insert into flows select * from flows",
        "delete from flows",
        "update flows set client_pod = 'x'",
        "set datafusion.execution.batch_size = 1",
        "reset datafusion.execution.batch_size",
        "begin",
        "prepare q as select 1",
        "explain drop table flows",
        &format!("explain copy flows to '{into}'"),
        "explain analyze insert into flows select * from flows",
        "create function f() returns int return 1",
        "truncate table flows",
        "select 1; drop table flows",
    ] {
        let error = ask(&store, text).await.expect_err(text);
        assert!(matches!(error, StoreError::Sql(_)), "{text}: {error}");
    }
    let error = ask(&store, "drop table flows").await.unwrap_err().to_string();
    assert!(error.contains("`DROP TABLE` is refused") && error.contains("hint: use `SELECT`"), "{error}");
    for text in [
        format!("select * from '{outside}'"),
        format!("select * from \"{outside}\""),
        format!("select * from read_csv('{outside}')"),
        format!("select * from read_parquet('{outside}')"),
        format!("select * from parquet_metadata('{outside}')"),
        "select * from glob('/etc/*')".to_owned(),
        "select pg_read_file('/etc/passwd')".to_owned(),
    ] {
        let error = ask(&store, &text).await.expect_err(&text);
        assert!(!error.to_string().contains("thing"), "{error}");
    }
    assert!(!parquet.exists(), "nothing was written");
    assert_eq!(lines(&store, "select count(*) from flows").await, [[json!(20)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_some_rows_has_tables_without_the_others() {
    let (_dir, store) = filled().await;
    let cells = async |text: &str| {
        let answer = ask_within(&store, text, Some("pod == pod-1 or pod == pod-3")).await;
        let answer = answer.unwrap_or_else(|error| panic!("{text}: {error}"));
        answer.rows.iter().map(|row| row.values().cloned().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(cells("select count(*) from flows").await, [[json!(10)]], "in files, in memory, and open");
    assert_eq!(cells("select count(*) from transactions").await, [[json!(0)]]);
    let pods = cells("select distinct client_pod from flows order by 1").await;
    assert_eq!(pods, [[json!("pod-1")], [json!("pod-3")]]);
    let late = "select count(*) from flows where start >= '2026-03-01T12:00:00Z'";
    assert_eq!(cells(late).await, [[json!(4)]]);
    assert_eq!(cells("select client_pod from flows where client_pod = 'pod-0'").await, Vec::<Vec<Value>>::new());
    // Several scans at a time, of which one may have to wait for the other.
    let pairs = "select count(*) from flows a, flows b where a.client_pod = b.client_pod";
    assert_eq!(cells(pairs).await, [[json!(50)]]);
    let nested =
        "select count(*) from flows a, flows b, flows c where a.flow_id <> b.flow_id and b.flow_id = c.flow_id";
    assert_eq!(cells(nested).await, [[json!(90)]]);
    let union = "select client_pod from (select * from flows union all select * from flows) order by start limit 1";
    assert_eq!(cells(union).await, [[json!("pod-1")]]);
    // An error cannot tell of a row that is not there.
    let trap = "select 1 / (case when client_pod in ('pod-0', 'pod-2') then 0 else 1 end) as one from flows limit 3";
    assert_eq!(cells(trap).await, vec![[json!(1)]; 3]);
    let trap =
        "select count(*) from flows where 1 / (case when client_pod in ('pod-0', 'pod-2') then 0 else 1 end) = 1";
    assert_eq!(cells(trap).await, [[json!(10)]]);
    let tables =
        cells("select table_name from information_schema.tables where table_schema = 'public' order by 1").await;
    assert_eq!(tables, [[json!("flows")], [json!("transactions")]]);
    for table in ["identities", "segments"] {
        let error = ask_within(&store, &format!("select * from {table}"), Some("pod == pod-1")).await;
        assert!(matches!(error, Err(StoreError::Sql(_))), "{error:?}");
    }
}

/// Numbers that are made of columns are numbers, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_calculated_is_a_number() {
    let (_dir, store) = filled().await;
    let answer = ask(
        &store,
        "select client_bytes, client_bytes * 8 as bits, client_bytes - 5 as less, client_bytes / 2 as half from flows limit 1",
    );
    let row = answer.await.unwrap().rows.remove(0);
    let bytes = row["client_bytes"].as_u64().unwrap();
    assert_eq!((row["bits"].as_u64(), row["less"].as_i64()), (Some(bytes * 8), Some(bytes as i64 - 5)), "{row:?}");
    assert!(row["half"].is_number(), "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told() {
    let (_dir, store) = filled().await;
    for (text, what) in [
        ("selct 1", "Expected: an SQL statement, found: selct at Line: 1, Column: 1; hint: "),
        ("select clent_pod from flows", "clent_pod"),
        ("select * from flow", "flow"),
        ("select sum(client_pod) from flows", "Function 'sum' failed to match"),
        ("select min(client_labels) from flows", "labels have no order"),
        ("select row_number() over (order by client_labels) from flows", "labels have no order"),
        ("", ""),
    ] {
        let error = ask(&store, text).await.expect_err(text);
        assert!(matches!(error, StoreError::Sql(_)), "{error}");
        assert!(!error.to_string().starts_with("Internal error"), "{error}");
        assert!(error.to_string().contains(what) && error.to_string().contains("hint: "), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_memory_are_limited() {
    let (_dir, store) = filled().await;
    let view = Arc::new(Timeline::new().view());
    let request = |text: &str, limit, memory| SqlRequest { text: text.into(), limit, memory, rows: None };
    let some = store.sql(&request("select flow_id from flows", 7, DEFAULT_MEMORY), view.clone()).await.unwrap();
    assert_eq!((some.rows.len(), some.truncated), (7, true));
    let all = store.sql(&request("select flow_id from flows", 20, DEFAULT_MEMORY), view.clone()).await.unwrap();
    assert_eq!((all.rows.len(), all.truncated), (20, false));
    let twice = request("select a.node, b.node from flows a, flows b limit 1", 5, DEFAULT_MEMORY);
    let twice = store.sql(&twice, view.clone());
    let names: Vec<String> = twice.await.unwrap().columns.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["node", "node_2"]);
    let much = "select count(*) from (select distinct a.value + b.value * 3000 from generate_series(1, 3000) a, generate_series(1, 3000) b)";
    let error = store.sql(&request(much, 5, 4 << 20), view).await.unwrap_err();
    assert!(matches!(error, StoreError::Limit(LimitReached::Memory { mib: 4 })), "{error}");
}

/// A few characters ask for gigabytes, which are refused before they are taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_makes_much_of_little_is_refused() {
    let (_dir, store) = filled().await;
    let long = "x".repeat(30_000);
    let list = vec!["'x'"; 5_000].join(", ");
    let levels: Vec<String> = (1..40).map(|at| format!("t{at} as (select a || a as a from t{})", at - 1)).collect();
    let doubled = format!("with t0 as (select 'wiretag' as a), {} select a from t39", levels.join(", "));
    let many = (0..900).map(|at| format!("lower(a) as a{at}")).collect::<Vec<_>>().join(", ");
    let regexes = (1..200).map(|at| format!("client_pod ~ '\\w{{1{at}}}'")).collect::<Vec<_>>().join(" or ");
    let gathered = "from (select array_agg(value) as a from generate_series(1, 500000))";
    let copies = |list: &str| {
        let copies = (1..=100).map(|at| format!("array_length({})", list.replace('N', &at.to_string())));
        format!("select {} {gathered}", copies.collect::<Vec<_>>().join(", "))
    };
    for text in [
        copies("array_slice(a, N, 500000)"),
        copies("a[N:500000]"),
        copies("array_remove(array_reverse(array_sort(a)), N)"),
        "select repeat('x', 2147483000)".to_owned(),
        "select lpad('x', 2147483000, 'y'), rpad('x', 2147483000)".to_owned(),
        "select range(0, 2000000000)".to_owned(),
        "select generate_series(0, 2000000000)".to_owned(),
        "select array_repeat(1, 2000000000)".to_owned(),
        "select array_resize([1], 2000000000, 0)".to_owned(),
        "select cast(null as bigint[2000000000])".to_owned(),
        "select arrow_cast(null, 'FixedSizeList(2000000000, Int64)')".to_owned(),
        "select string_agg(client_pod, 'x') from flows".to_owned(),
        "select array_agg(client_pod) over (order by start) from flows".to_owned(),
        "select unnest(make_array(1, 2))".to_owned(),
        "select struct(1, 2), {'a': 1}".to_owned(),
        "select client_pod ~ client_host from flows".to_owned(),
        "select regexp_like(client_pod, client_host) from flows".to_owned(),
        format!("select replace('{long}', 'x', '{long}')"),
        format!("select regexp_replace(a, 'x', '{long}', 'g') from (select '{long}' as a)"),
        format!("select array_to_string([{list}], '{long}')"),
        doubled,
        format!("select {many} from (select replace('{}', 'x', '{}') as a)", "x".repeat(1_000), "y".repeat(1_000)),
        format!("select count(*) from flows where {regexes}"),
    ] {
        let error = ask(&store, &text).await.expect_err(text.get(..80).unwrap_or(&text));
        let start = text.get(..80).unwrap_or(&text);
        assert!(
            matches!(error, StoreError::Sql(_) | StoreError::Limit(LimitReached::Memory { .. })),
            "{start}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_are_there_work_as_before() {
    let (_dir, store) = filled().await;
    for (text, expected) in [
        ("select 'a' || 'b', 'a' || null, 1 || 'x'", json!(["ab", null, "1x"])),
        ("select [1, 2] || [3], [1] || 2, 0 || [1]", json!([[1, 2, 3], [1, 2], [0, 1]])),
        ("select concat('a', null, 'b'), concat_ws('-', 'a', null, 'b')", json!(["ab", "a-b"])),
        (
            "select replace('a-b-c', '-', '+'), regexp_replace('a-b-c', '-(.)', '<$1>', 'g')",
            json!(["a+b+c", "a<b><c>"]),
        ),
        ("select upper('ß'), lower('ABC'), initcap('ab cd')", json!(["SS", "abc", "Ab Cd"])),
        ("select array_to_string([1, 2, 3], ', '), string_to_array('a,b', ',')", json!(["1, 2, 3", ["a", "b"]])),
        (
            "select substring('wiretag' from 5), trim('  x '), length('abc'), left('abc', 2)",
            json!(["tag", "x", 3, "ab"]),
        ),
        (
            "select to_char(timestamp '2026-03-01T00:00:00', '%Y-%m-%d'), translate('abc', 'ab', 'xy')",
            json!(["2026-03-01", "xyc"]),
        ),
        (
            "select array_sort([3, 1, 2]), array_slice([1, 2, 3], 2, 3), [1, 2, 3][2:3]",
            json!([[1, 2, 3], [2, 3], [2, 3]]),
        ),
        (
            "select array_reverse([1, 2]), array_distinct([1, 1]), array_remove([1, 2], 2), flatten([[1], [2]])",
            json!([[2, 1], [1], [1], [1, 2]]),
        ),
        (
            "select array_except([1, 2], [2]), array_pop_back([1, 2]), array_positions([7, 8], 8)",
            json!([[1], [1], [2]]),
        ),
        ("select map_keys(client_labels), map_values(client_labels) from flows limit 1", json!([["app"], ["shop"]])),
        ("select client_pod || ':' || server_port from flows order by start limit 1", json!(["pod-0:80"])),
        ("select sum(value) from generate_series(1, 100)", json!([5_050])),
    ] {
        assert_eq!(json!(lines(&store, text).await), json!([expected]), "{text}");
    }
    let named = ask(&store, "select client_pod || 'x' from flows limit 1").await.unwrap();
    assert!(named.columns[0].0.starts_with("flows.client_pod || "), "{:?}", named.columns);
}

/// The limit is one of bytes, not of cells.
#[tokio::test(flavor = "multi_thread")]
async fn long_cells_count_in_full() {
    let (_dir, store) = filled().await;
    let view = Arc::new(Timeline::new().view());
    let text = format!("select '{}' || value from generate_series(1, 2000)", "x".repeat(4_000));
    let request = SqlRequest { text, limit: 5_000, memory: 64 << 20, rows: None };
    assert_eq!(store.sql(&request, view.clone()).await.unwrap().rows.len(), 2_000);
    let tight = SqlRequest { limit: 5_000, memory: 17 << 20, text: request.text.replace("2000", "6000"), ..request };
    let error = store.sql(&tight, view).await.unwrap_err();
    assert!(matches!(error, StoreError::Limit(LimitReached::Memory { mib: 17 })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_are_answered_or_refused_and_the_appliance_lives() {
    let (_dir, store) = filled().await;
    let chain = |first: &str, link: &str, times: usize| format!("{first}{}", link.repeat(times));
    let answered = [
        chain("select 1", "+1", 790),
        chain("select count(*) from flows where server_port = 0", " or server_port = 80", 390),
        chain("select 'a'", "||'a'", 130),
        chain("select 1", " union all select 1", 31),
        chain("select 1", "::int", 390),
        chain("select count(*) from (select 1) a", ", (select 1)", 20),
        format!("select count(*) from flows where server_port in (1{})", ", 443".repeat(10_000)),
    ];
    for text in &answered {
        let answer = ask(&store, text).await;
        assert!(matches!(answer, Ok(_) | Err(StoreError::Sql(_) | StoreError::Limit(_))), "{text:.80}: {answer:?}");
    }
    let refused = [
        chain("select 1", "+1", 30_000),
        chain("select count(*) from flows where server_port = 0", " or server_port=80", 3_500),
        chain("select 'a'", "||'a'", 700),
        chain("select 1", " union all select 1", 1_000),
        chain("select 1", "::int", 12_000),
        chain("select array[1]", "[1]", 20_000),
        chain("select true", " is true", 8_000),
        chain("select 1", " in (1)", 8_000),
        chain("with t as (select 1) select 1 from t a", ",t", 1_000),
        chain("select 1 from flows a", " join flows b on true", 400),
        format!(
            "with a0 as (select 1){} select 1",
            (1..400).map(|n| format!(", a{n} as (select * from a{})", n - 1)).collect::<Vec<_>>().concat()
        ),
    ];
    for text in &refused {
        let error = ask(&store, text).await.expect_err(&format!("{text:.80}")).to_string();
        assert!(error.contains("there are more than"), "{text:.80}: {error}");
    }
    assert_eq!(lines(&store, "select count(*) from flows").await, [[json!(20)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_would_misread_is_refused() {
    let (_dir, store) = filled().await;
    for (text, part) in [
        ("select 1 from flows where app is distinct from 'dns' and true", "is distinct from"),
        ("select 1 from flows where true and (app is not distinct from 'dns' or false)", "is distinct from"),
        ("select 1 from flows tablesample (10 percent)", "tablesample"),
        ("select 1 from (select 1) tablesample (10 percent)", "tablesample"),
        ("select 1 from flows prewhere app = 'dns'", "prewhere"),
        ("select 1 union all select 1 from flows prewhere app = 'dns'", "prewhere"),
        ("select app from flows where app in (select app from flows for update)", "for update"),
        ("select app, count(*) from flows group by app with rollup", "group by"),
        ("select app, count(*) from flows group by app with totals", "group by"),
        ("select app from flows settings max_threads = 1", "settings"),
        ("explain select app from flows prewhere true", "prewhere"),
    ] {
        let error = ask(&store, text).await.expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let held = "select count(*) from flows where (app is distinct from 'dns') and start < '2000-01-01'";
    assert_eq!(lines(&store, held).await, [[json!(0)]]);
    assert_eq!(lines(&store, "select * exclude (start) from (select 1 as a, 2 as start)").await, [[json!(1)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_have_a_sign_and_nulls_are_null() {
    let (_dir, store) = filled().await;
    let less =
        "select min(client_port - server_port - 100000), count(*) from flows where client_bytes - 2 * client_bytes < 0";
    let row = &lines(&store, less).await[0];
    assert!(row[0].as_i64().unwrap() < 0 && row[1] == json!(20), "{row:?}");
    let ports = "select distinct server_port - client_port from flows";
    assert!(lines(&store, ports).await[0][0].as_i64().unwrap() < 0);
    for text in ["select null", "select array_max([])"] {
        assert_eq!(lines(&store, text).await, [[Value::Null]], "{text}");
    }
    assert_eq!(lines(&store, "select array_distinct([null, null])").await, [[json!([null])]]);
}
