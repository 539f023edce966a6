//! What can go wrong with a command or an event, and how a subscription can end. `edge/wire/status.rs` alone turns these
//! into statuses; nobody else words an error. Pure.

use std::time::Duration;

use super::{FilterError, GroupError, NameError, Reason, SettingError, StreamName};

/// Why a command was refused. The session goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The frame is not a command: it does not decode, or holds none.
    #[error("{problem}")]
    Undecodable {
        /// What is wrong, in words.
        problem: String,
    },
    /// A message in JSON is not what its type says.
    #[error("{} {problem}", if .path.is_empty() { "the message" } else { .path })]
    Json {
        /// The field, from the message on; empty for the message itself.
        path: String,
        /// What is wrong, in words.
        problem: String,
    },
    /// A field is missing or out of its range.
    #[error("{} {problem}", if .field.is_empty() { "it" } else { .field })]
    Field {
        /// Its path below the command or spec, such as `subscription_id`; empty for the whole.
        field: &'static str,
        /// What is wrong, in words.
        problem: String,
    },
    /// A filter breaks the rules.
    #[error("filter {index} is invalid: {error}")]
    Filter {
        /// Its place in the list, counted from 0.
        index: usize,
        /// Which rule.
        error: FilterError,
    },
    /// A live subscription without a filter.
    #[error("a live subscription needs at least one filter; `>` matches every topic")]
    NoFilter,
    /// A group with a bad name.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Expressions are not supported yet.
    #[error("expressions are not supported by this hub")]
    Expression,
    /// The request needs something this hub does not have.
    #[error("{} needs {needs}", if .field.is_empty() { "it" } else { .field })]
    Unsupported {
        /// The path of the field that asks for it, below the command or spec.
        field: &'static str,
        /// What it needs, in words.
        needs: &'static str,
    },
    /// The subscription id is taken in this session.
    #[error("subscription {id} is open in this session")]
    SubscriptionIdInUse {
        /// The id.
        id: i64,
    },
    /// The session has no such subscription, or no longer.
    #[error("this session has no subscription {id}")]
    SubscriptionNotFound {
        /// The id.
        id: i64,
    },
    /// The session has as many subscriptions as it may.
    #[error("this session is at its limit of {limit} subscriptions")]
    TooManySubscriptions {
        /// How many it may have.
        limit: usize,
    },
    /// The filters of the session, or of the hub, have as many tokens as they may.
    #[error("with these, the filters of this {whole} would be over their limit of {limit} tokens")]
    TooManyFilterTokens {
        /// `session` or `hub`.
        whole: &'static str,
        /// How many they may have.
        limit: usize,
    },
    /// The filters of the session, or of the hub, would have too many shapes.
    #[error(
        "with these, the filters of this {whole} would have `*` in more than {limit} different combinations of places, which is \
         the limit; filters of up to 8 tokens, or with one `*`, do not count"
    )]
    TooManyFilterShapes {
        /// `session` or `hub`.
        whole: &'static str,
        /// How many they may have.
        limit: usize,
    },
    /// The connection, or the hub, has as many sessions as it may.
    #[error("this {whole} is at its limit of {limit} sessions")]
    TooManySessions {
        /// `connection` or `hub`.
        whole: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// The principal uses as much as it may.
    #[error("the quota of {limit} {quota} is used up")]
    QuotaUsedUp {
        /// Of what.
        quota: Quota,
        /// How much it may use.
        limit: u64,
        /// When it may use more, or may try whether it may.
        retry_after: Duration,
    },
    /// The hub holds as much for this client, or for all, as it may.
    #[error("the hub has no memory left for {of} of this client")]
    NoMemory {
        /// For what: the name of an option under `[memory]`, without its unit.
        of: &'static str,
    },
    /// A frame is larger than a frame may be.
    #[error("the frame is over the limit of {limit} bytes")]
    FrameTooLarge {
        /// How many it may have, without compression.
        limit: usize,
    },
    /// A frame is not compressed as it says.
    #[error("{problem}")]
    Compression {
        /// What is wrong, in words.
        problem: &'static str,
    },
    /// A frame came too slowly.
    #[error("a frame was not complete after {} seconds", .timeout.as_secs_f64())]
    SlowFrame {
        /// How long it may take.
        timeout: Duration,
    },
    /// The hub is shutting down.
    #[error("this hub is shutting down")]
    Draining,
    /// There is no such session, or it is over.
    #[error("this hub has no session {id:?}")]
    SessionNotFound {
        /// The id.
        id: String,
    },
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Something about streams.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// What a principal may use only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Sessions at a time.
    Sessions,
    /// Subscriptions at a time, in all sessions.
    Subscriptions,
    /// Events published in a second.
    PublishEvents,
    /// Bytes of events published in a second.
    PublishBytes,
    /// Bytes of events published and not answered yet.
    InFlightBytes,
    /// Bytes in all streams that it made.
    StoredBytes,
}

impl Quota {
    /// When to try again where nothing tells when there is room: something has to end first.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// Its name, in `google.rpc.QuotaFailure` and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::PublishEvents => "publish_events_per_second",
            Self::PublishBytes => "publish_bytes_per_second",
            Self::InFlightBytes => "in_flight_bytes",
            Self::StoredBytes => "stored_bytes",
        }
    }
}

impl std::fmt::Display for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::PublishEvents => "published events a second",
            Self::PublishBytes => "published bytes a second",
            Self::InFlightBytes => "bytes of unanswered publishes",
            Self::StoredBytes => "stored bytes",
        })
    }
}

/// Why a caller may not do something. The text is the same whether or not the thing it asks for exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// It showed no credential.
    #[error("a credential is needed")]
    Missing,
    /// Its credential is not one that this hub accepts; why is told to the log alone.
    #[error("the credential is not accepted")]
    Invalid,
    /// The credential of a session can be renewed only for the same identity.
    #[error("the credential has another identity than the session")]
    OtherIdentity,
    /// It was accepted, and is no more.
    #[error("the credential has expired")]
    Expired,
    /// A topic, a stream or a group is not for the caller.
    #[error("you may not {0}")]
    Topic(&'static str),
    /// An action is not for the caller.
    #[error("you may not {0}")]
    Action(&'static str),
    /// What was allowed is allowed no longer.
    #[error("the right to this was revoked")]
    Revoked,
}

impl Denial {
    /// The reason that a program can act on.
    pub fn reason(self) -> Reason {
        match self {
            Self::Missing => Reason::CredentialMissing,
            Self::Invalid | Self::OtherIdentity => Reason::CredentialInvalid,
            Self::Expired => Reason::CredentialExpired,
            Self::Topic(_) => Reason::TopicDenied,
            Self::Action(_) => Reason::ActionDenied,
            Self::Revoked => Reason::PermissionRevoked,
        }
    }
}

/// What can go wrong with a stream, a group on it, or a position in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// This hub keeps no streams.
    #[error("this hub keeps no streams: start it with a data directory")]
    None,
    /// There is no such stream, or it was deleted.
    #[error("there is no stream {0}")]
    NotFound(String),
    /// The stream does not have such an event, or has it no more.
    #[error("stream {stream} has no event {which}")]
    EventNotFound {
        /// Which stream.
        stream: StreamName,
        /// Which event, in words.
        which: String,
    },
    /// There is one of that name.
    #[error("stream {0} exists")]
    Exists(StreamName),
    /// There is no such group.
    #[error("stream {stream} has no group {group}")]
    GroupNotFound {
        /// Of which stream.
        stream: StreamName,
        /// Its name.
        group: String,
    },
    /// There is one of that name.
    #[error("stream {stream} has a group {group}")]
    GroupExists {
        /// Of which stream.
        stream: StreamName,
        /// Its name.
        group: String,
    },
    /// A setting is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A setting or a request does not fit how the stream or group is set up.
    #[error("{field} {problem}")]
    Mismatch {
        /// Which field.
        field: &'static str,
        /// What is wrong, in words.
        problem: String,
    },
    /// A topic would be in two streams.
    #[error("the filters overlap those of {}", .with.as_ref().map_or("another stream".into(), |with| format!("stream {with}")))]
    Overlap {
        /// The other one; `None` when the caller may not know of it.
        with: Option<StreamName>,
    },
    /// Filters take too long to look at.
    #[error(
        "with those of other streams, the filters take more than {limit} steps to look up a topic, or to compare: use fewer wildcards"
    )]
    TooManySteps {
        /// How many steps they may take.
        limit: usize,
    },
    /// What has to be kept for it does not fit into the memory of the hub.
    #[error("the hub has no memory left for {of} of this stream (memory.{of}_bytes)")]
    NoMemory {
        /// Of what, as it stands in the configuration.
        of: &'static str,
    },
    /// Streams kept in memory have no room.
    #[error(
        "the hub has no memory left for events of this stream, which is kept in memory (memory.memory_streams_bytes)"
    )]
    MemoryStreamFull,
    /// It goes on for longer than it may.
    #[error("{what}")]
    TooLong {
        /// What, and for how long it may.
        what: String,
    },
    /// There are as many as there may be.
    #[error("the limit is reached: {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Who made the stream stores as much as it may.
    #[error("the owner of this stream has used its quota of {limit} stored bytes")]
    QuotaUsedUp {
        /// How much that is.
        limit: u64,
    },
    /// Events are larger than all that their stream keeps: it would be empty after them.
    #[error("the stream keeps at most {limit} bytes (max_bytes); this has {bytes}")]
    NeverFits {
        /// How large they are.
        bytes: u64,
        /// What it keeps.
        limit: u64,
    },
    /// A token that this hub did not make, or that was changed.
    #[error("the token was not made by this hub, or was changed")]
    Token,
    /// Events behind that point are not kept any more.
    #[error("events after sequence {after} are lost: stream {stream} keeps {earliest} to {latest}")]
    Lost {
        /// Of which stream.
        stream: StreamName,
        /// Which point.
        after: u64,
        /// The first sequence kept; `latest + 1` when none is.
        earliest: u64,
        /// The last one.
        latest: u64,
    },
    /// The stream was made anew, or lost its tail.
    #[error(
        "the position is from before stream {stream} was created again or restored, or lost its end; it keeps {earliest} to {latest}"
    )]
    Epoch {
        /// Which stream.
        stream: StreamName,
        /// The first sequence kept; `latest + 1` when none is.
        earliest: u64,
        /// The last one.
        latest: u64,
    },
    /// A page of events is asked for with a token from before the stream was made anew, or lost its tail.
    #[error(
        "the page token is from before stream {stream} was created again or restored, or lost its end; it keeps {earliest} to {latest}"
    )]
    PageEpoch {
        /// Which stream.
        stream: StreamName,
        /// The first sequence kept; `latest + 1` when none is.
        earliest: u64,
        /// The last one.
        latest: u64,
    },
    /// The precondition of a publish does not hold.
    #[error("the precondition does not hold: the last sequence is {actual}")]
    SequenceMismatch {
        /// What it was compared with.
        actual: u64,
    },
    /// The stream, or the disk, has no room.
    #[error("the disk has no room left for streams")]
    Full,
    /// The store failed or is closed.
    #[error("the store is not available; it is unknown whether pending events were stored")]
    Unavailable,
    /// The store is still being opened.
    #[error("the store is still recovering")]
    Recovering,
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

/// Why an acknowledgement of one event does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The lease is over.
    #[error("it came too late: the group delivers the event again, or no longer has it")]
    Late,
    /// The event is not with that member, and never was as far as the hub remembers.
    #[error("the event was not delivered to this member, or only before the group was moved or the hub was restarted")]
    NotDelivered,
    /// It could not be stored.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Why an event was refused. Other events of the same publish are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Its topic breaks the rules.
    #[error("the topic is invalid: {0}")]
    Topic(#[from] NameError),
    /// It is larger than an event may be.
    #[error("the event has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// What it may be.
        limit: usize,
    },
    /// A field does not decode or is out of its range.
    #[error("{field} {problem}")]
    Field {
        /// The field of the event, or `event` where none can be named.
        field: &'static str,
        /// What is wrong, in words.
        problem: &'static str,
    },
    /// The caller may not publish it.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Its stream did not store it.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl EventError {
    /// The field of the event that is wrong; empty for the event as a whole.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Topic(_) | Self::Denied(_) => "topic",
            Self::TooLarge { .. } | Self::Stream(_) => "",
            Self::Field { field, .. } => field,
        }
    }
}

/// Why a subscription, or a whole session, is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The client asked.
    #[error("unsubscribed")]
    Unsubscribed,
    /// `max_events` events were sent.
    #[error("the limit of events is reached")]
    LimitReached,
    /// The credit is used up and no more can come.
    #[error("the credit is used up")]
    CreditExhausted,
    /// The queue of a subscription that wants to end rather than lose events is full.
    #[error("the subscription was too slow: its queue of {events} events or {bytes} bytes is full")]
    SlowConsumer {
        /// How many events may wait.
        events: usize,
        /// How many bytes may wait.
        bytes: usize,
    },
    /// The transport took nothing for the write timeout.
    #[error("the client read nothing for {} seconds", .timeout.as_secs())]
    Stalled {
        /// The write timeout.
        timeout: Duration,
    },
    /// The hub is shutting down, or the connection has come of age.
    #[error("the hub is shutting down or the connection reached its maximum age; reconnect")]
    Draining {
        /// How long the client is asked to wait before it connects again.
        reconnect_delay: Duration,
    },
    /// An operator ended the session.
    #[error("an operator ended this session{}{why}", if .why.is_empty() { "" } else { ": " })]
    Terminated {
        /// What the operator says; may be empty.
        why: Box<str>,
    },
    /// The client's frames cannot be told apart any longer.
    #[error(transparent)]
    BrokenFraming(Box<CommandError>),
    /// The stream cannot be read on.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The caller may not have it any longer.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The subscription was never opened.
    #[error(transparent)]
    Refused(Box<CommandError>),
    /// The client asked for no more and nothing is left to send.
    #[error("complete")]
    Complete,
    /// A bug in the hub.
    #[error("the hub failed; its log has the details")]
    Internal,
}
