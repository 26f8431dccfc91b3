//! Labels of namespaces (team, cost centre, stage), which hold for the pods in them: a pod has the label `team` of its namespace as
//! `namespace:team`, which no label of its own can be called, because Kubernetes allows no colon there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::intern::Interner;
use super::objects::Meta;

/// What the label of a namespace is called among those of a pod.
const PREFIX: &str = "namespace:";
/// Every namespace has it, and it says the name, which pods have anyway.
const NAME: &str = "kubernetes.io/metadata.name";

type Labels = BTreeMap<Arc<str>, Arc<str>>;

#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    version: u64,
    labels: Labels,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// By name: only one of a name is there at a time.
    known: HashMap<Arc<str>, Known>,
    interner: Interner,
}

/// What a version of a namespace means for its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// The namespace was not known.
    First,
    /// Its labels have changed.
    Changed,
}

impl Namespaces {
    pub(super) fn uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.values().map(|known| &known.uid)
    }

    /// A version of a namespace.
    pub(super) fn apply(&mut self, meta: &Meta) -> News {
        let before = self.known.get(&meta.name);
        if before.is_some_and(|known| meta.version() != 0 && meta.version() <= known.version) {
            return News::None;
        }
        let mut labels = Labels::new();
        for (name, value) in meta.labels.iter().filter(|(name, _)| ***name != *NAME) {
            let name = self.interner.text(&format!("{PREFIX}{name}").into());
            labels.insert(name, self.interner.text(value));
        }
        let news = match before {
            None => News::First,
            Some(known) if known.labels == labels => News::None,
            Some(_) => News::Changed,
        };
        let known = Known { uid: meta.uid.clone(), version: meta.version(), labels };
        self.known.insert(meta.name.clone(), known);
        news
    }

    /// It was deleted, and before it all that was in it.
    pub(super) fn gone(&mut self, uid: &str) {
        self.known.retain(|_, known| *known.uid != *uid);
    }

    /// Gives the labels of a pod those of its namespace, in place of such that it had.
    pub(super) fn label(&self, namespace: Option<&str>, labels: &mut Labels) {
        labels.retain(|name, _| !name.starts_with(PREFIX));
        if let Some(known) = namespace.and_then(|name| self.known.get(name)) {
            labels.extend(known.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }
}
