//! What can be wrong with a capture file.

use std::io;

/// Each says the file, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The first bytes are no capture file's.
    #[error("`{path}` is not a capture file; hint: pcap and pcapng are read, also compressed by gzip or zstd")]
    NotACapture {
        /// File.
        path: String,
    },
    /// The file ends within a record.
    #[error(
        "`{path}` is truncated: it ends within the record at byte {offset}; hint: the capture was cut, everything before is whole"
    )]
    Truncated {
        /// File.
        path: String,
        /// Where the record begins.
        offset: u64,
    },
    /// The record contradicts itself.
    #[error("`{path}` is damaged at byte {offset}: {what}; hint: everything before is whole")]
    Malformed {
        /// File.
        path: String,
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Reading failed.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// File.
        path: String,
        /// Reason.
        source: io::Error,
    },
}
