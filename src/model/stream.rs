//! Streams: their names.

use super::{Topic, limits::MAX_STREAM_NAME_BYTES};

/// The checked name of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Box<str>);

/// Why a name is not the name of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream is named by 1 to {MAX_STREAM_NAME_BYTES} letters, digits, `_`, `-`, `:`, `=` or `@`")]
pub struct StreamNameError;

impl StreamName {
    /// Checks `name` against the rules of a stream: one topic token of at most [`MAX_STREAM_NAME_BYTES`].
    pub fn parse(name: &str) -> Result<Self, StreamNameError> {
        let is_token = !name.contains('.') && Topic::parse(name.as_bytes()).is_ok();
        if is_token && name.len() <= MAX_STREAM_NAME_BYTES { Ok(Self(name.into())) } else { Err(StreamNameError) }
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_by_one_short_token() {
        assert!(StreamName::parse(&"s".repeat(MAX_STREAM_NAME_BYTES)).is_ok());
        for bad in [&"s".repeat(MAX_STREAM_NAME_BYTES + 1), "", "a.b", "a b", ">"] {
            assert_eq!(StreamName::parse(bad), Err(StreamNameError), "{bad}");
        }
    }
}
