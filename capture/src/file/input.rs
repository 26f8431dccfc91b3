//! A buffered reader that hands out slices of whole records and never more than it was asked for.

use std::io::{self, Read};

use super::{FileError, MAX_BLOCK};

const CHUNK: usize = 1 << 18;

pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    name: String,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset in the file of `start`.
    offset: u64,
}

impl Input {
    pub(super) fn new(reader: Box<dyn Read + Send>, name: &str) -> Self {
        Self { reader, name: name.to_owned(), buffer: vec![0; CHUNK], start: 0, end: 0, offset: 0 }
    }

    /// The next `len` bytes without taking them; `None` if the file ends before.
    pub(super) fn need(&mut self, len: usize) -> Result<Option<&[u8]>, FileError> {
        debug_assert!(len <= MAX_BLOCK);
        while self.end - self.start < len {
            if self.buffer.len() - self.start < len {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                if self.buffer.len() < len {
                    self.buffer.resize(len.next_multiple_of(CHUNK), 0);
                }
            }
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.reader.read(room) {
                Ok(0) => return Ok(None),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FileError::Io { path: self.name.clone(), source }),
            }
        }
        Ok(self.buffer.get(self.start..self.start + len))
    }

    /// Takes the next `len` bytes, which [`Self::need`] has shown.
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + len).min(self.end);
        self.offset += (self.start - from) as u64;
        self.buffer.get(from..self.start).unwrap_or_default()
    }

    /// Whether the file ends here, between records.
    pub(super) fn is_at_end(&mut self) -> Result<bool, FileError> {
        Ok(self.need(1)?.is_none())
    }

    pub(super) fn position(&self) -> u64 {
        self.offset
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn truncated(&self) -> FileError {
        FileError::Truncated { path: self.name.clone(), offset: self.offset }
    }

    pub(super) fn malformed(&self, what: &'static str) -> FileError {
        FileError::Malformed { path: self.name.clone(), offset: self.offset, what }
    }
}
