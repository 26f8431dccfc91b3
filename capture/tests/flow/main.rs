//! Stories of flows, told in decoded packets.
#![allow(clippy::unwrap_used, reason = "a story that breaks off fails its test")]

mod dns;
mod properties;
mod story;
mod table;
mod tcp;
