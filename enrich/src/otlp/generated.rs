//! Messages made from `enrich/proto` (`tests/proto.rs` compares them).

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, dead_code, clippy::pedantic, clippy::enum_variant_names, reason = "generated")]
#[path = "generated/otlp.rs"]
mod otlp;

pub(super) use self::otlp::*;
