//! Capture files: classic pcap (both byte orders, micro- and nanoseconds, Kuznetzov's variant, AIX') and pcapng, streaming.
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

use crate::burst::{Burst, Room};
use crate::packet::{LinkType, Packet};

/// Greatest pcapng block that is accepted, bytes; a record of pcap is no greater than the greatest snap length that tools write, 262,144.
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
    failed: bool,
    /// See [`CaptureFile::misdated`].
    misdated: u64,
    room: Room,
}

enum Format {
    Classic(classic::Classic),
    Ng(ng::Ng),
}

/// What bytes begin with.
enum Step<'a> {
    /// A packet, and the bytes that its record takes.
    Packet(Packet<'a>, usize),
    /// So many bytes that are no packet.
    Skip(usize),
    /// So many bytes are needed to tell.
    Need(usize),
    /// Damage.
    Malformed(&'static str),
}

impl Format {
    #[inline]
    fn step<'a>(&mut self, bytes: &'a [u8], interfaces: &mut Vec<FileInterface>) -> Step<'a> {
        match self {
            Self::Classic(classic) => classic.step(bytes),
            Self::Ng(ng) => ng.step(bytes, interfaces),
        }
    }
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
        input.need(4)?;
        let magic = input.bytes().first_chunk::<4>().copied();
        let Some(magic) = magic else { return Err(input.not_a_capture()) };
        let mut interfaces = Vec::new();
        let format = if magic == ng::SECTION_HEADER {
            Format::Ng(ng::Ng::default())
        } else {
            let (classic, interface) = classic::Classic::start(&mut input, magic)?;
            interfaces.push(interface);
            Format::Classic(classic)
        };
        let mut file = Self { input, format, interfaces, told: 0, failed: false, misdated: 0, room: Room::default() };
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
        let is_there = self.find_packet()?;
        tell(&self.interfaces, &mut self.told, described);
        if !is_there {
            return Ok(None);
        }
        let (bytes, mut taken) = self.input.split();
        let Step::Packet(packet, len) = self.format.step(bytes, &mut self.interfaces) else { return Ok(None) };
        taken.add(len);
        Ok(Some(packet))
    }

    /// The next packets, or none at the end; otherwise as [`Self::next_packet_naming`]. What is damaged is reported after the
    /// packets before it; those that are misdated are left out ([`Self::misdated`]).
    pub fn next_burst(&mut self, described: &mut dyn FnMut(u32, &FileInterface)) -> Result<Burst<'_>, FileError> {
        let mut is_there = self.find_packet()?;
        while is_there && self.pass_misdated() {
            is_there = self.find_packet()?;
        }
        let mut burst = Burst::new(&mut self.room);
        if is_there {
            let (bytes, mut taken) = self.input.split();
            let mut rest = bytes;
            while !burst.is_full() {
                let len = match self.format.step(rest, &mut self.interfaces) {
                    Step::Packet(packet, len) => {
                        if is_misdated(&packet) {
                            self.misdated += 1;
                        } else {
                            burst.push(packet);
                        }
                        len
                    }
                    Step::Skip(len) => len,
                    Step::Need(_) | Step::Malformed(_) => break,
                };
                rest = rest.get(len..).unwrap_or_default();
            }
            taken.add(bytes.len() - rest.len());
        }
        tell(&self.interfaces, &mut self.told, described);
        Ok(burst)
    }

    /// Leaves the packet out that comes next, if it is misdated.
    fn pass_misdated(&mut self) -> bool {
        let Step::Packet(packet, len) = self.format.step(self.input.bytes(), &mut self.interfaces) else {
            return false;
        };
        let is_misdated = is_misdated(&packet);
        if is_misdated {
            self.misdated += 1;
            self.input.take(len);
        }
        is_misdated
    }

    /// Goes to the next packet, which is then wholly there; `false` at the end of the file.
    fn find_packet(&mut self) -> Result<bool, FileError> {
        if self.failed {
            return Ok(false);
        }
        loop {
            match self.format.step(self.input.bytes(), &mut self.interfaces) {
                Step::Packet(..) => return Ok(true),
                Step::Skip(len) => self.input.take(len),
                Step::Need(len) => {
                    self.failed = true;
                    if !self.input.need(len)? {
                        // Between records a file may end.
                        let whole = self.input.bytes().is_empty();
                        return if whole { Ok(false) } else { Err(self.input.truncated()) };
                    }
                    self.failed = false;
                }
                Step::Malformed(what) => {
                    self.failed = true;
                    return Err(self.input.malformed(what));
                }
            }
        }
    }

    /// Interfaces described so far, numbered as in [`Packet::interface`]; pcapng may add more.
    pub fn interfaces(&self) -> &[FileInterface] {
        &self.interfaces
    }

    /// Whether packets came that have no time of their own (pcapng's simple packets): theirs is that of the packet before.
    pub fn has_untimed(&self) -> bool {
        match &self.format {
            Format::Classic(_) => false,
            Format::Ng(ng) => ng.untimed,
        }
    }

    /// Packets that bursts left out: their time is before 1970, or after 2262 where nanoseconds no longer fit, and nobody could ask for them.
    pub fn misdated(&self) -> u64 {
        self.misdated
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.input.position()
    }
}

/// The last nanosecond is what times beyond are read as, and behind every range of time.
fn is_misdated(packet: &Packet<'_>) -> bool {
    !(0..i64::MAX).contains(&packet.time)
}

/// Describes the interfaces after the first `told` ones.
fn tell(interfaces: &[FileInterface], told: &mut usize, described: &mut dyn FnMut(u32, &FileInterface)) {
    for (number, interface) in (0_u32..).zip(interfaces).skip(*told) {
        described(number, interface);
    }
    *told = interfaces.len();
}
