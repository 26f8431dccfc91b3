//! Figures of a whole capture: packets, times, link types, address pairs, tunnel ids.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wiretag_capture::LinkType;

use crate::answers::{Capture, list, number, text};
use crate::judge::{Of, Verdict};
use crate::rows::{Replay, Row};

pub(crate) fn judge(capture: &Capture, replay: &Replay, verdict: &mut Verdict) {
    let of = Of { capture: &capture.name, flow: "capture".to_owned() };
    verdict.compare(&of, "packets of the file", &number(&capture.index["packets"]), &replay.packets);
    if capture.may_check("file_timestamps")
        && let (Some(first), Some(last)) = (nanos(&capture.index["first_packet"]), nanos(&capture.index["last_packet"]))
    {
        let show = |(first, last): (i64, i64)| format!("{first} to {last}");
        verdict.compare(&of, "times of the file", &show((first, last)), &replay.span.map(show).unwrap_or_default());
    }
    if capture.may_check("link_type") {
        link_types(capture, replay, &of, verdict);
    }
    if capture.may_check("flow_set") {
        address_pairs(capture, replay, verdict);
    }
    if capture.may_check("tunnel_ids") {
        tunnel_ids(capture, replay, &of, verdict);
    }
}

/// Seconds with up to nine digits of fraction, as nanoseconds.
fn nanos(value: &serde_json::Value) -> Option<i64> {
    let (seconds, fraction) = text(value).split_once('.')?;
    // `tshark` prints a fraction that is no fraction with a digit more (`timestamp_invalid_micro`): micros all the same.
    let unit = if fraction.len() == 9 { 1 } else { 1000 };
    Some(seconds.parse::<i64>().ok()? * 1_000_000_000 + fraction.parse::<i64>().ok()? * unit)
}

fn link_types(capture: &Capture, replay: &Replay, of: &Of<'_>, verdict: &mut Verdict) {
    let number = |name: &str| match name {
        "NULL" => LinkType::NULL.0,
        "EN10MB" | "ether" => LinkType::ETHERNET.0,
        "PPP" => 9,
        "RAW" => LinkType::RAW.0,
        "LINUX_SLL" => LinkType::LINUX_SLL.0,
        "IPV4" => LinkType::IPV4.0,
        "NFLOG" => 239,
        "LINUX_SLL2" => LinkType::LINUX_SLL2.0,
        other => other.parse().unwrap_or_else(|_| panic!("a link type that this test does not know: {other}")),
    };
    let show = |types: BTreeSet<u16>| types.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let theirs = list(&capture.index["link_types"]).iter().map(|name| number(text(name))).collect();
    let ours = replay.link_types.iter().map(|link_type| link_type.0).collect();
    verdict.compare(of, "link types", &show(theirs), &show(ours));
}

/// Packets and IP bytes of an address pair, from its lower address and from its higher.
type Pairs = BTreeMap<(IpAddr, IpAddr), [(u64, u64); 2]>;

fn count(pairs: &mut Pairs, from: IpAddr, to: IpAddr, packets: u64, bytes: u64) {
    if packets == 0 {
        return;
    }
    let entry = pairs.entry((from.min(to), from.max(to))).or_default();
    let direction = &mut entry[usize::from(from > to)];
    direction.0 += packets;
    direction.1 += bytes;
}

/// Every IP header of every packet, fragments too, tunnels and what is in them: nothing is lost, nothing counted twice.
fn address_pairs(capture: &Capture, replay: &Replay, verdict: &mut Verdict) {
    let (mut theirs, mut ours) = (Pairs::new(), Pairs::new());
    for pair in list(&capture.tshark["ip_pairs"]) {
        let [a, b] = ["a", "b"].map(|side| text(&pair[side]).parse::<IpAddr>().expect("an address"));
        count(&mut theirs, a, b, number(&pair["packets_ab"]), number(&pair["ip_bytes_ab"]));
        count(&mut theirs, b, a, number(&pair["packets_ba"]), number(&pair["ip_bytes_ba"]));
    }
    for row in &replay.flows {
        let [client, server] = ["client", "server"].map(|side| row.endpoint(side).0);
        count(&mut ours, client, server, row.number("client_packets"), row.number("client_bytes"));
        count(&mut ours, server, client, row.number("server_packets"), row.number("server_bytes"));
    }
    let names: BTreeSet<_> = theirs.keys().chain(ours.keys()).copied().collect();
    for name in names {
        let of = Of { capture: &capture.name, flow: format!("{} > {}", name.0, name.1) };
        let show = |pairs: &Pairs| {
            let [(low, low_bytes), (high, high_bytes)] = pairs.get(&name).copied().unwrap_or_default();
            format!("{low} packets {low_bytes} bytes / {high} packets {high_bytes} bytes")
        };
        verdict.compare(&of, "address pair", &show(&theirs), &show(&ours));
    }
}

/// Ids by kind of tunnel, where the capture has one level of them.
fn tunnel_ids(capture: &Capture, replay: &Replay, of: &Of<'_>, verdict: &mut Verdict) {
    let inside = |row: &&Row| !row.is_tunnel() && !row.get("tunnel").is_null();
    for (field, kinds, shift) in [
        ("vxlan.vni", &["vxlan"][..], 0),
        ("geneve.vni", &["geneve"], 0),
        ("gtp.teid", &["gtpu"], 0),
        ("erspan.spanid", &["erspan"], 0),
        ("gre.key", &["gre"], 0),
        ("gre.key", &["nvgre"], 8),
    ] {
        let Some(values) = capture.tshark["tunnel_values"][field].as_object() else { continue };
        let of_kind = |row: &&Row| kinds.contains(&row.text("tunnel").rsplit('+').next().unwrap_or_default());
        let rows: Vec<_> = replay.flows.iter().filter(inside).filter(of_kind).collect();
        if rows.is_empty() && field == "gre.key" {
            continue;
        }
        // A GTP tunnel has an id for each direction (TS 29.281, 5.1); a row has that of its first packet.
        let some = field == "gtp.teid" || rows.iter().any(|row| row.text("tunnel").matches(kinds[0]).count() > 1);
        let ours: BTreeSet<u64> = rows.iter().filter_map(|row| row.get("tunnel_id").as_u64()).collect();
        let mut theirs: BTreeSet<u64> = values.keys().map(|value| parse(value) >> shift).collect();
        if some {
            theirs.retain(|id| ours.contains(id));
        }
        let show = |ids: &BTreeSet<u64>| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        verdict.compare(of, "tunnel ids", &format!("{field} {}", show(&theirs)), &format!("{field} {}", show(&ours)));
    }
}

fn parse(value: &str) -> u64 {
    let hex = value.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
    hex.unwrap_or_else(|| value.parse()).expect("a number")
}
