//! What is captured in the namespace of a container: the task that follows namespaces says, the worker inside does. One ring for as long as the
//! namespace exists, whatever interfaces it is given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module documentation.
pub(crate) struct Inside {
    /// Inode of the namespace. No other one has it while a ring in it is open.
    pub(super) inode: u64,
    /// Index and name.
    interfaces: Mutex<Vec<(u32, String)>>,
    /// Whether there are others than the worker has looked at.
    has_changed: AtomicBool,
    /// Whether the namespace is gone.
    is_gone: AtomicBool,
}

impl Inside {
    /// A namespace with these interfaces.
    pub(crate) fn new(inode: u64, interfaces: Vec<(u32, String)>) -> Self {
        let (has_changed, is_gone) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { inode, interfaces: Mutex::new(interfaces), has_changed, is_gone }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<(u32, String)>> {
        self.interfaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another source, or the same one later, knows of these: the last word about one counts.
    pub(crate) fn add(&self, interfaces: Vec<(u32, String)>) {
        let mut known = self.locked();
        if interfaces.iter().any(|own| !known.contains(own)) {
            known.retain(|(index, _)| interfaces.iter().all(|(own, _)| own != index));
            known.extend(interfaces);
            self.has_changed.store(true, Ordering::Relaxed);
        }
    }

    /// The namespace is gone: its worker ends.
    pub(crate) fn end(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Index and name of all that are known.
    pub(super) fn interfaces(&self) -> Vec<(u32, String)> {
        self.locked().clone()
    }

    /// Whether there are others since the last call.
    pub(super) fn take_change(&self) -> bool {
        self.has_changed.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_namespace_grows_and_the_last_name_counts() {
        let own = |interfaces: &[(u32, &str)]| -> Vec<(u32, String)> {
            interfaces.iter().map(|(index, name)| (*index, (*name).to_owned())).collect()
        };
        let inside = Inside::new(7, own(&[(2, "eth0")]));
        inside.add(own(&[(2, "eth0")]));
        assert!(!inside.take_change());
        inside.add(own(&[(3, "net1")]));
        assert!(inside.take_change() && !inside.take_change());
        inside.add(own(&[(2, "renamed"), (3, "net1")]));
        assert!(inside.take_change());
        assert_eq!(inside.interfaces(), own(&[(2, "renamed"), (3, "net1")]));
    }
}
