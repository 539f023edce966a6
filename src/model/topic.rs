//! Topics and filters: the names events go to, and the patterns over them. Pure.
//!
//! A topic is 1 to 32 tokens joined by dots. A filter is the same with `*` for exactly one token anywhere and a final
//! `>` for one or more, as in NATS. Parsing takes any bytes and never panics.

use std::fmt;

use super::limits::{MAX_NAME_BYTES, MAX_NAME_TOKENS};

/// Why a name is neither a topic nor a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// It is longer than [`MAX_NAME_BYTES`].
    #[error("it has {bytes} bytes; the limit is {MAX_NAME_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It has more than [`MAX_NAME_TOKENS`] tokens.
    #[error("it has {tokens} tokens; the limit is {MAX_NAME_TOKENS}")]
    TooManyTokens {
        /// How many it has.
        tokens: usize,
    },
    /// Two dots in a row, or a dot at either end.
    #[error("token {index} is empty")]
    EmptyToken {
        /// Which token, counted from 1.
        index: usize,
    },
    /// A character that no token may have.
    #[error("byte {offset} is not a letter, digit, `_`, `-`, `:`, `=` or `@`")]
    ForbiddenByte {
        /// Where, counted from 0.
        offset: usize,
    },
    /// A topic names one place and has no wildcards.
    #[error("a topic has no wildcards; byte {offset} is one")]
    WildcardInTopic {
        /// Where, counted from 0.
        offset: usize,
    },
}

/// Why a pattern is not a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It would not be a name even without wildcards.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `*` or `>` stands beside other characters in one token.
    #[error("token {index} has a wildcard beside other characters")]
    WildcardInToken {
        /// Which token, counted from 1.
        index: usize,
    },
    /// `>` stands before the end.
    #[error("`>` is token {index} and must be the last")]
    TailNotLast {
        /// Which token, counted from 1.
        index: usize,
    },
}

/// A checked topic, borrowed from where it is stored. All of it is ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Topic<'a>(&'a [u8]);

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only ASCII passes the check.
        f.write_str(std::str::from_utf8(self.0).unwrap_or_default())
    }
}

impl<'a> Topic<'a> {
    /// Checks `bytes` against the rules of a topic, in one pass: every event goes through here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { bytes: bytes.len() });
        }
        let (mut tokens, mut token_bytes) = (1, 0);
        for (offset, byte) in bytes.iter().enumerate() {
            match KINDS[*byte as usize] {
                Kind::Token => token_bytes += 1,
                Kind::Dot if token_bytes == 0 => return Err(NameError::EmptyToken { index: tokens }),
                Kind::Dot => (tokens, token_bytes) = (tokens + 1, 0),
                Kind::Wildcard => return Err(NameError::WildcardInTopic { offset }),
                Kind::Forbidden => return Err(NameError::ForbiddenByte { offset }),
            }
        }
        if token_bytes == 0 {
            return Err(NameError::EmptyToken { index: tokens });
        }
        if tokens > MAX_NAME_TOKENS {
            return Err(NameError::TooManyTokens { tokens });
        }
        Ok(Self(bytes))
    }

    /// The topic that an event was checked to have.
    pub(crate) fn checked(name: &'a [u8]) -> Self {
        debug_assert!(Topic::parse(name).is_ok());
        Self(name)
    }

    /// The dotted name.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The tokens between the dots, at least one.
    pub fn tokens(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|byte| *byte == b'.')
    }
}

/// What a byte may be in a name.
#[derive(Clone, Copy)]
enum Kind {
    Token,
    Dot,
    Wildcard,
    Forbidden,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Forbidden; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'.' => Kind::Dot,
            b'*' | b'>' => Kind::Wildcard,
            b'_' | b'-' | b':' | b'=' | b'@' => Kind::Token,
            other if other.is_ascii_alphanumeric() => Kind::Token,
            _ => Kind::Forbidden,
        };
        byte += 1;
    }
    kinds
};

/// A checked pattern over topics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter(Box<str>);

/// One token of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// Exactly this token.
    Literal(&'a str),
    /// `*`: any one token.
    One,
    /// `>`: one or more tokens, to the end.
    Tail,
}

impl Filter {
    /// Checks `bytes` against the rules of a filter.
    pub fn parse(bytes: &[u8]) -> Result<Self, FilterError> {
        let name = parse_name(bytes)?;
        let count = name.split('.').count();
        let mut offset = 0;
        for (position, token) in name.split('.').enumerate() {
            let index = position + 1;
            match token {
                ">" if index < count => return Err(FilterError::TailNotLast { index }),
                "*" | ">" => {}
                _ => {
                    if token.contains(['*', '>']) {
                        return Err(FilterError::WildcardInToken { index });
                    }
                    if let Some(at) = token.bytes().position(|byte| !is_token_byte(byte)) {
                        return Err(NameError::ForbiddenByte { offset: offset + at }.into());
                    }
                }
            }
            offset += token.len() + 1;
        }
        Ok(Self(name.into()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `>`, which matches every topic.
    pub fn all() -> Self {
        Self(">".into())
    }

    /// The tokens between the dots, at least one; [`Token::Tail`] only as the last.
    pub fn tokens(&self) -> impl Iterator<Item = Token<'_>> {
        self.0.split('.').map(|token| match token {
            "*" => Token::One,
            ">" => Token::Tail,
            literal => Token::Literal(literal),
        })
    }

    /// True when the pattern takes `topic`.
    pub fn matches(&self, topic: Topic<'_>) -> bool {
        if &*self.0 == ">" {
            return true;
        }
        let mut rest = topic.tokens();
        for token in self.0.as_bytes().split(|byte| *byte == b'.') {
            match (token, rest.next()) {
                (b">", Some(_)) => return true,
                (b"*", Some(_)) => {}
                (literal, Some(token)) if literal == token => {}
                _ => return false,
            }
        }
        rest.next().is_none()
    }

    /// True when every topic that matches `other` matches this pattern as well.
    pub fn contains(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.tokens(), other.tokens());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(Token::Tail), Some(_)) => return true,
                (Some(Token::One), Some(Token::Literal(_) | Token::One)) => {}
                (Some(Token::Literal(one)), Some(Token::Literal(two))) if one == two => {}
                _ => return false,
            }
        }
    }

    /// True when some topic matches both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.tokens(), other.tokens());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(Token::Tail), Some(_)) | (Some(_), Some(Token::Tail)) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Token::Literal(one)), Some(Token::Literal(two))) if one != two => return false,
                _ => {}
            }
        }
    }
}

/// What a filter needs before its tokens are looked at: length, number of tokens, no empty token, UTF-8.
fn parse_name(bytes: &[u8]) -> Result<&str, NameError> {
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { bytes: bytes.len() });
    }
    let name = std::str::from_utf8(bytes).map_err(|error| NameError::ForbiddenByte { offset: error.valid_up_to() })?;
    let tokens = name.split('.').count();
    if tokens > MAX_NAME_TOKENS {
        return Err(NameError::TooManyTokens { tokens });
    }
    match name.split('.').position(str::is_empty) {
        Some(position) => Err(NameError::EmptyToken { index: position + 1 }),
        None => Ok(name),
    }
}

fn is_token_byte(byte: u8) -> bool {
    matches!(KINDS[byte as usize], Kind::Token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_topic(bytes: impl AsRef<[u8]>, expected: Result<(), NameError>) {
        assert_eq!(Topic::parse(bytes.as_ref()).map(|_| ()), expected);
    }

    fn check_filter(bytes: impl AsRef<[u8]>, expected: Result<(), FilterError>) {
        assert_eq!(Filter::parse(bytes.as_ref()).map(|_| ()), expected);
    }

    #[test]
    fn topics_keep_to_their_alphabet() {
        check_topic("orders.eu.created", Ok(()));
        check_topic("A-z_0:9=@", Ok(()));
        check_topic("", Err(NameError::Empty));
        check_topic("a..b", Err(NameError::EmptyToken { index: 2 }));
        check_topic(".a", Err(NameError::EmptyToken { index: 1 }));
        check_topic("a.", Err(NameError::EmptyToken { index: 2 }));
        check_topic("a b", Err(NameError::ForbiddenByte { offset: 1 }));
        check_topic("é", Err(NameError::ForbiddenByte { offset: 0 }));
        check_topic(b"a\xff", Err(NameError::ForbiddenByte { offset: 1 }));
        check_topic("a.*", Err(NameError::WildcardInTopic { offset: 2 }));
        check_topic("a.>", Err(NameError::WildcardInTopic { offset: 2 }));
    }

    #[test]
    fn names_are_limited_in_bytes_and_tokens() {
        check_topic("a".repeat(MAX_NAME_BYTES), Ok(()));
        check_topic("a".repeat(MAX_NAME_BYTES + 1), Err(NameError::TooLong { bytes: 257 }));
        check_topic(vec!["a"; MAX_NAME_TOKENS].join("."), Ok(()));
        check_topic(vec!["a"; MAX_NAME_TOKENS + 1].join("."), Err(NameError::TooManyTokens { tokens: 33 }));
        check_filter(vec!["*"; MAX_NAME_TOKENS].join("."), Ok(()));
        check_filter(vec!["*"; MAX_NAME_TOKENS + 1].join("."), Err(NameError::TooManyTokens { tokens: 33 }.into()));
    }

    #[test]
    fn wildcards_stand_alone_and_the_tail_stands_last() {
        check_filter("*", Ok(()));
        check_filter(">", Ok(()));
        check_filter("a.*.b.>", Ok(()));
        check_filter("a*", Err(FilterError::WildcardInToken { index: 1 }));
        check_filter("a.>b", Err(FilterError::WildcardInToken { index: 2 }));
        check_filter("a.>.b", Err(FilterError::TailNotLast { index: 2 }));
        check_filter("a.b c", Err(NameError::ForbiddenByte { offset: 3 }.into()));
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(text.as_bytes()).expect("a filter")
    }

    #[test]
    fn a_filter_takes_what_the_rules_say() {
        let matches = |pattern: &str, topic: &str| filter(pattern).matches(Topic(topic.as_bytes()));
        for (pattern, yes, no) in [
            (">", &["a", "a.b"][..], &[][..]),
            ("a.>", &["a.b", "a.b.c"], &["a", "b.a"]),
            ("a.*", &["a.b"], &["a", "a.b.c", "b.a"]),
            ("*.b", &["a.b"], &["b", "a.c", "a.b.b"]),
            ("a.b", &["a.b"], &["a", "a.b.c", "a.bb"]),
        ] {
            assert!(yes.iter().all(|topic| matches(pattern, topic)), "{pattern}");
            assert!(!no.iter().any(|topic| matches(pattern, topic)), "{pattern}");
        }
    }

    /// Every topic over two tokens that is as long as the longest filter of the tests, and one longer.
    fn short_topics() -> Vec<String> {
        let mut topics: Vec<String> = vec!["a".into(), "b".into(), "c".into()];
        let mut from = 0;
        for _ in 0..4 {
            let to = topics.len();
            for at in from..to {
                topics.extend(["a", "b", "c"].map(|token| format!("{}.{token}", topics[at])));
            }
            from = to;
        }
        topics
    }

    proptest! {
        #[test]
        fn a_filter_contains_another_when_it_takes_every_topic_of_it(
            outer in "[ab*](\\.[ab*]){0,2}(\\.>)?|>",
            inner in "[ab*](\\.[ab*]){0,2}(\\.>)?|>",
        ) {
            // A third token stands for all that neither filter names, and the topics are longer than both: a topic that
            // only the inner one takes is found when there is one.
            let (outer, inner) = (filter(&outer), filter(&inner));
            let takes = |filter: &Filter, topic: &str| filter.matches(Topic(topic.as_bytes()));
            let all = short_topics().iter().all(|topic| !takes(&inner, topic) || takes(&outer, topic));
            prop_assert_eq!(outer.contains(&inner), all);
        }

        #[test]
        fn filters_overlap_when_a_topic_matches_both(
            one in "[ab*](\\.[ab*]){0,2}(\\.>)?",
            two in "[ab*](\\.[ab*]){0,2}(\\.>)?",
        ) {
            // Over two tokens, and as long as the longer filter: enough to find a common topic when there is one.
            let (one, two) = (filter(&one), filter(&two));
            let mut topics: Vec<String> = vec!["a".into(), "b".into()];
            let mut from = 0;
            for _ in 0..4 {
                let to = topics.len();
                for at in from..to {
                    topics.extend(["a", "b"].map(|token| format!("{}.{token}", topics[at])));
                }
                from = to;
            }
            let both = |topic: &String| [&one, &two].iter().all(|filter| filter.matches(Topic(topic.as_bytes())));
            prop_assert_eq!(one.overlaps(&two), topics.iter().any(both));
        }

        #[test]
        fn parsers_never_panic(bytes: Vec<u8>) {
            let _ = Topic::parse(&bytes);
            let _ = Filter::parse(&bytes);
        }

        #[test]
        fn parsers_never_panic_on_likely_names(text in "[a-c.*> é]{0,40}") {
            let _ = Topic::parse(text.as_bytes());
            let _ = Filter::parse(text.as_bytes());
        }

        #[test]
        fn every_topic_is_a_filter(text in "[a-z0-9_]{1,5}(\\.[a-z:=@-]{1,5}){0,6}") {
            prop_assert!(Topic::parse(text.as_bytes()).is_ok());
            prop_assert!(Filter::parse(text.as_bytes()).is_ok());
        }
    }
}
