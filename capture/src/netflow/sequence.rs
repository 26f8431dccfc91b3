//! What is lost between exporter and here, by the numbers of its messages.
//!
//! The formats want different things counted: NetFlow v5 the flows before the message, v9 messages, IPFIX the records
//! before the message. Exporters differ: some count flows in v9, records up to the end of the message, or leave options out. So
//! each way of counting stays possible until messages that follow each other say otherwise, and what the format wants decides
//! while several are possible.

/// A step forward of more than this is a restart.
const MOST_LOST: u32 = 1 << 24;
/// A step back of more than this is a restart.
const MOST_LATE: i64 = 1 << 16;
/// So many messages in succession that seem late are a restart.
const LATE_IN_SUCCESSION: u8 = 8;

/// What the numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Messages,
    /// Records before the message.
    Before,
    /// Records up to its end.
    UpTo,
    /// Records of flows before the message, and not those of options.
    FlowsBefore,
    /// Records of flows up to its end.
    FlowsUpTo,
}

const UNITS: [Unit; 5] = [Unit::Messages, Unit::Before, Unit::UpTo, Unit::FlowsBefore, Unit::FlowsUpTo];
const ALL: u8 = (1 << UNITS.len()) - 1;

/// What a message has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) flows: u32,
    pub(super) options: u32,
    /// There is more, whose template is not known.
    pub(super) unknown: bool,
}

/// What the number of a message says of those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is missing, or nothing can be said.
    Next,
    /// So many records did not arrive.
    LostRecords(u64),
    /// So many messages did not arrive.
    LostMessages(u64),
    /// It was overtaken by one that came before.
    Late,
    /// The exporter began anew.
    Restart,
}

/// The numbers of one stream of messages.
#[derive(Debug)]
pub(super) struct Sequence {
    last: Option<(u32, Contents)>,
    /// Which of [`UNITS`] are possible, one bit each.
    possible: u8,
    /// What the format wants.
    wanted: Unit,
    late: u8,
}

impl Sequence {
    pub(super) const fn new(wanted: Unit) -> Self {
        Self { last: None, possible: ALL, wanted, late: 0 }
    }

    /// Takes the number of the next message.
    pub(super) fn next(&mut self, number: u32, contents: Contents) -> Step {
        let Some((last, before)) = self.last else {
            self.last = Some((number, contents));
            return Step::Next;
        };
        let by = number.wrapping_sub(last);
        let (mut matching, mut unsure) = (0, 0);
        for (place, unit) in UNITS.into_iter().enumerate().filter(|(place, _)| self.possible & 1 << place != 0) {
            match expected(unit, before, contents) {
                Some(step) if step == by => matching |= 1 << place,
                Some(_) => {}
                None => unsure |= 1 << place,
            }
        }
        if matching | unsure != 0 {
            self.possible = matching | unsure;
            self.late = 0;
            self.last = Some((number, contents));
            return Step::Next;
        }
        let unit = self.unit();
        let gap = i64::from(by.wrapping_sub(expected(unit, before, contents).unwrap_or_default()).cast_signed());
        let is_late = (-MOST_LATE..0).contains(&gap) && number != 0 && self.late < LATE_IN_SUCCESSION;
        if is_late {
            self.late += 1;
            return Step::Late;
        }
        self.late = 0;
        self.last = Some((number, contents));
        if !(0..=i64::from(MOST_LOST)).contains(&gap) {
            self.possible = ALL;
            return Step::Restart;
        }
        match unit {
            Unit::Messages => Step::LostMessages(gap.unsigned_abs()),
            Unit::Before | Unit::UpTo | Unit::FlowsBefore | Unit::FlowsUpTo => Step::LostRecords(gap.unsigned_abs()),
        }
    }

    /// The one way of counting that is possible, or the one that the format wants.
    fn unit(&self) -> Unit {
        let possible = || UNITS.into_iter().enumerate().filter(|(place, _)| self.possible & 1 << place != 0);
        let wanted = possible().find(|(_, unit)| *unit == self.wanted);
        wanted.or_else(|| possible().next()).map_or(self.wanted, |(_, unit)| unit)
    }
}

/// By how much the number grows from a message to the next; `None` if that depends on what could not be read.
fn expected(unit: Unit, before: Contents, now: Contents) -> Option<u32> {
    let (contents, with_options) = match unit {
        Unit::Messages => return Some(1),
        Unit::Before => (before, true),
        Unit::UpTo => (now, true),
        Unit::FlowsBefore => (before, false),
        Unit::FlowsUpTo => (now, false),
    };
    let options = if with_options { contents.options } else { 0 };
    (!contents.unknown).then(|| contents.flows + options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(wanted: Unit, messages: &[(u32, u32, u32)]) -> Vec<Step> {
        let mut sequence = Sequence::new(wanted);
        let contents = |flows, options| Contents { flows, options, unknown: false };
        messages.iter().map(|(number, flows, options)| sequence.next(*number, contents(*flows, *options))).collect()
    }

    #[test]
    fn each_format_counts_as_it_should() {
        use Step::{LostMessages, LostRecords, Next};
        let v5 = [(0, 30, 0), (30, 30, 0), (60, 7, 0), (97, 30, 0)];
        assert_eq!(steps(Unit::Before, &v5), [Next, Next, Next, LostRecords(30)]);
        let v9 = [(7, 20, 1), (8, 22, 0), (11, 20, 0), (12, 20, 0)];
        assert_eq!(steps(Unit::Messages, &v9), [Next, Next, LostMessages(2), Next]);
        let ipfix = [(100, 20, 1), (121, 20, 0), (141, 3, 0), (150, 3, 0)];
        assert_eq!(steps(Unit::Before, &ipfix), [Next, Next, Next, LostRecords(6)]);
    }

    #[test]
    fn an_exporter_that_counts_otherwise_loses_nothing() {
        // softflowd: up to the end, without options.
        let up_to = [(14, 14, 1), (31, 17, 0), (48, 17, 0), (49, 1, 0), (60, 5, 0)];
        assert_eq!(steps(Unit::Before, &up_to)[..4], [Step::Next; 4]);
        assert_eq!(steps(Unit::Before, &up_to)[4], Step::LostRecords(6));
        // Flows instead of messages.
        let flows = [(0, 20, 0), (20, 15, 0), (35, 9, 0)];
        assert_eq!(steps(Unit::Messages, &flows), [Step::Next; 3]);
    }

    #[test]
    fn restarts_late_messages_and_the_turn_of_the_counter_are_no_loss() {
        let turn = [(u32::MAX, 1, 0), (0, 1, 0), (1, 1, 0)];
        assert_eq!(steps(Unit::Messages, &turn), [Step::Next; 3]);
        let restart = [(5_000, 2, 0), (5_001, 3, 0), (0, 2, 0), (1, 3, 0)];
        assert_eq!(steps(Unit::Messages, &restart), [Step::Next, Step::Next, Step::Restart, Step::Next]);
        let far = [(5, 2, 0), (6, 3, 0), (3_000_000_000, 2, 0), (3_000_000_001, 3, 0)];
        assert_eq!(steps(Unit::Messages, &far), [Step::Next, Step::Next, Step::Restart, Step::Next]);
        let late = [(4, 2, 0), (5, 3, 0), (7, 3, 0), (6, 3, 0), (8, 3, 0)];
        assert_eq!(steps(Unit::Messages, &late)[2..], [Step::LostMessages(1), Step::Late, Step::Next]);
        // Restarted at a number a little lower than the last one.
        let mut lower = vec![(500, 2, 0), (501, 3, 0)];
        lower.extend((0..12).map(|number| (100 + number, 2 + number % 2, 0)));
        let steps = steps(Unit::Messages, &lower);
        assert_eq!(steps.iter().filter(|step| **step == Step::Restart).count(), 1, "{steps:?}");
        assert_eq!(steps.last(), Some(&Step::Next));
    }

    #[test]
    fn what_could_not_be_read_is_no_loss() {
        let mut sequence = Sequence::new(Unit::Before);
        let unknown = Contents { flows: 0, options: 0, unknown: true };
        let known = Contents { flows: 4, options: 0, unknown: false };
        assert_eq!(sequence.next(10, unknown), Step::Next);
        assert_eq!(sequence.next(55, known), Step::Next);
        assert_eq!(sequence.next(59, known), Step::Next);
        assert_eq!(sequence.next(65, known), Step::LostRecords(2));
    }
}
