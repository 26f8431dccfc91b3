//! Conversations of the answers next to ours, figure by figure.
//!
//! A conversation is protocol, addresses and ports, whatever splits it into flows here or there (idle timeouts, reused
//! ports, ICMP types): volumes are compared as sums of the conversation, figures of one connection where both sides see
//! the same number of connections. Directions are those of the answers' first sender.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::answers::{Capture, Endpoint, Flow};
use crate::rows::{Replay, Row};

/// One figure that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) capture: String,
    /// Protocol and ends of the conversation, or what else the figure is of.
    pub(crate) flow: String,
    pub(crate) figure: &'static str,
    pub(crate) theirs: String,
    pub(crate) ours: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { capture, flow, figure, theirs, ours } = self;
        write!(f, "{capture}: {flow}: {figure}: expected {theirs}, got {ours}")
    }
}

/// What was compared and what differs.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) compared: BTreeMap<&'static str, usize>,
    pub(crate) differences: Vec<Difference>,
}

impl Verdict {
    pub(crate) fn compare<T: PartialEq + Display>(&mut self, of: &Of<'_>, figure: &'static str, theirs: &T, ours: &T) {
        *self.compared.entry(figure).or_default() += 1;
        if theirs != ours {
            self.differences.push(Difference {
                capture: of.capture.to_owned(),
                flow: of.flow.clone(),
                figure,
                theirs: theirs.to_string(),
                ours: ours.to_string(),
            });
        }
    }

    /// Both directions.
    pub(crate) fn compare_both(&mut self, of: &Of<'_>, figure: &'static str, theirs: [u64; 2], ours: [u64; 2]) {
        let show = |[ab, ba]: [u64; 2]| format!("{ab} / {ba}");
        self.compare(of, figure, &show(theirs), &show(ours));
    }
}

/// What a figure belongs to.
pub(crate) struct Of<'a> {
    pub(crate) capture: &'a str,
    pub(crate) flow: String,
}

/// Protocol and both ends, the lower first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    protocol: String,
    ends: [Endpoint; 2],
}

impl Name {
    fn new(protocol: &str, one: Endpoint, other: Endpoint) -> Self {
        Self { protocol: protocol.to_owned(), ends: [one.min(other), one.max(other)] }
    }
}

/// The flows of one conversation, there and here, in the order of their start.
#[derive(Default)]
pub(crate) struct Conversation<'a> {
    pub(crate) theirs: Vec<Flow<'a>>,
    pub(crate) ours: Vec<&'a Row>,
    /// Tunnels around others, which have rows of their own.
    tunnel: bool,
}

impl Conversation<'_> {
    /// Whose direction comes first.
    pub(crate) fn a(&self) -> Endpoint {
        self.theirs.first().map_or_else(|| self.ours[0].endpoint("client"), |flow| flow.a())
    }

    fn b(&self) -> Endpoint {
        self.theirs.first().map_or_else(|| self.ours[0].endpoint("server"), |flow| flow.b())
    }

    /// Sum over the flows of the answers.
    pub(crate) fn sum(&self, of: impl Fn(Flow<'_>) -> [u64; 2]) -> [u64; 2] {
        let a = self.a();
        sum(self.theirs.iter().map(|flow| if flow.a() == a { of(*flow) } else { swapped(of(*flow)) }))
    }

    /// Sum over our flows.
    pub(crate) fn our_sum(&self, column: &str) -> [u64; 2] {
        sum(self.ours.iter().map(|row| row.both(self.a(), column)))
    }

    /// Connections that both see; empty where they see different numbers of them.
    pub(crate) fn pairs(&self) -> Vec<(Flow<'_>, &Row)> {
        if self.theirs.len() == self.ours.len() {
            self.theirs.iter().copied().zip(self.ours.iter().copied()).collect()
        } else {
            Vec::new()
        }
    }
}

fn swapped([one, other]: [u64; 2]) -> [u64; 2] {
    [other, one]
}

fn sum(pairs: impl Iterator<Item = [u64; 2]>) -> [u64; 2] {
    pairs.fold([0, 0], |[ab, ba], [more_ab, more_ba]| [ab + more_ab, ba + more_ba])
}

fn show(name: &Name, a: Endpoint, b: Endpoint) -> String {
    let end = |(ip, port): Endpoint| if port == 0 { ip.to_string() } else { format!("{ip} {port}") };
    format!("{} {} > {}", name.protocol, end(a), end(b))
}

/// Protocols whose flows the answers list.
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "icmp", "icmp6", "sctp"];

/// Innermost conversations, named.
pub(crate) fn conversations<'a>(capture: &'a Capture, replay: &'a Replay) -> Vec<(String, Conversation<'a>)> {
    let mut conversations = BTreeMap::<Name, Conversation<'a>>::new();
    let flows = capture.flows();
    let deepest = flows.iter().map(|flow| flow.depth()).max().unwrap_or(0);
    for flow in flows {
        let conversation = conversations.entry(Name::new(flow.protocol(), flow.a(), flow.b())).or_default();
        conversation.tunnel |= flow.is_tunnel(deepest);
        conversation.theirs.push(flow);
    }
    for row in replay.flows.iter().filter(|row| !row.is_tunnel() && PROTOCOLS.contains(&row.text("protocol"))) {
        let name = Name::new(row.text("protocol"), row.endpoint("client"), row.endpoint("server"));
        conversations.entry(name).or_default().ours.push(row);
    }
    let innermost = conversations.into_iter().filter(|(_, conversation)| !conversation.tunnel);
    innermost.map(|(name, conversation)| (show(&name, conversation.a(), conversation.b()), conversation)).collect()
}

/// Every figure of a capture that may be compared.
pub(crate) fn judge(capture: &Capture, replay: &Replay, verdict: &mut Verdict) {
    crate::whole::judge(capture, replay, verdict);
    if !capture.may_check("flow_set") && !capture.may_check("tcp_unique_payload_exact") {
        return;
    }
    for (flow, conversation) in conversations(capture, replay) {
        let of = Of { capture: &capture.name, flow };
        let there = |count: usize| if count > 0 { "there" } else { "absent" };
        verdict.compare(&of, "conversation", &there(conversation.theirs.len()), &there(conversation.ours.len()));
        if conversation.theirs.is_empty() || conversation.ours.is_empty() {
            continue;
        }
        crate::volume::judge(capture, &of, &conversation, verdict);
        if conversation.theirs[0].protocol() == "tcp" {
            crate::tcp::judge(capture, &of, &conversation, verdict);
        }
        crate::application::judge(capture, &of, &conversation, verdict);
    }
}
