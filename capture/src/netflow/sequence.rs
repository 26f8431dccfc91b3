//! What is lost between exporter and here, by the numbers of its messages.
//!
//! The formats want different things counted: NetFlow v5 the flows before the message, v9 messages, IPFIX the records
//! before the message. Exporters differ: some count flows in v9, records up to the end of the message, or leave options out. So
//! what the format wants holds until [`CONVINCING`] messages contradict it and fit another way, with none between that
//! contradicts the other: a single one may do so by chance, if one before it was lost. Messages that fit both ways, or could not
//! be read, decide nothing. What is lost if the way that holds is right waits for the decision.

/// A step forward of more than this is a restart.
const MOST_LOST: u32 = 1 << 24;
/// A step back of more than this is a restart.
const MOST_LATE: i64 = 1 << 16;
/// So many messages in succession that seem late are a restart.
const LATE_IN_SUCCESSION: u8 = 8;
/// So many messages say that an exporter counts in another way.
const CONVINCING: u8 = 4;

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
    /// What the format wants.
    wanted: Unit,
    /// What holds.
    unit: Unit,
    doubt: Option<Doubt>,
    late: u8,
}

/// Messages contradict what holds.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// What they fit.
    unit: Unit,
    /// Those of them that could be read.
    messages: u8,
    /// What is lost if what holds is right.
    lost: u64,
}

impl Sequence {
    pub(super) const fn new(wanted: Unit) -> Self {
        Self { last: None, wanted, unit: wanted, doubt: None, late: 0 }
    }

    /// Takes the number of the next message.
    pub(super) fn next(&mut self, number: u32, contents: Contents) -> Step {
        let Some((last, before)) = self.last else {
            self.last = Some((number, contents));
            return Step::Next;
        };
        let by = number.wrapping_sub(last);
        let gap_of = |unit| Some(i64::from(by.wrapping_sub(expected(unit, before, contents)?).cast_signed()));
        let step = match gap_of(self.unit) {
            None => Step::Next,
            Some(0) => self.agree(gap_of),
            Some(gap) => match self.doubt(gap, gap_of).or_else(|| self.lost(gap, gap_of)) {
                Some(step) => step,
                None if (-MOST_LATE..0).contains(&gap) && number != 0 && self.late < LATE_IN_SUCCESSION => {
                    self.late += 1;
                    return Step::Late;
                }
                None => {
                    (self.unit, self.doubt) = (self.wanted, None);
                    Step::Restart
                }
            },
        };
        self.late = 0;
        self.last = Some((number, contents));
        step
    }

    /// A message is as it should be. If it contradicts the doubt, that is over.
    fn agree(&mut self, gap_of: impl Fn(Unit) -> Option<i64>) -> Step {
        let refuted = self.doubt.take_if(|doubt| gap_of(doubt.unit).is_some_and(|gap| gap != 0));
        match refuted.map_or(0, |doubt| doubt.lost) {
            0 => Step::Next,
            lost => self.unit.lost(lost),
        }
    }

    /// A message is not as it should be, and may be as another way of counting wants it; `None` if it cannot.
    fn doubt(&mut self, gap: i64, gap_of: impl Fn(Unit) -> Option<i64>) -> Option<Step> {
        let known = self.doubt.map(|doubt| doubt.unit);
        let units = || known.into_iter().chain([self.wanted]).chain(UNITS).filter(|unit| *unit != self.unit);
        let is_unread = |unit: &Unit| gap_of(*unit).is_none() && is_loss(gap);
        let unit = units().find(|unit| gap_of(*unit) == Some(0)).or_else(|| units().find(is_unread))?;
        let Doubt { messages, lost, .. } = self.doubt.unwrap_or(Doubt { unit, messages: 0, lost: 0 });
        let messages = if known == Some(unit) { messages } else { 0 } + u8::from(gap_of(unit).is_some());
        self.doubt = Some(Doubt { unit, messages, lost: lost.saturating_add_signed(gap.max(0)) });
        if messages >= CONVINCING {
            (self.unit, self.doubt) = (unit, None);
        }
        Some(Step::Next)
    }

    /// What was lost: while there is doubt, the less of both; `None` if nothing was.
    fn lost(&self, gap: i64, gap_of: impl Fn(Unit) -> Option<i64>) -> Option<Step> {
        let doubted = self.doubt.and_then(|doubt| Some((gap_of(doubt.unit)?, doubt.unit)));
        let both = [Some((gap, self.unit)), doubted].into_iter().flatten().filter(|(gap, _)| is_loss(*gap));
        both.min_by_key(|(gap, _)| *gap).map(|(gap, unit)| unit.lost(gap.unsigned_abs()))
    }
}

impl Unit {
    const fn lost(self, count: u64) -> Step {
        match self {
            Self::Messages => Step::LostMessages(count),
            Self::Before | Self::UpTo | Self::FlowsBefore | Self::FlowsUpTo => Step::LostRecords(count),
        }
    }
}

/// Whether so much is missing, and it is no restart.
fn is_loss(gap: i64) -> bool {
    (1..=i64::from(MOST_LOST)).contains(&gap)
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

    /// A stream of messages of these sizes, of which some are lost, and what is said of it.
    struct Stream {
        sequence: Sequence,
        counts: Unit,
        number: u32,
        dice: u32,
        /// Messages and records that were lost; and that are said to be.
        really: [u64; 2],
        said: [u64; 2],
        late: u64,
    }

    impl Stream {
        fn new(wanted: Unit, counts: Unit) -> Self {
            Self {
                sequence: Sequence::new(wanted),
                counts,
                number: 100,
                dice: 1,
                really: [0; 2],
                said: [0; 2],
                late: 0,
            }
        }

        fn send(&mut self, flows: u32, unknown: bool, lost: bool) {
            let up_to = self.counts == Unit::UpTo;
            self.number += if up_to { flows } else { 0 };
            let number = self.number;
            self.number += match self.counts {
                Unit::Messages => 1,
                Unit::Before => flows,
                Unit::UpTo | Unit::FlowsBefore | Unit::FlowsUpTo => 0,
            };
            if lost {
                self.really = [self.really[0] + 1, self.really[1] + u64::from(flows)];
                return;
            }
            let flows = if unknown { 0 } else { flows };
            match self.sequence.next(number, Contents { flows, options: 0, unknown }) {
                Step::Next => {}
                Step::LostMessages(count) => self.said[0] += count,
                Step::LostRecords(count) => self.said[1] += count,
                Step::Late | Step::Restart => self.late += 1,
            }
        }

        /// So many messages of one of these sizes, of which one of so many is lost.
        fn go_on(&mut self, messages: u32, sizes: &[u32], lost_of: u32) {
            for _ in 0..messages {
                self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let size = (self.dice >> 16) as usize % sizes.len();
                let lost = lost_of > 0 && (self.dice >> 8).is_multiple_of(lost_of);
                self.send(sizes[size], false, lost);
            }
        }
    }

    /// One message is lost, and the next one has as many records as would fit another way of counting.
    #[test]
    fn a_single_loss_changes_nothing_of_what_is_counted() {
        for unit in [Unit::Messages, Unit::Before] {
            let mut stream = Stream::new(unit, unit);
            stream.go_on(20, &[1], 0);
            stream.send(1, false, true);
            stream.send(2, false, false);
            stream.go_on(300, &[1, 1, 1, 2], 0);
            assert_eq!((stream.said.iter().sum::<u64>(), stream.late), (1, 0), "{unit:?}");
        }
    }

    #[test]
    fn a_loss_among_what_could_not_be_read_changes_nothing_of_what_is_counted() {
        let mut stream = Stream::new(Unit::Messages, Unit::Messages);
        stream.send(1, true, false);
        stream.send(1, true, true);
        stream.send(1, true, false);
        stream.go_on(500, &[1, 1, 2], 10);
        stream.go_on(20, &[1, 1, 2], 0);
        assert!(stream.really[0] > 30, "{:?}", stream.really);
        assert_eq!((stream.said, stream.late), ([stream.really[0], 0], 0));
    }

    #[test]
    fn whatever_is_counted_loss_is_told() {
        for (wanted, counts) in [
            (Unit::Messages, Unit::Messages),
            (Unit::Messages, Unit::Before),
            (Unit::Messages, Unit::UpTo),
            (Unit::Before, Unit::Before),
            (Unit::Before, Unit::UpTo),
        ] {
            for sizes in [&[1, 2][..], &[1, 1, 1, 2], &[1, 5, 20], &[20, 21, 22, 23, 24]] {
                let mut stream = Stream::new(wanted, counts);
                stream.go_on(2_000, sizes, 20);
                let (really, said) = if counts == Unit::Messages {
                    (stream.really[0], stream.said[0])
                } else {
                    (stream.really[1], stream.said[1])
                };
                let what = format!("{wanted:?} {counts:?} {sizes:?}: {really} {:?} {}", stream.said, stream.late);
                assert!(said.abs_diff(really) <= really / 10, "{what}");
                assert!(stream.late == 0, "{what}");
            }
        }
    }
}
