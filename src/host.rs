//! What only the host knows: clock, node name, boot id, logging.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch, UTC.
#[expect(clippy::disallowed_methods, reason = "the one place where the binary reads the wall clock")]
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// Host name, as the kernel says.
pub(crate) fn node_name() -> String {
    read_line("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".to_owned())
}

/// Boot id: makes interface indexes unique over reboots.
pub(crate) fn boot_id() -> Arc<str> {
    read_line("/proc/sys/kernel/random/boot_id").unwrap_or_else(|| "unknown".to_owned()).into()
}

fn read_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Starts so many threads for a moment. A limit of processes is met here, and not in the middle of a library that panics.
pub(crate) fn try_threads(count: usize) -> std::io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        // Each waits until all are there.
        let _closed = gate.lock();
        for _ in 0..count {
            std::thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()))?;
        }
        Ok(())
    })
}

/// Whether who started this process had it ignore a signal, as `nohup` does.
pub(crate) fn ignores(signal: i32) -> bool {
    is_ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), signal)
}

/// Whether a process with this status ignores a signal.
fn is_ignored(status: &str, signal: i32) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    ignored & (1 << (signal - 1)) != 0
}

/// Whether stderr is read by somebody, and not kept in a file, a journal, or the log of a container.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether what goes to stderr may have colours: a terminal, whose user did not say otherwise (no-color.org).
fn stderr_has_colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stderr_is_terminal() && !refused
}

/// Logs to stderr; `WIRETAG_LOG` overrides the level. The client of the Kubernetes API tells each request that fails, several a second while the
/// server is away: the source says once what that means.
pub(crate) fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "warn,kube_client=off",
        1 => "info,kube_client=off",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("WIRETAG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(stderr_has_colours())
        .with_target(false)
        // It would say on stderr that stderr is gone, and panic.
        .log_internal_errors(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_has_ignored_is_known() {
        let ignores = |mask: &str| is_ignored(&format!("Name:\twiretag\nSigIgn:\t{mask}\nSigCgt:\t0\n"), 1);
        assert!(ignores("0000000000000001") && ignores("0000000000001003"));
        assert!(!ignores("0000000000001000") && !ignores("") && !is_ignored("", 1));
    }
}
