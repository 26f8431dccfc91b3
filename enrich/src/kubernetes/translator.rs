//! From the API server's words about pods to events, without a connection and without a clock: what the source does with what its
//! watches hear. For whoever has these words by another way, a simulation for example.

use std::fmt;
use std::sync::Arc;

use super::resource::Resource;
use super::state::State;
use super::tell::{SOURCE, When};
use super::watch::{Told, told_by_item, told_by_line, when_listed};
use crate::event::IdentityEvent;

/// What was said cannot be understood; what was known stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// See the module documentation.
#[derive(Debug)]
pub struct Translator {
    state: State,
    events: Vec<IdentityEvent>,
    /// Until when everything was heard.
    heard: Option<i64>,
}

impl Translator {
    /// Nothing is known yet but until when an earlier run heard; `cluster` names the network of the pods, `node` has the clock
    /// of this host.
    pub fn new(cluster: Arc<str>, node: Arc<str>, heard: Option<i64>) -> Self {
        Self { state: State::new(cluster, node), events: Vec::new(), heard }
    }

    /// A line of the watch of pods. One that was `missed` happened at some time since everything was heard.
    pub fn watched(&mut self, line: &str, missed: bool, at: i64) -> Result<(), Unreadable> {
        let sure = if missed { self.heard.unwrap_or(at).min(at - 1) } else { at };
        let told = told_by_line(line.as_bytes(), Resource::Pods, When { sure, at });
        let (told, _) = told.map_err(|failure| Unreadable(failure.to_string()))?;
        if !missed {
            self.heard = Some(at);
        }
        if let Some(Told::Unread { named, failure, .. }) = &told {
            return Err(Unreadable(format!("{}: {failure}", named.name)));
        }
        if let Some(told) = told {
            self.state.hear(&told);
        }
        Ok(())
    }

    /// A list of all pods, which was asked for and came at these times.
    pub fn listed<'a>(&mut self, items: impl IntoIterator<Item = &'a str>, (asked, at): (i64, i64)) {
        let heard = self.heard;
        let when = when_listed(heard, asked, at);
        let told = items.into_iter().map(|item| told_by_item(item, Resource::Pods, when));
        let (told, uids): (Vec<Told>, _) = told.unzip();
        for told in &told {
            self.state.hear(told);
        }
        self.state.hear(&Told::Listed { resource: Resource::Pods, uids, when, heard });
        self.heard = Some(asked);
        self.take();
        self.events.push(self.state.snapshot(When { sure: at, at }, heard));
    }

    /// The watch is in touch: everything that happened until then was told.
    pub fn heard(&mut self, at: i64) {
        self.heard = Some(at);
        self.take();
        self.events.push(IdentityEvent::Heard { source: SOURCE.into(), at });
    }

    /// What follows from what was said since the last time.
    pub fn events(&mut self) -> Vec<IdentityEvent> {
        self.take();
        std::mem::take(&mut self.events)
    }

    fn take(&mut self) {
        self.events.extend(self.state.take());
    }
}
