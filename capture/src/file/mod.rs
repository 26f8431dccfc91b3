//! Capture files: classic pcap (both byte orders, micro- and nanoseconds, Kuznetzov's variant) and pcapng, streaming.
//!
//! Memory is bounded by the greatest block that is accepted ([`MAX_BLOCK`]), whatever the file claims. A damaged file
//! gives every whole packet before the damage, then one error with the offset.

mod classic;
mod error;
mod input;
mod ng;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::FileError;
use input::Input;

use crate::packet::{LinkType, Packet};

/// Greatest pcapng block or pcap record that is accepted, bytes.
pub const MAX_BLOCK: usize = 16 << 20;

/// An interface that a file describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInterface {
    /// `if_name`; classic pcap has none.
    pub name: Option<String>,
    /// `if_description`.
    pub description: Option<String>,
    /// Link-layer type.
    pub link_type: LinkType,
    /// Snap length; 0: no limit.
    pub snap_len: u32,
}

/// A capture file that is being read.
pub struct CaptureFile {
    input: Input,
    format: Format,
    interfaces: Vec<FileInterface>,
    /// Interfaces that the reader has been told of.
    told: usize,
}

enum Format {
    Classic(classic::Classic),
    Ng(ng::Ng),
}

impl CaptureFile {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| FileError::Io { path: name.clone(), source })?;
        Self::new(Box::new(file), &name)
    }

    /// Reads from `reader`; `name` is for messages.
    pub fn new(reader: Box<dyn Read + Send>, name: &str) -> Result<Self, FileError> {
        let mut input = Input::new(reader, name);
        let magic = input.need(4)?.and_then(|bytes| bytes.first_chunk::<4>()).copied();
        let Some(magic) = magic else { return Err(FileError::NotACapture { path: name.to_owned() }) };
        let mut interfaces = Vec::new();
        let format = if magic == ng::SECTION_HEADER {
            Format::Ng(ng::Ng::default())
        } else {
            let (classic, interface) = classic::Classic::start(&mut input, magic)?;
            interfaces.push(interface);
            Format::Classic(classic)
        };
        let mut file = Self { input, format, interfaces, told: 0 };
        if let Format::Ng(ng) = &mut file.format {
            ng.first_section(&mut file.input)?;
        }
        Ok(file)
    }

    /// The next packet, or `None` at the end. After an error there are no more packets.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, FileError> {
        self.next_packet_naming(&mut |_, _| {})
    }

    /// As [`Self::next_packet`]; `described` is told of each interface, with its number, before its first packet comes.
    pub fn next_packet_naming(
        &mut self,
        described: &mut dyn FnMut(u32, &FileInterface),
    ) -> Result<Option<Packet<'_>>, FileError> {
        let packet = match &mut self.format {
            Format::Classic(classic) => classic.next(&mut self.input)?,
            Format::Ng(ng) => ng.next(&mut self.input, &mut self.interfaces)?,
        };
        for (number, interface) in (0_u32..).zip(&self.interfaces).skip(self.told) {
            described(number, interface);
        }
        self.told = self.interfaces.len();
        Ok(packet)
    }

    /// Interfaces described so far, numbered as in [`Packet::interface`]; pcapng may add more.
    pub fn interfaces(&self) -> &[FileInterface] {
        &self.interfaces
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.input.position()
    }
}
