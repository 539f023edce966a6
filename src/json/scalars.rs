//! Numbers and bytes as JSON has them. Pure.
//!
//! Numbers are taken from their digits and never pass through a float, so that those of 64 bits are exact.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{scan::Scan, schema::Kind};

/// With or without padding. What the last character has too many bits for is ignored, as everywhere in protobuf.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A text that is a number as JSON writes it, as those of 64 bits are.
pub(super) fn is_number(text: &[u8]) -> bool {
    Scan::new(text, 0).number().is_ok_and(|number| number.len() == text.len())
}

/// The whole number that a JSON number is: `1`, `1.0` and `10e-1` are the same.
pub(super) fn whole(number: &[u8]) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    let (mut value, mut shift) = (0_i128, 0_i32);
    let mut fraction = false;
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                shift -= i32::from(fraction);
            }
            b'.' => fraction = true,
            _ => {
                let exponent = std::str::from_utf8(&digits[at + 1..]).ok()?;
                // Too large to be a number, it is too large to be one of 64 bits, unless that is zero.
                let exponent = exponent.parse().unwrap_or(if exponent.starts_with('-') { -9999 } else { 9999 });
                shift = shift.saturating_add(exponent);
                break;
            }
        }
    }
    if value == 0 {
        return Some(0);
    }
    while shift < 0 && value % 10 == 0 {
        value /= 10;
        shift += 1;
    }
    let value = value.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?;
    Some(if negative { -value } else { value })
}

/// How protobuf has a whole number of this kind on the wire; `None` when it is out of range.
pub(super) fn varint(kind: Kind, value: i128) -> Option<u64> {
    match kind {
        Kind::Int32 | Kind::Enum(_) => i32::try_from(value).ok().map(|value| i64::from(value).cast_unsigned()),
        Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
        Kind::Uint64 => u64::try_from(value).ok(),
        _ => i64::try_from(value).ok().map(i64::cast_unsigned),
    }
}

/// A float. `None` when it is out of range.
pub(super) fn double(number: &[u8]) -> Option<f64> {
    std::str::from_utf8(number).ok()?.parse().ok().filter(|double: &f64| double.is_finite())
}

/// A float of 32 bits. `None` when it is out of range.
pub(super) fn float(number: &[u8]) -> Option<f32> {
    std::str::from_utf8(number).ok()?.parse().ok().filter(|float: &f32| float.is_finite())
}

/// The floats that are no numbers in JSON.
pub(super) fn special_float(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Puts what characters of base64 stand for, and keeps the last of them until it is known what follows; `None` if any is none.
/// Both alphabets are taken. With `last` nothing follows.
pub(super) fn put_decoded(characters: &mut Vec<u8>, last: bool, out: &mut Vec<u8>) -> Option<()> {
    let now = if last { characters.len() } else { characters.len().saturating_sub(1) / 4 * 4 };
    let taken = &mut characters[..now];
    if taken.ends_with(b"=") && !taken.len().is_multiple_of(4) {
        return None;
    }
    for character in taken.iter_mut() {
        *character = match *character {
            b'-' => b'+',
            b'_' => b'/',
            // Padding is at the end.
            b'=' if !last => return None,
            other => other,
        };
    }
    let at = out.len();
    out.resize(at + taken.len().div_ceil(4) * 3, 0);
    let len = BASE64.decode_slice(&*taken, &mut out[at..]).ok()?;
    out.truncate(at + len);
    characters.drain(..now);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_exact_however_they_are_written() {
        for (number, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0e999999999999", Some(0)),
            ("0.000e-999999999999", Some(0)),
            ("1e3", Some(1000)),
            ("-1.50E+1", Some(-15)),
            ("100000.000", Some(100_000)),
            ("10e-1", Some(1)),
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("9223372036854775807", Some(i128::from(i64::MAX))),
            ("18446744073709551615.0", Some(i128::from(u64::MAX))),
            ("0.5", None),
            ("15e-1", None),
            ("1e400", None),
            ("1e999999999999", None),
            ("1e-999999999999", None),
            ("1e-400", None),
        ] {
            assert_eq!(whole(number.as_bytes()), expected, "{number}");
        }
        assert_eq!(whole("9".repeat(1000).as_bytes()), None);
    }

    #[test]
    fn every_kind_has_its_range() {
        let bounds = |kind| {
            let fits = |value: i128| varint(kind, value).is_some();
            let powers = [0, 31, 32, 63, 64].map(|bits| 1_i128 << bits);
            (powers.map(|power| fits(power - 1)), powers.map(|power| fits(-power)))
        };
        let (t, f) = (true, false);
        assert_eq!(bounds(Kind::Int32), ([t, t, f, f, f], [t, t, f, f, f]));
        assert_eq!(bounds(Kind::Uint32), ([t, t, t, f, f], [f, f, f, f, f]));
        assert_eq!(bounds(Kind::Int64), ([t, t, t, t, f], [t, t, t, t, f]));
        assert_eq!(bounds(Kind::Uint64), ([t, t, t, t, t], [f, f, f, f, f]));
        assert_eq!(varint(Kind::Int32, -1), Some(u64::MAX));
    }

    #[test]
    fn base64_of_both_alphabets_with_and_without_padding() {
        let decode = |text: &str| {
            let (mut characters, mut out) = (text.as_bytes().to_vec(), Vec::new());
            put_decoded(&mut characters, true, &mut out).map(|()| out)
        };
        assert_eq!(decode("-_"), Some(vec![0xfb]), "the test of protobuf");
        for text in ["+/8=", "-_8", "+_8=", "+/8"] {
            assert_eq!(decode(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decode(""), Some(Vec::new()));
        for broken in ["a", "a=", "=", "ab=c", "abcde", "ab cd", "ab\ncd", "abc==", "ab=", "é"] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn base64_is_decoded_in_parts_as_in_one() {
        let (mut characters, mut out) = (Vec::new(), Vec::new());
        for part in ["QU", "JDRA==", ""] {
            characters.extend_from_slice(part.as_bytes());
            let last = part.is_empty();
            put_decoded(&mut characters, last, &mut out).expect("base64");
        }
        assert_eq!(out, b"ABCD");
        let (mut padded, mut out) = (b"QQ==QQ==".to_vec(), Vec::new());
        assert_eq!(put_decoded(&mut padded, false, &mut out), None, "padding before the end");
    }
}
