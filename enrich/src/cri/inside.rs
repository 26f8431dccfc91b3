//! Looks into a pod's network namespace: which interfaces there are, and where their traffic passes on the host.

use std::path::{Path, PathBuf};

use wiretag_capture::ring::links::{self, Link, LinkKind};
use wiretag_capture::ring::{in_namespace, namespace_inode};

use super::facts::{Inside, Interface};

/// Takes the first path that leads to a namespace; `None` if it is gone or is wiretag's own.
pub(super) async fn look(netns: Vec<PathBuf>) -> Option<Inside> {
    tokio::task::spawn_blocking(move || netns.iter().find_map(|path| look_now(path))).await.ok().flatten()
}

fn look_now(netns: &Path) -> Option<Inside> {
    let inode = namespace_inode(netns).ok()?;
    if inode == namespace_inode(Path::new("/proc/self/ns/net")).ok()? {
        return None;
    }
    let inside = in_namespace(netns, links::list).ok()?.ok()?;
    let outside = links::list().ok()?;
    let own = inside.iter().filter(|link| link.kind != LinkKind::Loopback && carries(link));
    let interfaces = own.map(|link| Interface {
        name: link.name.clone(),
        index: link.index,
        mac: link.mac,
        outside: host_end(link, &outside),
    });
    Some(Inside { path: netns.to_owned(), inode, interfaces: interfaces.collect() })
}

/// Tunnel devices that the kernel puts into each namespace are down and carry nothing.
fn carries(link: &Link) -> bool {
    link.up
        && matches!(
            link.kind,
            LinkKind::Veth | LinkKind::Macvlan | LinkKind::Physical | LinkKind::Other | LinkKind::Vxlan
        )
}

/// The host's end of a veth (each end names the other), and the bridge that it is a port of.
fn host_end(inside: &Link, outside: &[Link]) -> Option<(u32, Option<u32>)> {
    let is_veth = |link: &Link| link.kind == LinkKind::Veth;
    let pair = |link: &&Link| is_veth(link) && inside.peer == Some(link.index) && link.peer == Some(inside.index);
    let link = outside.iter().filter(|_| is_veth(inside)).find(pair)?;
    let bridges = outside.iter().filter(|other| other.kind == LinkKind::Bridge);
    Some((link.index, bridges.map(|bridge| bridge.index).find(|index| link.master == Some(*index))))
}
