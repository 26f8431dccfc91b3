//! Stories of flows, told in decoded packets.
#![allow(clippy::unwrap_used, reason = "a story that breaks off fails its test")]

mod copies;
mod cuts;
mod dns;
mod early;
mod figures;
mod flood;
mod http;
mod http2;
mod http2_many;
mod http_gaps;
mod missed;
mod observer;
mod open;
mod properties;
mod simulator;
mod story;
mod table;
mod talk;
mod tcp;
mod truth;
