//! The results of a publish as they go over the wire. There is one for every event that is published, so they are written
//! straight into the bytes that are sent instead of being made into generated messages first. Pure.

use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{decode_varint, encode_varint, encoded_len_varint},
};

use super::{forms::v1 as wire, status};
use crate::{
    field_numbers::{nested, number, publish_response, publish_result},
    outbox::{Accepted, Published},
};

/// `PublishResponse.results`, length-delimited.
const KEY_RESULT: u8 = nested(publish_response::RESULTS);
/// `PublishResult.stream`, length-delimited.
const KEY_STREAM: u8 = nested(publish_result::STREAM);
/// `PublishResult.sequence`, `epoch`, `duplicate`, `matched` and `durability`, varints.
const KEYS: [u8; 5] = [
    number(publish_result::SEQUENCE),
    number(publish_result::EPOCH),
    number(publish_result::DUPLICATE),
    number(publish_result::MATCHED),
    number(publish_result::DURABILITY),
];
/// So many refusals of one publish have all their details. More would not fit into what clients take as one message.
const MOST_DETAILED: usize = 100;
/// Room for a result; more is found when it is needed.
const USUAL_RESULT_BYTES: usize = 32;

/// A result has at most about so many bytes, and one with all its details so many more.
const RESULT_BYTES: usize = 256;
const DETAILS_BYTES: usize = 1024;

/// How large the `PublishResponse` of so many events may become, in bytes.
pub(in crate::edge) fn most_bytes(events: usize) -> usize {
    events * RESULT_BYTES + events.min(MOST_DETAILED) * DETAILS_BYTES
}

/// The `PublishResponse`.
pub(in crate::edge) fn encode(results: &[Published]) -> Bytes {
    let mut out = Vec::with_capacity(results.len() * USUAL_RESULT_BYTES);
    let mut refused = 0;
    for (index, result) in results.iter().enumerate() {
        out.push(KEY_RESULT);
        match result {
            Ok(accepted) => put(&mut out, accepted),
            Err(error) => {
                refused += 1;
                let fault = status::of_event(error, index);
                let fault = if refused > MOST_DETAILED { fault.brief() } else { fault };
                let status = Some(fault.message());
                let told = wire::PublishResult { status, ..Default::default() }.encode_length_delimited_to_vec();
                out.extend_from_slice(&told);
            }
        }
    }
    out.into()
}

/// The encoded results of an encoded `PublishResponse`.
pub(in crate::edge) fn each(mut response: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        // As `encode` has written it.
        if !response.has_remaining() || response.get_u8() != KEY_RESULT {
            return None;
        }
        let len = usize::try_from(decode_varint(&mut response).ok()?).ok()?;
        (len <= response.len()).then(|| response.split_to(len))
    })
}

/// One result with its length.
fn put(out: &mut Vec<u8>, accepted: &Accepted) {
    let stored = accepted.stored.as_ref();
    let stream = stored.map_or("", |stored| stored.origin.stream.as_str());
    // A negative number goes as it is in memory, as protobuf has it.
    let numbers = [
        stored.map_or(0, |stored| stored.sequence),
        stored.map_or(0, |stored| stored.origin.epoch.cast_unsigned()),
        stored.map_or(0, |stored| u64::from(stored.duplicate)),
        accepted.matched,
        stored.map_or(0, |stored| wire::Durability::from(stored.durability) as u64),
    ];
    let set = || KEYS.into_iter().zip(numbers).filter(|(_, number)| *number != 0);
    let stream_bytes = if stream.is_empty() { 0 } else { 1 + encoded_len_varint(stream.len() as u64) + stream.len() };
    let bytes = stream_bytes + set().map(|(_, number)| 1 + encoded_len_varint(number)).sum::<usize>();
    encode_varint(bytes as u64, out);
    if !stream.is_empty() {
        out.push(KEY_STREAM);
        encode_varint(stream.len() as u64, out);
        out.extend_from_slice(stream.as_bytes());
    }
    for (key, number) in set() {
        out.push(key);
        encode_varint(number, out);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{Durability, EventError, Origin, StreamError, StreamName, limits},
        outbox::StoredAt,
        proto::v1 as client,
    };

    fn stored(stream: &str, epoch: i64, sequence: u64, duplicate: bool, durability: Durability) -> Accepted {
        let origin = Arc::new(Origin { stream: StreamName::parse(stream).expect("a name"), epoch });
        Accepted { matched: 0, stored: Some(StoredAt { origin, sequence, duplicate, durability }) }
    }

    #[test]
    fn a_publish_that_is_refused_as_a_whole_fits_into_one_message() {
        let error = StreamError::TooMany { what: "topics in this stream", limit: usize::MAX };
        let results: Vec<Published> = vec![Err(EventError::Stream(error)); limits::MAX_PUBLISH_EVENTS as usize];
        let encoded = encode(&results);
        assert!(encoded.len() < 4 * 1024 * 1024 - 1024, "{} bytes", encoded.len());
        let told = client::PublishResponse::decode(encoded).expect("a response").results;
        let details = |at: usize| told[at].status.as_ref().expect("a status").details.len();
        assert_eq!((details(MOST_DETAILED), details(MOST_DETAILED - 1) > 1), (1, true), "the reason is always there");
    }

    #[test]
    fn results_are_what_the_contract_says() {
        let longest = "s".repeat(64);
        let results: Vec<Published> = vec![
            Ok(Accepted::default()),
            Ok(Accepted { matched: 300, stored: None }),
            Ok(stored("orders", 1, 7, false, Durability::Sync)),
            Ok(stored(&longest, i64::MIN, u64::MAX >> 1, true, Durability::None)),
            Ok(Accepted { matched: u64::MAX >> 1, ..stored(&longest, -1, 1, true, Durability::Interval) }),
            Err(EventError::TooLarge { bytes: 9, limit: 8 }),
        ];
        let told = client::PublishResponse::decode(encode(&results)).expect("a response").results;
        assert_eq!(told.len(), results.len());
        let each: Vec<_> = each(encode(&results)).collect();
        assert_eq!(each, told.iter().map(Message::encode_to_vec).collect::<Vec<_>>());
        for (index, (told, result)) in told.iter().zip(&results).enumerate() {
            let Ok(accepted) = result else {
                let status = told.status.as_ref().expect("a status");
                assert_eq!(
                    status.encode_to_vec(),
                    status::of_event(&EventError::TooLarge { bytes: 9, limit: 8 }, index).message().encode_to_vec()
                );
                continue;
            };
            let at = accepted.stored.clone();
            assert_eq!((told.matched.cast_unsigned(), told.status.is_none()), (accepted.matched, true));
            let shown =
                (told.stream.as_str(), told.epoch, told.sequence.cast_unsigned(), told.duplicate, told.durability());
            let expected = at.as_ref().map_or(("", 0, 0, false, client::Durability::Unspecified), |at| {
                let durability = match at.durability {
                    Durability::Sync => client::Durability::Sync,
                    Durability::Interval => client::Durability::Interval,
                    Durability::None => client::Durability::None,
                };
                (at.origin.stream.as_str(), at.origin.epoch, at.sequence, at.duplicate, durability)
            });
            assert_eq!(shown, expected, "result {index}");
        }
    }
}
