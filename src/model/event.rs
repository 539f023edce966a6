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
    /// An event whose encoded form has at `topic` what the caller has checked to be a topic. A range that is not inside
    /// `encoded` gives `None`.
    pub fn new(encoded: Box<[u8]>, topic: Range<u32>) -> Option<Self> {
        let name = encoded.get(topic.start as usize..topic.end as usize)?;
        debug_assert!(Topic::parse(name).is_ok());
        Some(Self { encoded, topic })
    }

    /// The topic it was published to.
    pub fn topic(&self) -> Topic<'_> {
        Topic::checked(&self.encoded[self.topic.start as usize..self.topic.end as usize])
    }

    /// The bytes to put into an `events` frame.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}
