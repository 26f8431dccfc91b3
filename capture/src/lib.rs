//! Bytes to flow records: packet sources, decoding, the flow table, TCP analysis, application protocols.
//!
//! The path of a packet: a source ([`mod@file`] or [`ring`]) yields [`Packet`] views, [`decode`] turns the bytes into a
//! [`decode::Decoded`] or a counted [`decode::DecodeError`], [`flow`] tracks it, reads its application (`app`), and expires
//! [`FlowRecord`]s and [`Transaction`]s.
//!
//! Invariants:
//! * nothing here knows of containers, stores or HTTP;
//! * decoding and tracking are pure: time is the packet's, bad input is a counted reason, memory is bounded;
//! * packets received = packets decoded + packets refused by reason ([`CaptureCounters`]).

mod app;
mod buffer;
mod burst;
pub mod columns;
pub mod decode;
pub mod engines;
pub mod file;
pub mod flow;
#[doc(hidden)]
pub mod fuzzing;
mod memory;
pub mod metrics;
pub mod netflow;
pub mod packet;
pub mod pcapng;
pub mod record;
pub mod ring;
pub mod transaction;
pub mod tunnel;
mod values;

pub use app::app_named;
pub use buffer::PacketBuffer;
pub use burst::Burst;
pub use columns::Column;
pub use metrics::CaptureCounters;
pub use packet::{LinkType, OwnedPacket, Packet};
pub use record::{Direction, EndReason, FlowRecord, ObservedAt, OrientedBy, Protocol, Side, Source, TcpState};
pub use transaction::{Exchange, Transaction};
pub use tunnel::Wrapping;
pub use values::{Kind, Value, Values};
