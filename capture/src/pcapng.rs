//! Writing pcapng blocks.
