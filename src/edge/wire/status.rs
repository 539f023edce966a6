//! The one place where an error becomes a status.
//!
//! Every error of the model has a reason, and every reason a code; both matches are exhaustive, so a new error does not
//! compile without them. Statuses carry `google.rpc.ErrorInfo` with the reason, BadRequest with the field, and
//! RetryInfo where trying again helps. Nothing of a payload or a credential is ever put into a text.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use crate::{
    memory::MemoryFull,
    model::{AckError, CommandError, Denial, End, EventError, Quota, Reason, SettingError, StreamError},
};

/// The domain of every reason.
const DOMAIN: &str = "switchyard";
/// Texts are cut to this length: trailers stay small, whatever a client sent.
const MAX_TEXT_BYTES: usize = 512;
/// So much is shown of a name that a client sent and nobody knows.
const MAX_NAME_CHARACTERS: usize = 128;

/// An error on its way to a client.
#[derive(Debug)]
pub(in crate::edge) struct Fault {
    pub(in crate::edge) reason: Reason,
    text: String,
    field: Option<String>,
    /// Numbers that a program can act on.
    numbers: Vec<(&'static str, u64)>,
    /// The name of the quota that is used up.
    quota: Option<&'static str>,
    /// How long to wait before trying again; `None` where that does not help.
    pub(in crate::edge) retry_after: Option<Duration>,
    /// Instead of that of its reason, where gRPC itself says which.
    code: Option<Code>,
}

impl Fault {
    fn new(reason: Reason, text: String) -> Self {
        Self { reason, text, field: None, numbers: Vec::new(), quota: None, retry_after: None, code: None }
    }

    fn by_grpc(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    /// Its code in gRPC.
    pub(in crate::edge) fn code(&self) -> Code {
        self.code.unwrap_or_else(|| code(self.reason))
    }

    fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn with<const N: usize>(mut self, numbers: [(&'static str, u64); N]) -> Self {
        self.numbers = numbers.into();
        self
    }

    /// A quota is used up; trying again helps once something of it is free.
    fn of_quota(mut self, quota: &'static str, delay: Duration) -> Self {
        self.quota = Some(quota);
        self.retry_after(delay)
    }

    fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// As the end of a call.
    pub(in crate::edge) fn status(&self) -> Status {
        let code = self.code();
        let mut details = ErrorDetails::with_error_info(
            self.reason.name(),
            DOMAIN,
            self.numbers
                .iter()
                .map(|(name, number)| ((*name).to_owned(), number.to_string()))
                .collect::<HashMap<_, _>>(),
        );
        if let Some(field) = &self.field {
            details.add_bad_request_violation(field, self.short_text());
        }
        if let Some(quota) = self.quota {
            details.add_quota_failure_violation(quota, self.short_text());
        }
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(code, self.short_text(), details)
    }

    /// With no more than its reason, its text and its numbers, where there are many.
    pub(in crate::edge) fn brief(self) -> Self {
        Self { field: None, quota: None, retry_after: None, ..self }
    }

    /// As part of a frame.
    pub(in crate::edge) fn message(&self) -> pb::Status {
        let status = self.status();
        // The details of a status are an encoded `google.rpc.Status`, made two lines above.
        prost::Message::decode(status.details()).unwrap_or_else(|_| pb::Status {
            code: i32::from(status.code()),
            message: status.message().to_owned(),
            details: Vec::new(),
        })
    }

    fn short_text(&self) -> String {
        let mut end = self.text.len().min(MAX_TEXT_BYTES);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        self.text[..end].to_owned()
    }
}

/// Why a command was refused. `place` stands before the field, as in `subscribe.spec.`.
pub(in crate::edge) fn of_command(error: &CommandError, field_path: &str) -> Fault {
    let text = error.to_string();
    let path = |field: &str| format!("{field_path}{field}").trim_end_matches('.').to_owned();
    match error {
        CommandError::Json { path, .. } if !path.is_empty() => {
            Fault::new(Reason::MalformedCommand, text).at(path.clone())
        }
        CommandError::Undecodable { .. } | CommandError::Json { .. } => Fault::new(Reason::MalformedCommand, text),
        CommandError::Field { field, .. } => Fault::new(Reason::MalformedCommand, text).at(path(field)),
        CommandError::Filter { index, .. } => {
            Fault::new(Reason::InvalidFilter, text).at(path(&format!("filters[{index}]")))
        }
        CommandError::NoFilter => Fault::new(Reason::InvalidFilter, text).at(path("filters")),
        CommandError::Group(_) => Fault::new(Reason::MalformedCommand, text).at(path("group")),
        CommandError::Expression => Fault::new(Reason::InvalidExpression, text).at(path("expression")),
        CommandError::Unsupported { field, .. } => Fault::new(Reason::ConfigMismatch, text).at(path(field)),
        CommandError::SubscriptionIdInUse { .. } => {
            Fault::new(Reason::SubscriptionIdInUse, text).at(path("subscription_id"))
        }
        CommandError::SubscriptionNotFound { .. } => {
            Fault::new(Reason::SubscriptionNotFound, text).at(path("subscription_id"))
        }
        CommandError::TooManySubscriptions { .. } => Fault::new(Reason::TooManySubscriptions, text),
        CommandError::TooManyFilterTokens { .. } => {
            Fault::new(Reason::QuotaExceeded, text).of_quota("filter_tokens", Quota::RETRY_AFTER).at(path("filters"))
        }
        CommandError::TooManyFilterShapes { .. } => {
            Fault::new(Reason::QuotaExceeded, text).of_quota("filter_shapes", Quota::RETRY_AFTER).at(path("filters"))
        }
        CommandError::TooManySessions { .. } => Fault::new(Reason::TooManySessions, text),
        CommandError::QuotaUsedUp { quota, retry_after, .. } => {
            Fault::new(Reason::QuotaExceeded, text).of_quota(quota.name(), *retry_after)
        }
        CommandError::NoMemory { of } => Fault::new(Reason::QuotaExceeded, text).of_quota(of, Quota::RETRY_AFTER),
        CommandError::FrameTooLarge { .. } => Fault::new(Reason::EventTooLarge, text).by_grpc(Code::ResourceExhausted),
        CommandError::Compression { .. } => Fault::new(Reason::MalformedCommand, text).by_grpc(Code::Internal),
        CommandError::SlowFrame { .. } => Fault::new(Reason::SessionStalled, text),
        CommandError::Draining => Fault::new(Reason::Draining, text).retry_after(Duration::from_secs(1)),
        CommandError::SessionNotFound { .. } => Fault::new(Reason::SessionNotFound, text).at(path("session_id")),
        CommandError::Denied(denial) => of_denial(*denial),
        CommandError::Stream(error) => {
            let fault = of_stream(error);
            match field_of(error) {
                "" => fault,
                field => fault.at(path(field)),
            }
        }
    }
}

/// A message that is not written as its form wants it. `path` is the field, empty for the whole.
pub(in crate::edge) fn malformed(path: &str, text: impl Into<String>) -> Fault {
    let fault = Fault::new(Reason::MalformedCommand, text.into());
    if path.is_empty() { fault } else { fault.at(path) }
}

/// There is no memory for what a call needs.
pub(in crate::edge) fn no_memory(full: MemoryFull) -> Status {
    of_command(&CommandError::NoMemory { of: full.of.name() }, "").status()
}

/// Why a caller may not.
pub(in crate::edge) fn of_denial(denial: Denial) -> Fault {
    Fault::new(denial.reason(), denial.to_string())
}

/// What went wrong with a stream.
pub(in crate::edge) fn of_stream(error: &StreamError) -> Fault {
    let fault = |reason| Fault::new(reason, error.to_string());
    match error {
        StreamError::None | StreamError::Mismatch { .. } | StreamError::TooManySteps { .. } => {
            fault(Reason::ConfigMismatch)
        }
        StreamError::NotFound(_) => fault(Reason::StreamNotFound),
        StreamError::EventNotFound { .. } => fault(Reason::EventNotFound),
        StreamError::Exists(_) => fault(Reason::StreamExists),
        StreamError::GroupNotFound { .. } => fault(Reason::GroupNotFound),
        StreamError::GroupExists { .. } => fault(Reason::GroupExists),
        StreamError::Setting(_) => fault(Reason::MalformedCommand),
        StreamError::Overlap { .. } => fault(Reason::FilterOverlap),
        StreamError::NoMemory { of } => fault(Reason::QuotaExceeded).of_quota(of, Quota::RETRY_AFTER),
        StreamError::MemoryStreamFull => fault(Reason::StreamFull).retry_after(Quota::RETRY_AFTER),
        StreamError::TooMany { what, .. } => fault(Reason::QuotaExceeded).of_quota(what, Quota::RETRY_AFTER),
        StreamError::TooLong { .. } => fault(Reason::QuotaExceeded).of_quota("backup_timeout", Quota::RETRY_AFTER),
        StreamError::QuotaUsedUp { .. } => {
            fault(Reason::QuotaExceeded).of_quota(Quota::StoredBytes.name(), Quota::RETRY_AFTER)
        }
        StreamError::NeverFits { .. } => fault(Reason::EventTooLarge),
        StreamError::Token => fault(Reason::MalformedToken),
        StreamError::Lost { after, earliest, latest, .. } => {
            fault(Reason::ResumePointLost).with([("after", *after), ("earliest", *earliest), ("latest", *latest)])
        }
        StreamError::Epoch { earliest, latest, .. } | StreamError::PageEpoch { earliest, latest, .. } => {
            fault(Reason::EpochChanged).with([("earliest", *earliest), ("latest", *latest)])
        }
        StreamError::SequenceMismatch { actual } => fault(Reason::SequenceMismatch).with([("actual", *actual)]),
        StreamError::Full => fault(Reason::StreamFull).retry_after(Duration::from_secs(1)),
        StreamError::Unavailable => fault(Reason::EngineUnavailable).retry_after(Duration::from_secs(1)),
        StreamError::Recovering => fault(Reason::EngineRecovering).retry_after(Duration::from_secs(1)),
        StreamError::Corrupt(_) => fault(Reason::StoreCorrupt),
    }
}

/// The field that is wrong; empty where none can be named.
fn field_of(error: &StreamError) -> &'static str {
    match error {
        StreamError::None | StreamError::NotFound(_) => "stream",
        StreamError::Token => "start.resume_token",
        StreamError::Lost { .. } | StreamError::Epoch { .. } => "start",
        StreamError::PageEpoch { .. } => "page_token",
        StreamError::GroupNotFound { .. } | StreamError::GroupExists { .. } => "group",
        StreamError::Overlap { .. } | StreamError::TooManySteps { .. } => "filters",
        StreamError::Setting(SettingError { field, .. }) | StreamError::Mismatch { field, .. } => field,
        _ => "",
    }
}

/// Why the event at `index` of a publish was refused.
pub(in crate::edge) fn of_event(error: &EventError, index: usize) -> Fault {
    let reason = match error {
        EventError::Topic(_) => Reason::InvalidTopic,
        EventError::TooLarge { .. } => Reason::EventTooLarge,
        EventError::Field { .. } => Reason::MalformedCommand,
        EventError::Denied(denial) => denial.reason(),
        EventError::Stream(error) => return of_stream(error).at(format!("events[{index}]")),
    };
    let field = match error.field() {
        "" | "event" => format!("events[{index}]"),
        field => format!("events[{index}].{field}"),
    };
    Fault::new(reason, error.to_string()).at(field)
}

/// Why an acknowledgement does not count.
pub(in crate::edge) fn of_ack(error: &AckError) -> Fault {
    match error {
        AckError::Late | AckError::NotDelivered => Fault::new(Reason::LeaseExpired, error.to_string()),
        AckError::Stream(error) => of_stream(error),
    }
}

/// How a subscription or a session ended.
pub(in crate::edge) fn of_end(end: &End) -> Fault {
    let text = end.to_string();
    match end {
        End::Unsubscribed | End::Complete => Fault::new(Reason::ClientUnsubscribed, text),
        End::LimitReached => Fault::new(Reason::LimitReached, text),
        End::CreditExhausted => Fault::new(Reason::CreditExhausted, text),
        End::SlowConsumer { .. } => Fault::new(Reason::SlowConsumer, text).retry_after(Duration::ZERO),
        End::Stalled { .. } => Fault::new(Reason::SessionStalled, text).retry_after(Duration::ZERO),
        End::Draining { reconnect_delay } => Fault::new(Reason::Draining, text).retry_after(*reconnect_delay),
        End::Terminated { .. } => Fault::new(Reason::SessionTerminated, text),
        End::BrokenFraming(error) => of_command(error, ""),
        End::Stream(error) => of_stream(error),
        End::Denied(denial) => of_denial(*denial),
        End::Internal => Fault::new(Reason::Internal, text),
        End::Refused(error) => of_command(error, "subscribe.spec."),
    }
}

/// The end of a call: OK without a word, or what went wrong.
pub(in crate::edge) fn of_finished_call(end: &End) -> Status {
    let fault = of_end(end);
    match fault.code() {
        Code::Ok => Status::ok(""),
        _ => fault.status(),
    }
}

/// A call in a form the hub does not take, or that it does not have.
pub(in crate::edge) fn unimplemented(text: impl Into<String>) -> Status {
    Status::unimplemented(text)
}

/// The time that a client gave its call is over.
pub(in crate::edge) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed; work that had begun may still complete")
}

/// A name as a client sent it, short enough for a text and without characters that a terminal would act on.
pub(in crate::edge) fn shown(name: &str) -> String {
    if name.is_empty() {
        return "\"\"".to_owned();
    }
    let mut characters = name.chars();
    let readable = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    let mut shown: String = characters.by_ref().take(MAX_NAME_CHARACTERS).map(readable).collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// A connection watches health as often as it may.
pub(in crate::edge) fn too_many_watches(limit: usize) -> Status {
    Status::resource_exhausted(format!("this connection is at its limit of {limit} health watches"))
}

/// A service that a health check asks for does not exist.
pub(in crate::edge) fn unknown_service() -> Status {
    Status::not_found("unknown service")
}

/// The name of a reason's code, as docs/errors.md has it.
pub(in crate::edge) fn code_name(reason: Reason) -> &'static str {
    match code(reason) {
        Code::Ok => "OK",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::Cancelled | Code::Unknown | Code::DeadlineExceeded | Code::Unimplemented => "no reason has this code",
    }
}

/// The code of every reason: design 3.9.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::ClientUnsubscribed | Reason::LimitReached | Reason::CreditExhausted => Code::Ok,
        Reason::InvalidTopic
        | Reason::InvalidFilter
        | Reason::InvalidExpression
        | Reason::EventTooLarge
        | Reason::MalformedToken
        | Reason::MalformedCommand => Code::InvalidArgument,
        Reason::SubscriptionIdInUse | Reason::StreamExists | Reason::GroupExists => Code::AlreadyExists,
        Reason::StreamNotFound
        | Reason::GroupNotFound
        | Reason::SubscriptionNotFound
        | Reason::SessionNotFound
        | Reason::EventNotFound => Code::NotFound,
        Reason::CredentialMissing | Reason::CredentialInvalid | Reason::CredentialExpired => Code::Unauthenticated,
        Reason::TopicDenied | Reason::ActionDenied | Reason::PermissionRevoked => Code::PermissionDenied,
        Reason::ResumePointLost | Reason::EpochChanged => Code::OutOfRange,
        Reason::SlowConsumer
        | Reason::SessionStalled
        | Reason::QuotaExceeded
        | Reason::StreamFull
        | Reason::TooManySubscriptions
        | Reason::TooManySessions => Code::ResourceExhausted,
        Reason::SequenceMismatch | Reason::SessionTerminated => Code::Aborted,
        Reason::FilterOverlap | Reason::ConfigMismatch | Reason::LeaseExpired => Code::FailedPrecondition,
        Reason::Draining | Reason::EngineUnavailable | Reason::EngineRecovering => Code::Unavailable,
        Reason::StoreCorrupt => Code::DataLoss,
        Reason::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FilterError;

    #[test]
    fn names_from_clients_are_shown_short_and_harmless() {
        assert_eq!((shown("foo.Bar"), shown("")), ("foo.Bar".to_owned(), "\"\"".to_owned()));
        assert_eq!(shown("a b\u{1b}[31m\u{e9}"), "a?b?[31m?");
        assert_eq!(shown(&"x".repeat(MAX_NAME_CHARACTERS)), "x".repeat(MAX_NAME_CHARACTERS));
        assert_eq!(shown(&"x".repeat(MAX_NAME_CHARACTERS + 1)), format!("{}...", "x".repeat(MAX_NAME_CHARACTERS)));
    }

    #[test]
    fn whoever_has_used_up_a_quota_is_told_which_and_when_to_try_again() {
        let wait = Quota::RETRY_AFTER;
        let of_command = [
            CommandError::QuotaUsedUp { quota: Quota::Sessions, limit: 1, retry_after: wait },
            CommandError::TooManyFilterTokens { whole: "hub", limit: 1 },
            CommandError::NoMemory { of: "frames" },
            CommandError::TooManyFilterShapes { whole: "hub", limit: 1 },
            StreamError::TooMany { what: "streams", limit: 1 }.into(),
            StreamError::QuotaUsedUp { limit: 1 }.into(),
            StreamError::NoMemory { of: "topics" }.into(),
        ];
        for error in of_command {
            let event = match &error {
                CommandError::Stream(error) => Some(of_event(&error.clone().into(), 0)),
                _ => None,
            };
            let end = of_end(&End::Refused(Box::new(error.clone())));
            for fault in [super::of_command(&error, ""), end].into_iter().chain(event) {
                let details = fault.status().get_error_details();
                assert_eq!(fault.reason, Reason::QuotaExceeded, "{error}");
                assert!(details.quota_failure().is_some_and(|failure| !failure.violations.is_empty()), "{error}");
                assert_eq!(details.retry_info().and_then(|retry| retry.retry_delay), Some(wait), "{error}");
            }
        }
        let other =
            super::of_command(&CommandError::Filter { index: 0, error: FilterError::TailNotLast { index: 1 } }, "");
        assert!(other.status().get_error_details().quota_failure().is_none());
    }
}
