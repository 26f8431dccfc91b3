//! What a look at the first bytes can say.

/// Whether bytes are a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// They are.
    Yes,
    /// They are not, whatever follows.
    No,
    /// They may be: look again with more of them.
    More,
}
