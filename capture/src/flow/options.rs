//! TCP options that matter here: maximum segment size (RFC 9293), window scale and timestamps (RFC 7323), selective
//! acknowledgements (RFC 2018) and what they say of data received twice (RFC 2883).

/// A range of sequence numbers `[from, to)`.
pub(super) type Range = (u32, u32);

/// See the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    /// Value and echo reply.
    pub(super) timestamps: Option<(u32, u32)>,
    /// The first two blocks of a selective acknowledgement.
    pub(super) sack: [Option<Range>; 2],
}

/// Greatest shift count, RFC 7323 2.3.
const MAX_SCALE: u8 = 14;

impl Options {
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Self {
        // What almost every segment of an open connection has: two paddings and timestamps.
        if let [1, 1, 8, 10, body @ ..] = bytes
            && body.len() == 8
        {
            return Self { timestamps: pair(body), ..Self::default() };
        }
        if bytes.is_empty() { Self::default() } else { Self::walk(bytes) }
    }

    fn walk(mut bytes: &[u8]) -> Self {
        let mut found = Self::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            bytes = match kind {
                0 => break,
                1 => rest,
                _ => {
                    let length = rest.first().map_or(0, |length| usize::from(*length));
                    // Less than kind and length, or cut: nothing that follows can be trusted.
                    let Some(body) = bytes.get(2..length) else { break };
                    found.take(kind, body);
                    bytes.get(length..).unwrap_or_default()
                }
            };
        }
        found
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (2, [high, low]) => self.mss = self.mss.or(Some(u16::from_be_bytes([*high, *low]))),
            (3, [scale]) => self.scale = self.scale.or(Some((*scale).min(MAX_SCALE))),
            (5, blocks) => self.sack = [pair(blocks), blocks.get(8..).and_then(pair)],
            (8, body) => self.timestamps = self.timestamps.or(pair(body)),
            (_, _) => {}
        }
    }

    /// The range that this acknowledgement reports as received twice: the first block, if it lies below the cumulative
    /// acknowledgement or within the second block (RFC 2883, 4).
    pub(super) fn received_twice(&self, ack: u32) -> Option<Range> {
        let first = self.sack[0]?;
        let length = first.1.wrapping_sub(first.0);
        let below = ack.wrapping_sub(first.1) < 1 << 31;
        let within = |outer: Range| {
            let (begin, size) = (first.0.wrapping_sub(outer.0), outer.1.wrapping_sub(outer.0));
            begin <= size && length <= size - begin
        };
        (below || self.sack[1].is_some_and(within)).then_some(first)
    }
}

/// Two 32 bit numbers.
fn pair(body: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = body.split_first_chunk()?;
    Some((u32::from_be_bytes(*first), u32::from_be_bytes(*second.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syns_options() {
        let bytes = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 9];
        let found = Options::parse(&bytes);
        assert_eq!((found.mss, found.scale, found.timestamps), (Some(1460), Some(9), Some((7, 0))));
        // Cut in the middle, the rest is still read; a length of zero ends it.
        assert_eq!(Options::parse(&bytes[..18]).mss, Some(1460));
        assert_eq!(Options::parse(&[3, 0, 2, 4, 5, 180]), Options::default());
        assert_eq!(Options::parse(&[3, 3, 200]).scale, Some(14));
    }

    #[test]
    fn received_twice() {
        let sack = |blocks: [Option<Range>; 2]| Options { sack: blocks, ..Options::default() };
        assert_eq!(sack([Some((10, 20)), None]).received_twice(30), Some((10, 20)));
        assert_eq!(sack([Some((40, 50)), None]).received_twice(30), None);
        assert_eq!(sack([Some((40, 50)), Some((40, 90))]).received_twice(30), Some((40, 50)));
        assert_eq!(sack([Some((40, 95)), Some((50, 90))]).received_twice(30), None);
    }
}
