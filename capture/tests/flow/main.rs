//! Stories of flows, told in decoded packets.
#![allow(clippy::unwrap_used, reason = "a story that breaks off fails its test")]

mod cuts;
mod dns;
mod http;
mod http2;
mod properties;
mod story;
mod table;
mod talk;
mod tcp;
