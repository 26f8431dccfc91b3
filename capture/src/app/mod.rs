//! Application protocols, recognised by content and never by port.
//!
//! Hooks for the dispatcher, the same for each protocol:
//! * `probe(bytes)` looks at the first bytes of a stream or at a datagram and says whether it is the protocol; it costs a
//!   few nanoseconds on anything else;
//! * a `…Flow` is made when a probe says yes, and is then given what each end (0 or 1) sends: stream bytes in order with
//!   [`tls::TlsFlow::bytes`] (and [`tls::TlsFlow::gap`] where some are missing), datagrams with
//!   [`dtls::DtlsFlow::datagram`] and [`quic::QuicFlow::datagram`];
//! * `is_done()` says that nothing more can be learnt: buffers are freed by then, and further bytes cost a comparison;
//! * `fields()` gives what the record wants, at any time.
//!
//! The names of the three here are `tls`, `dtls` and `quic`; what they find goes into [`crate::record::FlowRecord::tls`].
//!
//! Invariants: bytes are buffered up to a limit and only until the message that was waited for is whole; work for a flow
//! is bounded; no bytes make a parser fail.

mod cursor;
pub(crate) mod dtls;
mod pieces;
mod probe;
pub(crate) mod quic;
#[cfg(test)]
mod testing;
pub(crate) mod tls;

pub(crate) use probe::Probe;
