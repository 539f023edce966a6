//! Frames as bytes: publishes are put together from events that were encoded once, and what comes is read where it is, and
//! measured as the hub measures it. Pure.

use std::ops::RangeInclusive;

use bytes::Bytes;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use crate::{
    cutter::PREFIX_BYTES,
    event::{Event, Identity, put_head},
    fields::{Broken, Value, next},
    proto::v1::{
        PublishPrecondition, PublishResult, SessionRequest, SessionResponse, session_request::Command,
        session_response::Frame,
    },
    received::Entries,
};

/// `SessionRequest.request_id` and `SessionRequest.publish`.
const REQUEST_ID: u32 = 1;
const PUBLISH: u32 = 8;
/// `PublishRequest.events` and `PublishRequest.precondition`.
const EVENTS_OF_PUBLISH: u32 = 1;
const PRECONDITION: u32 = 2;
/// `SessionResponse.request_id`, `SessionResponse.events` and `SessionResponse.published`; and what it may have in their place.
const ANSWERED_ID: u32 = 1;
const EVENTS_FRAME: u32 = 4;
const PUBLISHED_FRAME: u32 = 8;
const FRAMES: RangeInclusive<u32> = 2..=14;
/// The fields of `Events`.
const SUBSCRIPTION_ID: u32 = 1;
const EVENTS_OF_FRAME: u32 = 2;
const RESUME_TOKEN: u32 = 3;
/// `PublishResponse.results`, and `PublishResult.status`.
const RESULTS: u32 = 1;
const STATUS_OF_RESULT: u32 = 1;

/// Room for the head of a frame before its events: more than the prefix, the id of a request, the tags and the length take.
const HEAD_BYTES: usize = 32;
/// Memory is got at once for so many events that are still to come,
const MOST_EXPECTED: usize = 1024;
/// and a bit more than their bytes: the tag, the length, and a topic that is longer than the first.
const EXPECTED_OVERHEAD: usize = 8;

/// A command as a frame, behind the prefix that each has on the wire.
pub(crate) fn command(request_id: i64, command: Command) -> Bytes {
    let request = SessionRequest { request_id, command: Some(command) };
    let len = request.encoded_len();
    let mut frame = Vec::with_capacity(PREFIX_BYTES + len);
    put_prefix(len, &mut frame);
    // A list grows as it must.
    request.encode(&mut frame).ok();
    frame.into()
}

/// Events to publish, one behind the other as they are in a frame, with room for its head before them.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    events: usize,
}

impl Encoded {
    /// Adds an event. `more` are likely to come, of about the same size.
    pub(crate) fn push(&mut self, event: &Event<'_>, made: Option<Identity<'_>>, more: usize) {
        let known_by = event.known_by(made);
        let len = event.encoded_len(known_by);
        if self.bytes.is_empty() {
            self.bytes.reserve(HEAD_BYTES + (more.min(MOST_EXPECTED) + 1) * (len + EXPECTED_OVERHEAD));
            self.bytes.resize(HEAD_BYTES, 0);
        }
        put_head(EVENTS_OF_PUBLISH, len, &mut self.bytes);
        event.encode(known_by, &mut self.bytes);
        self.events += 1;
    }

    /// How many events there are.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// How many bytes they take in a frame.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(HEAD_BYTES)
    }

    /// Makes a frame of them, where they are, and gives back the events alone too.
    pub(crate) fn into_frame(mut self, request_id: i64, precondition: Option<&PublishPrecondition>) -> (Bytes, Bytes) {
        let events = HEAD_BYTES..self.bytes.len().max(HEAD_BYTES);
        self.bytes.resize(events.end, 0);
        if let Some(precondition) = precondition {
            put(PRECONDITION, &precondition.encode_to_vec(), &mut self.bytes);
        }
        let head = head_of_publish(request_id, self.bytes.len() - HEAD_BYTES);
        let begin = HEAD_BYTES - head.len();
        self.bytes[begin..HEAD_BYTES].copy_from_slice(&head);
        let all = Bytes::from(self.bytes);
        (all.slice(begin..), all.slice(events))
    }

    /// The events alone.
    pub(crate) fn into_events(self) -> Bytes {
        if self.bytes.is_empty() { Bytes::new() } else { Bytes::from(self.bytes).slice(HEAD_BYTES..) }
    }
}

/// The events of a call, each encoded alone.
pub(crate) fn split(events: &Bytes) -> Vec<Bytes> {
    let (mut all, mut rest) = (Vec::new(), &events[..]);
    // What was encoded here is not broken.
    while let Ok((_, Value::Bytes(event))) = next(&mut rest) {
        all.push(events.slice_ref(event));
    }
    all
}

/// Part of what a publish consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece<'a> {
    /// Events as they are in a frame.
    Events(&'a Bytes),
    /// One event alone.
    Event(&'a Bytes),
}

impl Piece<'_> {
    fn len(self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::Event(event) => entry_len(event),
        }
    }
}

/// How many bytes an encoded event takes in a publish: all tags of it are one byte.
pub(crate) fn entry_len(event: &[u8]) -> usize {
    1 + encoded_len_varint(event.len() as u64) + event.len()
}

/// A publish of encoded events.
pub(crate) fn publish<'a>(
    request_id: i64,
    pieces: impl Iterator<Item = Piece<'a>> + Clone,
    precondition: Option<&PublishPrecondition>,
) -> Bytes {
    let precondition = precondition.map(Message::encode_to_vec);
    let body = pieces.clone().map(Piece::len).sum::<usize>() + precondition.as_ref().map_or(0, |last| entry_len(last));
    let mut frame = Vec::with_capacity(HEAD_BYTES + body);
    frame.extend_from_slice(&head_of_publish(request_id, body));
    for piece in pieces {
        match piece {
            Piece::Events(events) => frame.extend_from_slice(events),
            Piece::Event(event) => put(EVENTS_OF_PUBLISH, event, &mut frame),
        }
    }
    if let Some(bytes) = precondition {
        put(PRECONDITION, &bytes, &mut frame);
    }
    frame.into()
}

/// What is before the events of a publish that is this long. Request 0 is answered only on failure.
fn head_of_publish(request_id: i64, len: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    put_prefix(0, &mut head);
    if request_id != 0 {
        encode_key(REQUEST_ID, WireType::Varint, &mut head);
        encode_varint(request_id.cast_unsigned(), &mut head);
    }
    put_head(PUBLISH, len, &mut head);
    let all = head.len() - PREFIX_BYTES + len;
    head[1..PREFIX_BYTES].copy_from_slice(&len_bytes(all));
    head
}

/// What is before every message on the wire: it is not compressed, and this long.
fn put_prefix(len: usize, frame: &mut Vec<u8>) {
    frame.push(0);
    frame.extend_from_slice(&len_bytes(len));
}

/// A frame is far smaller than 4 GiB.
fn len_bytes(len: usize) -> [u8; 4] {
    (len as u32).to_be_bytes()
}

fn put(tag: u32, bytes: &[u8], frame: &mut Vec<u8>) {
    put_head(tag, bytes.len(), frame);
    frame.extend_from_slice(bytes);
}

/// A frame from the hub.
#[derive(Debug)]
pub(crate) enum Heard {
    Events(Delivered),
    /// All events of this request were taken.
    Taken(i64, Results),
    Other(SessionResponse),
}

/// Events for a subscription.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) subscription_id: i64,
    pub(crate) events: Entries,
    pub(crate) resume_token: String,
}

/// Reads a frame. What most frames consist of stays where it is.
pub(crate) fn decode(frame: Bytes) -> Result<Heard, Broken> {
    let (mut request, mut only, mut frames) = (0, None, 0);
    let mut rest = &frame[..];
    while !rest.is_empty() {
        match next(&mut rest)? {
            (ANSWERED_ID, Value::Number(id)) => request = id.cast_signed(),
            (tag, value) if FRAMES.contains(&tag) => {
                frames += 1;
                if let Value::Bytes(body) = value {
                    only = Some((tag, frame.len() - rest.len() - body.len(), body));
                }
            }
            _ => {}
        }
    }
    match only.filter(|_| frames == 1) {
        Some((EVENTS_FRAME, at, body)) => return Ok(Heard::Events(events(&frame, at, body)?)),
        Some((PUBLISHED_FRAME, _, body)) => {
            if let Some(results) = taken(&frame, body)? {
                return Ok(Heard::Taken(request, results));
            }
        }
        _ => {}
    }
    let other = SessionResponse::decode(frame).map_err(|_| Broken)?;
    match other.frame {
        // With something else beside them, which is against the contract.
        Some(Frame::Events(_)) => Err(Broken),
        _ => Ok(Heard::Other(other)),
    }
}

/// The events in a frame. What each of them costs of the credit are all bytes that it takes there.
fn events(frame: &Bytes, base: usize, body: &[u8]) -> Result<Delivered, Broken> {
    let mut delivered =
        Delivered { subscription_id: 0, events: Entries::new(frame.clone()), resume_token: String::new() };
    let mut rest = body;
    while !rest.is_empty() {
        let before = rest.len();
        match next(&mut rest)? {
            (SUBSCRIPTION_ID, Value::Number(id)) => delivered.subscription_id = id.cast_signed(),
            (EVENTS_OF_FRAME, Value::Bytes(event)) => {
                let cost = before - rest.len();
                if delivered.events.all.is_empty() {
                    // About as large as this one.
                    delivered.events.all.reserve(before / cost);
                }
                let at = base + body.len() - rest.len() - event.len();
                delivered.events.add(at, event.len(), cost)?;
            }
            (RESUME_TOKEN, Value::Bytes(token)) => {
                str::from_utf8(token).map_err(|_| Broken)?.clone_into(&mut delivered.resume_token);
            }
            (SUBSCRIPTION_ID..=RESUME_TOKEN, _) => return Err(Broken),
            _ => {}
        }
    }
    Ok(delivered)
}

/// The results of a publish, one for each of its events, as they came: all of them were taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results {
    bytes: Bytes,
    pub(crate) count: usize,
}

/// The results in a frame, unless some event was refused.
fn taken(frame: &Bytes, body: &[u8]) -> Result<Option<Results>, Broken> {
    let mut count = 0;
    let mut rest = body;
    while !rest.is_empty() {
        let (RESULTS, Value::Bytes(mut result)) = next(&mut rest)? else { return Ok(None) };
        count += 1;
        while !result.is_empty() {
            match next(&mut result)? {
                (STATUS_OF_RESULT, _) => return Ok(None),
                (2, Value::Bytes(stream)) => drop(str::from_utf8(stream).map_err(|_| Broken)?),
                (3..=7, Value::Number(_)) | (8.., _) => {}
                _ => return Err(Broken),
            }
        }
    }
    Ok(Some(Results { bytes: frame.slice_ref(body), count }))
}

impl Results {
    /// Takes the first ones off; as many as there are, if that is fewer.
    pub(crate) fn take(&mut self, count: usize) -> Self {
        if count >= self.count {
            return std::mem::take(self);
        }
        let mut rest = &self.bytes[..];
        for _ in 0..count {
            next(&mut rest).ok();
        }
        let first = self.bytes.split_to(self.bytes.len() - rest.len());
        self.count -= count;
        Self { bytes: first, count }
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PublishResult> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || match next(&mut rest).ok()? {
            // They were checked when they came.
            (_, Value::Bytes(result)) => Some(PublishResult::decode(result).unwrap_or_default()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{
        Event as WireEvent, Events, PublishRequest, PublishResponse, ReceivedEvent, event::Payload,
        publish_precondition::Condition,
    };

    fn event(text: &str) -> WireEvent {
        WireEvent { topic: "a.b".into(), payload: Some(Payload::Text(text.into())), ..WireEvent::default() }
    }

    fn encoded(events: &[WireEvent]) -> Encoded {
        let mut encoded = Encoded::default();
        for event in events {
            encoded.push(&event.clone().into(), None, 0);
        }
        encoded
    }

    #[test]
    fn a_command_is_a_message_behind_its_prefix() {
        let ping = || Command::Ping(crate::proto::v1::Ping { nonce: "x".repeat(300) });
        let message = SessionRequest { request_id: 7, command: Some(ping()) }.encode_to_vec();
        let len = u32::try_from(message.len()).expect("short").to_be_bytes();
        assert_eq!(command(7, ping()), [&[0][..], &len, &message].concat());
    }

    #[test]
    fn a_publish_is_what_the_contract_says() {
        let events: Vec<WireEvent> = ["", "x", &"y".repeat(300)].map(event).into();
        for precondition in [None, Some(PublishPrecondition { condition: Some(Condition::LastSequence(7)) })] {
            let publish_of = |request_id, events: &[WireEvent]| {
                let publish = PublishRequest { events: events.to_vec(), precondition };
                command(request_id, Command::Publish(publish))
            };
            for request in [0, 300] {
                let (frame, alone) = encoded(&events).into_frame(request, precondition.as_ref());
                assert_eq!(frame, publish_of(request, &events), "no byte more than prost");
                assert_eq!(alone, encoded(&events).into_events());
                assert_eq!((encoded(&events).events(), encoded(&events).len()), (3, alone.len()));
                let each = split(&alone);
                assert_eq!(each, events.iter().map(Message::encode_to_vec).collect::<Vec<_>>());
                let pieces = [Piece::Events(&alone), Piece::Event(&each[1])];
                let frame = publish(request, pieces.into_iter(), precondition.as_ref());
                let all = [&events[..], &events[1..2]].concat();
                assert_eq!(frame, publish_of(request, &all));
            }
        }
        let (frame, alone) = Encoded::default().into_frame(1, None);
        assert!(alone.is_empty() && !frame.is_empty() && split(&alone).is_empty());
    }

    fn delivered(frame: Vec<u8>) -> Delivered {
        match decode(frame.into()).expect("a frame") {
            Heard::Events(delivered) => delivered,
            other => panic!("no events: {other:?}"),
        }
    }

    #[test]
    fn events_are_measured_as_they_came_with_what_nobody_here_knows() {
        let known = ReceivedEvent { event: Some(event("x")), sequence: 3, ..ReceivedEvent::default() };
        // A field of a newer hub, and one that has its default although it need not be there.
        let unknown = [known.encode_to_vec(), vec![0xfa, 0x3f, 0x03, 1, 2, 3, 0x28, 0x00]].concat();
        let mut body = Vec::new();
        encode_key(1, WireType::Varint, &mut body);
        encode_varint(9, &mut body);
        put(EVENTS_OF_FRAME, &known.encode_to_vec(), &mut body);
        put(EVENTS_OF_FRAME, &unknown, &mut body);
        put(3, b"token", &mut body);
        let mut frame = Vec::new();
        put(EVENTS_FRAME, &body, &mut frame);
        put(15, b"of a newer hub", &mut frame);
        let delivered = delivered(frame);
        let costs: Vec<u32> = delivered.events.all.iter().map(|entry| entry.cost).collect();
        assert_eq!(costs, [known.encode_to_vec().len() as u32 + 2, unknown.len() as u32 + 2]);
        assert_eq!((delivered.subscription_id, delivered.resume_token.as_str()), (9, "token"));
        assert!(delivered.events.iter().all(|event| event.to_wire() == known));
    }

    #[test]
    fn results_are_read_when_somebody_asks_unless_one_is_a_refusal() {
        let result = |stream: &str, sequence| PublishResult { stream: stream.into(), sequence, ..Default::default() };
        let all = vec![result("", 0), result("s", 300), result("t", 1)];
        let response = |results: &[PublishResult]| {
            let frame = Some(Frame::Published(PublishResponse { results: results.to_vec() }));
            decode(SessionResponse { request_id: 7, frame }.encode_to_vec().into()).expect("a frame")
        };
        let Heard::Taken(7, mut results) = response(&all) else { panic!("taken") };
        assert_eq!((results.count, results.iter().collect::<Vec<_>>()), (3, all.clone()));
        let first = results.take(2);
        assert_eq!((first.count, first.iter().collect::<Vec<_>>()), (2, all[..2].to_vec()));
        assert_eq!((results.count, results.iter().collect::<Vec<_>>()), (1, all[2..].to_vec()));
        assert_eq!((results.take(5).count, results.count), (1, 0));
        let refused = PublishResult { status: Some(tonic_types::pb::Status::default()), ..Default::default() };
        assert!(matches!(response(&[all, vec![refused]].concat()), Heard::Other(_)));
        assert!(matches!(response(&[]), Heard::Taken(7, results) if results.count == 0));
    }

    #[test]
    fn a_frame_without_events_is_decoded_and_one_that_is_broken_is_an_error() {
        let pong = crate::proto::v1::Pong { nonce: "n".into() };
        let other = SessionResponse { request_id: 1, frame: Some(Frame::Pong(pong)) };
        let frame = other.encode_to_vec();
        assert!(matches!(decode(frame.clone().into()), Ok(Heard::Other(decoded)) if decoded == other));
        let received = ReceivedEvent { event: Some(event("x")), stream: "s".into(), ..ReceivedEvent::default() };
        let events = Events { subscription_id: 1, events: vec![received; 3], resume_token: "t".into() };
        let events = SessionResponse { request_id: 0, frame: Some(Frame::Events(events)) }.encode_to_vec();
        for frame in [frame, events] {
            for cut in 1..frame.len() {
                // Whether or not it is an error: nothing panics.
                decode(Bytes::copy_from_slice(&frame[..cut])).map(drop).ok();
            }
        }
        assert!(decode(Bytes::from_static(&[0x22, 0x7f, 0x12])).is_err());
        let two = SessionResponse { request_id: 0, frame: Some(Frame::Events(Events::default())) }.encode_to_vec();
        assert!(decode([two.clone(), two].concat().into()).is_err());
    }
}
