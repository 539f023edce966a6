//! The message of a Connect call that was made by GET, out of its query. Pure.
//!
//! A query is as long as the head of a request may be, some ten thousand bytes, so that its message needs no accounting.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use percent_encoding::percent_decode;

use super::protocol::Codec;

/// Base64 as URLs have it, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) codec: Codec,
    pub(super) message: Vec<u8>,
    /// How the message is compressed, if it is.
    pub(super) compression: Option<String>,
}

/// Why a query is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadQuery {
    #[error("the query has two parameters {0}")]
    Twice(&'static str),
    #[error("the query has no parameter {0}; a call by GET is ?connect=v1&encoding=json&message={{}}")]
    Missing(&'static str),
    #[error("the parameter connect must be v1")]
    Version,
    #[error("the parameter encoding must be json or proto")]
    Encoding,
    #[error("the parameter base64 must be 1, or left out")]
    Base64,
    #[error("the parameter message is not base64 as URLs have it")]
    NotBase64,
}

impl Query {
    /// Reads a query. Parameters that are not the protocol's are left to others.
    pub(super) fn parse(query: &str) -> Result<Self, BadQuery> {
        if one(query, "connect")?.is_some_and(|version| *version != *b"v1") {
            return Err(BadQuery::Version);
        }
        let codec = match &*one(query, "encoding")?.ok_or(BadQuery::Missing("encoding"))? {
            b"json" => Codec::Json,
            b"proto" => Codec::Proto,
            _ => return Err(BadQuery::Encoding),
        };
        let message = one(query, "message")?.ok_or(BadQuery::Missing("message"))?;
        let message = match one(query, "base64")?.as_deref() {
            None => message,
            Some(b"1") => BASE64.decode(message).map_err(|_| BadQuery::NotBase64)?,
            Some(_) => return Err(BadQuery::Base64),
        };
        let compression = one(query, "compression")?.map(|name| String::from_utf8_lossy(&name).into_owned());
        Ok(Self { codec, message, compression: compression.filter(|name| name != "identity") })
    }
}

/// The value of a parameter, which a query has at most once.
fn one(query: &str, name: &'static str) -> Result<Option<Vec<u8>>, BadQuery> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(key, _)| unescaped(key) == name.as_bytes()).map(|(_, value)| unescaped(value));
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(BadQuery::Twice(name)),
        (value, None) => Ok(value),
    }
}

/// As forms escape it: a space may be a plus.
fn unescaped(text: &str) -> Vec<u8> {
    let text = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_decode(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_read_as_the_protocol_has_it() {
        let query =
            Query::parse("connect=v1&encoding=json&message=%7B%22name%22%3A+%22a%22%7D&other=1&").expect("a call");
        let message = br#"{"name": "a"}"#.to_vec();
        assert_eq!(query, Query { codec: Codec::Json, message, compression: None });
        let query = Query::parse("message=_-8&base64=1&encoding=proto&compression=gzip").expect("a call");
        assert_eq!(query.compression.as_deref(), Some("gzip"));
        assert_eq!(query.message, [0xff, 0xef]);
        assert_eq!(Query::parse("encoding=proto&message=&compression=identity").expect("a call").compression, None);
    }

    #[test]
    fn what_is_no_call_is_refused() {
        for (query, wanted) in [
            ("", BadQuery::Missing("encoding")),
            ("encoding=json", BadQuery::Missing("message")),
            ("connect=v2&encoding=json&message={}", BadQuery::Version),
            ("encoding=xml&message={}", BadQuery::Encoding),
            ("encoding=json&message={}&message={}", BadQuery::Twice("message")),
            ("encoding=json&message={}&base64=yes", BadQuery::Base64),
            ("encoding=json&message=*&base64=1", BadQuery::NotBase64),
        ] {
            assert_eq!(Query::parse(query), Err(wanted), "{query}");
        }
        assert!(BadQuery::Missing("message").to_string().ends_with("message={}"));
    }

    proptest! {
        #[test]
        fn a_message_is_the_same_however_it_is_escaped(message: Vec<u8>) {
            let escaped = percent_encode(&message, NON_ALPHANUMERIC).to_string();
            let (padded, plain) = (BASE64_URL_SAFE.encode(&message), BASE64_URL_SAFE_NO_PAD.encode(&message));
            for query in [escaped, format!("{}&base64=1", padded.replace('=', "%3D")), format!("{plain}&base64=1")] {
                let query = Query::parse(&format!("encoding=proto&message={query}"));
                prop_assert_eq!(query.map(|query| query.message), Ok(message.clone()));
            }
        }
    }
}
