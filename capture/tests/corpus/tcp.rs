//! TCP figures of a conversation.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::answers::{Capture, Endpoint, Flow, list, number, text};
use crate::judge::{Conversation, Of, Verdict};
use crate::rows::Row;

pub(crate) fn judge(capture: &Capture, of: &Of<'_>, conversation: &Conversation<'_>, verdict: &mut Verdict) {
    if capture.may_check("flow_set_and_packets_exact") {
        verdict.compare(of, "connections", &conversation.theirs.len(), &conversation.ours.len());
    }
    if capture.may_check("tcp_unique_payload_exact") {
        let unique = conversation.sum(|flow| flow.tcp("/own/payload_unique_bytes"));
        verdict.compare_both(of, "payload_bytes", unique, conversation.our_sum("payload_bytes"));
        repeated(capture, of, conversation, verdict);
    } else if capture.may_check("tcp_retransmission") {
        repeated(capture, of, conversation, verdict);
    }
    if capture.may_check("tcp_zero_window_exact") {
        let zero = conversation.sum(|flow| flow.tcp("/window0_segments_no_rst"));
        verdict.compare_both(of, "zero_windows", zero, conversation.our_sum("zero_windows"));
    }
    if let [(flow, row)] = conversation.pairs().as_slice() {
        state(capture, of, *flow, row, verdict);
    }
    for (flow, row) in conversation.pairs() {
        if flow.has_plain_handshake() {
            handshake(of, flow, row, verdict);
            options(of, flow, row, verdict);
        }
    }
}

/// Zeek's own `conn_state`, where all its baselines agree.
fn state(capture: &Capture, of: &Of<'_>, flow: Flow<'_>, row: &Row, verdict: &mut Verdict) {
    let end = |entry: &Json, side: &str| -> Option<Endpoint> {
        let port = text(&entry[format!("id.{side}_p")]).parse().ok()?;
        Some((text(&entry[format!("id.{side}_h")]).parse().ok()?, port))
    };
    let ends = [Some(flow.a()), Some(flow.b())];
    let baselines = list(&capture.upstream["zeek_conn"]).iter().flat_map(|baseline| list(&baseline["rows"]));
    let own = baselines.filter(|entry| {
        let [orig, resp] = [end(entry, "orig"), end(entry, "resp")];
        [orig, resp] == ends || [resp, orig] == ends
    });
    let states: BTreeSet<&str> =
        own.map(|entry| text(&entry["conn_state"])).filter(|state| !state.is_empty()).collect();
    if let [state] = states.into_iter().collect::<Vec<_>>().as_slice() {
        verdict.compare(of, "tcp_state", state, &row.text("tcp_state"));
    }
}

/// Exact counts where three tools agree; whether there are any; and the sum with late segments.
fn repeated(capture: &Capture, of: &Of<'_>, conversation: &Conversation<'_>, verdict: &mut Verdict) {
    let add = |one: [u64; 2], other: [u64; 2]| [one[0] + other[0], one[1] + other[1]];
    let theirs = conversation.sum(|flow| {
        add(flow.tcp("/own/seqspace_fully_repeated_segments"), flow.tcp("/own/seqspace_partly_repeated_segments"))
    });
    let late = conversation.sum(|flow| flow.tcp("/own/late_new_segments"));
    let ours = conversation.our_sum("retransmits");
    let our_late = conversation.our_sum("out_of_order");
    verdict.compare_both(of, "retransmits yes/no", theirs.map(|n| n.min(1)), ours.map(|n| n.min(1)));
    verdict.compare_both(of, "retransmits + out_of_order", add(theirs, late), add(ours, our_late));
    for (flow, row) in conversation.pairs() {
        let stream = &flow.0["stream"];
        let Some(agreed) = capture.agreed.iter().find(|agreed| agreed["stream"] == *stream) else { continue };
        let exact = |name: &str| ["ab", "ba"].map(|direction| number(&agreed[format!("{name}_{direction}")]));
        verdict.compare_both(of, "retransmits", exact("repeated"), row.both(flow.a(), "retransmits"));
        verdict.compare_both(of, "keep_alives", exact("keepalive"), row.both(flow.a(), "keep_alives"));
    }
}

fn handshake(of: &Of<'_>, flow: Flow<'_>, row: &Row, verdict: &mut Verdict) {
    let handshake = flow.handshake();
    for (column, theirs) in [
        ("handshake_rtt_us", "syn_to_ack_ns"),
        ("server_rtt_us", "syn_to_synack_first_ns"),
        ("client_rtt_us", "synack_to_ack_first_ns"),
    ] {
        if let Some(nanos) = handshake[theirs].as_i64().filter(|nanos| *nanos >= 0) {
            verdict.compare(of, column, &(nanos / 1000).to_string(), &row.get(column).to_string());
        }
    }
    let client = if text(&handshake["client"]) == "ba" { flow.b() } else { flow.a() };
    verdict.compare(of, "client", &show(client), &show(row.endpoint("client")));
}

fn show((ip, port): Endpoint) -> String {
    format!("{ip} {port}")
}

/// MSS and window scale: the answers have them in the order in which SYN and SYN-ACK were captured.
fn options(of: &Of<'_>, flow: Flow<'_>, row: &Row, verdict: &mut Verdict) {
    let handshake = flow.handshake();
    let [first, second] = list(&handshake["syn_options"]) else { return };
    let reversed = text(&handshake["client"]) == "ba";
    let sides = if reversed { ["server", "client"] } else { ["client", "server"] };
    for (side, options) in sides.into_iter().zip([first, second]) {
        let mut compare = |figure: &'static str, theirs: &Json, column: &str| {
            let theirs = text(theirs).parse::<u64>().ok();
            let ours = row.get(&format!("{side}_{column}")).as_u64();
            let show = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
            verdict.compare(of, figure, &format!("{side} {}", show(theirs)), &format!("{side} {}", show(ours)));
        };
        compare("mss", &options["mss"], "mss");
        compare("window_scale", &options["wscale"], "window_scale");
    }
}
