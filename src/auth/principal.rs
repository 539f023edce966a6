//! Who a caller is. Pure.

use std::{fmt, sync::Arc, time::SystemTime};

use crate::model::limits::MAX_PRINCIPAL_BYTES;

/// How the hub came to know a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// It did not: the hub asks nobody.
    Nobody,
    /// By a signed token.
    Jwt,
    /// By the certificate of its connection.
    Certificate,
    /// By a token from the file of static tokens.
    Token,
}

impl Source {
    /// What stands before the names of this source, in policies and logs.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Jwt => "jwt",
            Self::Certificate => "mtls",
            Self::Token => "token",
        }
    }
}

/// Who a caller is, and until when that holds. What it may do is the policy's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    source: Source,
    name: Box<str>,
    /// As policies and logs have it.
    id: Arc<str>,
    claims: Box<[Box<str>]>,
    expires: Option<SystemTime>,
}

impl Principal {
    /// A principal, unless the name is empty, too long, or [deceives](deceives) who reads it in a log line. `claims` are the values
    /// that its credential has where the operator said that roles are told.
    pub fn new(source: Source, name: &str, claims: Vec<Box<str>>, expires: Option<SystemTime>) -> Option<Self> {
        let sound = !name.is_empty() && name.len() <= MAX_PRINCIPAL_BYTES && !name.chars().any(deceives);
        sound.then(|| {
            let id = format!("{}:{name}", source.prefix()).into();
            Self { source, name: name.into(), id, claims: claims.into(), expires }
        })
    }

    /// Every caller of a hub that asks nobody.
    pub fn nobody() -> Self {
        Self { source: Source::Nobody, name: "".into(), id: Arc::default(), claims: Box::default(), expires: None }
    }

    /// How the hub came to know it.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Its name, as its source has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How policies and logs call it: `jwt:alice`. Empty for nobody.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What its credential tells of roles.
    pub fn claims(&self) -> &[Box<str>] {
        &self.claims
    }

    /// When its credential expires; `None` for one that does not.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// True for another credential of the same identity.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.source == other.source && self.name == other.name
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.id.is_empty() { "nobody" } else { &self.id })
    }
}

/// True for characters that do not show what is there: control characters, marks that turn the direction of a text, and other
/// ends of lines.
pub fn deceives(character: char) -> bool {
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns(character) || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_limited_and_fit_a_log_line() {
        let made = |name: &str| Principal::new(Source::Jwt, name, Vec::new(), None);
        assert_eq!(made("alice").expect("a principal").to_string(), "jwt:alice");
        assert!(made(&"a".repeat(MAX_PRINCIPAL_BYTES)).is_some());
        assert!(made(&"a".repeat(MAX_PRINCIPAL_BYTES + 1)).is_none());
        assert!(made("").is_none() && made("a\nb").is_none() && made("a\u{9b}2J").is_none());
        for mark in ['\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}', '\u{2028}'] {
            assert!(made(&format!("bob{mark}ecila")).is_none(), "{mark:?}");
        }
        assert!(made("Zoë עליזה").is_some(), "a name that is read from right to left is one");
    }

    #[test]
    fn the_same_name_from_another_source_is_another_identity() {
        let made = |source| Principal::new(source, "a", Vec::new(), None).expect("a principal");
        assert!(made(Source::Jwt).is_same_as(&made(Source::Jwt)));
        assert!(!made(Source::Jwt).is_same_as(&made(Source::Certificate)));
    }
}
