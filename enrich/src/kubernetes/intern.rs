//! One copy of each text: the labels, images and nodes of tens of thousands of pods are a few hundred different ones.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Texts that nobody uses any more are looked for each time that so many more are kept.
const STEP: usize = 4096;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Interner {
    texts: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Interner {
    /// The copy that is kept.
    pub(super) fn text(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(kept) = self.texts.get(text) {
            return kept.clone();
        }
        if self.texts.len() >= self.sweep_at {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = self.texts.len() * 2 + STEP;
        }
        self.texts.insert(text.clone());
        text.clone()
    }

    /// The copies of a map's keys and values.
    pub(super) fn map(&mut self, map: &BTreeMap<Arc<str>, Arc<str>>) -> BTreeMap<Arc<str>, Arc<str>> {
        map.iter().map(|(key, value)| (self.text(key), self.text(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_while_it_is_used_and_none_after() {
        let mut interner = Interner::default();
        let first = interner.text(&"web".into());
        assert!(Arc::ptr_eq(&first, &interner.text(&"web".into())));
        for number in 0..3 * STEP {
            interner.text(&number.to_string().into());
        }
        assert!(interner.texts.len() <= STEP + 2, "{}", interner.texts.len());
        assert!(Arc::ptr_eq(&first, &interner.text(&"web".into())));
    }
}
