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
    let is_zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
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
