//! Settings of roll-ups.

use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use wiretag_store::RollupAges;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `minutes_days` and `hours_days`")]
pub(super) struct WrittenRollups {
    minutes_days: Option<u32>,
    hours_days: Option<u32>,
}

pub(super) fn ages(written: &WrittenRollups) -> anyhow::Result<RollupAges> {
    let minutes = written.minutes_days.unwrap_or(30);
    let hours = written.hours_days.unwrap_or(400);
    if minutes == 0 || hours < minutes {
        bail!(
            "`rollups` keeps no hours, or fewer of them than of minutes; hint: `hours_days` at least as great as `minutes_days`, and both above 0"
        );
    }
    let days = |days: u32| Some(Duration::from_hours(u64::from(days) * 24));
    Ok(RollupAges { minutes: days(minutes), hours: days(hours) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_kept_as_long_as_minutes_at_least() {
        let of = |minutes, hours| ages(&WrittenRollups { minutes_days: Some(minutes), hours_days: Some(hours) });
        assert!(of(3, 3).is_ok());
        assert!(of(0, 3).is_err());
        assert!(of(4, 3).is_err());
        assert!(ages(&WrittenRollups::default()).is_ok());
    }
}
