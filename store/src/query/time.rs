//! Points in time as users write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

/// How a time is written, as hints say it.
pub(super) const FORMS: &str = "write RFC 3339 (`2026-03-01T14:05:12Z`), `2026-03-01 14:05:12` (UTC), a date, epoch seconds or \
                                milliseconds, `now`, or an offset such as `-15m` or `now-1h`";

/// What can be told in 64 bits of ns.
const RANGE: &str = "times are from 1677-09-22 to 2262-04-11";

/// A text that is no point in time, or none that can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It is written in no form of a time.
    #[error("`{0}` is not a time; hint: {FORMS}")]
    Form(String),
    /// It is too long ago, or too far ahead.
    #[error("`{0}` is out of range; hint: {RANGE}")]
    Range(String),
}

/// RFC 3339 with or without fraction and with a zone; without a zone, or with a space, UTC; a date (midnight UTC); seconds or
/// milliseconds since the epoch (13 digits or more are milliseconds); `now`, `-15m`, `now-1h`. `now` and the answer are ns since
/// the epoch.
pub fn parse_time(text: &str, now: i64) -> Result<i64, TimeError> {
    let trimmed = text.trim();
    let relative = trimmed.strip_prefix("now").unwrap_or(trimmed);
    if relative.is_empty() && !trimmed.is_empty() {
        return Ok(now);
    }
    let time = if let Some(past) = relative.strip_prefix('-') {
        wide_span(past).and_then(|span| i128::from(now).checked_sub(span))
    } else if let Some(future) = relative.strip_prefix('+') {
        wide_span(future).and_then(|span| i128::from(now).checked_add(span))
    } else {
        wide(trimmed)
    };
    told(time, text)
}

/// The forms of [`parse_time`] that need no clock.
pub(crate) fn absolute(text: &str) -> Result<i64, TimeError> {
    told(wide(text), text)
}

fn told(time: Option<i128>, text: &str) -> Result<i64, TimeError> {
    let time = time.ok_or_else(|| TimeError::Form(text.to_owned()))?;
    time.try_into().map_err(|_| TimeError::Range(text.to_owned()))
}

/// A point in time, ns, also if it is out of range.
fn wide(text: &str) -> Option<i128> {
    let nanos =
        |time: DateTime<Utc>| i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos());
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i128 = text.parse().ok()?;
        return number.checked_mul(if text.len() >= 13 { 1_000_000 } else { 1_000_000_000 });
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(nanos(time.to_utc()));
    }
    for form in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return Some(nanos(time.and_utc()));
        }
    }
    if let Some((seconds, fraction)) = text.split_once('.') {
        // Epoch seconds with a fraction.
        if fraction.bytes().all(|byte| byte.is_ascii_digit()) && (1..=9).contains(&fraction.len()) {
            let nanos: i128 = format!("{fraction:0<9}").parse().ok()?;
            let seconds: u32 = seconds.parse().ok()?;
            return Some(i128::from(seconds) * 1_000_000_000 + nanos);
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(nanos(date.and_hms_opt(0, 0, 0)?.and_utc()))
}

/// `15m`, `90s`, `1h30m` as ns.
pub(super) fn span(text: &str) -> Option<i64> {
    wide_span(text)?.try_into().ok()
}

fn wide_span(text: &str) -> Option<i128> {
    let mut total: i128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, next) = after.split_at(letters);
        let scale: i128 = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i128>().ok()?.checked_mul(scale)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_of_range_is_a_time() {
        for text in
            ["2300-01-01", "9999-12-31T23:59:59Z", "-100000000h", "now+3000000h", "1677-01-01", "99999999999999999"]
        {
            assert_eq!(parse_time(text, 0), Err(TimeError::Range(text.to_owned())));
        }
        for text in ["", "tomorrow", "-", "-5", "2026-13-01", "now-1y"] {
            assert_eq!(parse_time(text, 0), Err(TimeError::Form(text.to_owned())));
        }
        assert_eq!(parse_time("2262-04-11T23:47:16.854775807Z", 0), Ok(i64::MAX));
        assert_eq!(parse_time("1677-09-22", 0).map(i64::is_negative), Ok(true));
    }
}
