//! One append to a generation of the journal: rows in the columns of the table's files.
//!
//! ```text
//! "WTO1"  length: u32  raw: u32  crc: u32  payload: length bytes
//! ```
//!
//! Numbers are little-endian. The payload is a zstd frame of `raw` bytes, an Arrow IPC stream of one batch with its schema,
//! so that a later release reads what an earlier one was killed with. `crc` is the CRC-32 of the payload.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use wiretag_enrich::TaggedFlow;

use crate::error::StoreError;
use crate::tables;

const MAGIC: [u8; 4] = *b"WTO1";
const HEADER: usize = 16;
/// Bytes of a frame's rows at most; one with more is not ours.
const MOST: u32 = 1 << 28;
/// The fastest of zstd's usual levels: columns of like rows are small at any.
const LEVEL: i32 = 1;

/// Rows as a frame.
pub(super) fn encode(rows: &[&TaggedFlow]) -> Result<Vec<u8>, StoreError> {
    let batch = tables::batch(rows)?;
    let failed = |error: &dyn std::fmt::Display| StoreError::Query(format!("cannot build the journal: {error}"));
    let mut raw = Vec::new();
    let mut writer = StreamWriter::try_new(&mut raw, batch.schema_ref()).map_err(|error| failed(&error))?;
    writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| failed(&error))?;
    drop(writer);
    let payload = zstd::bulk::compress(&raw, LEVEL).map_err(|error| failed(&error))?;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend(MAGIC);
    for number in [payload.len() as u32, raw.len() as u32, crc32fast::hash(&payload)] {
        frame.extend(number.to_le_bytes());
    }
    frame.extend(payload);
    Ok(frame)
}

/// Reads the frames of a generation up to its end, or to what is torn.
pub(crate) struct Frames {
    file: BufReader<File>,
}

impl Frames {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        Ok(Self { file: BufReader::new(file) })
    }

    fn read(&mut self) -> io::Result<Option<RecordBatch>> {
        let mut header = [0; HEADER];
        self.file.read_exact(&mut header)?;
        let [magic, length, raw, crc] = words(header);
        let (length, raw, crc) = (u32::from_le_bytes(length), u32::from_le_bytes(raw), u32::from_le_bytes(crc));
        if magic != MAGIC || length > MOST || raw > MOST {
            return Ok(None);
        }
        // Read as it comes: a torn length must not claim memory.
        let mut payload = Vec::new();
        (&mut self.file).take(length.into()).read_to_end(&mut payload)?;
        if payload.len() != length as usize || crc32fast::hash(&payload) != crc {
            return Ok(None);
        }
        let raw = zstd::bulk::decompress(&payload, raw as usize)?;
        let reader = StreamReader::try_new(raw.as_slice(), None).map_err(io::Error::other)?;
        reader.into_iter().next().transpose().map_err(io::Error::other)
    }
}

impl Iterator for Frames {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        self.read().ok().flatten()
    }
}

fn words(header: [u8; HEADER]) -> [[u8; 4]; 4] {
    let mut words = [[0; 4]; 4];
    for (byte, to) in header.into_iter().zip(words.as_flattened_mut()) {
        *to = byte;
    }
    words
}
