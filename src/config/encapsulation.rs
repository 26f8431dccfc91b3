//! `[capture.tunnel_ports]` and `[capture.fragments]`: what is opened and what is put together.

use anyhow::bail;
use serde::Deserialize;
use wiretag_capture::decode::TunnelPorts;
use wiretag_capture::flow::FragmentLimits;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with lists of ports")]
pub(super) struct WrittenPorts {
    vxlan: Option<Vec<u16>>,
    vxlan_gpe: Option<Vec<u16>>,
    geneve: Option<Vec<u16>>,
    gtpu: Option<Vec<u16>>,
    mpls: Option<Vec<u16>>,
    l2tp: Option<Vec<u16>>,
    ayiya: Option<Vec<u16>>,
    capwap: Option<Vec<u16>>,
    lisp: Option<Vec<u16>>,
    tzsp: Option<Vec<u16>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `packets`, `mib` and `seconds`")]
pub(super) struct WrittenFragments {
    packets: Option<u32>,
    mib: Option<u32>,
    seconds: Option<u32>,
}

pub(super) fn tunnel_ports(written: WrittenPorts) -> anyhow::Result<TunnelPorts> {
    const MOST: usize = 16;
    let defaults = TunnelPorts::default();
    let ports = TunnelPorts {
        vxlan: written.vxlan.unwrap_or(defaults.vxlan),
        vxlan_gpe: written.vxlan_gpe.unwrap_or(defaults.vxlan_gpe),
        geneve: written.geneve.unwrap_or(defaults.geneve),
        gtpu: written.gtpu.unwrap_or(defaults.gtpu),
        mpls: written.mpls.unwrap_or(defaults.mpls),
        l2tp: written.l2tp.unwrap_or(defaults.l2tp),
        ayiya: written.ayiya.unwrap_or(defaults.ayiya),
        capwap: written.capwap.unwrap_or(defaults.capwap),
        lisp: written.lisp.unwrap_or(defaults.lisp),
        tzsp: written.tzsp.unwrap_or(defaults.tzsp),
    };
    let mut seen = Vec::new();
    let TunnelPorts { vxlan, vxlan_gpe, geneve, gtpu, mpls, l2tp, ayiya, capwap, lisp, tzsp } = &ports;
    let lists = [
        ("vxlan", vxlan),
        ("vxlan_gpe", vxlan_gpe),
        ("geneve", geneve),
        ("gtpu", gtpu),
        ("mpls", mpls),
        ("l2tp", l2tp),
        ("ayiya", ayiya),
        ("capwap", capwap),
        ("lisp", lisp),
        ("tzsp", tzsp),
    ];
    for (name, list) in lists {
        if list.len() > MOST {
            bail!(
                "`capture.tunnel_ports.{name}` has {} ports; hint: at most {MOST}, each is compared with each datagram's",
                list.len()
            );
        }
        for port in list {
            if *port == 0 || seen.contains(port) {
                bail!("`capture.tunnel_ports.{name}` has {port}; hint: ports from 1 to 65535, each of one tunnel only");
            }
            seen.push(*port);
        }
    }
    Ok(ports)
}

pub(super) fn fragments(written: &WrittenFragments) -> anyhow::Result<FragmentLimits> {
    let FragmentLimits { packets, bytes, timeout } = FragmentLimits::default();
    let limits = FragmentLimits {
        packets: written.packets.map_or(packets, |packets| packets as usize),
        bytes: written.mib.map_or(bytes, |mib| (mib as usize) << 20),
        timeout: written.seconds.map_or(timeout, |seconds| i64::from(seconds) * 1_000_000_000),
    };
    for (name, value, most) in [
        ("packets", limits.packets as u64, 1 << 20),
        ("mib", limits.bytes as u64 >> 20, 4096),
        ("seconds", limits.timeout.unsigned_abs() / 1_000_000_000, 3600),
    ] {
        if !(1..=most).contains(&value) {
            bail!("`capture.fragments.{name}` is {value}; hint: between 1 and {most}");
        }
    }
    Ok(limits)
}
