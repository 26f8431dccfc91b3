//! Messages made from `enrich/proto` (`tests/proto.rs` compares them).

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::enum_variant_names, reason = "generated")]
#[path = "generated/runtime.v1.rs"]
pub(super) mod runtime;

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::enum_variant_names, reason = "generated")]
#[path = "generated/containerd.rs"]
pub(super) mod containerd;
