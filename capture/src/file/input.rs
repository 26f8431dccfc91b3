//! A buffered reader that shows the bytes of whole records and never reads more than it was asked for.
//!
//! Mapping the file instead (tried: window by window, under a lease) saves the kernel's copy, but then every packet is
//! waited for: in sum it costs the same.

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

    /// The bytes that are there, and the count of those that were taken of them: [`Self::take`] while they are borrowed.
    pub(super) fn split(&mut self) -> (&[u8], Taken<'_>) {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        (bytes, Taken { start: &mut self.start, end: self.end, offset: &mut self.offset })
    }

    /// The bytes that are there.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Sees to it that so many bytes are there; `false` if the file ends before.
    pub(super) fn need(&mut self, len: usize) -> Result<bool, FileError> {
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
                Ok(0) => return Ok(false),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FileError::Io { path: self.name.clone(), source }),
            }
        }
        Ok(true)
    }

    /// Takes the next `len` bytes.
    pub(super) fn take(&mut self, len: usize) {
        self.split().1.add(len);
    }

    pub(super) fn position(&self) -> u64 {
        self.offset
    }

    pub(super) fn not_a_capture(&self) -> FileError {
        FileError::NotACapture { path: self.name.clone() }
    }

    pub(super) fn truncated(&self) -> FileError {
        FileError::Truncated { path: self.name.clone(), offset: self.offset }
    }

    pub(super) fn malformed(&self, what: &'static str) -> FileError {
        FileError::Malformed { path: self.name.clone(), offset: self.offset, what }
    }
}

/// How far an [`Input`] is.
pub(super) struct Taken<'a> {
    start: &'a mut usize,
    end: usize,
    offset: &'a mut u64,
}

impl Taken<'_> {
    /// So many bytes more were taken.
    pub(super) fn add(&mut self, len: usize) {
        let from = *self.start;
        *self.start = (from + len).min(self.end);
        *self.offset += (*self.start - from) as u64;
    }
}
