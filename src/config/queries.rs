//! `[queries]`: how much queries may take.

use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use wiretag_store::QueryLimits;

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `seconds`, `mib` and `concurrent`")]
pub(super) struct WrittenQueries {
    pub(super) seconds: Option<u32>,
    pub(super) mib: Option<u32>,
    pub(super) concurrent: Option<u32>,
}

pub(super) fn limits(written: &WrittenQueries) -> anyhow::Result<QueryLimits> {
    let QueryLimits { time, memory, concurrent } = QueryLimits::default();
    for (name, value, most) in
        [("seconds", written.seconds, 3600), ("mib", written.mib, 65_536), ("concurrent", written.concurrent, 256)]
    {
        if value.is_some_and(|value| !(1..=most).contains(&value)) {
            bail!("`queries.{name}` is {}; hint: between 1 and {most}", value.unwrap_or_default());
        }
    }
    Ok(QueryLimits {
        time: written.seconds.map_or(time, |seconds| Duration::from_secs(seconds.into())),
        memory: written.mib.map_or(memory, |mib| (mib as usize) << 20),
        concurrent: written.concurrent.map_or(concurrent, |places| places as usize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_bounds() {
        let written = |text: &str| toml::from_str::<WrittenQueries>(text).expect("a table");
        assert_eq!(limits(&written("")).expect("defaults"), QueryLimits::default());
        let some = limits(&written("seconds = 5\nmib = 64\nconcurrent = 2")).expect("limits");
        assert_eq!((some.time.as_secs(), some.memory, some.concurrent), (5, 64 << 20, 2));
        for text in ["seconds = 0", "mib = 0", "concurrent = 0", "concurrent = 1000"] {
            let error = limits(&written(text)).expect_err(text).to_string();
            assert!(error.contains("hint: between 1 and"), "{error}");
        }
    }
}
