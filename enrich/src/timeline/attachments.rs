//! Which network an interface belongs to, and since and until when.
//!
//! A namespace and its interfaces are gone before the last flows that they carried are tagged, and the number of a
//! namespace is given to the next one at once. So an attachment is an interval too; it is forgotten by
//! [`Attachments::expire`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Span;
use crate::identity::{ANY_NETWORK, VRF};

#[derive(Debug, Clone)]
struct Attachment {
    network: Arc<str>,
    from: i64,
    to: i64,
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Attachments {
    /// By network namespace and index.
    of_interface: HashMap<(u64, u32), Vec<Attachment>>,
    /// Networks with an interface in wiretag's own namespace.
    on_host: HashSet<Arc<str>>,
}

impl Attachments {
    pub(super) fn attach(&mut self, netns: u64, index: u32, network: &Arc<str>, at: i64) {
        if netns == 0 && is_hosts(network) {
            self.on_host.insert(network.clone());
        }
        let list = self.of_interface.entry((netns, index)).or_default();
        if let Some(last) = list.last_mut().filter(|last| last.to == i64::MAX) {
            if last.network == *network {
                last.from = last.from.min(at);
                return;
            }
            last.to = at;
        }
        list.push(Attachment { network: network.clone(), from: at, to: i64::MAX });
    }

    /// The interface is gone.
    pub(super) fn detach(&mut self, netns: u64, index: u32, at: i64) {
        for attachment in self.of_interface.get_mut(&(netns, index)).into_iter().flatten() {
            attachment.to = attachment.to.min(at.max(attachment.from));
        }
    }

    /// All interfaces of a namespace are gone.
    pub(super) fn detach_all(&mut self, netns: u64, at: i64) {
        let own = self.of_interface.iter_mut().filter(|((own, _), _)| *own == netns);
        for attachment in own.flat_map(|(_, list)| list) {
            attachment.to = attachment.to.min(at.max(attachment.from));
        }
    }

    /// The one network that the interface belonged to. In wiretag's own namespace an index has one life only, so that
    /// what is learned late holds for its whole life.
    pub(super) fn network(&self, netns: u64, index: u32, when: Span) -> Option<&Arc<str>> {
        let list = self.of_interface.get(&(netns, index))?;
        if netns == 0
            && let [only] = list.as_slice()
        {
            return Some(&only.network);
        }
        let mut found: Option<&Arc<str>> = None;
        for own in list.iter().filter(|own| own.from <= when.to && own.to > when.from) {
            if found.is_some_and(|found| *found != own.network) {
                return None;
            }
            found = Some(&own.network);
        }
        found
    }

    /// Whether an interface of wiretag's own namespace is in a VRF, or was.
    pub(super) fn has_vrfs(&self) -> bool {
        let on_host = self.of_interface.iter().filter(|((netns, _), _)| *netns == 0);
        on_host.flat_map(|(_, list)| list).any(|own| own.network.starts_with(VRF))
    }

    pub(super) fn is_on_host(&self, network: &str) -> bool {
        self.on_host.contains(network)
    }

    /// Forgets what ended before `before`.
    pub(super) fn expire(&mut self, before: i64) {
        let mut forgotten = false;
        self.of_interface.retain(|_, list| {
            let known = list.len();
            list.retain(|own| own.to >= before);
            forgotten |= list.len() != known;
            !list.is_empty()
        });
        if forgotten {
            let on_host = self.of_interface.iter().filter(|((netns, _), _)| *netns == 0);
            let networks = on_host.flat_map(|(_, list)| list).map(|own| own.network.clone());
            self.on_host = networks.filter(|network| is_hosts(network)).collect();
        }
    }
}

/// Whether the host itself reaches the addresses of a network that has interfaces in its namespace.
fn is_hosts(network: &str) -> bool {
    network != ANY_NETWORK && !network.starts_with(VRF)
}
