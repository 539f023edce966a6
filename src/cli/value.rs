//! What a person types for a value, and what it means: durations, sizes, counts, places in a stream. Pure.

use std::time::Duration;

use prost_types::Timestamp;

use crate::proto::v1::{StartPosition, StartPreset, list_events_request::Begin, start_position::Position};

/// What stands before a resume token.
const TOKEN: &str = "token:";
/// The longest duration: a hundred years. Longer ones are slips of the finger.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long an answer may be waited for: less is over before a packet is back,
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// and more is for ever.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Numbers with units, such as `30s`, `1h30m` or `250ms`: what `humantime` takes.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected numbers with units, such as 30s, 5m, 1h30m, 7d or 250ms"))?;
    if parsed > MAX_DURATION {
        return Err("is more than a hundred years".to_owned());
    }
    Ok(parsed)
}

/// How long an answer is waited for.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&parsed) {
        return Err("expected from 1ms to 24h".to_owned());
    }
    Ok(parsed)
}

/// A duration that limits something, or `none`, which is told to a hub as nothing at all.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    match text {
        "none" => Ok(Duration::ZERO),
        _ => match duration(text)? {
            Duration::ZERO => Err("expected more than 0, or none for no limit".to_owned()),
            some => Ok(some),
        },
    }
}

/// A number of bytes, such as `10MiB`, `1.5GiB` or `4096`; or `none`, which is told to a hub as 0.
pub(super) fn size(text: &str) -> Result<i64, String> {
    let wrong = || "expected a size such as 10MiB, 2GiB, 500KB or 4096, or none for no limit".to_owned();
    if text == "none" {
        return Ok(0);
    }
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(fraction) || (number.contains('.') && fraction.is_empty()) || fraction.len() > 6 {
        return Err(wrong());
    }
    let unit: i128 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let whole: i128 = whole.parse::<u64>().map_err(|_| "is too large".to_owned())?.into();
    // At most six digits: exact in parts of a million.
    let millionths: i128 = format!("{fraction:0<6}").parse::<u32>().map_err(|_| wrong())?.into();
    let bytes = whole * unit + millionths * unit / 1_000_000;
    i64::try_from(bytes).map_err(|_| "is too large".to_owned())
}

/// The most bytes of something that are shown, or `none`, which no size exceeds.
pub(super) fn shown_size(text: &str) -> Result<i64, String> {
    match text {
        "none" => Ok(i64::MAX),
        _ => size(text),
    }
}

/// A count that limits something, or `none`, which is told to a hub as 0.
pub(super) fn count(text: &str) -> Result<i64, String> {
    match text {
        "none" => Ok(0),
        _ => number(text).ok_or_else(|| "expected a number, or none for no limit".to_owned()),
    }
}

/// How often something is tried: a number, or `none`, which is told to a hub as 0.
pub(super) fn attempts(text: &str) -> Result<i32, String> {
    i32::try_from(count(text)?).map_err(|_| "is too large".to_owned())
}

/// A sequence: they are counted from 1.
pub(super) fn sequence(text: &str) -> Result<i64, String> {
    number(text).filter(|sequence| *sequence > 0).ok_or_else(|| "expected a sequence, 1 or more".to_owned())
}

/// Where in a stream a subscription begins.
pub(super) fn start(text: &str) -> Result<Position, String> {
    let position = match text {
        "new" => Position::Preset(StartPreset::New.into()),
        "last-per-topic" => Position::Preset(StartPreset::LastPerTopic.into()),
        _ => match text.strip_prefix(TOKEN) {
            Some("") => return Err("expected a resume token after token:".to_owned()),
            Some(token) => Position::ResumeToken(token.to_owned()),
            None => place(text).ok_or_else(|| {
                "expected new, earliest, last-per-topic, a sequence such as 42, a time such as 2026-01-31T12:00:00Z, or \
                 token:..."
                    .to_owned()
            })?,
        },
    };
    Ok(position)
}

/// Where in a stream a group begins.
pub(super) fn group_start(text: &str) -> Result<Position, String> {
    match text {
        "new" => Ok(Position::Preset(StartPreset::New.into())),
        _ => place(text).ok_or_else(|| {
            "expected new, earliest, a sequence such as 42, or a time such as 2026-01-31T12:00:00Z".to_owned()
        }),
    }
}

/// Where in a stream a group goes on.
pub(super) fn seek(text: &str) -> Result<Position, String> {
    match text {
        "latest" => Ok(Position::Preset(StartPreset::New.into())),
        _ => place(text).ok_or_else(|| {
            "expected earliest, latest, a sequence such as 42, or a time such as 2026-01-31T12:00:00Z".to_owned()
        }),
    }
}

/// A place that a subscription and a group both can be at: the earliest event, a sequence, a time.
fn place(text: &str) -> Option<Position> {
    if text == "earliest" {
        return Some(Position::Preset(StartPreset::Earliest.into()));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // The hub begins strictly after a sequence; a person names the first event wanted.
        return sequence(text).ok().map(|sequence| Position::AfterSequence(sequence - 1));
    }
    text.parse::<Timestamp>().ok().map(Position::AtTime)
}

/// Which event of a stream is shown first.
pub(super) fn begin(text: &str) -> Result<Begin, String> {
    // First of all a number: it cannot be a time.
    let begin = match sequence(text) {
        Ok(sequence) => Some(Begin::FromSequence(sequence)),
        Err(_) => text.parse::<Timestamp>().ok().map(Begin::FromTime),
    };
    begin.ok_or_else(|| "expected a sequence such as 42, or a time such as 2026-01-31T12:00:00Z".to_owned())
}

/// As the contract has it.
pub(super) fn position(position: Position) -> StartPosition {
    StartPosition { position: Some(position) }
}

/// As the contract has it.
pub(super) fn wire_duration(duration: Duration) -> prost_types::Duration {
    // At most `MAX_DURATION`, which fits.
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

fn number(text: &str) -> Option<i64> {
    // `parse` would take a plus sign too.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("250ms", 250),
            ("1s500ms", 1_500),
            ("0s", 0),
            ("1h 30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "-5s", "5S", "1,5h", "99999999999999999999s", "40000d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_age_is_positive_or_none() {
        assert_eq!(age("none"), Ok(Duration::ZERO));
        assert_eq!(age("2m"), Ok(Duration::from_secs(120)));
        assert!(age("0s").is_err());
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("none", 0),
            ("4096", 4096),
            ("10b", 10),
            ("10MiB", 10 << 20),
            ("2gib", 2 << 30),
            ("1TiB", 1 << 40),
            ("500KB", 500_000),
            ("1.5GiB", 3 << 29),
            ("0.25KiB", 256),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "10M", "10 MiB", "-1", "1.", ".5GiB", "1.2.3", "1.1234567GB", "9999999TiB", "1e3"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("9223372036854775807"), Ok(i64::MAX));
        assert!(size("9223372036854775808").is_err());
    }

    #[test]
    fn an_answer_is_waited_for_from_a_millisecond_to_a_day() {
        for (text, seconds) in [("1ms", 0.001), ("5s", 5.0), ("24h", 86_400.0), ("1day", 86_400.0)] {
            assert_eq!(timeout(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["999us", "0s", "24h 1ms", "none", "5"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_have_no_sign() {
        assert_eq!(count("1000"), Ok(1000));
        assert_eq!(count("none"), Ok(0));
        for text in ["", "+1", "-1", "1k", "9223372036854775808"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(attempts("2147483648").is_err());
        assert!(sequence("0").is_err());
    }

    #[test]
    fn a_start_is_a_name_a_sequence_a_time_or_a_token() {
        let time = Timestamp { seconds: 1_769_860_800, nanos: 0 };
        for (text, expected) in [
            ("new", Position::Preset(StartPreset::New.into())),
            ("earliest", Position::Preset(StartPreset::Earliest.into())),
            ("last-per-topic", Position::Preset(StartPreset::LastPerTopic.into())),
            ("1", Position::AfterSequence(0)),
            ("42", Position::AfterSequence(41)),
            ("2026-01-31T12:00:00Z", Position::AtTime(time)),
            ("2026-01-31T14:00:00+02:00", Position::AtTime(time)),
            ("token:abc", Position::ResumeToken("abc".to_owned())),
        ] {
            assert_eq!(start(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "-1", "latest", "token:", "yesterday", "12:00", "9223372036854775808", "Earliest"] {
            assert!(start(text).is_err(), "{text}");
        }
    }

    #[test]
    fn events_are_shown_from_a_sequence_or_a_time() {
        let time = Timestamp { seconds: 1_769_860_800, nanos: 0 };
        assert_eq!(begin("2026-01-31T12:00:00Z"), Ok(Begin::FromTime(time)));
        assert_eq!(begin("1"), Ok(Begin::FromSequence(1)));
        for text in ["", "0", "-1", "earliest", "new", "12:00", "9223372036854775808"] {
            assert!(begin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_shown_may_be_nothing_or_everything() {
        assert_eq!((shown_size("0"), shown_size("2KiB"), shown_size("none")), (Ok(0), Ok(2048), Ok(i64::MAX)));
        assert!(shown_size("-1").is_err());
    }

    #[test]
    fn a_group_begins_and_seeks_where_the_hub_lets_it() {
        assert_eq!(group_start("new"), Ok(Position::Preset(StartPreset::New.into())));
        assert_eq!(seek("latest"), Ok(Position::Preset(StartPreset::New.into())));
        assert_eq!(seek("7"), Ok(Position::AfterSequence(6)));
        for text in ["last-per-topic", "token:abc"] {
            assert!(group_start(text).is_err() && seek(text).is_err(), "{text}");
        }
        assert!(group_start("latest").is_err() && seek("new").is_err());
    }
}
