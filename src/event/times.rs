//! Times and durations that clients send: the one place where they are taken from protobuf, by the rules it has for them. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NO_TIME: &str = "is not a time of the years 1 to 9999 with 0 to 999999999 nanos";
const NO_DURATION: &str =
    "is not a duration: seconds and nanos must have the same sign and be at most 315576000000 and 999999999";

/// The first and the last second.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years.
const MOST_SECONDS: u64 = 315_576_000_000;
const NANOS: u32 = 1_000_000_000;

/// A time, or what is wrong with it.
pub fn time(asked: prost_types::Timestamp) -> Result<SystemTime, &'static str> {
    let nanos = u32::try_from(asked.nanos).ok().filter(|nanos| *nanos < NANOS).ok_or(NO_TIME)?;
    if !SECONDS.contains(&asked.seconds) {
        return Err(NO_TIME);
    }
    let seconds = Duration::from_secs(asked.seconds.unsigned_abs());
    let second = if asked.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(nanos.into()))).ok_or(NO_TIME)
}

/// A time as RFC 3339 has it, or what is wrong with the text. Digits beyond nanoseconds are cut off.
pub fn time_of_text(text: &str) -> Result<SystemTime, &'static str> {
    const NO_TEXT: &str = "is not a time as in RFC 3339, such as 2030-01-31T12:00:00Z";
    let bytes = text.as_bytes();
    let has_offset = bytes.len() > 6 && matches!(bytes[bytes.len() - 6], b'+' | b'-') && bytes[bytes.len() - 3] == b':';
    let is_whole = bytes.len() >= 20 && matches!(bytes[10], b'T' | b't') && (has_offset || text.ends_with(['Z', 'z']));
    let parsed: Option<prost_types::Timestamp> = text.parse().ok().filter(|_| is_whole);
    time(parsed.ok_or(NO_TEXT)?)
}

/// A time as RFC 3339 has it, in UTC.
pub fn text_of_time(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}

/// A duration that is not negative as JSON has it, such as `2.5s`, or what is wrong with the text.
pub fn duration_of_text(text: &str) -> Result<Duration, &'static str> {
    let parsed = text.parse().map_err(|_| "is not a duration, such as 2.5s");
    duration(parsed?)
}

/// A duration as JSON has it. One that is too long for the contract is the longest of it.
pub fn text_of_duration(duration: Duration) -> String {
    let longest = prost_types::Duration { seconds: MOST_SECONDS.cast_signed(), nanos: 0 };
    prost_types::Duration::try_from(duration).unwrap_or(longest).to_string()
}

/// A duration that is not negative, or what is wrong with it.
pub fn duration(asked: prost_types::Duration) -> Result<Duration, &'static str> {
    let (seconds, nanos) = (asked.seconds.unsigned_abs(), asked.nanos.unsigned_abs());
    let signs = (asked.seconds.signum(), i64::from(asked.nanos.signum()));
    if seconds > MOST_SECONDS || nanos >= NANOS || signs.0 * signs.1 < 0 {
        return Err(NO_DURATION);
    }
    if signs.0 < 0 || signs.1 < 0 { Err("is negative") } else { Ok(Duration::new(seconds, nanos)) }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn times_are_those_that_protobuf_knows() {
        let is_time = |seconds, nanos| time(Timestamp { seconds, nanos }).is_ok();
        for (seconds, within) in [(-62_135_596_801, false), (-62_135_596_800, true), (0, true), (-1, true)] {
            assert_eq!(is_time(seconds, 0), within, "{seconds}");
        }
        assert!(is_time(253_402_300_799, 999_999_999) && !is_time(253_402_300_800, 0));
        assert!(!is_time(0, 1_000_000_000) && !is_time(0, -1) && !is_time(0, 2_000_000_000) && !is_time(0, i32::MIN));
        assert!(!is_time(1 << 62, 0) && !is_time(i64::MIN, 0) && !is_time(i64::MAX, i32::MAX));
        assert_eq!(time(Timestamp { seconds: -1, nanos: 1 }), Ok(UNIX_EPOCH - Duration::from_nanos(999_999_999)));
        let now = SystemTime::now();
        assert_eq!(time(now.into()), Ok(now));
    }

    #[test]
    fn times_and_durations_are_texts_too() {
        for text in [
            "2030-01-31T12:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "1969-12-31T23:59:59.500Z",
        ] {
            assert_eq!(time_of_text(text).map(text_of_time).as_deref(), Ok(text));
        }
        let shifted = time_of_text("2030-01-31t14:30:00.123456789999+02:30").map(text_of_time);
        assert_eq!(shifted.as_deref(), Ok("2030-01-31T12:00:00.123456789Z"));
        for bad in [
            "",
            "2030-01-31",
            "2030-01-31T12:00:00",
            "2030-01-31 12:00:00Z",
            "2030-02-30T12:00:00Z",
            "12030-01-31T12:00:00Z",
            "2030-01-31T25:00:00Z",
            "2030-01-31T12:00:00+0230",
            "\u{e9}".repeat(10).as_str(),
            "0001-01-01T00:00:00+00:01",
        ] {
            assert!(time_of_text(bad).is_err(), "{bad}");
        }
        for text in ["0s", "2.500s", "315576000000s", "0.000000001s"] {
            assert_eq!(duration_of_text(text).map(text_of_duration).as_deref(), Ok(text));
        }
        assert_eq!(text_of_duration(Duration::MAX), "315576000000s");
        for bad in ["", "s", "1", "-1s", "1m", "1e3s", "315576000001s", " 1s"] {
            assert!(duration_of_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_those_that_protobuf_knows() {
        let check = |seconds, nanos| duration(prost_types::Duration { seconds, nanos });
        assert_eq!(check(0, 0), Ok(Duration::ZERO));
        assert_eq!(check(1, 999_999_999), Ok(Duration::new(1, 999_999_999)));
        assert_eq!(check(315_576_000_000, 0), Ok(Duration::from_secs(MOST_SECONDS)));
        for (seconds, nanos) in
            [(315_576_000_001, 0), (0, 1_000_000_000), (1, -1), (-1, 1), (i64::MIN, 0), (i64::MAX, 0), (0, i32::MIN)]
        {
            assert_eq!(check(seconds, nanos), Err(NO_DURATION), "{seconds} {nanos}");
        }
        assert_eq!([check(-1, 0), check(0, -1), check(-1, -1)], [Err("is negative"); 3]);
    }
}
