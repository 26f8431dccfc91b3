//! Frames of a segment: each is a zstd frame of its own (RFC 8878), made from the bytes of one block.

use std::io::{self, IoSlice};

/// How blocks are compressed. Whatever is chosen, every zstd decoder reads the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: zstd frames of raw blocks, written from where the packets are.
    None,
    /// By zstd, at its level -7 (fast) to 19 (small).
    Level(i32),
}

impl Default for Compression {
    fn default() -> Self {
        Self::Level(-3)
    }
}

/// Most bytes of a raw block (RFC 8878, 3.1.1.2.4).
const RAW: usize = 128 << 10;
/// Bytes before each block of a frame.
const BLOCK_HEADER: usize = 3;

/// Makes frames; what they are made in is used again.
pub(super) struct Framer {
    compression: Compression,
    compressor: zstd::bulk::Compressor<'static>,
    made: Vec<u8>,
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
            Compression::None => 1,
            Compression::Level(level) => level.clamp(-7, 19),
        };
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        // The index has a checksum of each frame; another one, of what is in it, would cost a tenth of the whole log.
        compressor.include_checksum(false)?;
        Ok(Self { compression, compressor, made: Vec::new() })
    }

    /// `data` is at most 4 GiB.
    pub(super) fn frame<'a>(&'a mut self, data: &'a [u8]) -> io::Result<Frame<'a>> {
        self.made.clear();
        match self.compression {
            Compression::None => Ok(Frame::new(self.raw(data))),
            Compression::Level(_) => {
                self.made.reserve(zstd::zstd_safe::compress_bound(data.len()));
                self.compressor.compress_to_buffer(data, &mut self.made)?;
                Ok(Frame::new(vec![IoSlice::new(&self.made)]))
            }
        }
    }

    /// Headers and stretches of `data` in turns.
    fn raw<'a>(&'a mut self, data: &'a [u8]) -> Vec<IoSlice<'a>> {
        frame_header(&mut self.made, data.len());
        let first = self.made.len() + BLOCK_HEADER;
        let blocks = data.len().div_ceil(RAW).max(1);
        for at in 0..blocks {
            let length = (data.len() - at * RAW).min(RAW);
            block_header(&mut self.made, BlockType::Raw, length, at + 1 == blocks);
        }
        let (head, more) = self.made.split_at(first);
        let heads = std::iter::once(head).chain(more.chunks(BLOCK_HEADER));
        heads.zip(data.chunks(RAW)).flat_map(|(head, data)| [IoSlice::new(head), IoSlice::new(data)]).collect()
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

/// Kinds of blocks, by their numbers.
#[derive(Debug, Clone, Copy)]
enum BlockType {
    Raw = 0,
}

/// A frame that says how long its content is, which is also how far back a decoder must remember.
fn frame_header(out: &mut Vec<u8>, content: usize) {
    out.extend(0xFD2F_B528_u32.to_le_bytes());
    out.push(0b1010_0000);
    out.extend((content as u32).to_le_bytes());
}

fn block_header(out: &mut Vec<u8>, kind: BlockType, size: usize, last: bool) {
    let header = u32::from(last) | (kind as u32) << 1 | (size as u32) << 3;
    out.extend(header.to_le_bytes().into_iter().take(BLOCK_HEADER));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_decompresses_to_what_went_in() {
        for compression in [Compression::None, Compression::Level(-3), Compression::Level(3)] {
            let mut framer = Framer::new(compression).unwrap();
            for length in [0, 1, RAW - 1, RAW, RAW + 1, 3 * RAW, 700_001] {
                let data: Vec<u8> = (0..length).map(|at| (at * at >> 9) as u8).collect();
                let frame = framer.frame(&data).unwrap();
                let bytes: Vec<u8> = frame.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                assert_eq!((frame.length as usize, frame.crc), (bytes.len(), crc32fast::hash(&bytes)));
                assert!(zstd::bulk::decompress(&bytes, length).unwrap() == data, "{compression:?} {length}");
                assert!(zstd::stream::decode_all(&bytes[..]).unwrap() == data, "{compression:?} {length}");
            }
        }
    }
}
