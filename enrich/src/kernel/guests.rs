//! Containers that share a network namespace outside of pods (`--network container:ID`): interface and addresses are one
//! container's, the traffic is everybody's. Pure.
//!
//! Each of them is told as the holder of a place in the namespace: a [`Key::Socket`] without protocol and address, whose port is
//! the number of the place. Where several are held, only a socket says who it was. Beyond [`PLACES`] the latest share the last one.

use std::collections::HashMap;
use std::sync::Arc;

use super::processes::Resident;
use crate::event::IdentityEvent;
use crate::identity::{Identity, Interval, Key};
use crate::timeline::PLACES;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Guests {
    boot: Arc<str>,
    /// Inode of the namespace and container: since when, and its place.
    known: HashMap<(u64, Arc<str>), (i64, u16)>,
}

impl Guests {
    pub(super) fn new(boot: Arc<str>) -> Self {
        Self { boot, known: HashMap::new() }
    }

    /// These are the namespaces with several containers, and these their containers, at `at`.
    pub(super) fn take(
        &mut self,
        shared: &HashMap<u64, HashMap<Arc<str>, Resident>>,
        at: i64,
        out: &mut Vec<IdentityEvent>,
    ) {
        let outside = shared.iter().filter(|(_, own)| !own.values().any(|resident| resident.in_pod));
        let there: HashMap<(u64, Arc<str>), i64> = outside
            .flat_map(|(inode, own)| own.iter().map(|(id, resident)| ((*inode, id.clone()), resident.started.min(at))))
            .collect();
        for ((inode, container), (from, place)) in self.known.extract_if(|key, _| !there.contains_key(key)) {
            out.push(event(&self.boot, (inode, place), &container, (from, Some(at.max(from))), at));
        }
        let mut new: Vec<(i64, u64, Arc<str>)> = there
            .into_iter()
            .filter(|(key, _)| !self.known.contains_key(key))
            .map(|((inode, container), from)| (from, inode, container))
            .collect();
        // Whose namespace it is was there first.
        new.sort();
        for (from, inode, container) in new {
            let taken = |place: &u16| self.known.iter().any(|((own, _), (_, known))| *own == inode && known == place);
            let place = (0..PLACES).find(|place| !taken(place)).unwrap_or(PLACES - 1);
            out.push(event(&self.boot, (inode, place), &container, (from, None), at));
            self.known.insert((inode, container), (from, place));
        }
    }
}

fn event(
    boot: &Arc<str>,
    (netns, place): (u64, u16),
    container: &Arc<str>,
    (valid_from, valid_to): (i64, Option<i64>),
    at: i64,
) -> IdentityEvent {
    IdentityEvent::Learned(Interval {
        key: Key::Socket { netns, boot: boot.clone(), protocol: 0, ip: None, port: place },
        identity: Arc::new(Identity { identity: container.clone(), ..Identity::default() }),
        valid_from,
        valid_to,
        learned_at: at,
        source: super::SOURCE.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(residents: &[(u64, &str, i64, bool)]) -> HashMap<u64, HashMap<Arc<str>, Resident>> {
        let mut found: HashMap<u64, HashMap<Arc<str>, Resident>> = HashMap::new();
        for (inode, id, started, in_pod) in residents {
            let resident = Resident { pid: 1, started: *started, in_pod: *in_pod };
            found.entry(*inode).or_default().insert((*id).into(), resident);
        }
        found
    }

    type Told = (u64, u16, String, i64, Option<i64>);

    fn told(guests: &mut Guests, residents: &[(u64, &str, i64, bool)], at: i64) -> Vec<Told> {
        let mut out = Vec::new();
        guests.take(&shared(residents), at, &mut out);
        let mut told: Vec<_> = out
            .into_iter()
            .map(|event| {
                let IdentityEvent::Learned(interval) = event else { panic!("{event:?}") };
                let Key::Socket { netns, protocol: 0, ip: None, port, .. } = interval.key else { panic!() };
                (netns, port, interval.identity.identity.to_string(), interval.valid_from, interval.valid_to)
            })
            .collect();
        told.sort();
        told
    }

    #[test]
    fn each_is_there_from_its_process_s_start_to_the_round_without_it() {
        let mut guests = Guests::new("boot".into());
        let (host, guest, pod) = ((7, "host", 10, false), (7, "guest", 50, false), (8, "pause", 1, true));
        assert_eq!(
            told(&mut guests, &[host, guest, pod, (8, "app", 2, true)], 60),
            [(7, 0, "host".into(), 10, None), (7, 1, "guest".into(), 50, None)]
        );
        assert!(told(&mut guests, &[host, guest], 70).is_empty());
        // The place that became free is the next one's.
        let (late, later) = ((7, "late", 75, false), (7, "later", 76, false));
        assert_eq!(
            told(&mut guests, &[host, late, later], 80),
            [(7, 1, "guest".into(), 50, Some(80)), (7, 1, "late".into(), 75, None), (7, 2, "later".into(), 76, None)]
        );
        assert_eq!(told(&mut guests, &[], 90).len(), 3);
    }
}
