//! What is wrong with a message in JSON, or cannot be written as JSON. Pure.
//!
//! Texts name the field and say what it must be. Nothing that a client sent is repeated but a short name.

/// Characters of a name that are shown.
const MOST_SHOWN: usize = 64;

/// Why a message in JSON is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{problem}", .path, if .path.is_empty() { "the message " } else { " " })]
pub struct JsonError {
    /// The field, in the names of the contract, such as `publish.events[3].topic`; empty for the message itself.
    pub path: String,
    /// What is wrong, in words that follow the name of the field.
    pub problem: String,
}

/// Why a message cannot be written as JSON. It is not one of the hub's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is not what its type says.
    #[error("the message is not a {0}")]
    Malformed(&'static str),
    /// An `Any` holds a message that is not in the contract.
    #[error("a detail is of a type that is not in the contract")]
    UnknownType,
}

/// A name as a client wrote it, short and without characters that a terminal would act on.
pub(super) fn shown(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(&name[..name.len().min(4 * MOST_SHOWN)]);
    let mut characters = name.chars();
    let readable = |c: char| if c.is_ascii_graphic() && c != '"' { c } else { '?' };
    let mut shown: String = characters.by_ref().take(MOST_SHOWN).map(readable).collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    if shown.is_empty() { "\"\"".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sentences_about_a_field() {
        let error = |path: &str| JsonError { path: path.into(), problem: "must be a string".into() }.to_string();
        assert_eq!(error("a.b"), "a.b must be a string");
        assert_eq!(error(""), "the message must be a string");
    }

    #[test]
    fn names_are_shown_short_and_harmless() {
        assert_eq!(shown(b"topicc"), "topicc");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown("a b\"\u{1b}[31m\u{e9}".as_bytes()), "a?b??[31m?");
        assert_eq!(shown(&[b'x', 0xff]), "x?");
        assert_eq!(shown(&[b'x'; 64]), "x".repeat(64));
        assert_eq!(shown(&[b'x'; 65]), format!("{}...", "x".repeat(64)));
        assert!(shown("\u{1f600}".repeat(100).as_bytes()).len() < 70);
    }
}
