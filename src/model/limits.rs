//! Every fixed limit of the hub, in one place. What an operator may change is in the options of the room it concerns,
//! with these as defaults; `welcome` and docs/operations.md echo them. Pure.

use std::time::Duration;

/// The longest topic or filter, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The most tokens in a topic or filter.
pub const MAX_NAME_TOKENS: usize = 32;

/// The largest encoded event from a publisher, in bytes.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The longest `id`, `type`, `source`, `key` or `content_type` of an event, in bytes.
pub const MAX_EVENT_FIELD_BYTES: usize = 256;
/// The most attributes of an event.
pub const MAX_EVENT_ATTRIBUTES: usize = 64;
/// The most events in one publish.
pub const MAX_PUBLISH_EVENTS: i32 = 10_000;
/// The largest frame from a client, in bytes.
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// How long a stream knows repetitions unless it is told otherwise.
pub const USUAL_DEDUPE_WINDOW: Duration = Duration::from_secs(120);
/// The longest name of a stream, in bytes.
pub const MAX_STREAM_NAME_BYTES: usize = 64;
/// The most filters of one stream.
pub const MAX_STREAM_FILTERS: usize = 256;
/// The longest time for which a stream knows repetitions: a day.
pub const MAX_DEDUPE_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest deadline or wait of a group: a day.
pub const MAX_GROUP_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The most steps in the backoff of a group.
pub const MAX_BACKOFF_STEPS: usize = 32;
/// The most events that the members of a group may hold without having acknowledged them.
pub const MAX_UNACKED: u32 = 100_000;
/// The largest stored state of a group, in bytes.
pub const MAX_GROUP_STATE_BYTES: usize = 16 * 1024 * 1024;

/// The most filters in one subscription.
pub const MAX_FILTERS: i32 = 256;
/// The longest name of a group, in bytes.
pub const MAX_GROUP_NAME_BYTES: usize = 64;
/// The shortest time in which a member of a group has to acknowledge, in milliseconds.
pub const MIN_ACK_DEADLINE_MS: u64 = 100;
/// What is kept of the reason of a NACK or REJECT, in bytes.
pub const MAX_FAILURE_BYTES: usize = 256;
/// The most events in one `events` frame.
pub const MAX_BATCH_EVENTS: i32 = 10_000;
/// No `events` frame grows past this, in bytes, unless its first event alone is larger.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;
/// The most sequences in one `acknowledge`.
pub const MAX_ACKNOWLEDGED: usize = 10_000;
/// The most sequences in one `reattach`: as many as a member can hold.
pub const MAX_HELD_SEQUENCES: usize = MAX_UNACKED as usize;
/// The longest reason of an `acknowledge`, in bytes.
pub const MAX_ACK_REASON_BYTES: usize = 1024;

/// Why an operator ends a session is told in at most so many bytes.
pub const MAX_TERMINATE_REASON_BYTES: usize = 256;
/// The longest resume token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 256;
/// The longest nonce of a `ping`, in bytes.
pub const MAX_NONCE_BYTES: usize = 64;
/// The longest `client_name` of a `hello`, in bytes.
pub const MAX_CLIENT_NAME_BYTES: usize = 256;
/// The longest `previous_session_id` of a `hello`, in bytes.
pub const MAX_SESSION_ID_BYTES: usize = 64;
/// The most labels of a `hello`.
pub const MAX_LABELS: usize = 32;
/// The labels of a `hello` together, names and values, in bytes.
pub const MAX_LABEL_BYTES: usize = 4096;

/// The most addresses of other hubs that clients are told of.
pub const MAX_ALTERNATIVES: usize = 16;
/// The longest address of another hub, in bytes.
pub const MAX_ALTERNATIVE_BYTES: usize = 256;

/// The most watches of health on one connection: they need no credential.
pub const MAX_WATCHES: usize = 100;
/// The longest credential, in bytes.
pub const MAX_CREDENTIAL_BYTES: usize = 12 * 1024;
/// The longest name of a principal, in bytes.
pub const MAX_PRINCIPAL_BYTES: usize = 256;

/// No configured time is longer, in milliseconds: a day.
pub const MAX_TIME_MS: u64 = 24 * 60 * 60 * 1000;

/// The window that automatic credit stands for, in events.
pub const AUTOMATIC_CREDIT_EVENTS: i64 = 256;
/// The window that automatic credit stands for, in bytes.
pub const AUTOMATIC_CREDIT_BYTES: i64 = 1024 * 1024;
/// The most events that a member of a group may have without an acknowledgement when it has automatic credit.
pub const AUTOMATIC_MEMBER_EVENTS: i64 = 64;

const _: () = assert!(MAX_EVENT_BYTES < MAX_FRAME_BYTES, "the largest event must fit into a frame");
