//! Opens capture files, as they are or compressed (gzip, zstd): their first bytes say which.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use wiretag_capture::file::{CaptureFile, FileError};

/// Opens a file.
pub(super) fn open(path: &Path) -> Result<CaptureFile, FileError> {
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => read(Box::new(file), &name),
        Err(source) => Err(FileError::Io { path: name, source }),
    }
}

/// Reads from `reader`; `name` is for messages.
pub(super) fn read(mut reader: Box<dyn Read + Send>, name: &str) -> Result<CaptureFile, FileError> {
    let failed = |source| FileError::Io { path: name.to_owned(), source };
    let mut magic = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    // A frame, or one that is skipped, with which files begin that several threads compressed (RFC 8878, 3.1.1 and
    // 3.1.2).
    let is_zstd = matches!(*magic, [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18]);
    let whole = Cursor::new(magic).chain(reader);
    let reader: Box<dyn Read + Send> = if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::Decoder::new(whole).map_err(failed)?)
    } else {
        Box::new(whole)
    };
    CaptureFile::new(reader, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `pzstd` writes: each frame behind one that says how long it is.
    #[test]
    fn frames_of_zstd_that_are_skipped_hide_nothing() {
        let mut file = [&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0], [0; 8].as_slice(), &[0, 0, 4, 0, 1, 0, 0, 0]].concat();
        for second in 1..=4_u8 {
            file.extend([second, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0]);
            file.extend([second; 14]);
        }
        let mut compressed = Vec::new();
        for part in file.chunks(50) {
            let frame = zstd::encode_all(part, 1).unwrap();
            compressed.extend([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]);
            compressed.extend((frame.len() as u32).to_le_bytes());
            compressed.extend(frame);
        }
        let mut packets = read(Box::new(Cursor::new(compressed)), "test").unwrap();
        let mut seen = Vec::new();
        while let Some(packet) = packets.next_packet().unwrap() {
            seen.push(packet.data[0]);
        }
        assert_eq!(seen, [1, 2, 3, 4]);
    }
}
