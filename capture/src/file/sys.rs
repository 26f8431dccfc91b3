//! The only place of capture files that speaks to the kernel: a file's bytes, mapped window by window.
//!
//! Mapping saves the copy that `read` makes, half of the cost of looking at a file that is in the page cache. But bytes that
//! somebody else changes while Rust holds a reference to them, or cuts off, are undefined behaviour and a bus error. So a file is
//! mapped only under a read lease (fcntl(2), `F_SETLEASE`): the kernel grants it while nobody has the file open for writing,
//! and lets whoever opens it for writing or truncates it wait until we have given it back, for at most
//! `/proc/sys/fs/lease-break-time` (45 s). Each window asks whether somebody waits; then the mapping ends at once, and the
//! rest is read. No lease (another's file without `CAP_LEASE`, a file that is still written, most network file systems): no mapping.
//!
//! Limit: a process that is stopped within a window for longer than that time, while its file is cut, dies of it.
#![allow(unsafe_code, reason = "mapped memory, and system calls that the standard library does not have")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Bytes shown at once: they stay in a core's second-level cache until they are read.
const WINDOW: usize = 1 << 20;
/// From the kernel's `asm-generic/fcntl.h`; not in `libc` for all targets.
const F_SETSIG: libc::c_int = 10;
/// No less than any page; windows begin at multiples.
const PAGE: u64 = 1 << 16;

/// A leased file and its window.
pub(super) struct Mapping {
    /// `None` once it was given back.
    file: Option<File>,
    /// Length of the file, which cannot change.
    size: u64,
    map: *const u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is only read; nothing of it is bound to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// A file that can be mapped, else the file.
    pub(super) fn of(file: File) -> Result<Self, File> {
        if !file.metadata().is_ok_and(|data| data.is_file()) || !lease(&file) {
            return Err(file);
        }
        let Ok(data) = file.metadata() else { return Err(file) };
        Ok(Self { size: data.len(), file: Some(file), map: std::ptr::null(), len: 0 })
    }

    /// Shows the bytes from `offset` on, at least `len` of them if the file has so many; where in the window they begin.
    /// Gives the file back if it may no longer be mapped.
    pub(super) fn show(&mut self, offset: u64, len: usize) -> Result<usize, File> {
        self.unmap();
        let Some(file) = self.file.take() else { return Ok(0) };
        let begin = offset / PAGE * PAGE;
        let skipped = (offset - begin) as usize;
        let left = usize::try_from(self.size.saturating_sub(begin)).unwrap_or(usize::MAX);
        let length = WINDOW.max(skipped + len).min(left);
        if length == 0 {
            self.file = Some(file);
            return Ok(0);
        }
        if !is_leased(&file) {
            give_back(&file);
            return Err(file);
        }
        // SAFETY: a new private mapping of whole pages of the file, which is longer than it; the kernel chooses the address.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_POPULATE;
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, file.as_raw_fd(), begin as libc::off_t)
        };
        if map == libc::MAP_FAILED {
            give_back(&file);
            return Err(file);
        }
        (self.map, self.len, self.file) = (map.cast(), length, Some(file));
        Ok(skipped)
    }

    /// The window.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        if self.map.is_null() {
            return &[];
        }
        // SAFETY: `map` is a mapping of `len` bytes that lives until `self` is changed; by the lease nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.map, self.len) }
    }

    fn unmap(&mut self) {
        if !self.map.is_null() {
            // SAFETY: the mapping was made with this length and is used no longer: `self` is borrowed exclusively.
            unsafe { libc::munmap(self.map.cast_mut().cast(), self.len) };
            (self.map, self.len) = (std::ptr::null(), 0);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.unmap();
    }
}

/// Has the processor fetch the byte at `at`, if there is one.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(at) {
        // SAFETY: a hint about an address that may be read.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}

/// Takes a read lease; its signal, which by itself would end the process, is one that is ignored.
fn lease(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: calls on an open file descriptor with numbers as arguments.
    unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0 }
}

/// Whether the lease holds and nobody waits for its end.
fn is_leased(file: &File) -> bool {
    // SAFETY: a call on an open file descriptor without further arguments.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) == libc::F_RDLCK }
}

fn give_back(file: &File) {
    // SAFETY: a call on an open file descriptor with a number as argument.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn mapped(path: &std::path::Path) -> Mapping {
        Mapping::of(File::open(path).unwrap()).unwrap_or_else(|_| panic!("no lease on a file of our own"))
    }

    #[test]
    fn all_bytes_are_shown_whatever_is_asked_for() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
        let path = written(&bytes).into_temp_path();
        let mut mapping = mapped(&path);
        for (offset, len) in [(0, 1), (70_000, 2_500_000), (65_536, 65_536), (2_999_999, 1), (2_999_999, 2), (3_000_000, 1)] {
            let from = mapping.show(offset as u64, len).unwrap();
            let shown = mapping.bytes().get(from..).unwrap();
            assert!(shown.len() >= len.min(bytes.len() - offset), "{offset}");
            assert_eq!(shown, &bytes[offset..offset + shown.len()], "{offset}");
        }
    }

    #[test]
    fn a_file_that_somebody_writes_is_not_mapped() {
        let writer = written(b"more to come");
        assert!(Mapping::of(File::open(writer.path()).unwrap()).is_err());
    }

    #[test]
    fn who_wants_to_write_gets_the_file_at_the_next_window() {
        let path = written(&[1; 3 << 20]).into_temp_path();
        let mut mapping = mapped(&path);
        mapping.show(0, 1).unwrap();
        let name = path.to_path_buf();
        let (opened, is_open) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let file = File::options().write(true).open(name).unwrap();
            opened.send(()).unwrap();
            file.set_len(0).unwrap();
        });
        assert!(is_open.recv_timeout(Duration::from_millis(200)).is_err(), "the writer waits while the window is open");
        assert!(mapping.bytes().iter().all(|byte| *byte == 1));
        let mut file = mapping.show(1 << 20, 1).err().unwrap();
        writer.join().unwrap();
        assert_eq!(file.read(&mut [0; 8]).unwrap(), 0, "the writer has cut it");
    }
}
