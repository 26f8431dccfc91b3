//! The catalog: what goes in comes out, as known last. One suite for both databases, and what each has of its own.

mod losses;
mod postgres;
mod proxy;
mod server;
mod sqlite;
mod suite;

use crate::wait;
use suite::World;

#[tokio::test]
async fn sqlite_passes_the_suite() {
    suite::pass(&World { server: None }).await;
}

#[tokio::test]
async fn postgresql_passes_the_suite() {
    let Some(server) = server::Server::start() else { return };
    suite::pass(&World { server: Some(server.config()) }).await;
}
