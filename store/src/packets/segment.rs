//! The files of the segment that is being written.

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use wiretag_capture::pcapng;

use super::frame::Framer;
use super::index::{self, Block, IndexWriter, Version};
use super::index_path;
use super::log::APPLICATION;
use crate::error::StoreError;

/// What turns blocks and their index records into bytes.
pub(super) struct Writers {
    pub(super) framer: Framer,
    pub(super) index: IndexWriter,
}

pub(super) struct Open {
    pub(super) path: PathBuf,
    file: File,
    index: File,
    /// Bytes of whole frames.
    pub(super) length: u64,
    pub(super) index_length: u64,
    frames: Vec<(u32, u32)>,
    pub(super) packets: u64,
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Open {
    /// Makes the files; the first frame has the section header.
    pub(super) fn create(path: &Path, writers: &mut Writers) -> Result<Self, StoreError> {
        let file = create_new(path)?;
        let index_file = index_path(path);
        let index = create_new(&index_file).inspect_err(|_| drop(std::fs::remove_file(path)))?;
        let mut segment = Self {
            path: path.to_path_buf(),
            file,
            index,
            length: 0,
            index_length: 0,
            frames: Vec::new(),
            packets: 0,
            start: 0,
            end: 0,
        };
        let mut header = Vec::new();
        pcapng::section_header(&mut header, APPLICATION);
        let begun =
            segment.index.write_all_at(index::MAGIC, 0).map_err(StoreError::io("write", &index_file)).and_then(|()| {
                segment.index_length = index::MAGIC.len() as u64;
                segment.write(writers, &header, &mut Block::default())
            });
        if begun.is_err() {
            // Nothing is in it; what cannot be deleted now, recovery deletes.
            let _ = std::fs::remove_file(path).and_then(|()| std::fs::remove_file(&index_file));
        }
        begun.map(|()| segment)
    }

    /// Writes a frame, then its record; the fields of `block` that say where it is are filled in.
    pub(super) fn write(&mut self, writers: &mut Writers, data: &[u8], block: &mut Block) -> Result<(), StoreError> {
        let frame = writers.framer.frame(data).map_err(StoreError::io("compress a block of", &self.path))?;
        block.offset = self.length;
        (block.compressed, block.uncompressed, block.frame_crc) = (frame.length, data.len() as u32, frame.crc);
        write_at(&self.file, self.length, frame.pieces).map_err(StoreError::io("write", &self.path))?;
        self.record(writers, block)
    }

    /// Takes over a frame of another segment as it is, then writes its record.
    pub(super) fn copy(&mut self, writers: &mut Writers, frame: &[u8], block: &mut Block) -> Result<(), StoreError> {
        block.offset = self.length;
        write_at(&self.file, self.length, vec![IoSlice::new(frame)]).map_err(StoreError::io("write", &self.path))?;
        self.record(writers, block)
    }

    fn record(&mut self, writers: &mut Writers, block: &Block) -> Result<(), StoreError> {
        let record = writers.index.block(block).map_err(StoreError::io("compress an index of", &self.path))?;
        let index = index_path(&self.path);
        self.index.write_all_at(record, self.index_length).map_err(StoreError::io("write", &index))?;
        self.length += u64::from(block.compressed);
        self.index_length += record.len() as u64;
        self.frames.push((block.compressed, block.uncompressed));
        if !block.packets.is_empty() {
            self.start = if self.packets == 0 { block.first } else { self.start.min(block.first) };
            self.end = if self.packets == 0 { block.last } else { self.end.max(block.last) };
            self.packets += block.packets.len() as u64;
        }
        Ok(())
    }

    /// Bytes of both files.
    pub(super) fn bytes(&self) -> u64 {
        self.length + self.index_length
    }

    pub(super) fn seal(&mut self) -> Result<(), StoreError> {
        let (length, index_length) = seal(
            &self.path,
            (&self.file, &self.index),
            (self.length, self.index_length),
            (&self.frames, Version::Two),
        )?;
        (self.length, self.index_length) = (length, index_length);
        Ok(())
    }

    /// The files end with the last whole block again.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.index.set_len(self.index_length)?;
        self.file.set_len(self.length)
    }
}

/// All of `pieces`, in as few calls as the kernel lets it.
fn write_at(mut file: &File, at: u64, mut pieces: Vec<IoSlice<'_>>) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let mut pieces = pieces.as_mut_slice();
    while !pieces.is_empty() {
        match file.write_vectored(pieces) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut pieces, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends a segment: seek table, then the seal in the index, each on the disk before the next step. Gives the new lengths.
pub(super) fn seal(
    path: &Path,
    (file, index): (&File, &File),
    (length, index_length): (u64, u64),
    (frames, version): (&[(u32, u32)], Version),
) -> Result<(u64, u64), StoreError> {
    let table = index::seek_table(frames);
    file.write_all_at(&table, length).and_then(|()| file.sync_all()).map_err(StoreError::io("seal", path))?;
    let length = length + table.len() as u64;
    let index_file = index_path(path);
    let record = index::encode_seal(length, version).map_err(StoreError::io("seal", &index_file))?;
    index
        .write_all_at(&record, index_length)
        .and_then(|()| index.sync_all())
        .map_err(StoreError::io("seal", &index_file))?;
    Ok((length, index_length + record.len() as u64))
}

fn create_new(path: &Path) -> Result<File, StoreError> {
    crate::private::options().read(true).write(true).create_new(true).open(path).map_err(StoreError::io("create", path))
}
