//! How fast stored rows get names that were told late: rows that nobody had a name for are written and merged, then a single pod is
//! told, then all of them, then nothing new.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use wiretag_enrich::tagger::Again;
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::timeline::late::LateRows;
use wiretag_enrich::{EndTag, IdentityEvent, Interval, Key, TaggedFlow};
use wiretag_store::tables::{FlowStore, Retagging};

use crate::generate::{BEGIN, Generator};
use crate::{BATCH, Costs, DAY, FLUSH, OFTEN, compact, cpu, open, peak};

/// The pod that is told alone: one of those that are not asked most.
const ONE: usize = 1_000;

/// Writes rows without names and names them.
pub(crate) async fn run(dir: &Path, rows: u64, span: i64, seed: u64) {
    std::fs::create_dir_all(dir).unwrap();
    let store = open(dir).await;
    let mut generator = Generator::new(seed, rows, span);
    let (mut costs, mut flushes, mut now) = (Costs::default(), 0, BEGIN);
    let node: Arc<str> = "node".into();
    for batch in 1_usize.. {
        let unnamed = |row: TaggedFlow| {
            let mut record = row.record;
            record.node = node.clone();
            TaggedFlow { record, client: EndTag::NONE, server: EndTag::NONE }
        };
        let some: Vec<TaggedFlow> = generator.by_ref().take(BATCH).map(unnamed).collect();
        let Some(last) = some.last() else { break };
        now = last.record.end;
        store.append(some).await.unwrap();
        if (batch * BATCH).is_multiple_of(FLUSH) {
            store.flush().await.unwrap();
            flushes += 1;
            if flushes % OFTEN == 0 {
                compact(&store, now, &mut costs).await;
            }
        }
    }
    store.flush().await.unwrap();
    compact(&store, now + DAY, &mut costs).await;
    let times = (BEGIN - DAY, now + DAY);
    let late = |ranges| LateRows { from: times.0, to: times.1, ranges };
    let (one, _) = generator.pods().nth(ONE).unwrap();
    for (pass, count, late) in [
        ("one pod", 1, late(vec![(one, if one.is_ipv4() { 32 } else { 128 })])),
        ("all pods", usize::MAX, late(Vec::new())),
        ("nothing new", usize::MAX, late(Vec::new())),
    ] {
        let known = generator.pods().skip(if count == 1 { ONE } else { 0 }).take(count);
        name(&store, (pass, rows), &late, &again(&node, known, times)).await;
    }
}

/// Addresses were these pods all the time.
fn again(
    node: &Arc<str>,
    pods: impl Iterator<Item = (std::net::IpAddr, Arc<wiretag_enrich::Identity>)>,
    (from, to): (i64, i64),
) -> Again {
    let mut timeline = Timeline::new();
    timeline.apply(&IdentityEvent::Network { index: 0, netns: 0, network: "cluster".into(), at: from });
    for (ip, identity) in pods {
        timeline.apply(&IdentityEvent::Learned(Interval {
            key: Key::Ip { network: "cluster".into(), ip },
            identity,
            valid_from: from,
            valid_to: Some(to),
            learned_at: to,
            source: "cri".into(),
        }));
    }
    Again { boot: "boot".into(), node: node.clone(), links: Arc::default(), view: Arc::new(timeline.view()) }
}

/// One pass over the files; prints what it took.
async fn name(store: &FlowStore, (pass, all): (&str, u64), late: &LateRows, again: &Again) {
    // From here on the peak is another.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (before, mut progress) = (cpu(), Retagging::default());
    let (mut named, mut files, mut rewritten) = (0, 0, 0);
    while let Some(rows) = store.retag_next(late, (again, &mut progress), late.to).await.unwrap() {
        named += rows;
        files += 1;
        rewritten += u64::from(rows > 0);
    }
    let cpu = cpu().saturating_sub(before).as_secs_f64();
    let result = json!({
        "pass": pass, "rows": all, "named": named, "files": files, "rewritten": rewritten, "cpu_s": cpu,
        "rows_per_core_s": (all as f64 / cpu) as u64, "named_per_core_s": (named as f64 / cpu) as u64,
        "peak_rss_mb": peak() / 1_000_000,
    });
    println!("{result}");
}
