//! Texts as JSON has them, eight bytes at a time. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};

const ONES: u64 = u64::MAX / 0xff;
const HIGH: u64 = ONES << 7;

/// The bytes before the first that JSON escapes in a text: a quote, a backslash, a control character.
#[inline]
pub(super) fn plain_len(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let before = text.len() - rest.len();
    rest.iter().position(|byte| is_special(*byte)).map_or(text.len(), |at| before + at)
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// The high bit of every byte up to the first that is special; those after it may have it for nothing.
#[inline]
fn special(word: u64) -> u64 {
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')))) & HIGH
}

/// Puts a text between quotes.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let (plain, after) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, after)) = after.split_first() else { break };
        put_escaped(*byte, out);
        rest = after;
    }
    out.push(b'"');
}

fn put_escaped(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let digit = |four: u8| b"0123456789abcdef"[usize::from(four & 15)];
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Puts bytes between quotes, in base64.
pub(super) fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let at = out.len();
    out.resize(at + bytes.len().div_ceil(3) * 4, b'=');
    // There is room for all of it.
    let len = STANDARD.encode_slice(bytes, &mut out[at..]).unwrap_or_default();
    out.truncate(at + len);
    out.push(b'"');
}

/// Puts a number.
pub(super) fn put_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Puts a number between quotes, as JSON has those of 64 bits.
pub(super) fn put_long(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.push(b'"');
    put_number(number, out);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str) -> String {
        let mut out = Vec::new();
        put_text(text, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn every_character_that_must_be_escaped_is() {
        assert_eq!(
            quoted("a\"b\\c\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}\u{2028}/<é"),
            "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\u{2028}/<é\""
        );
    }

    proptest! {
        #[test]
        fn the_first_special_byte_is_found_wherever_it_is(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let expected = bytes.iter().position(|byte| is_special(*byte)).unwrap_or(bytes.len());
            prop_assert_eq!(plain_len(&bytes), expected);
        }

        #[test]
        fn texts_are_what_any_parser_reads(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(&text)).expect("JSON"), text);
        }

        #[test]
        fn bytes_are_what_any_decoder_reads(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            put_base64(&bytes, &mut out);
            prop_assert_eq!(STANDARD.decode(&out[1..out.len() - 1]).expect("base64"), bytes);
        }
    }
}
