//! A position as a text, for clients that keep it themselves: `c1.STREAM.EPOCH.SEQUENCE`, the same for everybody that reads
//! the stream.
//!
//! It bears no seal, unlike a resume token: it lets its holder begin behind a sequence, which everybody may ask for, and says
//! of which life of the stream that sequence is. Pure.

use std::{fmt, sync::Arc};

use super::{Origin, Position, StreamName};

/// What every cursor begins with: how the rest is to be read. No resume token has a dot.
const VERSION: &str = "c1.";

/// A position, to be written as a cursor.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    /// Of which stream, and which life of it.
    pub origin: &'a Origin,
    /// Strictly behind this sequence.
    pub sequence: u64,
}

impl fmt::Display for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, sequence } = self;
        write!(f, "{VERSION}{}.{}.{sequence}", origin.stream, origin.epoch)
    }
}

impl<'a> From<&'a Position> for Cursor<'a> {
    fn from(position: &'a Position) -> Self {
        Self { origin: &position.origin, sequence: position.sequence }
    }
}

impl Cursor<'_> {
    /// The position of a cursor; `None` for any other text. There is one cursor of each position.
    pub fn parse(text: &str) -> Option<Position> {
        let mut parts = text.strip_prefix(VERSION)?.split('.');
        let (stream, epoch, sequence) = (parts.next()?, parts.next()?, parts.next()?);
        let origin = Origin { stream: StreamName::parse(stream).ok()?, epoch: epoch.parse().ok()? };
        let position = Position { origin: Arc::new(origin), sequence: sequence.parse().ok()? };
        (Cursor::from(&position).to_string() == text).then_some(position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::limits::{MAX_STREAM_NAME_BYTES, MAX_TOKEN_BYTES};

    proptest! {
        #[test]
        fn a_cursor_says_its_position(stream in "[a-zA-Z0-9_:=@-]{1,64}", epoch: i64, sequence: u64) {
            let stream = StreamName::parse(&stream).expect("a name");
            let position = Position { origin: Arc::new(Origin { stream, epoch }), sequence };
            let text = Cursor::from(&position).to_string();
            prop_assert!(text.len() <= MAX_TOKEN_BYTES);
            prop_assert_eq!(Cursor::parse(&text), Some(position));
        }

        #[test]
        fn any_other_text_is_none(text in "(c1)?[.a0+-]{0,20}") {
            if let Some(position) = Cursor::parse(&text) {
                prop_assert_eq!(Cursor::from(&position).to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_not_written_as_a_cursor_is_none() {
        let long = format!("c1.{}.1.1", "s".repeat(MAX_STREAM_NAME_BYTES + 1));
        for bad in [
            "",
            "c1.",
            "c2.a.1.1",
            "c1.a.1",
            "c1.a.1.1.1",
            "c1..1.1",
            "c1.a.+1.1",
            "c1.a.1.01",
            "c1.a.1.-1",
            "c1.a.-0.1",
            "c1.a.1.1 ",
            "c1.a b.1.1",
            "c1.a.1.18446744073709551616",
            &long,
        ] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
        let position = Cursor::parse("c1.orders.-5.18446744073709551615").expect("a cursor");
        assert_eq!((position.origin.epoch, position.sequence), (-5, u64::MAX));
    }
}
