//! Flow records and transactions to tagged ones: identity sources, the interval timeline, the join.
//!
//! Invariants:
//! * a name is never guessed: two candidates are `ambiguous`, none is `none`;
//! * the timeline and the tagger are pure (time is an argument, no IO); sources feed them events.

pub mod cni;
pub mod cri;
pub mod docker;
pub mod event;
pub mod identity;
pub mod ipfix;
pub mod kernel;
pub mod kubernetes;
pub mod otlp;
pub mod static_file;
pub mod status;
pub mod tagged;
pub mod tagger;
pub mod timeline;

pub use event::IdentityEvent;
pub use identity::{Identity, Interval, Key, Member};
pub use status::SourceStatus;
pub use tagged::{EndTag, Ends, IdentityColumn, Record, Tagged, TaggedBy, TaggedFlow, TaggedTransaction};
