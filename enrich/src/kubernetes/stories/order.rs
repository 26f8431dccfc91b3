//! The same truth in any order.

use proptest::prelude::*;
use serde_json::Value;

use super::super::state::Kind;
use super::{Story, pod, running, service, slice, terminated};

/// A version of a pod, a service or a slice, or its deletion.
fn history() -> Vec<(Kind, Value, bool)> {
    vec![
        (Kind::Services, service("web", 1, "10.96.0.10"), false),
        (Kind::Endpoints, slice("s1", 2, "web", &["10.0.0.5"]), false),
        (Kind::Pods, pod("a", 3, "10.0.0.5", "Running", running(9)), false),
        (Kind::Endpoints, slice("s1", 4, "web", &["10.0.0.6", "10.0.0.7"]), false),
        (Kind::Pods, pod("a", 5, "10.0.0.5", "Failed", terminated(9, 12)), false),
        (Kind::Pods, pod("b", 6, "10.0.0.6", "Running", running(10)), false),
        (Kind::Pods, pod("a", 7, "10.0.0.5", "Failed", terminated(9, 12)), true),
        (Kind::Pods, pod("c", 8, "10.0.0.5", "Running", running(14)), false),
        (Kind::Services, service("web", 9, "10.96.0.10"), true),
        (Kind::Endpoints, slice("s0", 10, "web", &["10.0.0.9"]), false),
        (Kind::Pods, pod("b", 11, "10.0.0.8", "Running", running(15)), false),
        (Kind::Services, service("web2", 12, "10.96.0.10"), false),
        (Kind::Endpoints, slice("s0", 13, "web", &["10.0.0.9"]), true),
        (Kind::Endpoints, slice("s2", 14, "web2", &["10.0.0.8"]), false),
    ]
}

proptest! {
    /// In whatever order, and however often, the versions of the same objects are told: in the end the same holds.
    #[test]
    fn the_order_of_the_news_does_not_matter(order in Just((0..14usize).collect::<Vec<_>>()).prop_shuffle(), again in proptest::collection::vec(0..14usize, 0..10)) {
        let history = history();
        let mut story = Story::begin();
        let mut second = 100.0;
        for index in order.into_iter().chain(again) {
            let (kind, value, gone) = history[index].clone();
            second += 1.0;
            if gone { story.gone(kind, value, second) } else { story.is(kind, value, second) };
        }
        let end = second + 100.0;
        prop_assert_eq!(story.who("10.0.0.5", end), "c");
        prop_assert_eq!(story.who("10.0.0.6", end), "none");
        prop_assert_eq!(story.who("10.0.0.8", end), "b");
        for (ip, port, whose) in [("10.96.0.10", 80, "web2-svc"), ("10.0.0.8", 8080, "web2-svc"), ("10.0.0.6", 8080, ""), ("10.0.0.9", 8080, "")] {
            prop_assert_eq!(story.service(ip, port, end), whose, "{}", ip);
        }
    }
}
