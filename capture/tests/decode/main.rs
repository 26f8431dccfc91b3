//! Stories of frames: bytes in, records out.
#![allow(clippy::unwrap_used, reason = "a story that breaks off fails its test")]

mod differential;
mod fragments;
mod hellos;
mod icmp;
mod invariance;
mod judged;
mod lengths;
mod links;
mod roles;
mod seldom;
mod speed;
mod survival;
mod tunnels;
mod wire;
mod wlan;
mod wrapped;
