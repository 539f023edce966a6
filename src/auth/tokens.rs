//! Static tokens, for development: a file of names, their tokens and their roles.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::principal::{Principal, Source};

/// The most tokens in a file.
pub(super) const MAX_TOKENS: usize = 1_000;
/// The shortest token, in bytes.
pub(super) const MIN_TOKEN_BYTES: usize = 16;

/// Every static token. Their texts are not kept.
#[derive(Debug, Clone, Default)]
pub(super) struct StaticTokens {
    tokens: Vec<StaticToken>,
}

#[derive(Debug, Clone)]
struct StaticToken {
    name: Box<str>,
    digest: [u8; 32],
    roles: Box<[Box<str>]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTokens {
    #[serde(default)]
    tokens: BTreeMap<String, WrittenToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    token: String,
    #[serde(default)]
    roles: Vec<String>,
}

impl StaticTokens {
    /// Reads the text of a token file. Errors never show a token.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // The library shows the line that is wrong, and with it a token.
        let written: WrittenTokens = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if written.tokens.len() > MAX_TOKENS {
            return Err(format!("there are {} tokens; the limit is {MAX_TOKENS}", written.tokens.len()));
        }
        let token = |(name, written): (String, WrittenToken)| {
            if Principal::new(Source::Token, &name, Vec::new(), None).is_none() {
                return Err(format!("tokens: {name:?} is not a valid name"));
            }
            if written.token.len() < MIN_TOKEN_BYTES {
                return Err(format!("tokens.{name}.token is shorter than {MIN_TOKEN_BYTES} characters"));
            }
            let roles = written.roles.into_iter().map(Into::into).collect();
            Ok(StaticToken { name: name.into(), digest: digest(&written.token), roles })
        };
        Ok(Self { tokens: written.tokens.into_iter().map(token).collect::<Result<_, _>>()? })
    }

    /// Who a token is of. Takes the same time for every token that is not there.
    pub(super) fn find(&self, token: &str) -> Option<Principal> {
        let digest = digest(token);
        let mut found = None;
        for known in &self.tokens {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(known);
            }
        }
        found.and_then(|known| Principal::new(Source::Token, &known.name, Vec::new(), None))
    }

    /// The roles of a name; `None` when it has no token any longer.
    pub(super) fn roles(&self, name: &str) -> Option<&[Box<str>]> {
        self.tokens.iter().find(|token| *token.name == *name).map(|token| &*token.roles)
    }
}

/// Tokens are compared by their digests: these are of one length, and nobody can choose them.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_the_name_it_stands_under() {
        let text =
            "[tokens.dev]\ntoken = '0123456789abcdef'\nroles = ['writer']\n[tokens.ci]\ntoken = 'fedcba9876543210'";
        let tokens = StaticTokens::parse(text).expect("tokens");
        assert_eq!(tokens.find("0123456789abcdef").expect("a principal").to_string(), "token:dev");
        assert_eq!(tokens.find("fedcba9876543210").expect("a principal").to_string(), "token:ci");
        assert!(tokens.find("").is_none() && tokens.find("0123456789abcdeg").is_none());
        assert_eq!(tokens.roles("dev"), Some(&["writer".into()][..]));
        assert!(tokens.roles("ci").is_some_and(<[_]>::is_empty) && tokens.roles("gone").is_none());
    }

    #[test]
    fn faults_are_told_without_the_token() {
        for (text, told) in [
            ("[tokens.dev]\ntoken = 'tooshorttooshor'", "tokens.dev.token is shorter"),
            ("[tokens.dev]\ntoken = 'a-secret-of-this-length'\nrole = 'x'", "role"),
            ("[tokens.dev]\ntoken = 'a-secret-of-this-length", "string"),
        ] {
            let error = StaticTokens::parse(text).expect_err("refused");
            assert!(error.contains(told) && !error.contains("secret") && !error.contains("tooshorttoo"), "{error}");
        }
    }

    #[test]
    fn the_number_of_tokens_is_limited() {
        let text = |count: usize| {
            (0..count).map(|n| format!("[tokens.n{n}]\ntoken = 'token-number-{n:06}'\n")).collect::<Vec<_>>().concat()
        };
        assert!(StaticTokens::parse(&text(MAX_TOKENS)).is_ok());
        assert!(StaticTokens::parse(&text(MAX_TOKENS + 1)).is_err());
    }
}
