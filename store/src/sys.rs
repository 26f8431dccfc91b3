//! What only the system can do.

/// Added to the niceness of the process.
const NICE: libc::c_int = 10;

/// From here on the calling thread has a lower priority than those that capture.
#[allow(unsafe_code, reason = "the standard library has no priorities")]
pub fn lower_priority() {
    // SAFETY: plain numbers; 0 is the calling thread. If it fails the thread keeps its priority, which is no harm.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// Has the processor fetch a value from memory while it goes on with something else.
#[allow(unsafe_code, reason = "the standard library has prefetch only as an unsafe function")]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of::<T>().div_ceil(LINE) {
        let address = std::ptr::from_ref(value).cast::<i8>().wrapping_add(line * LINE);
        // SAFETY: a hint, which cannot fail, about an address within a value that is borrowed.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, LINE);
}
