//! The identity timeline: which key meant whom, and when. A log of what sources told, not a cache of the present.
//!
//! ```text
//! events ─ Timeline (one writer) ─┬─ subjects: whom, by which names, with which attributes, ended when   [subjects, attributes]
//!                                 └─ histories: by key, what each source claimed, and what follows       [history]
//!          View (any reader) ─ interface, socket, mac, ip, service: who was it during a span?            [view]
//! ```
//!
//! Invariants:
//! * the answer does not depend on the order in which sources are heard, as long as each is heard in its own order. A source that
//!   says that a key means someone new from `t` on ends at `t` what the same source said before and left open (but for the static file, which
//!   says all that holds and may give a key to two). When the true end is told later it replaces that; if it is after `t`, the time in
//!   between is ambiguous;
//! * what is told of another name of an identity is told of the identity, whichever is told first;
//! * claims of one key by several sources that mean one identity are one fact: its times are those of the exact sources. By
//!   several identities at a time they are [`Lookup::Ambiguous`];
//! * nothing is forgotten but by [`Timeline::expire`];
//! * a [`View`] is a copy that costs microseconds and never changes: its readers wait for nobody.
//!
//! **Lookup.** What is looked up is a [`Span`]: the time of a slice's packets. It gets the name of whoever held the key
//! *when the span began*; it is ambiguous if another identity held the key at any time of the span (late packets of a dead
//! container's connection would otherwise be given to the heir of its address), and without a name if nobody is known to
//! have held the key when the span began, even if someone does later.
//!
//! **Tolerance.** There is none around the edges of an address that the kernel or a runtime of this host tells: events and
//! packets have one clock; an address is given out before its event and is used after it, and a process has ended before
//! its end is told. To stretch an interval would reach into a time when the key may have been another's, perhaps one of whom
//! nobody told. Only an interface of wiretag's own namespace has some ([`TOLERANCE`], before its beginning): its index has
//! one life in a boot, so what it carries before a source tells of it is already its owner's.
//!
//! **Other clocks.** The Kubernetes API tells whole seconds of other clocks. Its beginnings and ends may be off by
//! [`UNCERTAIN`] either way. Nobody is named outside of what it tells; and inside, near an edge, only if nobody
//! else may have held the key then: two identities whose uncertain edges touch are ambiguous there. Such a source tells late
//! too: what it left open lasts only until it was last in touch ([`IdentityEvent::Heard`]), less [`UNCERTAIN`]; who is asked
//! for a later time is ambiguous, since another may have the key already, be it one before the next that was told. [`View::heard`] says from
//! when on that may change.
//!
//! [`IdentityEvent::Heard`]: crate::IdentityEvent::Heard
//!
//! **Unheard time.** When a source was away, what it no longer confirms ended at some time unknown: the interval ends when the
//! source was last heard, and what is new begins no earlier than another's known end (of inexact sources: [`UNCERTAIN`] later).

mod apply;
mod attachments;
mod attributes;
pub mod dossier;
mod expire;
mod history;
mod keys;
pub mod late;
pub mod query;
mod ranges;
mod reconcile;
mod sharded;
mod sources;
mod subjects;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::identity::Identity;
use attributes::Shared;
use expire::Expiry;
use keys::Place;
use late::Late;
use reconcile::Reconciling;

pub use dossier::Dossier;
pub(crate) use ranges::first_of;
pub use sources::UNCERTAIN;
pub use view::{PLACES, View};

/// How long before a source tells of an interface of wiretag's own namespace its packets may be seen, ns.
pub const TOLERANCE: i64 = 500_000_000;

/// The time from the first to the last packet of what is looked up, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First instant, ns.
    pub from: i64,
    /// Last instant, ns.
    pub to: i64,
}

impl From<i64> for Span {
    fn from(time: i64) -> Self {
        Self { from: time, to: time }
    }
}

/// Answer of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Exactly one, and the source that said so: the timeline's own, of which nothing is touched that need not be read.
    One(&'a Arc<Identity>, &'a str),
    /// Several; or one of whom nobody knows whether he still was.
    Ambiguous(Vec<Arc<Identity>>),
    /// Nobody known.
    None,
}

/// The one who writes: see the module documentation. Lookups are those of its [`View`].
#[derive(Debug, Default)]
pub struct Timeline {
    view: View,
    /// What a source left open, by source: key and name.
    open: HashMap<u8, HashSet<(Place, u32)>>,
    /// Of whom something was told that is not persisted yet.
    touched: HashSet<u32>,
    shared: Shared,
    /// What is being forgotten.
    expiry: Option<Expiry>,
    /// What is still being applied.
    reconciling: Option<Reconciling>,
    /// What was learned that may be late.
    late: Late,
}

impl std::ops::Deref for Timeline {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Timeline {
    /// An empty timeline.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known now, for readers elsewhere.
    pub fn view(&self) -> View {
        self.view.clone()
    }
}
