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

impl Probe {
    /// `Yes` or `No`.
    pub(crate) const fn certain(known: bool) -> Self {
        if known { Self::Yes } else { Self::No }
    }
}
