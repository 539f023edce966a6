//! The tokens of a JSON text, read strictly by RFC 8259: no byte order mark, no comments, no trailing commas. Pure.
//!
//! A reader can stop after any token, and inside a long text: so others can work while a large message is read.

use std::borrow::Cow;

use super::escape::plain_len;

/// What is wrong with a message, in words that follow the name of what is wrong.
pub(super) type Problem = Cow<'static, str>;

/// White space is skipped this many bytes at a time.
const MOST_BLANKS: usize = 4096;
/// The longest number, in characters.
pub(super) const MOST_NUMBER: usize = 1024;

/// Where a reader is in a text.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    text: &'a [u8],
    pub(super) at: usize,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// White space, of which some was skipped.
    Blanks,
    /// The first byte of a token.
    Byte(u8),
    /// Nothing.
    End,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What is next behind white space.
    #[inline]
    pub(super) fn next(&mut self) -> Next {
        let rest = self.rest();
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        match rest.first() {
            None => Next::End,
            Some(byte) if !is_blank(byte) => Next::Byte(*byte),
            Some(_) => {
                self.at += rest.iter().take(MOST_BLANKS).take_while(|byte| is_blank(byte)).count();
                match self.rest().first() {
                    None => Next::End,
                    Some(byte) if is_blank(byte) => Next::Blanks,
                    Some(byte) => Next::Byte(*byte),
                }
            }
        }
    }

    /// A problem at this place of the text.
    pub(super) fn not_json(&self, expected: &str) -> Problem {
        if self.at >= self.text.len() {
            return format!("is not JSON: the text ends where {expected} must come").into();
        }
        format!("is not JSON at byte {}: {expected} must come here", self.at).into()
    }

    /// Skips a word.
    pub(super) fn word(&mut self, word: &str) -> Result<(), Problem> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.not_json("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The number that is next.
    pub(super) fn number(&mut self) -> Result<&'a [u8], Problem> {
        let rest = self.rest();
        let rest = &rest[..rest.len().min(MOST_NUMBER + 1)];
        let mut len = usize::from(rest.first() == Some(&b'-'));
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let leading = digits(len);
        // A zero stands alone: what follows it is looked at as the next token.
        let leading = if rest.get(len) == Some(&b'0') { 1 } else { leading };
        len += leading;
        let mut whole = leading > 0;
        if whole && rest.get(len) == Some(&b'.') {
            let more = digits(len + 1);
            (len, whole) = (len + 1 + more, more > 0);
        }
        if whole && matches!(rest.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(len + 1), Some(b'+' | b'-')));
            let more = digits(len + 1 + sign);
            (len, whole) = (len + 1 + sign + more, more > 0);
        }
        if len > MOST_NUMBER {
            return Err("is too long a number".into());
        }
        self.at += len;
        if whole { Ok(&rest[..len]) } else { Err(self.not_json("a digit")) }
    }

    /// The whole text that is next, behind its quote, if nothing in it is escaped and it has at most this many bytes.
    #[inline]
    pub(super) fn whole_text(&mut self, most: usize) -> Result<Option<&'a str>, Problem> {
        let rest = self.rest();
        let len = plain_len(&rest[..rest.len().min(most)]);
        if rest.get(len) != Some(&b'"') {
            return Ok(None);
        }
        let text = self.utf8(&rest[..len])?;
        self.at += len + 1;
        Ok(Some(text))
    }

    /// The text that is next, behind its quote. `None` if it has more than this many bytes.
    pub(super) fn short_text<'s>(&mut self, scratch: &'s mut Vec<u8>, most: usize) -> Result<Option<&'s [u8]>, Problem>
    where
        'a: 's,
    {
        if let Some(text) = self.whole_text(most)? {
            return Ok(Some(text.as_bytes()));
        }
        scratch.clear();
        // An escaped character has up to six bytes.
        let whole = self.text_some(scratch, most * 6 + 6)? && scratch.len() <= most;
        Ok(whole.then_some(scratch))
    }

    /// Puts some of a text at the end of `out`: about `most` bytes of it, which are more than three. True at its end.
    pub(super) fn text_some(&mut self, out: &mut Vec<u8>, most: usize) -> Result<bool, Problem> {
        let stop = self.at + most;
        while self.at < stop {
            let rest = self.rest();
            let window = &rest[..rest.len().min(stop - self.at)];
            let plain = &window[..plain_len(window)];
            if plain.len() == window.len() && window.len() < rest.len() {
                // It may end inside a character.
                let whole = match std::str::from_utf8(plain) {
                    Err(error) if error.error_len().is_none() => &plain[..error.valid_up_to()],
                    _ => self.utf8(plain)?.as_bytes(),
                };
                out.extend_from_slice(whole);
                self.at += whole.len();
                return Ok(false);
            }
            out.extend_from_slice(self.utf8(plain)?.as_bytes());
            self.at += plain.len();
            match rest.get(plain.len()) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(true);
                }
                Some(b'\\') => self.escaped(out)?,
                Some(_) => return Err(self.not_json("no control character")),
                None => return Err(self.not_json("the end of a string")),
            }
        }
        Ok(false)
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, Problem> {
        std::str::from_utf8(bytes)
            .map_err(|error| format!("is not UTF-8 at byte {}", self.at + error.valid_up_to()).into())
    }

    /// Puts the character that an escape stands for.
    fn escaped(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        let plain = match self.rest().get(1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'u') => {
                let character = self.unicode()?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.not_json("an escape that JSON has")),
        };
        self.at += 2;
        out.push(plain);
        Ok(())
    }

    /// The character of `\uXXXX`, or of two of them.
    fn unicode(&mut self) -> Result<char, Problem> {
        let unit = |at: usize| {
            let digits = self.rest().get(at..at + 6)?.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
        };
        let first = unit(0).ok_or_else(|| self.not_json("\\u and four hexadecimal digits"))?;
        let (character, len) = match char::from_u32(first) {
            Some(character) => (Some(character), 6),
            // The first half of a pair, and the second.
            None => {
                let second = unit(6).filter(|second| (0xdc00..0xe000).contains(second) && first < 0xdc00);
                (second.and_then(|second| char::from_u32(0x1_0000 + ((first & 0x3ff) << 10 | second & 0x3ff))), 12)
            }
        };
        let character = character.ok_or_else(|| self.not_json("both halves of a surrogate pair"))?;
        self.at += len;
        Ok(character)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a text in pieces of about `most` bytes.
    fn text(json: &[u8], most: usize) -> Option<Vec<u8>> {
        let mut scan = Scan::new(json, 1);
        let mut out = Vec::new();
        while !scan.text_some(&mut out, most).ok()? {}
        (scan.at == json.len()).then_some(out)
    }

    #[test]
    fn a_piece_never_ends_inside_a_character() {
        for most in 4..12 {
            assert_eq!(text("\"aéé€€𝄞𝄞x\\u00e9\\ud834\\udd1e\"".as_bytes(), most), Some("aéé€€𝄞𝄞xé𝄞".into()), "{most}");
        }
    }

    proptest! {
        #[test]
        fn texts_are_read_as_any_parser_reads_them(
            json in r#"([a-z\u{20}-\u{10ffff}]|\\["\\/bfnrtuxz]|\\u[0-9a-fA-F]{4}|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|[\u{0}-\u{22}]){0,12}"#,
            broken in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
            most in 4..40_usize,
        ) {
            let mut json = format!("\"{json}\"").into_bytes();
            if let Some((at, byte)) = broken {
                let at = at.index(json.len() - 1) + 1;
                json[at] = byte;
            }
            let expected = serde_json::from_slice::<String>(&json).ok().map(String::into_bytes);
            prop_assert_eq!(text(&json, most), expected.clone());
            let mut scratch = Vec::new();
            let mut scan = Scan::new(&json, 1);
            let short = scan.short_text(&mut scratch, 1000).ok().flatten().map(<[u8]>::to_vec);
            prop_assert_eq!(short.filter(|_| scan.at == json.len()), expected);
        }

        #[test]
        fn numbers_are_those_of_any_parser(text in "-?[0-9]{0,4}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,2})?[0-9.e-]{0,2}") {
            prop_assume!(!is_too_large(&text));
            let mut scan = Scan::new(text.as_bytes(), 0);
            let whole = scan.number().is_ok_and(|number| number.len() == text.len());
            prop_assert_eq!(whole, serde_json::from_str::<f64>(&text).is_ok(), "{}", text);
        }
    }

    /// What serde_json refuses although it is JSON.
    fn is_too_large(text: &str) -> bool {
        serde_json::from_str::<serde_json::Value>(text).is_err_and(|error| error.to_string().contains("out of range"))
    }
}
