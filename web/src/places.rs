//! Places that are counted by who takes them: nobody takes those of others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How many places each has.
pub(crate) struct Places<W>(Mutex<HashMap<W, usize>>);

/// A place of somebody, until it is dropped.
pub(crate) struct Place<W: Eq + Hash> {
    places: Arc<Places<W>>,
    who: W,
}

impl<W: Clone + Eq + Hash> Places<W> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// One more for `who`, who may have so many.
    pub(crate) fn place(own: &Arc<Self>, who: W, most: usize) -> Option<Place<W>> {
        let mut taken = own.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&who).copied().unwrap_or_default();
        (count < most).then(|| {
            taken.insert(who.clone(), count + 1);
            Place { places: own.clone(), who }
        })
    }
}

impl<W: Eq + Hash> Drop for Place<W> {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_those_of_others_and_what_is_given_back_is_forgotten() {
        let places = Places::new();
        let one: Vec<_> = (0..3).filter_map(|_| Places::place(&places, "one", 2)).collect();
        assert_eq!(one.len(), 2);
        let two = Places::place(&places, "two", 2);
        assert!(two.is_some());
        drop(one);
        assert!(Places::place(&places, "one", 1).is_some());
        drop(two);
        assert!(places.0.lock().expect("a lock").is_empty());
    }
}
