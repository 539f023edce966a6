//! CloudEvents 1.0 in the bodies and headers of HTTP, and as events: both ways without loss. Pure.
//!
//! | CloudEvents | event |
//! |---|---|
//! | `id`, `source`, `type`, `time` | the fields of these names; `time` to the nanosecond, in UTC |
//! | `"subject"` | `topic` |
//! | `datacontenttype` | `content_type` |
//! | `partitionkey` | `key` |
//! | `switchyardttl` | `ttl`, as `2.5s` |
//! | `dataschema`, and every extension | `attributes`, as texts |
//! | `data`, or a body that is text | `text` |
//! | `data_base64`, or any other body | `data` |
//!
//! What the other side has no place for has one with a name of ours. A CloudEvent has a source and a type: for an event without
//! them these are [`NO_SOURCE`] and [`NO_TYPE`], which are none on the way in. Attributes whose names are none of CloudEvents
//! are members of the JSON object in `switchyardattributes`. A text that `data` cannot have because it is not the JSON that
//! it says it is comes as `data_base64`, with `switchyardpayload` `text`. Where an event is stored is said by
//! `switchyardstream`, `switchyardsequence` and `switchyardappendtime`, and passed over on the way in.

mod attributes;
mod binary;
mod json;
#[cfg(test)]
mod tests;

pub(super) use attributes::NoCloudEvent;
pub(super) use binary::of_headers;
pub(super) use json::{Batch, of_json, put_event};

/// The source of an event without one.
const NO_SOURCE: &str = "urn:switchyard:unknown";
/// The type of an event without one.
const NO_TYPE: &str = "switchyard.unknown";
/// What our own names begin with.
const OURS: &str = "switchyard";
