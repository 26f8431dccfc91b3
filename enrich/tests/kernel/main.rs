//! The kernel source against the real kernel, in network namespaces and control groups that the test makes. Needs root,
//! iproute2, iptables, conntrack and busybox; fails in CI without them, says elsewhere that it is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod sockets;
mod stage;
mod translations;
#[path = "../wait/mod.rs"]
mod wait;
