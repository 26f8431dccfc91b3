//! Memory of the flow engine: what it counts is what it holds, and no flood takes more than the limit.
#![allow(clippy::unwrap_used, reason = "a flood that breaks off fails its test")]

mod flood;
mod sys;
mod traffic;
