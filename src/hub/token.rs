//! Resume tokens: a position that a client keeps for the hub.
//!
//! A token tells stream, epoch and sequence, and bears a MAC over them, so that a client can hand back only what it was
//! given. It is good on every hub that has the same key, for as long as the stream has its epoch. A [`Cursor`] is taken in
//! its place: whoever has one could as well begin behind its sequence. Pure.
//!
//! A page token that is a name hides it: a list may end a page at a name that its reader may not know. It is good for that
//! list alone: put into another one, it would say between which names of that the hidden one is.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::{
    Cursor, Origin, Position, StreamError, StreamName,
    limits::{MAX_NAME_BYTES, MAX_TOKEN_BYTES},
};

/// What the first byte of a token says: how the rest is to be read.
const VERSION: u8 = 1;
/// So much of the MAC is in a token: nobody can try 2^128 of them.
const MAC_BYTES: usize = 16;
/// Version, epoch, sequence; the name of the stream follows, then the MAC.
const HEAD_BYTES: usize = 1 + 8 + 8;

/// A hidden name: how long it is in two bytes, itself, and zeros, so that nobody sees that.
const HIDDEN_BYTES: usize = 2 + MAX_NAME_BYTES;
/// What the MAC of a hidden name is over begins with this, and goes on with what it is a name of and the bytes that are hidden,
const OF_NAME: u8 = 2;
/// and what the bytes come from that hide it with this. Neither is a version of tokens.
const OF_PAD: u8 = 3;

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

    /// The position that a token of this key tells, or a cursor.
    pub fn open(&self, token: &str) -> Result<Position, StreamError> {
        if let Some(position) = Cursor::parse(token) {
            return Ok(position);
        }
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

    /// A name as nobody else can read it or make it up, for the list that `of` describes. Always the same for one name of
    /// one list, and of the same length for all. Empty for what is longer than a name.
    pub fn hide(&self, name: &[u8], of: &[&str]) -> String {
        let mut hidden = [0; HIDDEN_BYTES];
        let Some(place) = hidden.get_mut(2..2 + name.len()) else { return String::new() };
        place.copy_from_slice(name);
        hidden[..2].copy_from_slice(&(name.len() as u16).to_be_bytes());
        let mac = self.mac(&sealed_with(of, &hidden));
        self.pad(&mac, &mut hidden);
        URL_SAFE_NO_PAD.encode([&mac[..], &hidden[..]].concat())
    }

    /// The name that [`Self::hide`] with this key made it of, for the same list; `None` for anything else.
    pub fn reveal(&self, token: &str, of: &[&str]) -> Option<Vec<u8>> {
        // Four letters are three bytes.
        let bytes = Some(token)
            .filter(|token| token.len() <= (MAC_BYTES + HIDDEN_BYTES).div_ceil(3) * 4)
            .and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())
            .filter(|bytes| bytes.len() == MAC_BYTES + HIDDEN_BYTES)?;
        let (mac, hidden) = bytes.split_at(MAC_BYTES);
        let mut name = hidden.to_vec();
        self.pad(mac, &mut name);
        let mut expected = self.0.clone();
        expected.update(&sealed_with(of, &name));
        // In the same time whatever is wrong.
        expected.verify_truncated_left(mac).ok()?;
        let len = usize::from(u16::from_be_bytes([name[0], name[1]]));
        name.get(2..2 + len).map(<[u8]>::to_vec)
    }

    /// Turns bytes into what hides them, and back: no two names, nor lists, have the same MAC, and so no two are hidden by the
    /// same bytes.
    fn pad(&self, mac: &[u8], bytes: &mut [u8]) {
        for (at, part) in bytes.chunks_mut(32).enumerate() {
            let mut pad = self.0.clone();
            pad.update(&[&[OF_PAD, at as u8], mac].concat());
            for (byte, with) in part.iter_mut().zip(pad.finalize().into_bytes()) {
                *byte ^= with;
            }
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

/// What the MAC of a hidden name is over. Each part tells its length, and the name is always as long: no two are the same.
fn sealed_with(of: &[&str], name: &[u8]) -> Vec<u8> {
    let mut bytes = vec![OF_NAME];
    for part in of {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend_from_slice(name);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::limits::MAX_STREAM_NAME_BYTES;

    /// A list: its stream, its filter and its prefix.
    const OF: [&str; 3] = ["orders", "", ""];

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
    fn a_cursor_is_taken_for_a_token() {
        let at = position("orders", 5, 77);
        assert_eq!(TokenKey::new([1; 32]).open(&Cursor::from(&at).to_string()), Ok(at));
    }

    #[test]
    fn tokens_of_another_key_and_what_is_none_are_refused() {
        let key = TokenKey::new([1; 32]);
        let foreign = TokenKey::new([2; 32]).seal(&position("a", 1, 1));
        for bad in [foreign.as_str(), "", "a", "****", &"a".repeat(MAX_TOKEN_BYTES + 1)] {
            assert_eq!(key.open(bad), Err(StreamError::Token), "{bad}");
        }
    }

    #[test]
    fn a_hidden_name_is_read_by_nobody_without_the_key() {
        let key = TokenKey::new([1; 32]);
        let longest = "n".repeat(MAX_NAME_BYTES);
        for name in ["", "a", "orders.eu", &longest] {
            let hidden = key.hide(name.as_bytes(), &OF);
            assert_eq!(key.reveal(&hidden, &OF).as_deref(), Some(name.as_bytes()));
            assert_eq!((hidden.len(), &hidden), (366, &key.hide(name.as_bytes(), &OF)));
            assert_eq!(TokenKey::new([2; 32]).reveal(&hidden, &OF), None);
        }
        let shared = |a: String, b: String| a.bytes().zip(b.bytes()).filter(|(a, b)| a == b).count();
        let names = shared(key.hide(b"orders.eu", &OF), key.hide(b"orders.us", &OF));
        let lists = shared(key.hide(b"orders.eu", &OF), key.hide(b"orders.eu", &["other", "", ""]));
        assert!(names < 40 && lists < 40, "{names} and {lists} of 366 letters are the same");
        assert_eq!(key.hide(&[b'n'; MAX_NAME_BYTES + 1], &OF), "");
        for bad in ["", "a", "****", &"a".repeat(366), &"a".repeat(1000), &key.seal(&position("a", 1, 1))] {
            assert_eq!(key.reveal(bad, &OF), None, "{bad}");
        }
    }

    #[test]
    fn a_hidden_name_is_good_for_one_list_alone() {
        let key = TokenKey::new([1; 32]);
        let hidden = key.hide(b"orders.eu", &OF);
        for other in
            [&["order", "", ""][..], &["orders", "x", ""], &["orders", "", "x"], &["", "orders", ""], &["orders", ""]]
        {
            assert_eq!(key.reveal(&hidden, other), None, "{other:?}");
        }
        let moved = key.hide(b"orders.eu", &["a", "bc"]);
        assert_eq!(key.reveal(&moved, &["ab", "c"]), None);
    }

    proptest! {
        #[test]
        fn a_name_whose_hidden_form_was_changed_is_not_read(at in 0..366_usize, with in "[A-Za-z0-9_-]") {
            let key = TokenKey::new([1; 32]);
            let hidden = key.hide(b"orders.eu", &OF);
            let mut changed = hidden.clone();
            changed.replace_range(at..=at, &with);
            prop_assert!(changed == hidden || key.reveal(&changed, &OF).is_none());
        }

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
