//! How long and how much is kept.

use anyhow::bail;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `days` and `gib`")]
pub(super) struct WrittenRetention {
    pub(super) days: Option<u32>,
    pub(super) gib: Option<f64>,
}

/// How long and how much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Nanoseconds.
    pub(crate) age: i64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
}

/// Of the table `name`, with these defaults.
pub(super) fn retention(name: &str, written: &WrittenRetention, days: u32, gib: f64) -> anyhow::Result<Retention> {
    const DAY: i64 = 86_400 * 1_000_000_000;
    const MOST_DAYS: u32 = 36_525;
    let days = written.days.unwrap_or(days);
    let gib = written.gib.unwrap_or(gib);
    if days == 0 || !(gib.is_finite() && gib > 0.0) {
        bail!("`{name}` keeps nothing; hint: `days` and `gib` must be greater than 0");
    }
    if days > MOST_DAYS {
        bail!("`{name}.days` is {days}; hint: at most {MOST_DAYS}, a hundred years");
    }
    let bytes = (gib * f64::from(1 << 30)) as u64;
    if bytes < 1 << 16 {
        bail!("`{name}.gib` is {gib}, less than a file takes; hint: at least 0.0001");
    }
    Ok(Retention { age: i64::from(days) * DAY, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_bounds() {
        let of = |days, gib| {
            retention("flows", &WrittenRetention { days, gib }, 30, 50.0).map_err(|error| error.to_string())
        };
        assert!(of(None, None).is_ok() && of(Some(36_525), Some(0.0001)).is_ok());
        for (days, gib) in
            [(Some(0), None), (Some(213_504), None), (None, Some(0.0)), (None, Some(-1.0)), (None, Some(1e-12))]
        {
            let error = of(days, gib).expect_err("refused");
            assert!(error.contains("`flows") && error.contains("hint: "), "{error}");
        }
    }
}
