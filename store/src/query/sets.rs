//! Alternatives, of which a row must pass one: `ip in {…}` may be a thousand tests of the same two columns. Those of one column are
//! put together when the query is read, so that a row is asked once for its value, and the value is looked up.
//!
//! [`Alternatives`] is the list of conditions as it was written, to which everything that reads files keeps; what is put together
//! means the same.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Deref;

use foldhash::fast::RandomState;
use wiretag_capture::Value;
use wiretag_enrich::{Record, Tagged};

use super::ast::{Compare, Field, Network, Node, Test, TextTest};
use super::matches::{Seen, value_passes};

/// Conditions of which one suffices.
#[derive(Debug, Clone)]
pub(crate) struct Alternatives<R: 'static> {
    nodes: Vec<Node<R>>,
    /// Tests of one column, of which there are several.
    sets: Vec<(Field<R>, Set)>,
    /// Places of the conditions that are in no set.
    rest: Vec<usize>,
}

impl<R: Record> Alternatives<R> {
    pub(super) fn new(nodes: Vec<Node<R>>) -> Self {
        let nodes: Vec<Node<R>> = nodes.into_iter().flat_map(flat).collect();
        let (mut columns, mut rest) = (Vec::<(Field<R>, Vec<usize>)>::new(), Vec::new());
        for (place, node) in nodes.iter().enumerate() {
            let Some((field, _)) = member(node) else {
                rest.push(place);
                continue;
            };
            match columns.iter_mut().find(|(known, _)| known.is(field)) {
                Some((_, places)) => places.push(place),
                None => columns.push((field.clone(), vec![place])),
            }
        }
        let mut sets = Vec::new();
        for (field, places) in columns {
            if places.len() < 2 {
                rest.extend(places);
                continue;
            }
            let members = places.iter().filter_map(|place| nodes.get(*place)).filter_map(member);
            sets.push((field, Set::new(members.map(|(_, member)| member))));
        }
        Self { nodes, sets, rest }
    }

    /// Whether the row passes one.
    pub(super) fn any(&self, row: &Tagged<R>) -> bool {
        self.sets.iter().any(|(field, set)| field.any(row, |value| set.holds(value)))
            || self.rest.iter().filter_map(|place| self.nodes.get(*place)).any(|node| node.matches(row))
    }
}

impl<R> Deref for Alternatives<R> {
    type Target = [Node<R>];

    fn deref(&self) -> &[Node<R>] {
        &self.nodes
    }
}

impl<'a, R> IntoIterator for &'a Alternatives<R> {
    type Item = &'a Node<R>;
    type IntoIter = std::slice::Iter<'a, Node<R>>;

    fn into_iter(self) -> Self::IntoIter {
        self.nodes.iter()
    }
}

/// Alternatives of an alternative are alternatives.
fn flat<R>(node: Node<R>) -> Vec<Node<R>> {
    match node {
        Node::Or(inner) => inner.nodes,
        node @ (Node::All | Node::And(_) | Node::Not(_) | Node::Test(..)) => vec![node],
    }
}

/// What may stand in a set.
enum Member<'a> {
    One(&'a Test),
    /// `low..high`.
    Numbers(u64, u64),
    Times(i64, i64),
}

fn member<R: Record>(node: &Node<R>) -> Option<(&Field<R>, Member<'_>)> {
    match node {
        Node::Test(field, test) => Some((field, Member::One(test))),
        Node::And(both) => {
            let [Node::Test(field, low), Node::Test(other, high)] = both.as_slice() else { return None };
            Some((field, range(low, high)?)).filter(|_| field.is(other))
        }
        Node::All | Node::Or(_) | Node::Not(_) => None,
    }
}

/// Whether nothing can pass both.
pub(super) fn is_reversed(low: &Test, high: &Test) -> bool {
    match range(low, high) {
        Some(Member::Numbers(low, high)) => low > high,
        Some(Member::Times(low, high)) => low > high,
        Some(Member::One(_)) | None => false,
    }
}

fn range<'a>(low: &Test, high: &Test) -> Option<Member<'a>> {
    if let (Test::Number(Compare::GreaterEqual, low), Test::Number(Compare::LessEqual, high)) = (low, high) {
        return Some(Member::Numbers(*low, *high));
    }
    if let (Test::Time(Compare::GreaterEqual, low), Test::Time(Compare::LessEqual, high)) = (low, high) {
        return Some(Member::Times(*low, *high));
    }
    None
}

/// Values of one column.
#[derive(Debug, Clone, Default)]
struct Set {
    ips: HashSet<IpAddr, RandomState>,
    networks: Vec<Network>,
    texts: HashSet<String, RandomState>,
    numbers: Ranges<u64>,
    times: Ranges<i64>,
    /// What cannot be looked up.
    others: Vec<Test>,
}

impl Set {
    fn new<'a>(members: impl Iterator<Item = Member<'a>>) -> Self {
        let (mut set, mut numbers, mut times) = (Self::default(), Vec::new(), Vec::new());
        for member in members {
            match member {
                Member::Numbers(low, high) => numbers.push((low, high)),
                Member::Times(low, high) => times.push((low, high)),
                Member::One(Test::Number(Compare::Equal, number)) => numbers.push((*number, *number)),
                Member::One(Test::Time(Compare::Equal, time)) => times.push((*time, *time)),
                Member::One(test) => set.add(test),
            }
        }
        (set.numbers, set.times) = (Ranges::new(numbers), Ranges::new(times));
        set
    }

    fn add(&mut self, test: &Test) {
        match test {
            Test::Text(TextTest::Network(network)) => self.networks.push(*network),
            Test::Text(TextTest::Pattern(pattern)) => match pattern.exact() {
                Some(text) => {
                    self.ips.extend(pattern.address());
                    self.texts.insert(text);
                }
                None => self.others.push(test.clone()),
            },
            Test::Text(TextTest::Regex(_))
            | Test::Exists
            | Test::Bool(_)
            | Test::Number(..)
            | Test::Time(..)
            | Test::NotText(_) => self.others.push(test.clone()),
        }
    }

    fn holds(&self, value: &Seen<'_>) -> bool {
        let known = match value.value() {
            Value::Null => return false,
            Value::Ip(ip) => self.ips.contains(ip) || self.within(*ip),
            Value::Text(text) => self.text(text),
            Value::Mac(_) => self.text(value.text()),
            Value::Number(number) => self.numbers.holds(*number),
            Value::Time(time) => self.times.holds(*time),
            Value::Bool(_) | Value::Map(_) => false,
        };
        known || self.others.iter().any(|test| value_passes(test, value))
    }

    fn within(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }

    fn text(&self, text: &str) -> bool {
        self.texts.contains(text) || (!self.networks.is_empty() && text.parse().is_ok_and(|ip| self.within(ip)))
    }
}

/// Ranges with both their ends, in order, none of which overlap.
#[derive(Debug, Clone)]
struct Ranges<T>(Vec<(T, T)>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord + Copy> Ranges<T> {
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.retain(|(low, high)| low <= high);
        ranges.sort_unstable();
        let mut joined: Vec<(T, T)> = Vec::new();
        for (low, high) in ranges {
            match joined.last_mut() {
                Some((_, last)) if low <= *last => *last = high.max(*last),
                Some(_) | None => joined.push((low, high)),
            }
        }
        Self(joined)
    }

    fn holds(&self, value: T) -> bool {
        let after = self.0.partition_point(|(low, _)| *low <= value);
        after.checked_sub(1).and_then(|place| self.0.get(place)).is_some_and(|(_, high)| value <= *high)
    }
}

#[cfg(test)]
mod tests {
    use wiretag_capture::FlowRecord;

    use super::Ranges;
    use crate::query::ast::Node;
    use crate::query::parse;

    /// Columns with sets, values that are looked up in them, conditions that are not.
    fn check(text: &str, sets: usize, looked_up: usize, others: usize) {
        let Node::Or(any) = parse::<FlowRecord>(text).expect(text).node else { panic!("{text}") };
        let up = any.sets.iter().map(|(_, set)| set.ips.len().max(set.texts.len()) + set.numbers.0.len());
        let slow = any.sets.iter().map(|(_, set)| set.others.len() + set.networks.len()).sum::<usize>();
        assert_eq!((any.sets.len(), up.sum(), slow + any.rest.len()), (sets, looked_up, others), "{text}");
    }

    #[test]
    fn values_of_a_set_are_looked_up() {
        let list = |one: &dyn Fn(usize) -> String| (0..400).map(one).collect::<Vec<_>>().join(", ");
        check(&format!("ip in {{{}}}", list(&|at| format!("10.0.{}.{}", at / 200, at % 200))), 2, 800, 0);
        check(&format!("client_ip in {{{}}}", list(&|at| format!("fd00::{at:x}"))), 1, 400, 0);
        check(&format!("pod in {{{}}}", list(&|at| format!("web-{at}"))), 2, 800, 0);
        check(&format!("port in {{{}}}", list(&|at| format!("{}", at * 3))), 2, 800, 0);
        check(&format!("server_port in {{{}}}", list(&|at| format!("{0}..{0}9", at + 1))), 1, 1, 0);
        check(
            &list(&|at| format!("client_mac == 02:00:00:00:{:02x}:{:02x}", at / 200, at % 200)).replace(',', " or"),
            1,
            400,
            0,
        );
        check("ip in {10.0.0.1, 10.0.0.2, 10.1.0.0/16, 10.2.*}", 2, 4, 4);
        check("client_pod == a or client_pod == b or server_port == 5", 1, 2, 1);
    }

    #[test]
    fn ranges_that_overlap_are_one() {
        let ranges = Ranges::new(vec![(5, 9), (1, 3), (8, 20), (30, 30), (12, 4), (6, 7)]);
        assert_eq!(ranges.0, [(1, 3), (5, 20), (30, 30)]);
        let held: Vec<u64> = (0..40).filter(|value| ranges.holds(*value)).collect();
        assert_eq!(held, (1..=3).chain(5..=20).chain([30]).collect::<Vec<_>>());
    }
}
