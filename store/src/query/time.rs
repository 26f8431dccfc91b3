//! Points in time as users write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// How a time is written, as hints say it.
pub(super) const FORMS: &str = "write RFC 3339 (`2026-03-01T14:05:12Z`), `2026-03-01 14:05:12` (UTC), a date, epoch seconds or \
                                milliseconds, `now`, or an offset such as `-15m` or `now-1h`";

/// A text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time; hint: {FORMS}")]
pub struct TimeError(pub String);

/// RFC 3339 with or without fraction and with a zone; without a zone, or with a space, UTC; a date (midnight UTC); seconds or
/// milliseconds since the epoch (13 digits or more are milliseconds); `now`, `-15m`, `now-1h`. `now` and the answer are ns since
/// the epoch.
pub fn parse_time(text: &str, now: i64) -> Result<i64, TimeError> {
    let fail = || TimeError(text.to_owned());
    let trimmed = text.trim();
    let relative = trimmed.strip_prefix("now").unwrap_or(trimmed);
    if relative.is_empty() && !trimmed.is_empty() {
        return Ok(now);
    }
    if let Some(past) = relative.strip_prefix('-') {
        return span(past).and_then(|span| now.checked_sub(span)).ok_or_else(fail);
    }
    if let Some(future) = relative.strip_prefix('+') {
        return span(future).and_then(|span| now.checked_add(span)).ok_or_else(fail);
    }
    absolute(trimmed).ok_or_else(fail)
}

/// The forms of [`parse_time`] that need no clock.
pub(crate) fn absolute(text: &str) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        return number.checked_mul(if text.len() >= 13 { 1_000_000 } else { 1_000_000_000 });
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt();
    }
    for form in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return time.and_utc().timestamp_nanos_opt();
        }
    }
    if let Some((seconds, fraction)) = text.split_once('.') {
        // Epoch seconds with a fraction.
        if fraction.bytes().all(|byte| byte.is_ascii_digit()) && (1..=9).contains(&fraction.len()) {
            let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
            let seconds: u32 = seconds.parse().ok()?;
            return Some(i64::from(seconds) * 1_000_000_000 + nanos);
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_nanos_opt()
}

/// `15m`, `90s`, `1h30m` as ns.
pub(super) fn span(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, next) = after.split_at(letters);
        let scale: i64 = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(scale)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}
