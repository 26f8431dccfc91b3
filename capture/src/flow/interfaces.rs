//! Names of interfaces. A record has the name that its interface had at the time of its packets: when an interface gets another
//! name, or another interface its number, the slices that are open there end first.

use std::collections::HashMap;
use std::sync::Arc;

use super::key::Ids;
use super::moment::Moment;
use super::{Engine, sort};
use crate::record::{EndReason, FlowRecord};

/// Names by number.
pub(super) type Interfaces = HashMap<u32, Arc<str>, foldhash::fast::RandomState>;

/// The interface's name, `if<number>` if it has none.
pub(super) fn name(interfaces: &mut Interfaces, number: u32) -> Arc<str> {
    interfaces.entry(number).or_insert_with(|| format!("if{number}").into()).clone()
}

impl Engine {
    /// Names an interface before its first packet; flows on an interface without a name carry `if<number>`.
    pub fn name_interface(&mut self, interface: u32, name: &str) {
        self.interfaces.insert(interface, name.into());
        self.ids = Ids::default();
    }

    /// Names an interface. If it had another name, the slices that are open there are cut, and appended to `out` with that one; their
    /// flows go on. That looks at every flow once.
    pub fn rename_interface(&mut self, interface: u32, name: &str, out: &mut Vec<FlowRecord>) {
        if self.interfaces.get(&interface).is_some_and(|before| **before != *name) {
            self.cut_interface(interface, out);
        }
        self.name_interface(interface, name);
    }

    fn cut_interface(&mut self, interface: u32, out: &mut Vec<FlowRecord>) {
        let from = out.len();
        for slot in 0..self.table.slot_count() {
            let flow = self.table.get(slot).filter(|flow| flow.key.interface() == interface);
            if flow.is_some_and(|flow| !flow.is_empty()) {
                self.cut(slot, out);
            }
        }
        sort(out, from);
    }

    /// Ends the flows of interfaces that are gone, and appends their records to `out`: nothing more can come of them. That looks at every
    /// flow once.
    pub fn end_interfaces(&mut self, gone: &[u32], out: &mut Vec<FlowRecord>) {
        let from = out.len();
        let now = Moment::of(self.clock);
        for slot in 0..self.table.slot_count() {
            let is_there = self.table.get(slot).is_some_and(|flow| gone.contains(&flow.key.interface()));
            if is_there {
                let is_idle = self.table.is_idle(slot, now);
                self.end_open(slot, if is_idle { EndReason::Idle } else { EndReason::EndOfInput }, out);
            }
        }
        sort(out, from);
    }

    /// Forgets the name of an interface: rows of it that are still to come have its number.
    pub fn forget_interface(&mut self, interface: u32) {
        self.interfaces.remove(&interface);
    }
}
