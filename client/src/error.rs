//! The one error of this crate: what kind of failure it is, and what the hub said of it.
//!
//! Owns how a status becomes an error, and how an error is worded. Nothing else in the crate reads the details of a status.

use std::{fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

/// What kind of failure it is: what its cause is and whether something was done is told apart here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It was not done: the hub refused it, or it was never sent.
    Refused,
    /// It was sent and not answered: whether it was done is not known.
    Unknown,
    /// The hub gave the event to somebody else before it was acknowledged, or will.
    LeaseLost,
    /// A subscription ended and does not come back by itself.
    Ended,
    /// The session with the hub ended, or could not be opened. Only as the reason of a state: the client comes back.
    Lost,
    /// The client is closing or closed, or has failed for good.
    Closed,
    /// A setting or an argument that can never work.
    Invalid,
    /// A store of positions, or a source of tokens, failed.
    Source,
}

/// What went wrong.
///
/// It can be cloned, because one failure may concern many who wait.
///
/// ```
/// use switchyard_client::{Error, ErrorKind};
///
/// fn should_try_again(error: &Error) -> bool {
///     error.kind() == ErrorKind::Unknown || error.retryable()
/// }
/// ```
#[derive(Clone)]
pub struct Error(Box<Facts>);

#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    code: Code,
    reason: String,
    text: String,
    field: String,
    retry_after: Option<Duration>,
    /// What it concerns, such as a subscription and the address of the hub.
    place: String,
}

impl Error {
    /// One that was found here, not by a hub.
    pub(crate) fn new(kind: ErrorKind, code: Code, reason: &str, text: impl Into<String>) -> Self {
        let (reason, text) = (reason.to_owned(), text.into());
        Self(Box::new(Facts {
            kind,
            code,
            reason,
            text,
            field: String::new(),
            retry_after: None,
            place: String::new(),
        }))
    }

    /// A setting or an argument that can never work.
    pub(crate) fn invalid(field: &str, problem: impl fmt::Display) -> Self {
        let mut error =
            Self::new(ErrorKind::Invalid, Code::InvalidArgument, "INVALID_ARGUMENT", format!("{field} {problem}"));
        field.clone_into(&mut error.0.field);
        error
    }

    /// What is begun with a client that takes nothing any more.
    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, Code::Cancelled, "CLIENT_CLOSED", "the client is closing or closed")
    }

    /// The failure of a call.
    pub(crate) fn of_status(kind: ErrorKind, status: &Status) -> Self {
        Self::of(kind, status.code(), status.message(), &status.get_error_details())
    }

    /// The failure that a frame reports.
    pub(crate) fn of_message(kind: ErrorKind, message: &pb::Status) -> Self {
        let details = prost::Message::encode_to_vec(message);
        let status = Status::with_details(Code::from_i32(message.code), &message.message, details.into());
        Self::of_status(kind, &status)
    }

    fn of(kind: ErrorKind, code: Code, text: &str, details: &ErrorDetails) -> Self {
        let field = details.bad_request().and_then(|bad| bad.field_violations.first());
        Self(Box::new(Facts {
            kind,
            code,
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            text: text.to_owned(),
            field: field.map(|violation| violation.field.clone()).unwrap_or_default(),
            retry_after: details.retry_info().map(|info| info.retry_delay.unwrap_or_default()),
            place: String::new(),
        }))
    }

    /// The same, of another kind.
    #[must_use]
    pub(crate) fn into_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same, with what it concerns, unless it is known.
    #[must_use]
    pub(crate) fn at(mut self, place: &str) -> Self {
        if self.0.place.is_empty() {
            place.clone_into(&mut self.0.place);
        }
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The code of gRPC.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The reason as a program can act on it, such as `STREAM_NOT_FOUND`: one of the hub's (docs/errors.md), or one of this
    /// crate: `CLIENT_CLOSED`, `DEADLINE_PASSED`, `INVALID_ARGUMENT`, `NO_ANSWER`, `NO_STREAM`, `LEASE_EXPIRED`,
    /// `NOTHING_HEARD`, `NOT_CONNECTED`, `TOKEN_SOURCE`, `POSITION_STORE`. Empty when the hub, or something between, gave none.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What happened, in words for people.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The path of the field that is wrong, if one is.
    pub fn field(&self) -> Option<&str> {
        Some(self.0.field.as_str()).filter(|field| !field.is_empty())
    }

    /// True when the same can succeed later without a change.
    pub fn retryable(&self) -> bool {
        self.0.retry_after.is_some() || self.0.code == Code::Unavailable
    }

    /// How long the hub asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { code, reason, text, field, place, .. } = &*self.0;
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        write!(f, "{code:?}")?;
        if !reason.is_empty() {
            write!(f, " {reason}")?;
        }
        write!(f, ": {text}")?;
        if field.is_empty() || text.starts_with(field.as_str()) { Ok(()) } else { write!(f, " (field {field})") }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Status {
        let mut details = ErrorDetails::with_error_info("STREAM_FULL", "switchyard", std::collections::HashMap::new());
        details.add_bad_request_violation("events[3]", "why");
        details.set_retry_info(Some(Duration::from_millis(1500)));
        Status::with_error_details(Code::ResourceExhausted, "no room", details)
    }

    #[test]
    fn what_the_hub_says_is_kept_whether_it_is_a_call_or_a_frame_that_fails() {
        let status = refused();
        let message: pb::Status = prost::Message::decode(status.details()).expect("a status");
        for error in [Error::of_status(ErrorKind::Refused, &status), Error::of_message(ErrorKind::Refused, &message)] {
            assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Code::ResourceExhausted));
            assert_eq!((error.reason(), error.field()), ("STREAM_FULL", Some("events[3]")));
            assert_eq!((error.retryable(), error.retry_after()), (true, Some(Duration::from_millis(1500))));
            let told = error.at("stream orders, http://hub:1");
            let expected = "stream orders, http://hub:1: ResourceExhausted STREAM_FULL: no room (field events[3])";
            assert_eq!(told.to_string(), expected);
            assert_eq!(told.at("elsewhere").to_string(), expected, "the first place is the right one");
        }
    }

    #[test]
    fn a_status_without_details_is_retryable_when_its_code_says_so() {
        let error = |code| Error::of_status(ErrorKind::Lost, &Status::new(code, "x"));
        assert!(error(Code::Unavailable).retryable());
        assert!(!error(Code::Internal).retryable());
        assert_eq!(error(Code::Internal).to_string(), "Internal: x");
        assert_eq!(error(Code::Internal).retry_after(), None);
    }
}
