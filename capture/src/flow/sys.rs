//! Hints to the processor: what will be looked at soon.
#![allow(unsafe_code, reason = "the standard library has prefetch only as an unsafe function")]

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// Has the processor fetch a value from memory while it goes on with something else.
#[inline(always)]
#[allow(clippy::inline_always, reason = "one instruction for each line")]
pub(super) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of::<T>().div_ceil(LINE) {
        let address = std::ptr::from_ref(value).cast::<i8>().wrapping_add(line * LINE);
        // SAFETY: a hint, which cannot fail, about an address within a value that is borrowed.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, LINE);
}
