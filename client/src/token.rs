//! Where a client gets its tokens.

use std::{error::Error as StdError, fmt, future::Future, pin::Pin, time::SystemTime};

/// A bearer token, and until when it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    value: String,
    expiry: Option<SystemTime>,
}

impl Token {
    /// A token, without the word `Bearer`. Surrounding white space is not part of it.
    pub fn new(value: impl Into<String>) -> Self {
        let value: String = value.into();
        Self { value: value.trim().to_owned(), expiry: None }
    }

    /// Says when it expires: it is replaced when four fifths of its life have passed. Where this is not known, the hub says
    /// when to replace it.
    #[must_use]
    pub fn expires(self, expiry: SystemTime) -> Self {
        Self { expiry: Some(expiry), ..self }
    }

    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        self.expiry
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expiry", &self.expiry).finish_non_exhaustive()
    }
}

/// What goes wrong in a source of tokens.
pub type TokenError = Box<dyn StdError + Send + Sync>;

/// What a source of tokens gives, when it has it.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Token, TokenError>> + Send + 'a>>;

/// Gives tokens: one for every session, and a fresh one when four fifths of the life of the last have passed.
///
/// A function that returns a future is one. If it fails, the client tries again as long as it takes.
///
/// ```
/// use switchyard_client::{Client, Token};
///
/// # fn build() -> Result<(), switchyard_client::Error> {
/// let source = || async {
///     let value = std::fs::read_to_string("/var/run/secrets/hub/token")?;
///     Ok(Token::new(value))
/// };
/// let hub = Client::builder(["https://hub.example:50051"]).token_source(source).connect_lazy()?;
/// # drop(hub);
/// # Ok(())
/// # }
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is good now.
    fn fetch(&self) -> Fetching<'_>;
}

impl<F, T> TokenSource for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<Token, TokenError>> + Send + 'static,
{
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(self())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::new(" secret\n");
        assert_eq!(token.value(), "secret");
        assert!(!format!("{token:?}").contains("secret"));
    }
}
