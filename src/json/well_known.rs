//! Times, durations and field masks, which JSON has as texts. Pure.
//!
//! Times are RFC 3339 of the years 1 to 9999, durations are seconds with an `s`, field masks are paths in camel case with
//! commas between them. Read as strictly as protobuf's own parsers do: up to nine digits of a second, no leap seconds.

use super::escape::put_number;

/// What was read or is to be written: seconds and nanos, as protobuf has both times and durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seconds {
    pub(super) seconds: i64,
    pub(super) nanos: i32,
}

const NANOS: i32 = 1_000_000_000;
const DAY: i64 = 86_400;
/// The seconds of the years 1 to 9999.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years, in both directions.
const MOST_SECONDS: i64 = 315_576_000_000;
/// The longest text of a time or a duration.
pub(super) const MOST_TEXT: usize = 64;

/// A time such as `2026-11-28T10:00:00.25+01:00`.
pub(super) fn time(text: &[u8]) -> Option<Seconds> {
    let (start, rest) = text.split_at_checked("0000-00-00T00:00:00".len())?;
    let shape = |at: usize, byte: u8| start[at] == byte;
    if !(shape(4, b'-') && shape(7, b'-') && shape(10, b'T') && shape(13, b':') && shape(16, b':')) {
        return None;
    }
    let field = |at: usize, len: usize| digits(&start[at..at + len]);
    let (year, month, day) = (field(0, 4)?, field(5, 2)?, field(8, 2)?);
    let (hour, minute, second) = (field(11, 2)?, field(14, 2)?, field(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = fraction(rest)?;
    let offset = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', ten, one] if hours.len() == 2 => {
            let (hours, minutes) = (digits(hours)?, digits(&[*ten, *one])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds = days_before(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    TIMES.contains(&seconds).then_some(Seconds { seconds, nanos })
}

/// A duration such as `-1.5s`.
pub(super) fn duration(text: &[u8]) -> Option<Seconds> {
    let text = text.strip_suffix(b"s")?;
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let end = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, rest) = text.split_at(end);
    let seconds = if (1..=18).contains(&whole.len()) { digits(whole)? } else { return None };
    let (nanos, rest) = fraction(rest)?;
    if !rest.is_empty() || seconds > MOST_SECONDS || (seconds == MOST_SECONDS && nanos > 0) {
        return None;
    }
    let sign = if negative { -1 } else { 1 };
    Some(Seconds { seconds: seconds * sign, nanos: nanos * sign as i32 })
}

/// The number that some digits are; they have at most 18.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// The nanos that a text begins with, and what follows; 0 for one that does not begin with a dot.
fn fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else { return Some((0, text)) };
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&len) {
        return None;
    }
    let nanos = (len..9).fold(digits(&text[..len])?, |nanos, _| nanos * 10);
    Some((nanos as i32, &text[len..]))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970 to a day. Years are counted from March, so that the day that some of them have more is their last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Year, month and day of the day so many days after 1970.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day_of_month)
}

/// Puts a time between quotes; false for what is none.
pub(super) fn put_time(time: Seconds, out: &mut Vec<u8>) -> bool {
    if !TIMES.contains(&time.seconds) || !(0..NANOS).contains(&time.nanos) {
        return false;
    }
    let (year, month, day) = date(time.seconds.div_euclid(DAY));
    let second = time.seconds.rem_euclid(DAY);
    let mut text = *b"\"0000-00-00T00:00:00";
    for (at, number) in [(1, year / 100), (3, year % 100), (6, month), (9, day)] {
        put_two(number, &mut text[at..]);
    }
    for (at, number) in [(12, second / 3600), (15, second / 60 % 60), (18, second % 60)] {
        put_two(number, &mut text[at..]);
    }
    out.extend_from_slice(&text);
    put_fraction(time.nanos, out);
    out.extend_from_slice(b"Z\"");
    true
}

/// Puts a duration between quotes; false for what is none.
pub(super) fn put_duration(duration: Seconds, out: &mut Vec<u8>) -> bool {
    let Seconds { seconds, nanos } = duration;
    let signs = seconds.signum() * i64::from(nanos.signum());
    if !(-MOST_SECONDS..=MOST_SECONDS).contains(&seconds) || nanos.unsigned_abs() >= NANOS.unsigned_abs() || signs < 0 {
        return false;
    }
    out.push(b'"');
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    put_number(seconds.unsigned_abs(), out);
    put_fraction(nanos.abs(), out);
    out.extend_from_slice(b"s\"");
    true
}

/// Of a number from 0 to 9.
fn digit(number: i64) -> u8 {
    b'0' + number.unsigned_abs() as u8
}

fn put_two(number: i64, text: &mut [u8]) {
    text[0] = digit(number / 10);
    text[1] = digit(number % 10);
}

/// A dot and three, six or nine digits; nothing for none.
fn put_fraction(nanos: i32, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let mut text = *b".000000000";
    let mut left = nanos;
    for place in text[1..].iter_mut().rev() {
        *place = digit((left % 10).into());
        left /= 10;
    }
    let len = match nanos {
        _ if nanos % 1_000_000 == 0 => 4,
        _ if nanos % 1_000 == 0 => 7,
        _ => 10,
    };
    out.extend_from_slice(&text[..len]);
}

/// The paths of a mask, in the names of the contract; `None` in place of one that is none. An empty mask has none.
pub(super) fn paths(text: &[u8]) -> impl Iterator<Item = Option<Vec<u8>>> {
    let paths = if text.is_empty() { None } else { Some(text.split(|byte| *byte == b',')) };
    paths.into_iter().flatten().map(|path| {
        let mut snake = Vec::with_capacity(path.len() + 4);
        for byte in path {
            match byte {
                b'A'..=b'Z' => snake.extend_from_slice(&[b'_', byte.to_ascii_lowercase()]),
                b'a'..=b'z' | b'0'..=b'9' | b'.' => snake.push(*byte),
                _ => return None,
            }
        }
        (!snake.is_empty()).then_some(snake)
    })
}

/// Puts a path of a mask as JSON has it; false for one that could not be read again.
pub(super) fn put_path(path: &[u8], out: &mut Vec<u8>) -> bool {
    let mut upper = false;
    for byte in path {
        match byte {
            b'_' if !upper => upper = true,
            b'a'..=b'z' if upper => {
                out.push(byte.to_ascii_uppercase());
                upper = false;
            }
            b'a'..=b'z' | b'0'..=b'9' | b'.' if !upper => out.push(*byte),
            _ => return false,
        }
    }
    !upper
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(put: impl Fn(&mut Vec<u8>) -> bool) -> Option<String> {
        let mut out = Vec::new();
        put(&mut out).then(|| String::from_utf8(out).expect("UTF-8").trim_matches('"').to_owned())
    }

    fn seconds(seconds: i64, nanos: i32) -> Seconds {
        Seconds { seconds, nanos }
    }

    #[test]
    fn times_have_a_date_a_time_and_an_offset() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(seconds(0, 0))),
            ("1969-12-31T23:59:59.9Z", Some(seconds(-1, 900_000_000))),
            ("2000-02-29T12:34:56.123456789Z", Some(seconds(951_827_696, 123_456_789))),
            ("1970-01-01T01:00:00+01:00", Some(seconds(0, 0))),
            ("1969-12-31T18:30:00-05:30", Some(seconds(0, 0))),
            ("0001-01-01T00:00:00Z", Some(seconds(*TIMES.start(), 0))),
            ("9999-12-31T23:59:59.999999999Z", Some(seconds(*TIMES.end(), 999_999_999))),
            ("0001-01-01T00:00:00+00:01", None),
            ("9999-12-31T23:59:59-00:01", None),
            ("0000-12-31T23:59:59Z", None),
            ("1900-02-29T00:00:00Z", None),
            ("2023-04-31T00:00:00Z", None),
            ("2023-13-01T00:00:00Z", None),
            ("2023-00-01T00:00:00Z", None),
            ("2023-01-00T00:00:00Z", None),
            ("2023-01-01T24:00:00Z", None),
            ("2023-01-01T00:60:00Z", None),
            ("2016-12-31T23:59:60Z", None),
            ("2023-01-01T00:00:00.Z", None),
            ("2023-01-01T00:00:00.1234567890Z", None),
            ("2023-01-01T00:00:00", None),
            ("2023-01-01T00:00:00z", None),
            ("2023-01-01t00:00:00Z", None),
            ("2023-01-01 00:00:00Z", None),
            ("2023-01-01T00:00:00+0100", None),
            ("2023-01-01T00:00:00+24:00", None),
            ("2023-01-01T00:00:00+01:60", None),
            ("2023-01-01T00:00:00ZZ", None),
            ("+023-01-01T00:00:00Z", None),
            ("2023-1-1T00:00:00Z", None),
            ("", None),
            ("1.5s", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_seconds() {
        for (text, expected) in [
            ("0s", Some(seconds(0, 0))),
            ("1.5s", Some(seconds(1, 500_000_000))),
            ("-1.5s", Some(seconds(-1, -500_000_000))),
            ("-0.000000001s", Some(seconds(0, -1))),
            ("315576000000s", Some(seconds(MOST_SECONDS, 0))),
            ("-315576000000s", Some(seconds(-MOST_SECONDS, 0))),
            ("315576000000.000000001s", None),
            ("315576000001s", None),
            ("9999999999999999999s", None),
            ("1", None),
            ("s", None),
            ("-s", None),
            (".5s", None),
            ("1.s", None),
            ("1.0000000000s", None),
            ("+1s", None),
            ("--1s", None),
            ("1 s", None),
            ("1e3s", None),
            ("1m", None),
            ("", None),
        ] {
            assert_eq!(duration(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn masks_are_paths_in_camel_case() {
        let read = |text: &str| paths(text.as_bytes()).collect::<Option<Vec<_>>>();
        let both: Vec<Vec<u8>> = vec![b"ack_deadline".into(), b"state.cursor".into()];
        assert_eq!(read("ackDeadline,state.cursor"), Some(both.clone()));
        assert_eq!(read(""), Some(Vec::new()));
        for broken in ["ack_deadline", "a,,b", ",", "a b", "é", "a,"] {
            assert_eq!(read(broken), None, "{broken:?}");
        }
        let put = |path: &str| written(|out| put_path(path.as_bytes(), out));
        assert_eq!(put("ack_deadline").as_deref(), Some("ackDeadline"));
        for broken in ["ackDeadline", "a__b", "a_", "a_1", "a b"] {
            assert_eq!(put(broken), None, "{broken}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_not_written() {
        for (of, nanos) in [(*TIMES.start() - 1, 0), (*TIMES.end() + 1, 0), (0, -1), (0, NANOS), (i64::MIN, 0)] {
            assert_eq!(written(|out| put_time(seconds(of, nanos), out)), None);
        }
        for (of, nanos) in [(MOST_SECONDS + 1, 0), (1, -1), (-1, 1), (0, NANOS), (i64::MIN, 0), (0, i32::MIN)] {
            assert_eq!(written(|out| put_duration(seconds(of, nanos), out)), None);
        }
    }

    proptest! {
        #[test]
        fn times_are_written_as_others_write_them(
            at in prop_oneof![TIMES, -100_000_i64..100_000],
            nanos in prop_oneof![Just(0), (0..1000).prop_map(|ms| ms * 1_000_000), 0..NANOS],
        ) {
            let expected = prost_types::Timestamp { seconds: at, nanos }.to_string();
            let text = written(|out| put_time(seconds(at, nanos), out)).expect("a time");
            prop_assert_eq!(time(text.as_bytes()), Some(seconds(at, nanos)));
            prop_assert_eq!(text, expected);
        }

        #[test]
        fn durations_are_written_as_others_write_them(
            of in -MOST_SECONDS + 1..MOST_SECONDS,
            nanos in prop_oneof![Just(0), (0..1000).prop_map(|ms| ms * 1_000_000), 0..NANOS],
        ) {
            let nanos = if of < 0 { -nanos } else { nanos };
            let expected = prost_types::Duration { seconds: of, nanos }.to_string();
            let text = written(|out| put_duration(seconds(of, nanos), out)).expect("a duration");
            prop_assert_eq!(duration(text.as_bytes()), Some(seconds(of, nanos)));
            prop_assert_eq!(text, expected);
        }

        #[test]
        fn no_text_makes_them_fail(text in "[-+0-9.:TZs]{0,40}") {
            let known = |of: Option<Seconds>, put: fn(Seconds, &mut Vec<u8>) -> bool| {
                of.is_none_or(|of| put(of, &mut Vec::new()))
            };
            prop_assert!(known(time(text.as_bytes()), put_time) && known(duration(text.as_bytes()), put_duration));
        }
    }
}
