//! Points in time as exporters tell them, in nanoseconds since 1970.
//!
//! Exporters' clocks may be wrong, by hours or by fifty years. A flow that would end more than five minutes after its record arrived, or
//! more than seven days before, is placed at the time of arrival with the duration that it had, and counted. A start more than
//! seven days before the end is set to that.

use super::element::Clock;

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
/// Milliseconds after which an exporter's uptime begins at 0 again.
const TURN: i64 = 1 << 32;
/// How far in the future an end may be: clocks differ.
const FUTURE: i64 = 300 * SECOND;
/// How long ago an end may be, and how long a flow may have lasted.
const PAST: i64 = 7 * 86_400 * SECOND;
/// Seconds from 1900 to 1970 (RFC 5905).
const NTP_EPOCH: u64 = 2_208_988_800;

/// What is known of the exporter's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clocks {
    /// When the message left the exporter, by its own clock.
    pub(super) exported: i64,
    /// Milliseconds since it started, as of then (NetFlow).
    pub(super) uptime: Option<u32>,
    /// When it started, milliseconds since 1970 (IPFIX).
    pub(super) booted: Option<u64>,
}

impl Clocks {
    /// The point in time that a field tells.
    pub(super) fn resolve(&self, clock: Clock, value: u64) -> Option<i64> {
        match clock {
            Clock::Uptime => self.since_start(value as u32),
            Clock::Seconds => i64::try_from(value).ok()?.checked_mul(SECOND),
            Clock::Milliseconds => i64::try_from(value).ok()?.checked_mul(MILLISECOND),
            // The lowest eleven bits are to be ignored (RFC 7011, 6.1.9).
            Clock::Microseconds => ntp(value & !0x7ff),
            Clock::Nanoseconds => ntp(value),
            Clock::Before => self.exported.checked_sub(i64::try_from(value).ok()?.checked_mul(1_000)?),
        }
    }

    /// The counter turns after 49 days: what counts is the distance to the message's own or, where only the start of the exporter is known, the turn
    /// that is nearest to the time of the message.
    fn since_start(&self, value: u32) -> Option<i64> {
        if let Some(uptime) = self.uptime {
            let ago = i64::from(uptime.wrapping_sub(value).cast_signed());
            return self.exported.checked_sub(ago * MILLISECOND);
        }
        let first = i64::try_from(self.booted?).ok()?.checked_add(value.into())?;
        let turns = (self.exported / MILLISECOND).checked_sub(first)?.checked_add(TURN / 2)?.div_euclid(TURN);
        first.checked_add(turns.max(0) * TURN)?.checked_mul(MILLISECOND)
    }
}

fn ntp(value: u64) -> Option<i64> {
    let seconds = value >> 32;
    // Since 2036 the count begins anew.
    let seconds = if seconds >= NTP_EPOCH { seconds - NTP_EPOCH } else { seconds + (1 << 32) - NTP_EPOCH };
    let nanoseconds = ((value & 0xffff_ffff) * 1_000_000_000) >> 32;
    i64::try_from(seconds).ok()?.checked_mul(SECOND)?.checked_add(nanoseconds as i64)
}

/// Start and end of a flow whose record arrived at `now`, and whether the exporter's clock was not believed.
pub(super) fn placed(start: i64, end: i64, now: i64) -> (i64, i64, bool) {
    let (start, is_credible) = (start.min(end), (now - PAST..=now + FUTURE).contains(&end));
    let length = end.saturating_sub(start).min(PAST);
    let end = if is_credible { end } else { now };
    (end - length, end, !is_credible)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_896_525 * SECOND;

    #[test]
    fn every_clock_tells_the_same_moment() {
        let clocks = Clocks { exported: NOW, uptime: Some(10_000), booted: None };
        let moment = NOW - 2 * SECOND;
        let seconds = (NOW / SECOND - 2) as u64;
        let ntp = (seconds + NTP_EPOCH) << 32;
        for (clock, value) in [
            (Clock::Uptime, 8_000),
            (Clock::Seconds, seconds),
            (Clock::Milliseconds, seconds * 1_000),
            (Clock::Microseconds, ntp | 0x7ff),
            (Clock::Nanoseconds, ntp),
            (Clock::Before, 2_000_000),
        ] {
            assert_eq!(clocks.resolve(clock, value), Some(moment), "{clock:?}");
        }
        let booted = Clocks { exported: NOW, uptime: None, booted: Some(1_795_896_000_000) };
        assert_eq!(booted.resolve(Clock::Uptime, 523_000), Some(moment));
        assert_eq!(Clocks::default().resolve(Clock::Uptime, 1), None);
    }

    #[test]
    fn the_uptime_turns() {
        let clocks = Clocks { exported: NOW, uptime: Some(500), booted: None };
        assert_eq!(clocks.resolve(Clock::Uptime, u64::from(u32::MAX) - 499), Some(NOW - SECOND));
        for turns in 0..4 {
            // Half a second ago it turned; and it has been up for some time since.
            for up in [500, 3_000_000_000] {
                let booted = (NOW / MILLISECOND - turns * TURN - up) as u64;
                let clocks = Clocks { exported: NOW, uptime: None, booted: Some(booted) };
                for ago in [0, 100, 400, 900, 60_000].into_iter().filter(|ago| turns > 0 || *ago <= up) {
                    let told = u64::from((up - ago) as u32);
                    assert_eq!(
                        clocks.resolve(Clock::Uptime, told),
                        Some(NOW - ago * MILLISECOND),
                        "{turns} {up} {ago}"
                    );
                }
            }
        }
        // What an exporter makes up is no reason to fail.
        for booted in [0, i64::MAX as u64, u64::MAX] {
            for exported in [i64::MIN, 0, NOW, i64::MAX] {
                let _ = Clocks { exported, uptime: None, booted: Some(booted) }.resolve(Clock::Uptime, 7);
            }
        }
    }

    #[test]
    fn half_a_second_is_half_of_the_fraction() {
        assert_eq!(ntp((NTP_EPOCH << 32) | 1 << 31), Some(SECOND / 2));
        // 2036-02-07T06:28:16Z.
        assert_eq!(ntp(0), Some(2_085_978_496 * SECOND));
    }

    #[test]
    fn clocks_that_are_wrong_are_not_believed() {
        assert_eq!(placed(NOW - SECOND, NOW, NOW), (NOW - SECOND, NOW, false));
        assert_eq!(placed(SECOND, 3 * SECOND, NOW), (NOW - 2 * SECOND, NOW, true));
        assert_eq!(placed(NOW + 86_400 * SECOND, NOW + 86_401 * SECOND, NOW), (NOW - SECOND, NOW, true));
        assert_eq!(placed(i64::MIN, i64::MAX, NOW), (NOW - PAST, NOW, true));
        assert_eq!(placed(NOW, NOW - SECOND, NOW), (NOW - SECOND, NOW - SECOND, false));
        assert_eq!(placed(0, NOW, NOW), (NOW - PAST, NOW, false));
    }
}
