//! Servers that have a resource in an older form, or get and lose one.

use serde_json::{Value, json};
use wiretag_enrich::{IdentityEvent, Key};

use super::server::{ENDPOINTS, JOBS, NAMESPACES, NODES, PODS, REPLICA_SETS, SERVICES, SLICES, SLICES_BETA, Server};
use super::{ALL, Run};
use wiretag_enrich::kubernetes::Scope;

const V1: &str = include_str!("endpointslice-v1.json");
const BETA: &str = include_str!("endpointslice-v1beta1.json");
const OLD: &str = include_str!("endpoints.json");

fn object(text: &str) -> Value {
    serde_json::from_str(text).expect("an object")
}

fn slice_with(ip: &str) -> Value {
    let mut slice = object(V1);
    slice["endpoints"][1]["addresses"] = json!([ip]);
    slice
}

/// The server with a service, whose endpoints are in one form.
async fn server(path: &str, endpoints: &str) -> Server {
    let server = Server::start(&[NODES, NAMESPACES, REPLICA_SETS, JOBS, SERVICES, path, PODS]).await;
    server.put(SERVICES, object(include_str!("service.json")));
    server.put(path, object(endpoints));
    server
}

/// How often an endpoint of the service was told to begin or to end.
fn told_of(run: &Run, of: &str) -> usize {
    let is_of = |event: &IdentityEvent| match event {
        IdentityEvent::Learned(own) => matches!(&own.key, Key::Service { ip, port: 8080, .. } if ip.to_string() == of),
        _ => false,
    };
    run.told.iter().filter(|event| is_of(event)).count()
}

#[tokio::test]
async fn endpoints_are_found_in_the_form_that_the_server_has() {
    for (path, text) in [(SLICES, V1), (SLICES_BETA, BETA), (ENDPOINTS, OLD)] {
        let mut run = Run::start(server(path, text).await, Scope::Cluster, 500);
        run.until(path, |run| run.service("10.244.1.7", 8080).as_deref() == Some("checkout")).await;
        run.until("all of it", |run| run.snapshots() == 1).await;
        assert_eq!(run.service("10.244.2.9", 8080).as_deref(), Some("checkout"), "not ready, but there");
        assert_eq!(run.service("10.96.12.30", 443).as_deref(), Some("checkout"));
        assert_eq!(run.service("fd00:10:96::c1e", 443).as_deref(), Some("checkout"));
    }
}

#[tokio::test]
async fn older_forms_are_not_asked_for_where_slices_are_served() {
    let mut run = Run::start(Server::start(ALL).await, Scope::Cluster, 500);
    for path in [SLICES_BETA, ENDPOINTS] {
        run.server.serve(path);
    }
    run.until("a snapshot", |run| run.snapshots() == 1 && run.server.watched(SLICES) > 0).await;
    run.server.end();
    run.until("the watch goes on", |run| run.server.watched(SLICES) > 1).await;
    let requests = run.server.requests();
    let older = |target: &&String| target.starts_with(SLICES_BETA) || target.starts_with(ENDPOINTS);
    assert_eq!(requests.iter().find(older), None, "{requests:?}");
}

#[tokio::test]
async fn a_server_that_has_slices_again_does_not_stay_with_endpoints() {
    let mut run = Run::start(server(ENDPOINTS, OLD).await, Scope::Cluster, 500);
    let is = |run: &Run, ip: &str| run.service(ip, 8080).as_deref() == Some("checkout");
    run.until("the old form", |run| run.snapshots() == 1 && is(run, "10.244.2.9") && run.server.watched(ENDPOINTS) > 0)
        .await;
    run.server.serve(SLICES);
    run.server.put(SLICES, slice_with("10.244.2.11"));
    run.server.end();
    run.until("slices", |run| is(run, "10.244.2.11") && !is(run, "10.244.2.9")).await;
    assert_eq!(told_of(&run, "10.244.1.7"), 1, "what both forms say went on");
    // They are away for a moment, as while an API server starts.
    let before = run.server.watched(ENDPOINTS);
    run.server.withdraw(SLICES);
    run.until("the old form again", |run| is(run, "10.244.2.9") && !is(run, "10.244.2.11")).await;
    run.until("its watch", |run| run.server.watched(ENDPOINTS) > before).await;
    run.server.serve(SLICES);
    run.server.put(SLICES, slice_with("10.244.2.11"));
    run.server.end();
    run.until("slices again", |run| is(run, "10.244.2.11") && !is(run, "10.244.2.9")).await;
    assert_eq!(told_of(&run, "10.244.1.7"), 1, "what both forms say went on");
    run.server.put(SLICES, slice_with("10.244.2.12"));
    run.until("news of slices", |run| is(run, "10.244.2.12")).await;
}
