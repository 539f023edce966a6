//! The event as the hub passes it on.

use std::ops::Range;

use super::Topic;

/// One immutable event: its topic, and its encoded form, made once and shared by all who get it.
///
/// What the bytes mean is the wire's business (`grpc/event.rs` makes them); the rooms between only count them, route
/// them by topic and hand them on.
#[derive(Debug)]
pub struct Event {
    encoded: Box<[u8]>,
    /// Where in `encoded` the topic stands.
    topic: Range<u32>,
}

impl Event {
    /// An event whose encoded form has its topic at `topic`. The caller has checked the topic; a range that is not
    /// inside `encoded` or is not UTF-8 gives `None`.
    pub fn new(encoded: Box<[u8]>, topic: Range<u32>) -> Option<Self> {
        let name = encoded.get(topic.start as usize..topic.end as usize)?;
        Topic::parse(name).ok()?;
        Some(Self { encoded, topic })
    }

    /// The topic it was published to.
    pub fn topic(&self) -> Topic<'_> {
        let name = &self.encoded[self.topic.start as usize..self.topic.end as usize];
        // `new` has parsed these very bytes, and they never change.
        Topic::checked(std::str::from_utf8(name).unwrap_or_default())
    }

    /// The bytes to put into an `events` frame.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}
