//! Events that the hub could pass on and no client could decode: whoever stores one ends every reader of its stream.

use proptest::prelude::*;
use prost::{
    Message,
    encoding::{encode_varint, encoded_len_varint},
};

use super::{Event, EventIds};
use crate::{model::EventError, proto::v1 as client};

fn accepted(raw: &[u8]) -> Result<Event, EventError> {
    Event::accept(raw, 1024 * 1024, &mut EventIds::new("s"))
}

/// A field with a length.
fn nested(tag: u32, value: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(10 + value.len());
    encode_varint((tag << 3 | 2).into(), &mut field);
    encode_varint(value.len() as u64, &mut field);
    field.extend_from_slice(value);
    field
}

/// So many groups inside each other.
fn groups(depth: usize) -> Vec<u8> {
    let [mut begin, mut end] = [Vec::new(), Vec::new()];
    encode_varint(100 << 3 | 3, &mut begin);
    encode_varint(100 << 3 | 4, &mut end);
    [begin.repeat(depth), end.repeat(depth)].concat()
}

/// Whether a client can decode an entry in every message in which it may come.
fn decodes(event: &Event) -> bool {
    let entry = event.encoded();
    let received = event.received();
    let letter = nested(6, &received);
    let listed = |received: &[u8]| client::ListEventsResponse::decode(&*nested(1, &nested(1, received))).is_ok();
    client::SessionResponse::decode(&*nested(EVENTS, entry)).is_ok()
        && client::SubscribeResponse::decode(&*nested(EVENTS, entry)).is_ok()
        && client::GetEventResponse::decode(&*nested(1, &received)).is_ok()
        && client::ListDeadLettersResponse::decode(&*nested(1, &letter)).is_ok()
        && [0, 1, usize::MAX].into_iter().all(|most| listed(&event.received_up_to(most).0))
}

/// `SessionResponse.events`, and the same of `SubscribeResponse`.
const EVENTS: u32 = 4;

/// An event that is good.
fn good() -> Vec<u8> {
    client::Event { topic: "a.b".into(), ..client::Event::default() }.encode_to_vec()
}

#[test]
fn groups_are_refused_wherever_they_stand() {
    for depth in [1, 2, 97, 98, 100, 101, 500] {
        let group = groups(depth);
        let text = |tag, text: &str| nested(tag, text.as_bytes());
        for (field, place) in [
            ("event", group.clone()),
            ("attributes", nested(8, &[text(1, "n"), text(2, "v"), group.clone()].concat())),
            ("time", nested(5, &group)),
            ("ttl", nested(9, &[vec![8, 1], group.clone()].concat())),
        ] {
            for raw in [[good(), place.clone()].concat(), [place, good()].concat()] {
                let error = accepted(&raw).expect_err("refused");
                assert_eq!(error.field(), field, "{depth}");
                assert!(error.to_string().contains("group (wire type 3 or 4)"), "{error}");
            }
        }
        // The hub looks at no field that it does not know, and neither does any client.
        let opaque = accepted(&[good(), nested(100, &group)].concat()).expect("accepted");
        assert!(decodes(&opaque));
    }
}

#[test]
fn keys_and_lengths_that_some_clients_do_not_take_are_refused() {
    let long = |number: u8| [number | 0x80, 0x80, 0x80, 0x80, 0x80, 0];
    let key = [&good(), &long(100 << 3 & 0x78)[..], &[1]].concat();
    let length = [&good(), &[0x7a][..], &long(0)].concat();
    for raw in [key, length] {
        assert_eq!(accepted(&raw).expect_err("refused").field(), "event");
    }
}

#[test]
fn a_message_in_two_parts_is_judged_as_the_whole_that_clients_make_of_it() {
    let ttl = |seconds, nanos| nested(9, &prost_types::Duration { seconds, nanos }.encode_to_vec());
    let both = accepted(&[good(), ttl(5, 0), ttl(0, 1_000_000)].concat()).expect("accepted");
    assert_eq!(both.spans().ttl_ms.map(std::num::NonZeroU64::get), Some(5001));
    assert_eq!(accepted(&[good(), ttl(5, 0), ttl(0, -1)].concat()).expect_err("refused").field(), "ttl");
}

/// Anything that may stand in a message, good or bad.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let number = (0..140_u32, any::<u64>()).prop_map(|(tag, value)| {
        let mut field = Vec::with_capacity(5 + encoded_len_varint(value));
        encode_varint((tag << 3).into(), &mut field);
        encode_varint(value, &mut field);
        field
    });
    let bytes = (0..140_u32, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(tag, value)| nested(tag, &value));
    let fixed = (0..140_u32, any::<bool>(), any::<u64>()).prop_map(|(tag, long, value)| {
        let mut field = Vec::new();
        encode_varint((tag << 3 | if long { 1 } else { 5 }).into(), &mut field);
        field.extend_from_slice(&value.to_le_bytes()[..if long { 8 } else { 4 }]);
        field
    });
    let texts = (1..12_u32, "[a-zé.]{0,12}").prop_map(|(tag, text)| nested(tag, text.as_bytes()));
    let group = (1..120_usize).prop_map(groups);
    prop_oneof![4 => number, 2 => bytes, 2 => fixed, 4 => texts, 1 => group, 1 => prop::collection::vec(any::<u8>(), 0..8)]
}

/// A message in which others are.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(piece(), 0..4).prop_map(|pieces| pieces.concat());
    let inner = (prop::sample::select(vec![5_u32, 8, 9, 15, 100]), pieces).prop_map(|(tag, value)| nested(tag, &value));
    prop::collection::vec(prop_oneof![piece(), inner], 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_accepted_decodes_at_every_client(
        before in message(),
        after in message(),
        change in any::<prop::sample::Index>(),
        byte in prop::option::of(any::<u8>()),
    ) {
        let mut raw = [before, good(), after].concat();
        if let Some(byte) = byte {
            let at = change.index(raw.len());
            raw[at] = byte;
        }
        if let Ok(event) = accepted(&raw) {
            prop_assert!(decodes(&event), "{raw:?}");
        }
    }
}
