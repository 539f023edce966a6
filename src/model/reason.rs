//! Why the hub refuses a command or ends a subscription: one closed list, the same in the proto, docs/errors.md and
//! here (`tests/it/errors.rs` compares the three). Pure.

macro_rules! reasons {
    ($($variant:ident = $name:literal,)*) => {
        /// A reason a program can act on. What each means is told in docs/errors.md.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum Reason { $($variant,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The name in `google.rpc.ErrorInfo.reason`, metrics and docs.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    ClientUnsubscribed = "CLIENT_UNSUBSCRIBED",
    LimitReached = "LIMIT_REACHED",
    CreditExhausted = "CREDIT_EXHAUSTED",
    InvalidTopic = "INVALID_TOPIC",
    InvalidFilter = "INVALID_FILTER",
    InvalidExpression = "INVALID_EXPRESSION",
    EventTooLarge = "EVENT_TOO_LARGE",
    MalformedToken = "MALFORMED_TOKEN",
    MalformedCommand = "MALFORMED_COMMAND",
    SubscriptionIdInUse = "SUBSCRIPTION_ID_IN_USE",
    StreamExists = "STREAM_EXISTS",
    GroupExists = "GROUP_EXISTS",
    StreamNotFound = "STREAM_NOT_FOUND",
    GroupNotFound = "GROUP_NOT_FOUND",
    SubscriptionNotFound = "SUBSCRIPTION_NOT_FOUND",
    SessionNotFound = "SESSION_NOT_FOUND",
    EventNotFound = "EVENT_NOT_FOUND",
    CredentialMissing = "CREDENTIAL_MISSING",
    CredentialInvalid = "CREDENTIAL_INVALID",
    CredentialExpired = "CREDENTIAL_EXPIRED",
    TopicDenied = "TOPIC_DENIED",
    ActionDenied = "ACTION_DENIED",
    PermissionRevoked = "PERMISSION_REVOKED",
    ResumePointLost = "RESUME_POINT_LOST",
    EpochChanged = "EPOCH_CHANGED",
    SlowConsumer = "SLOW_CONSUMER",
    SessionStalled = "SESSION_STALLED",
    QuotaExceeded = "QUOTA_EXCEEDED",
    StreamFull = "STREAM_FULL",
    TooManySubscriptions = "TOO_MANY_SUBSCRIPTIONS",
    TooManySessions = "TOO_MANY_SESSIONS",
    SequenceMismatch = "SEQUENCE_MISMATCH",
    SessionTerminated = "SESSION_TERMINATED",
    FilterOverlap = "FILTER_OVERLAP",
    ConfigMismatch = "CONFIG_MISMATCH",
    LeaseExpired = "LEASE_EXPIRED",
    Draining = "DRAINING",
    EngineUnavailable = "ENGINE_UNAVAILABLE",
    EngineRecovering = "ENGINE_RECOVERING",
    StoreCorrupt = "STORE_CORRUPT",
    Internal = "INTERNAL",
}
