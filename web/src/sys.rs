//! What only the system can do.

/// Added to the niceness of the process.
const NICE: libc::c_int = 10;

/// From here on the calling thread has a lower priority than those that capture.
#[allow(unsafe_code, reason = "the standard library has no priorities")]
pub(crate) fn lower_priority() {
    // SAFETY: plain numbers; 0 is the calling thread. If it fails the thread keeps its priority, which is no harm.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}
