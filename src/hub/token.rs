//! Resume tokens: a position that a client keeps for the hub.
//!
//! A token tells stream, epoch and sequence, and bears a MAC over them, so that a client can hand back only what it was
//! given. It is good on every hub that has the same key, for as long as the stream has its epoch. Pure.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::{Origin, Position, StreamError, StreamName, limits::MAX_TOKEN_BYTES};

/// What the first byte of a token says: how the rest is to be read.
const VERSION: u8 = 1;
/// So much of the MAC is in a token: nobody can try 2^128 of them.
const MAC_BYTES: usize = 16;
/// Version, epoch, sequence; the name of the stream follows, then the MAC.
const HEAD_BYTES: usize = 1 + 8 + 8;

/// What tokens are sealed with.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// A key of secret bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        // HMAC fills its block up with zeros by itself, where the length of a key is not fixed.
        let mut block = [0; 64];
        block[..secret.len()].copy_from_slice(&secret);
        Self(Hmac::new(&block.into()))
    }

    /// The token of a position; at most [`MAX_TOKEN_BYTES`] long.
    pub fn seal(&self, position: &Position) -> String {
        let name = position.origin.stream.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + name.len() + MAC_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&position.origin.epoch.to_be_bytes());
        bytes.extend_from_slice(&position.sequence.to_be_bytes());
        bytes.extend_from_slice(name);
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position that a token of this key tells.
    pub fn open(&self, token: &str) -> Result<Position, StreamError> {
        let bytes = Some(token)
            .filter(|token| token.len() <= MAX_TOKEN_BYTES)
            .and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())
            .filter(|bytes| bytes.len() > HEAD_BYTES + MAC_BYTES)
            .ok_or(StreamError::Token)?;
        let (told, mac) = bytes.split_at(bytes.len() - MAC_BYTES);
        let mut expected = self.0.clone();
        expected.update(told);
        // In the same time whatever is wrong.
        expected.verify_truncated_left(mac).map_err(|_| StreamError::Token)?;
        let (head, name) = told.split_at(HEAD_BYTES);
        let number = |at: usize| head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let (Some(epoch), Some(sequence)) = (number(1), number(9)) else { return Err(StreamError::Token) };
        let stream = std::str::from_utf8(name).ok().and_then(|name| StreamName::parse(name).ok());
        match (head[0], stream) {
            (VERSION, Some(stream)) => {
                Ok(Position { origin: Arc::new(Origin { stream, epoch: epoch.cast_signed() }), sequence })
            }
            _ => Err(StreamError::Token),
        }
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        let mut short = [0; MAC_BYTES];
        short.copy_from_slice(&mac.finalize().into_bytes()[..MAC_BYTES]);
        short
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::limits::MAX_STREAM_NAME_BYTES;

    fn position(name: &str, epoch: i64, sequence: u64) -> Position {
        let stream = StreamName::parse(name).expect("a name");
        Position { origin: Arc::new(Origin { stream, epoch }), sequence }
    }

    #[test]
    fn a_token_tells_the_position_it_was_made_of_and_is_short() {
        let key = TokenKey::new([1; 32]);
        let longest = "s".repeat(MAX_STREAM_NAME_BYTES);
        for position in [position("a", -1, 0), position(&longest, i64::MAX, u64::MAX)] {
            let token = key.seal(&position);
            assert!(token.len() <= MAX_TOKEN_BYTES, "{}", token.len());
            assert_eq!(key.open(&token), Ok(position));
        }
    }

    #[test]
    fn tokens_of_another_key_and_what_is_none_are_refused() {
        let key = TokenKey::new([1; 32]);
        let foreign = TokenKey::new([2; 32]).seal(&position("a", 1, 1));
        for bad in [foreign.as_str(), "", "a", "****", &"a".repeat(MAX_TOKEN_BYTES + 1)] {
            assert_eq!(key.open(bad), Err(StreamError::Token), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_token_that_was_changed_is_refused(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
            let key = TokenKey::new([1; 32]);
            let token = key.seal(&position("orders", 5, 77));
            let mut changed = token.clone();
            let at = at.index(token.len());
            changed.replace_range(at..=at, &with);
            // The last digit has bits that mean nothing, and base64 refuses those that are set.
            prop_assert!(changed == token || key.open(&changed).is_err());
        }
    }
}
