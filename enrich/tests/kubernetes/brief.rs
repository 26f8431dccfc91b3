//! Watches that do not last.

use std::time::Duration;

use wiretag_enrich::SourceStatus;
use wiretag_enrich::kubernetes::Scope;

use super::server::{PODS, Server, Watches};
use super::{ALL, Run, pod};

async fn with_watches_that(watches: Watches) -> Run {
    let server = Server::start(ALL).await;
    server.put(PODS, pod("a", "10.0.0.1"));
    server.set_watches(watches);
    Run::start(server, Scope::Cluster, 500)
}

/// After pauses of 0.5, 1, 2, 4 and 8 seconds, give or take a quarter.
fn assert_patient(run: &Run) {
    let watched = run.server.watched(PODS);
    assert!((2..=6).contains(&watched), "{watched} watches in some six seconds");
}

#[tokio::test]
async fn a_server_that_ends_each_watch_at_once_is_asked_less_and_less_often() {
    let mut run = with_watches_that(Watches::End).await;
    run.until("a snapshot of what is listed", |run| run.snapshots() == 1 && run.who("10.0.0.1") == "a").await;
    let is_told = |status: &SourceStatus| matches!(status, SourceStatus::Absent { reason } if reason.contains("ends watches as soon as they begin"));
    run.until_status(is_told).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_patient(&run);
    assert!(is_told(&run.status.borrow()), "it does not work in between: {}", run.status.borrow().clone());
    run.server.set_watches(Watches::Last);
    run.server.put(PODS, pod("b", "10.0.0.2"));
    run.until("what came meanwhile", |run| run.who("10.0.0.2") == "b").await;
    run.until_status(|status| *status == SourceStatus::Connected).await;
    assert_eq!(run.server.lists(PODS), 1, "the watch goes on where it was");
}

#[tokio::test]
async fn a_server_that_forgets_what_it_has_just_listed_is_asked_less_and_less_often() {
    let mut run = with_watches_that(Watches::Forget).await;
    run.until("a snapshot", |run| run.snapshots() == 1 && run.who("10.0.0.1") == "a").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_patient(&run);
    run.server.set_watches(Watches::Last);
    run.server.put(PODS, pod("b", "10.0.0.2"));
    run.until("what came meanwhile", |run| run.who("10.0.0.2") == "b").await;
}

#[tokio::test]
async fn a_watch_whose_time_is_over_goes_on_at_once() {
    let mut run = with_watches_that(Watches::Last).await;
    run.until("a snapshot", |run| run.snapshots() == 1 && run.server.watched(PODS) == 1).await;
    run.until_status(|status| *status == SourceStatus::Connected).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for number in 2..=3 {
        run.server.end();
        run.until("the watch goes on", |run| run.server.watched(PODS) == number).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!run.status.has_changed().expect("the source runs"), "{}", run.status.borrow().clone());
    }
}
