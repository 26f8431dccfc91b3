//! Waiting for something that another task, another process or the kernel does.

use std::time::{Duration, Instant};

/// Calls `attempt` until it gives something, at most for `seconds`.
#[expect(clippy::disallowed_methods, reason = "the one place where tests wait; for a condition, never for a time")]
#[allow(unreachable_pub, reason = "each test file has it as a module of its own")]
pub fn eventually<T>(seconds: u64, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
