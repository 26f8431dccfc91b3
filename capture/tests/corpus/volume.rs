//! Packets, bytes, times, VLANs and Community ID of a conversation.

use std::collections::BTreeSet;

use crate::answers::{Capture, list, number, text};
use crate::judge::{Conversation, Of, Verdict};

pub(crate) fn judge(capture: &Capture, of: &Of<'_>, conversation: &Conversation<'_>, verdict: &mut Verdict) {
    if capture.may_check("flow_set_and_packets_exact") {
        let packets = conversation.sum(|flow| flow.both("packets"));
        verdict.compare_both(of, "packets", packets, conversation.our_sum("packets"));
        times(of, conversation, verdict);
    }
    if capture.may_check("ip_bytes_exact") {
        let bytes = conversation.sum(|flow| flow.both("ip_bytes"));
        verdict.compare_both(of, "bytes", bytes, conversation.our_sum("bytes"));
        let protocol = conversation.theirs[0].protocol();
        if protocol == "udp" {
            let payload = conversation.sum(|flow| flow.both("payload_bytes"));
            verdict.compare_both(of, "payload_bytes", payload, conversation.our_sum("payload_bytes"));
        }
    }
    let show = |ids: BTreeSet<&str>| ids.into_iter().collect::<Vec<_>>().join(" ");
    let theirs = conversation.theirs.iter().map(|flow| text(&flow.0["community_id"])).collect();
    let ours = conversation.ours.iter().map(|row| row.text("community_id")).collect();
    verdict.compare(of, "community_id", &show(theirs), &show(ours));
    // Inside a tunnel the answers name the VLANs of the outer frame.
    if conversation.theirs[0].depth() == 1 {
        vlans(of, conversation, verdict);
    }
}

fn times(of: &Of<'_>, conversation: &Conversation<'_>, verdict: &mut Verdict) {
    let show = |(start, end): (Option<i64>, Option<i64>)| {
        format!("{} to {}", start.unwrap_or_default(), end.unwrap_or_default())
    };
    let flows = || conversation.theirs.iter().map(|flow| flow.0);
    let theirs = (
        flows().filter_map(|flow| flow["first_ns"].as_i64()).min(),
        flows().filter_map(|flow| flow["last_ns"].as_i64()).max(),
    );
    let rows = || conversation.ours.iter();
    let ours = (rows().map(|row| row.time("start")).min(), rows().map(|row| row.time("end")).max());
    verdict.compare(of, "start and end", &show(theirs), &show(ours));
}

/// Every tag seen. VLAN 0 is a priority tag (802.1Q, 9.6) and names no VLAN.
fn vlans(of: &Of<'_>, conversation: &Conversation<'_>, verdict: &mut Verdict) {
    let stacks = conversation.theirs.iter().flat_map(|flow| list(&flow.0["vlan_ids_seen"]));
    let theirs: BTreeSet<u64> =
        stacks.flat_map(list).filter_map(|id| text(id).parse().ok()).filter(|id| *id != 0).collect();
    let columns = |row: &crate::rows::Row| ["vlan", "vlan_inner"].map(|column| number(row.get(column)));
    let ours: BTreeSet<u64> = conversation.ours.iter().flat_map(|row| columns(row)).filter(|id| *id != 0).collect();
    let show = |ids: BTreeSet<u64>| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    verdict.compare(of, "vlan", &show(theirs), &show(ours));
}
