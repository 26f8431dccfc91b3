//! Services and their endpoints.

use serde_json::{Value, json};

use super::super::state::Kind;
use super::{Story, ns, service, slice, word};
use crate::timeline::Span;

#[test]
fn a_service_answers_at_its_addresses_and_its_endpoints() {
    let mut story = Story::begin();
    story.is(Kind::Endpoints, slice("s1", 1, "web", &["10.0.0.5", "10.0.0.6"]), 9.0);
    assert_eq!(story.service("10.0.0.5", 8080, 9.5), "", "its service is not known yet");
    story.is(Kind::Services, service("web", 2, "10.96.0.10"), 10.0);
    for (ip, port) in
        [("10.96.0.10", 80), ("203.0.113.9", 80), ("198.51.100.7", 80), ("10.0.0.5", 8080), ("10.0.0.6", 8080)]
    {
        assert_eq!(story.service(ip, port, 10.0), "web-svc", "{ip}");
    }
    story.is(Kind::Endpoints, slice("s1", 3, "web", &["10.0.0.6", "10.0.0.7"]), 20.0);
    assert_eq!(
        (story.service("10.0.0.5", 8080, 19.0), story.service("10.0.0.5", 8080, 20.0)),
        ("web-svc".into(), String::new())
    );
    assert_eq!(
        (story.service("10.0.0.7", 8080, 19.0), story.service("10.0.0.7", 8080, 20.0)),
        (String::new(), "web-svc".into())
    );
    assert_eq!(story.service("10.0.0.6", 8080, 20.0), "web-svc");
    story.gone(Kind::Services, service("web", 4, "10.96.0.10"), 30.0);
    assert_eq!(
        (story.service("10.96.0.10", 80, 29.0), story.service("10.96.0.10", 80, 30.0)),
        ("web-svc".into(), String::new())
    );
    assert_eq!(story.service("10.0.0.6", 8080, 30.0), "");
}

#[test]
fn a_headless_service_has_endpoints_only() {
    let mut story = Story::begin();
    let mut headless = service("db", 1, "None");
    (headless["spec"]["externalIPs"], headless["status"]) = (Value::Null, Value::Null);
    story.is(Kind::Services, headless, 10.0);
    story.is(Kind::Endpoints, slice("s1", 2, "db", &["10.0.0.5"]), 11.0);
    assert_eq!(story.service("10.0.0.5", 8080, 12.0), "db-svc");
}

#[test]
fn an_endpoint_of_two_services_is_nobodys_until_one_leaves_it() {
    let mut story = Story::begin();
    story.is(Kind::Services, service("web", 1, "10.96.0.10"), 10.0);
    let mut canary = service("canary", 2, "10.96.0.11");
    (canary["spec"]["externalIPs"], canary["status"]) = (Value::Null, Value::Null);
    story.is(Kind::Services, canary, 10.0);
    story.is(Kind::Endpoints, slice("s1", 3, "web", &["10.0.0.5"]), 11.0);
    story.is(Kind::Endpoints, slice("s2", 4, "canary", &["10.0.0.5"]), 20.0);
    story.gone(Kind::Endpoints, slice("s1", 5, "web", &[]), 30.0);
    let at = |second| story.service("10.0.0.5", 8080, second);
    assert_eq!((at(15.0), at(25.0), at(35.0)), ("web-svc".into(), String::new(), "canary-svc".into()));
}

#[test]
fn a_node_port_is_the_services_at_every_node() {
    let mut story = Story::begin();
    let node = |name: &str, version: u32, ip: &str| {
        json!({
            "metadata": { "name": name, "uid": format!("node-{name}"), "resourceVersion": version.to_string() },
            "status": { "addresses": [{ "type": "InternalIP", "address": ip }] },
        })
    };
    let mut web = service("web", 2, "10.96.0.10");
    web["spec"]["ports"][0]["nodePort"] = json!(30_080);
    story.is(Kind::Nodes, node("n1", 1, "192.168.0.1"), 5.0);
    story.is(Kind::Services, web.clone(), 10.0);
    story.is(Kind::Nodes, node("n2", 3, "fd00::2"), 20.0);
    story.is(Kind::Endpoints, slice("s1", 4, "web", &["10.0.0.5"]), 20.0);
    let asked = |story: &Story, ip: &str, port: u16, second: f64| {
        let at = (ip.parse().expect("an address"), port);
        word(story.timeline.service("blue", 6, at, Span::from(ns(second))))
    };
    let is_service = |story: &Story, ip, port| asked(story, ip, port, 40.0) == "service:web";
    assert!(is_service(&story, "192.168.0.1", 30_080), "on a node from before");
    assert!(is_service(&story, "fd00::2", 30_080), "on a later one, over the other family");
    assert!(!is_service(&story, "192.168.0.1", 80), "another port");
    assert!(!is_service(&story, "192.168.0.9", 30_080), "no node");
    assert!(!is_service(&story, "10.0.0.5", 30_080), "a pod has no such port");
    assert!(is_service(&story, "10.0.0.5", 8080) && is_service(&story, "10.96.0.10", 80));
    web["metadata"]["resourceVersion"] = json!("9");
    web["spec"]["ports"][0]["nodePort"] = Value::Null;
    story.is(Kind::Services, web, 50.0);
    assert_eq!(asked(&story, "192.168.0.1", 30_080, 60.0), "none", "it has none any more");
    assert_eq!(asked(&story, "192.168.0.1", 30_080, 40.0), "service:web", "and had one then");
}

#[test]
fn a_name_elsewhere_is_nobodys_address() {
    let mut story = Story::begin();
    let external = json!({
        "metadata": { "name": "ext", "namespace": "shop", "uid": "ext", "resourceVersion": "1" },
        "spec": { "type": "ExternalName", "externalName": "db.example.com", "clusterIP": "", "ports": [{ "port": 5432 }] },
    });
    story.is(Kind::Services, external, 10.0);
    assert!(story.timeline.intervals().is_empty());
    assert_eq!(story.described("service:ext").service.as_deref(), Some("ext"));
}
