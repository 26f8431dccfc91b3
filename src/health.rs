//! What `health` says of a running appliance.

use std::sync::Arc;

use wiretag_store::{MissingPackets, Store};

use crate::peers::Peers;
use crate::sources::Sources;
use crate::trouble::Troubles;
use crate::worker::CaptureStatus;

/// The answer, made anew whenever somebody asks.
pub(crate) fn health(
    node: String,
    capture: Arc<CaptureStatus>,
    sources: Sources,
    (troubles, peers, store): (Arc<Troubles>, Arc<Peers>, Arc<Store>),
) -> wiretag_web::Health {
    Arc::new(move || {
        let counters = capture.counters();
        let mut problems = [troubles.sentences(), sources.problems()].concat();
        problems.extend(gone(store.packets_gone()));
        serde_json::json!({
            "status": if problems.is_empty() { "ok" } else { "degraded" },
            "problems": problems,
            "version": env!("CARGO_PKG_VERSION"),
            "node": node,
            "interfaces": capture.interfaces().iter().map(std::string::ToString::to_string).collect::<Vec<_>>(),
            "docker": sources.docker.borrow().to_string(),
            "kernel": sources.kernel.borrow().to_string(),
            "sources": sources.words(),
            "peers": peers.words(),
            "packets": counters.packets,
            "decoded": counters.decoded,
            "refused": counters.refused,
            "kernel_drops": counters.kernel_drops,
            "queue_drops": counters.queue_drops,
            "flows_active": counters.flows_active,
        })
    })
}

/// Packets that somebody took from the disk.
fn gone(missing: MissingPackets) -> Option<String> {
    let MissingPackets { segments, packets } = missing;
    let what = if segments == 1 { "a segment is".to_owned() } else { format!("{segments} segments are") };
    (segments > 0)
        .then(|| format!("{what} gone from the disk, {packets} packets are missing; hint: restore them from a backup"))
}
