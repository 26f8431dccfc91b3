//! What the plugin finds out for its record: whose sandbox it is, and which interfaces the plugins before it made.

use std::ffi::OsStr;
use std::path::Path;

use wiretag_capture::ring::links::{self, Link, LinkKind};
use wiretag_capture::ring::{in_namespace, namespace_inode};

use super::Environment;
use super::config::NetworkConfig;
use crate::cni::record::{Call, Outside, Pod, Record, VERSION};

/// The record of a call. What cannot be found out is left out.
pub(super) fn record(call: Call, environment: &Environment, config: &NetworkConfig, at: i64) -> Record {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let ifname = text(&environment.ifname);
    let mut record = Record {
        version: VERSION,
        call,
        at,
        boot: boot.trim().to_owned(),
        own_netns: namespace_inode(Path::new("/proc/self/ns/net")).unwrap_or_default(),
        network: config.network().to_owned(),
        container: text(&environment.container),
        pod: pod(&text(&environment.arguments)),
        netns: None,
        inode: None,
        mac: None,
        ips: Vec::new(),
        inside: None,
        outside: None,
        valid: None,
        ifname,
    };
    match call {
        Call::Add | Call::Check => {
            record.mac = config.mac(&record.ifname);
            record.ips = config.ips();
            look_inside(&mut record, &environment.netns);
        }
        Call::Gc => record.valid = config.valid(),
        Call::Del => {}
    }
    record
}

fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}

/// `CNI_ARGS` as Kubernetes' runtimes set them: `KEY=VALUE;…`.
fn pod(arguments: &str) -> Option<Pod> {
    let value = |name: &str| {
        let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        let mut own = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.trim());
        own.find(|value| !value.is_empty()).map(str::to_owned)
    };
    let (namespace, name) = value("K8S_POD_NAMESPACE").zip(value("K8S_POD_NAME"))?;
    Some(Pod { namespace, name, uid: value("K8S_POD_UID") })
}

fn look_inside(record: &mut Record, netns: &Path) {
    if netns.as_os_str().is_empty() {
        return;
    }
    record.netns = Some(netns.to_owned());
    record.inode = namespace_inode(netns).ok();
    let links = in_namespace(netns, links::list).ok().and_then(Result::ok).unwrap_or_default();
    let Some(inside) = links.iter().find(|link| link.name == record.ifname) else { return };
    // What the plugin before told of an ipvlan is the device's below, too.
    record.mac = inside.own_mac().or(record.mac.filter(|_| inside.kind != LinkKind::Ipvlan));
    // An interface without an end on the host is captured inside: that is said only if it is known.
    let Ok(links) = links::list() else { return };
    record.inside = Some(inside.index);
    record.outside = outside(&links, inside);
}

/// The host's end of a veth: each end names the other.
fn outside(links: &[Link], inside: &Link) -> Option<Outside> {
    let is_veth = |link: &Link| link.kind == LinkKind::Veth;
    let own = |link: &&Link| is_veth(link) && Some(link.index) == inside.peer && link.peer == Some(inside.index);
    let link = links.iter().filter(|_| is_veth(inside)).find(own)?;
    let bridges = links.iter().filter(|other| other.kind == LinkKind::Bridge);
    let bridge = bridges.map(|bridge| bridge.index).find(|index| link.master == Some(*index));
    Some(Outside { index: link.index, name: link.name.clone(), bridge })
}
