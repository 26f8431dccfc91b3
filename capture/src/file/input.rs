//! The bytes of a file, whole records at a time, and never more than it was asked for.
//!
//! A regular file is mapped window by window ([`super::sys`]): its bytes are read where the kernel has them. What cannot be
//! mapped, or is about to change, is read into a buffer.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::sys::Mapping;
use super::{FileError, MAX_BLOCK};

const CHUNK: usize = 1 << 18;

/// Where bytes come from.
enum Source {
    Reader(Box<dyn Read + Send>),
    Mapped(Mapping),
}

pub(super) struct Input {
    source: Source,
    name: String,
    /// What was read, of a reader.
    buffer: Vec<u8>,
    /// The next byte, in the buffer or the window.
    start: usize,
    /// End of the bytes that are there.
    end: usize,
    /// Offset in the file of `start`.
    offset: u64,
}

impl Input {
    pub(super) fn new(reader: Box<dyn Read + Send>, name: &str) -> Self {
        let (source, buffer) = (Source::Reader(reader), vec![0; CHUNK]);
        Self { source, name: name.to_owned(), buffer, start: 0, end: 0, offset: 0 }
    }

    /// Reads from a file, mapped if that can be done.
    pub(super) fn open(file: File, name: &str) -> Self {
        match Mapping::of(file) {
            Ok(mapping) => {
                let source = Source::Mapped(mapping);
                Self { source, name: name.to_owned(), buffer: Vec::new(), start: 0, end: 0, offset: 0 }
            }
            Err(file) => Self::new(Box::new(file), name),
        }
    }

    /// The bytes that are there, and the count of those that were taken of them: [`Self::take`] while they are borrowed.
    pub(super) fn split(&mut self) -> (&[u8], Taken<'_>) {
        let bytes = match &self.source {
            Source::Reader(_) => self.buffer.get(self.start..self.end),
            Source::Mapped(mapping) => mapping.bytes().get(self.start..self.end),
        };
        (bytes.unwrap_or_default(), Taken { start: &mut self.start, end: self.end, offset: &mut self.offset })
    }

    /// The bytes that are there.
    pub(super) fn bytes(&mut self) -> &[u8] {
        self.split().0
    }

    /// Sees to it that so many bytes are there; `false` if the file ends before.
    pub(super) fn need(&mut self, len: usize) -> Result<bool, FileError> {
        debug_assert!(len <= MAX_BLOCK);
        if self.end - self.start >= len {
            return Ok(true);
        }
        if let Source::Mapped(mapping) = &mut self.source {
            match mapping.show(self.offset, len) {
                Ok(from) => {
                    (self.start, self.end) = (from, mapping.bytes().len());
                    return Ok(self.end.saturating_sub(self.start) >= len);
                }
                Err(mut file) => {
                    // Somebody waits to change the file. Reading it, as any reader does, takes what there is.
                    file.seek(SeekFrom::Start(self.offset)).map_err(|source| self.failed(source))?;
                    let name = std::mem::take(&mut self.name);
                    let offset = self.offset;
                    *self = Self { offset, ..Self::new(Box::new(file), &name) };
                }
            }
        }
        self.read(len)
    }

    fn read(&mut self, len: usize) -> Result<bool, FileError> {
        let Source::Reader(reader) = &mut self.source else { return Ok(false) };
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
            match reader.read(room) {
                Ok(0) => return Ok(false),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
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

    fn failed(&self, source: io::Error) -> FileError {
        FileError::Io { path: self.name.clone(), source }
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
