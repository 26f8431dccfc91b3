//! Stories of flows, told in decoded packets.
#![allow(clippy::unwrap_used, reason = "a story that breaks off fails its test")]

mod dns;
mod figures;
mod flood;
mod observer;
mod properties;
mod simulator;
mod story;
mod table;
mod tcp;
mod truth;
