//! Frames of a segment: each is a zstd frame of its own (RFC 8878), made from the bytes of one block.

use std::io::{self, IoSlice};

/// How blocks are compressed. Whatever is chosen, every zstd decoder reads the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: zstd frames of raw blocks, written from where the packets are.
    None,
    /// By zstd, at its level -7 (fast) to 19 (small). With a negative level, blocks of which a sample does not get a tenth
    /// smaller are left as they are.
    Level(i32),
}

impl Default for Compression {
    /// zstd's fastest level that is worth its time: -3 makes about a twentieth less of it and takes a fifth longer; beyond -7
    /// less is saved than left.
    fn default() -> Self {
        Self::Level(FASTEST)
    }
}

/// How far the log is behind the capture. What waits must not be lost because it is being made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backlog {
    /// Blocks are compressed as was chosen.
    #[default]
    Small,
    /// Blocks are compressed at the fastest level.
    Growing,
    /// Blocks are left as they are.
    Large,
}

/// zstd's fastest level that is used.
const FASTEST: i32 = -7;
/// A block that has so many bytes, and those of a sample of it.
const SAMPLED: usize = 128 << 10;
const SAMPLE: usize = 32 << 10;
/// Most bytes of a raw block (RFC 8878, 3.1.1.2.4).
const RAW: usize = 128 << 10;
/// Bytes before each block of a frame.
const BLOCK_HEADER: usize = 3;

/// Blocks that were not compressed as was chosen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FramerCounters {
    /// Faster, or not at all, because of a backlog.
    pub(super) hurried: u64,
    /// Not at all, because a sample of them did not get smaller.
    pub(super) opaque: u64,
}

/// Makes frames; what they are made in is used again.
pub(super) struct Framer {
    compression: Compression,
    compressor: zstd::bulk::Compressor<'static>,
    level: i32,
    made: Vec<u8>,
    /// The block before did not get smaller: TLS, QUIC and media come in stretches.
    opaque: bool,
    pub(super) backlog: Backlog,
    pub(super) counters: FramerCounters,
}

/// A frame, in pieces that are written one after another.
pub(super) struct Frame<'a> {
    pub(super) pieces: Vec<IoSlice<'a>>,
    pub(super) length: u32,
    pub(super) crc: u32,
}

impl Framer {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let level = match compression {
            Compression::None => FASTEST,
            Compression::Level(level) => level.clamp(FASTEST, 19),
        };
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        // The index has a checksum of each frame; another one, of what is in it, would cost a tenth of the whole log.
        compressor.include_checksum(false)?;
        let (backlog, counters) = (Backlog::default(), FramerCounters::default());
        Ok(Self { compression, compressor, level, made: Vec::new(), opaque: false, backlog, counters })
    }

    /// `data` is at most 4 GiB.
    pub(super) fn frame<'a>(&'a mut self, data: &'a [u8]) -> io::Result<Frame<'a>> {
        self.made.clear();
        let Some(level) = self.level_for(data)? else {
            self.made.clear();
            return Ok(Frame::new(self.raw(data)));
        };
        self.compress(data, level)?;
        self.opaque = data.len() >= SAMPLED && !is_worth_it(self.made.len(), data.len());
        Ok(Frame::new(vec![IoSlice::new(&self.made)]))
    }

    /// `None`: the block is left as it is.
    fn level_for(&mut self, data: &[u8]) -> io::Result<Option<i32>> {
        let chosen = match self.compression {
            Compression::None => return Ok(None),
            Compression::Level(level) => level.clamp(FASTEST, 19),
        };
        let level = match self.backlog {
            Backlog::Small => chosen,
            Backlog::Growing => FASTEST,
            Backlog::Large => {
                self.counters.hurried += 1;
                return Ok(None);
            }
        };
        self.counters.hurried += u64::from(level != chosen);
        if level < 0 && self.opaque && data.len() >= SAMPLED {
            let middle = (data.len() - SAMPLE) / 2;
            let sample = data.get(middle..middle + SAMPLE).unwrap_or(data);
            self.compress(sample, level)?;
            if !is_worth_it(self.made.len(), sample.len()) {
                self.counters.opaque += 1;
                return Ok(None);
            }
        }
        Ok(Some(level))
    }

    fn compress(&mut self, data: &[u8], level: i32) -> io::Result<()> {
        if self.level != level {
            self.compressor.set_compression_level(level)?;
            self.level = level;
        }
        self.made.clear();
        self.made.reserve(zstd::zstd_safe::compress_bound(data.len()));
        self.compressor.compress_to_buffer(data, &mut self.made)?;
        Ok(())
    }

    /// Headers and stretches of `data` in turns.
    fn raw<'a>(&'a mut self, data: &'a [u8]) -> Vec<IoSlice<'a>> {
        frame_header(&mut self.made, data.len());
        let first = self.made.len() + BLOCK_HEADER;
        let blocks = data.len().div_ceil(RAW).max(1);
        for at in 0..blocks {
            let length = (data.len() - at * RAW).min(RAW);
            raw_block_header(&mut self.made, length, at + 1 == blocks);
        }
        let (head, more) = self.made.split_at(first);
        let heads = std::iter::once(head).chain(more.chunks(BLOCK_HEADER));
        // Of nothing there is one block too.
        let stretches = data.chunks(RAW).chain(data.is_empty().then_some(data));
        heads.zip(stretches).flat_map(|(head, data)| [IoSlice::new(head), IoSlice::new(data)]).collect()
    }
}

impl<'a> Frame<'a> {
    fn new(pieces: Vec<IoSlice<'a>>) -> Self {
        let mut crc = crc32fast::Hasher::new();
        let mut length = 0;
        for piece in &pieces {
            crc.update(piece);
            length += piece.len();
        }
        Self { pieces, length: length as u32, crc: crc.finalize() }
    }
}

/// Whether a tenth or more was saved.
fn is_worth_it(made: usize, from: usize) -> bool {
    made <= from - from / 10
}

/// A frame that says how long its content is, which is also how far back a decoder must remember.
fn frame_header(out: &mut Vec<u8>, content: usize) {
    out.extend(0xFD2F_B528_u32.to_le_bytes());
    out.push(0b1010_0000);
    out.extend((content as u32).to_le_bytes());
}

/// Bit 0: the last block; bits 1 and 2: the type, 0 for raw; then the size.
fn raw_block_header(out: &mut Vec<u8>, size: usize, last: bool) {
    let header = u32::from(last) | (size as u32) << 3;
    out.extend(header.to_le_bytes().into_iter().take(BLOCK_HEADER));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| ((at * at) >> 9) as u8 & 0x1f).collect()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// Frames `data`, checks that it decompresses, and gives the bytes of the frame.
    fn check(framer: &mut Framer, data: &[u8]) -> usize {
        let frame = framer.frame(data).unwrap();
        let bytes: Vec<u8> = frame.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert_eq!((frame.length as usize, frame.crc), (bytes.len(), crc32fast::hash(&bytes)));
        assert!(zstd::bulk::decompress(&bytes, data.len()).unwrap() == data);
        assert!(zstd::stream::decode_all(&bytes[..]).unwrap() == data);
        bytes.len()
    }

    #[test]
    fn every_frame_decompresses_to_what_went_in() {
        for compression in [Compression::None, Compression::Level(-7), Compression::Level(3)] {
            let mut framer = Framer::new(compression).unwrap();
            for length in [0, 1, RAW - 1, RAW, RAW + 1, 3 * RAW, 700_001] {
                for data in [text(length), noise(length)] {
                    let made = check(&mut framer, &data);
                    assert!(made <= length + length / 1_024 + 64, "{compression:?} {length}: {made}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_left_until_something_else_comes() {
        let mut framer = Framer::new(Compression::default()).unwrap();
        let (text, noise) = (text(1 << 20), noise(1 << 20));
        for (data, opaque) in [(&text, 0), (&noise, 0), (&noise, 1), (&noise, 2), (&text, 2), (&noise, 2)] {
            let made = check(&mut framer, data);
            assert_eq!((framer.counters.opaque, made < data.len() / 2), (opaque, data == &text));
        }
        let mut thorough = Framer::new(Compression::Level(3)).unwrap();
        check(&mut thorough, &noise);
        check(&mut thorough, &noise);
        assert_eq!(thorough.counters.opaque, 0, "who asked for small frames gets them");
    }

    #[test]
    fn the_further_it_is_behind_the_less_it_compresses() {
        let mut framer = Framer::new(Compression::Level(3)).unwrap();
        let text = text(1 << 20);
        let mut made = [0; 4];
        let backlogs = [Backlog::Small, Backlog::Growing, Backlog::Large, Backlog::Small];
        for (made, backlog) in made.iter_mut().zip(backlogs) {
            framer.backlog = backlog;
            *made = check(&mut framer, &text);
        }
        assert!(made[0] < made[1] && made[1] < made[2], "{made:?}");
        assert_eq!((made[2] > text.len(), made[3], framer.counters.hurried), (true, made[0], 2));
    }
}
