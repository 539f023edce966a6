//! Pages of what a stream has: its events, oldest or newest first, and its topics.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message;
use switchyard::proto::v1::{
    DeleteStreamRequest, Event, ListEventsRequest, ListEventsResponse, ListTopicsRequest, ListedEvent,
    PurgeStreamRequest, Stream, TopicState, event::Payload, list_events_request::Begin,
    stream_service_client::StreamServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    harness::{event, field, reason_of_call, until},
    stored::{Folder, create, hub_on, numbered, store, stream, streams},
};

type Client = StreamServiceClient<Channel>;

/// A page ends once it has so many bytes.
const MIB: usize = 1024 * 1024;
/// What is on a page without events.
const NOTHING: [i64; 0] = [];

fn ask() -> ListEventsRequest {
    ListEventsRequest { stream: "s".into(), ..ListEventsRequest::default() }
}

fn ask_topics() -> ListTopicsRequest {
    ListTopicsRequest { stream: "s".into(), ..ListTopicsRequest::default() }
}

async fn page(client: &mut Client, asked: ListEventsRequest) -> ListEventsResponse {
    client.list_events(asked).await.expect("a page").into_inner()
}

/// The sequences on each page, up to the last.
async fn pages(client: &mut Client, mut asked: ListEventsRequest) -> Vec<Vec<i64>> {
    let mut pages = Vec::new();
    loop {
        let page = page(client, asked.clone()).await;
        pages.push(sequences(&page.events));
        asked.page_token = page.next_page_token;
        if asked.page_token.is_empty() {
            return pages;
        }
    }
}

fn sequences(events: &[ListedEvent]) -> Vec<i64> {
    events.iter().map(|listed| listed.event.as_ref().expect("an event").sequence).collect()
}

/// The names on each page of topics, up to the last.
async fn topic_pages(client: &mut Client, mut asked: ListTopicsRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = client.list_topics(asked.clone()).await.expect("a page").into_inner();
        pages.push(page.topics.into_iter().map(|state| state.topic).collect());
        asked.page_token = page.next_page_token;
        if asked.page_token.is_empty() {
            return pages;
        }
    }
}

/// An event of a topic with so many bytes.
fn sized(topic: &str, bytes: usize) -> Event {
    Event { payload: Some(Payload::Data(vec![7; bytes].into())), ..event(topic, "") }
}

fn payload(listed: &ListedEvent) -> &Payload {
    let received = listed.event.as_ref().expect("an event");
    received.event.as_ref().and_then(|event| event.payload.as_ref()).expect("a payload")
}

/// Code, reason and field of a refusal.
fn refusal(status: &Status) -> (Code, String, String) {
    let said = tonic_types::pb::Status::decode(status.details()).expect("a status");
    (status.code(), reason_of_call(status), field(&said))
}

fn malformed(name: &str) -> (Code, String, String) {
    (Code::InvalidArgument, "MALFORMED_COMMAND".into(), name.into())
}

async fn purge(address: SocketAddr, up_to_sequence: i64, filter: &str) {
    let request = PurgeStreamRequest { name: "s".into(), up_to_sequence, filter: filter.into() };
    streams(address).await.purge_stream(request).await.expect("purged");
}

#[tokio::test]
async fn events_are_listed_in_pages_from_either_end() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    assert_eq!(pages(&mut client, ask()).await, [NOTHING], "an empty stream has one empty page");
    assert_eq!(pages(&mut client, ListEventsRequest { newest_first: true, ..ask() }).await, [NOTHING]);
    store(hub.address, numbered("s.a", 1..8)).await;
    let by_three = ListEventsRequest { page_size: 3, ..ask() };
    assert_eq!(pages(&mut client, by_three.clone()).await, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    let newest = ListEventsRequest { newest_first: true, ..by_three };
    assert_eq!(pages(&mut client, newest).await, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
    let shown = page(&mut client, ask()).await.events.remove(1);
    let received = shown.event.as_ref().expect("an event");
    assert_eq!((received.stream.as_str(), received.sequence, shown.payload_bytes), ("s", 2, 1));
    assert_eq!(payload(&shown), &Payload::Text("2".into()));
    assert!(received.append_time.is_some());
}

#[tokio::test]
async fn a_page_has_at_most_a_thousand_events() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    store(hub.address, numbered("s.a", 0..1000)).await;
    let both = [false, true].map(|newest_first| ListEventsRequest { newest_first, page_size: 1000, ..ask() });
    for asked in &both {
        let sizes: Vec<_> = pages(&mut client, asked.clone()).await.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1000], "all that there are");
    }
    store(hub.address, numbered("s.a", 0..1)).await;
    for asked in &both {
        let pages = pages(&mut client, asked.clone()).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1], "one more");
        let mut all = pages.concat();
        if asked.newest_first {
            all.reverse();
        }
        assert_eq!(all, (1..=1001).collect::<Vec<_>>());
    }
    for page_size in [-1, 1001] {
        let refused = client.list_events(ListEventsRequest { page_size, ..ask() }).await.expect_err("refused");
        assert_eq!(refusal(&refused), malformed("page_size"));
    }
    assert_eq!(page(&mut client, ask()).await.events.len(), 100, "unless another number is asked for");
}

#[tokio::test]
async fn a_page_of_events_ends_after_a_megabyte() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    for _ in 0..8 {
        store(hub.address, vec![sized("s.a", 300_000)]).await;
    }
    let asked = ListEventsRequest { page_size: 1000, ..ask() };
    assert_eq!(pages(&mut client, asked.clone()).await, [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8]]);
    let newest = ListEventsRequest { newest_first: true, ..asked };
    assert_eq!(pages(&mut client, newest.clone()).await, [vec![8, 7, 6], vec![5, 4, 3], vec![2, 1]]);
    let short = ListEventsRequest { max_payload_bytes: Some(10), ..newest };
    assert_eq!(pages(&mut client, short).await.concat(), [8, 7, 6, 5, 4, 3, 2, 1], "what is left out takes no room");
}

#[tokio::test]
async fn two_events_are_on_one_page_if_they_are_a_megabyte_and_no_more() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    for _ in 0..2 {
        store(hub.address, vec![sized("s.a", 600_000)]).await;
    }
    let some = |most: usize, newest_first: bool| ListEventsRequest {
        max_payload_bytes: Some(i64::try_from(most).expect("a size")),
        newest_first,
        ..ask()
    };
    // What the two are besides their payloads does not depend on these.
    let two = page(&mut client, some(500_000, false)).await.events;
    let besides = two.iter().map(|listed| listed.encoded_len() - 500_000).sum::<usize>();
    let most = (MIB - besides) / 2;
    for newest_first in [false, true] {
        let fits = pages(&mut client, some(most, newest_first)).await;
        assert_eq!(fits.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
        let over = pages(&mut client, some(most + 1, newest_first)).await;
        assert_eq!(over.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    }
}

#[tokio::test]
async fn a_payload_is_shown_up_to_a_limit() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    let none = Event { payload: None, ..event("s.a", "") };
    store(hub.address, vec![event("s.a", "aé€"), sized("s.a", 4), none]).await;
    let cases = [
        (None, "aé€", 4),
        (Some(i64::MAX), "aé€", 4),
        (Some(6), "aé€", 4),
        (Some(5), "aé", 4),
        (Some(2), "a", 2),
        (Some(0), "", 0),
    ];
    for (max_payload_bytes, text, data) in cases {
        let shown = page(&mut client, ListEventsRequest { max_payload_bytes, ..ask() }).await.events;
        assert_eq!(payload(&shown[0]), &Payload::Text(text.into()), "{max_payload_bytes:?}");
        assert_eq!(payload(&shown[1]), &Payload::Data(Bytes::from(vec![7; data])), "{max_payload_bytes:?}");
        let bare = shown[2].event.as_ref().and_then(|received| received.event.as_ref()).expect("an event");
        assert_eq!((bare.topic.as_str(), &bare.payload), ("s.a", &None));
        assert_eq!(shown.iter().map(|listed| listed.payload_bytes).collect::<Vec<_>>(), [6, 4, 0]);
    }
    let asked = ListEventsRequest { max_payload_bytes: Some(-1), ..ask() };
    let refused = client.list_events(asked).await.expect_err("refused");
    assert_eq!(refusal(&refused), malformed("max_payload_bytes"));
}

#[tokio::test]
async fn a_page_begins_at_a_sequence_or_a_time() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    for n in 1..=6 {
        store(hub.address, vec![event(if n == 4 { "s.b" } else { "s.a" }, n.to_string())]).await;
    }
    let events = page(&mut client, ask()).await.events;
    let time = |at: usize| events[at].event.as_ref().and_then(|event| event.append_time).expect("a time");
    // Neither is the first, nor is all there.
    purge(hub.address, 1, "").await;
    purge(hub.address, 0, "s.b").await;
    let mut first = async |begin: Begin, newest_first: bool| {
        let asked = ListEventsRequest { begin: Some(begin), newest_first, page_size: 1, ..ask() };
        sequences(&page(&mut client, asked).await.events).first().copied().unwrap_or_default()
    };
    for (sequence, oldest, newest) in [(1, 2, 0), (2, 2, 2), (4, 5, 3), (6, 6, 6), (7, 0, 6), (i64::MAX, 0, 6)] {
        let begin = Begin::FromSequence(sequence);
        assert_eq!((first(begin, false).await, first(begin, true).await), (oldest, newest), "{sequence}");
    }
    for (at, oldest, newest) in [(0, 2, 0), (1, 2, 2), (3, 5, 3), (5, 6, 6)] {
        let begin = Begin::FromTime(time(at));
        assert_eq!((first(begin, false).await, first(begin, true).await), (oldest, newest), "{at}");
    }
    let seconds = |seconds| Begin::FromTime(prost_types::Timestamp { seconds, nanos: 0 });
    assert_eq!((first(seconds(-1_000_000), false).await, first(seconds(-1_000_000), true).await), (2, 0));
    let last = 253_402_300_799;
    assert_eq!((first(seconds(last), false).await, first(seconds(last), true).await), (0, 6));
}

#[tokio::test]
async fn what_few_events_match_is_found_from_either_end() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    store(hub.address, vec![event("s.rare", "")]).await;
    for _ in 0..2 {
        store(hub.address, numbered("s.often", 0..10_000)).await;
    }
    store(hub.address, vec![event("s.rare", "")]).await;
    for (newest_first, expected) in [(false, [1, 20_002]), (true, [20_002, 1])] {
        let asked = ListEventsRequest { filter: "s.rare".into(), newest_first, ..ask() };
        assert_eq!(pages(&mut client, asked).await.concat(), expected);
    }
    let none = ListEventsRequest { filter: "s.never".into(), newest_first: true, ..ask() };
    assert_eq!(pages(&mut client, none).await.concat(), NOTHING);
}

#[tokio::test]
async fn pages_stay_in_order_while_a_stream_changes() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    store(hub.address, numbered("s.a", 1..11)).await;
    let mut oldest = ListEventsRequest { page_size: 4, ..ask() };
    let mut newest = ListEventsRequest { newest_first: true, ..oldest.clone() };
    for asked in [&mut oldest, &mut newest] {
        asked.page_token = page(&mut client, asked.clone()).await.next_page_token;
    }
    store(hub.address, numbered("s.a", 11..13)).await;
    purge(hub.address, 5, "").await;
    assert_eq!(pages(&mut client, oldest.clone()).await.concat(), [6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(pages(&mut client, newest.clone()).await.concat(), [6]);
    purge(hub.address, 0, "").await;
    for asked in [oldest, newest] {
        assert_eq!(pages(&mut client, asked).await, [NOTHING], "all is gone");
    }
}

#[tokio::test]
async fn what_no_page_of_events_can_be_is_refused() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    store(hub.address, numbered("s.a", 1..4)).await;
    let from_time = Some(Begin::FromTime(prost_types::Timestamp { seconds: 0, nanos: -1 }));
    let requests = [
        (ListEventsRequest { stream: "no name".into(), ..ask() }, "stream"),
        (ListEventsRequest { begin: Some(Begin::FromSequence(0)), ..ask() }, "from_sequence"),
        (ListEventsRequest { begin: Some(Begin::FromSequence(-1)), ..ask() }, "from_sequence"),
        (ListEventsRequest { begin: from_time, ..ask() }, "from_time"),
        (ListEventsRequest { filter: "s..a".into(), ..ask() }, "filter"),
        (ListEventsRequest { page_token: "7".into(), ..ask() }, "page_token"),
        (ListEventsRequest { page_token: "1.-1".into(), ..ask() }, "page_token"),
    ];
    for (request, name) in requests {
        let refused = client.list_events(request).await.expect_err(name);
        assert_eq!(refusal(&refused), malformed(name));
    }
    let refused = client.list_events(ListEventsRequest { stream: "other".into(), ..ask() }).await.expect_err("none");
    assert_eq!(reason_of_call(&refused), "STREAM_NOT_FOUND");
    // The token of a stream that is another now.
    let page_token = page(&mut client, ListEventsRequest { page_size: 1, ..ask() }).await.next_page_token;
    client.delete_stream(DeleteStreamRequest { name: "s".into() }).await.expect("deleted");
    create(hub.address, stream("s", &["s.>"])).await;
    let refused = client.list_events(ListEventsRequest { page_token, ..ask() }).await.expect_err("another epoch");
    assert_eq!(refusal(&refused), (Code::OutOfRange, "EPOCH_CHANGED".into(), "page_token".into()));
}

#[tokio::test]
async fn topics_are_listed_with_how_many_events_they_have_and_the_last() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    assert_eq!(topic_pages(&mut client, ask_topics()).await, [[""; 0]], "an empty stream has one empty page");
    for topic in ["s.b.x", "s.a", "s.b.y", "s.bc", "s.a"] {
        store(hub.address, vec![event(topic, "")]).await;
    }
    let events = page(&mut client, ask()).await.events;
    let times = events.iter().map(|listed| listed.event.as_ref().map(|event| (event.sequence, event.append_time)));
    let times: HashMap<_, _> = times.map(|time| time.expect("an event")).collect();
    let state = |topic: &str, events, last_sequence| TopicState {
        topic: topic.into(),
        events,
        last_sequence,
        last_time: times[&last_sequence],
    };
    let shown = client.list_topics(ask_topics()).await.expect("a page").into_inner();
    let expected = [state("s.a", 2, 5), state("s.b.x", 1, 1), state("s.b.y", 1, 3), state("s.bc", 1, 4)];
    assert_eq!((shown.topics, shown.next_page_token), (expected.to_vec(), String::new()));
    let by_two = ListTopicsRequest { page_size: 2, ..ask_topics() };
    assert_eq!(topic_pages(&mut client, by_two).await, [["s.a", "s.b.x"], ["s.b.y", "s.bc"]]);
    for (prefix, filter, expected) in [
        ("s.b", "", vec!["s.b.x", "s.b.y", "s.bc"]),
        ("s.b", "s.*", vec!["s.bc"]),
        ("", "*.b.*", vec!["s.b.x", "s.b.y"]),
        ("s.b.x", "s.a", vec![]),
    ] {
        let asked = ListTopicsRequest { prefix: prefix.into(), filter: filter.into(), ..ask_topics() };
        assert_eq!(topic_pages(&mut client, asked).await, [expected], "{prefix} {filter}");
    }
    purge(hub.address, 0, "s.b.>").await;
    assert_eq!(topic_pages(&mut client, ask_topics()).await, [["s.a", "s.bc"]]);
}

#[tokio::test]
async fn a_page_has_at_most_a_thousand_topics() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    // As long as topics may be, and all of their events in different batches for some.
    let topic = |n: usize| format!("s.{n:0254}");
    store(hub.address, (0..900).map(|n| event(&topic(n), "")).collect()).await;
    for n in 900..1000 {
        store(hub.address, vec![event(&topic(n), "")]).await;
    }
    let asked = ListTopicsRequest { page_size: 1000, ..ask_topics() };
    let shown = client.list_topics(asked.clone()).await.expect("a page").into_inner();
    assert!(shown.encoded_len() <= MIB && shown.topics.iter().all(|state| state.last_time.is_some()));
    let last: Vec<_> = shown.topics.iter().map(|state| state.last_sequence).collect();
    assert_eq!((last, shown.next_page_token), ((1..=1000).collect(), String::new()));
    store(hub.address, vec![event(&topic(1000), "")]).await;
    let sizes: Vec<_> = topic_pages(&mut client, asked).await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1000, 1]);
    for page_size in [-1, 1001] {
        let refused = client.list_topics(ListTopicsRequest { page_size, ..ask_topics() }).await.expect_err("refused");
        assert_eq!(refusal(&refused), malformed("page_size"));
    }
}

#[tokio::test]
async fn a_page_of_topics_ends_when_much_was_read_for_it() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    for n in 0..40 {
        store(hub.address, vec![sized(&format!("s.{n:02}"), 900_000)]).await;
    }
    let pages = topic_pages(&mut client, ask_topics()).await;
    // A group of sixteen is less than what may be read; two are more.
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [32, 8]);
    assert_eq!(pages.concat(), (0..40).map(|n| format!("s.{n:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_no_page_of_topics_can_be_is_refused() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = streams(hub.address).await;
    let longest = ListTopicsRequest { prefix: "x".repeat(256), ..ask_topics() };
    assert_eq!(topic_pages(&mut client, longest).await, [[""; 0]]);
    let requests = [
        (ListTopicsRequest { stream: String::new(), ..ask_topics() }, "stream"),
        (ListTopicsRequest { prefix: "x".repeat(257), ..ask_topics() }, "prefix"),
        (ListTopicsRequest { filter: ">.a".into(), ..ask_topics() }, "filter"),
        (ListTopicsRequest { page_token: "s.a".into(), ..ask_topics() }, "page_token"),
    ];
    for (request, name) in requests {
        let refused = client.list_topics(request).await.expect_err(name);
        assert_eq!(refusal(&refused), malformed(name));
    }
    let refused = client.list_topics(ListTopicsRequest { stream: "other".into(), ..ask_topics() }).await;
    assert_eq!(reason_of_call(&refused.expect_err("none")), "STREAM_NOT_FOUND");
}

#[tokio::test]
async fn the_token_of_a_page_of_topics_is_of_no_use_for_another_list() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let mut client = streams(hub.address).await;
    for name in ["s", "t"] {
        create(hub.address, stream(name, &[&format!("{name}.>")])).await;
        store(hub.address, ["a", "b"].map(|last| event(&format!("{name}.{last}"), "")).into()).await;
    }
    let first = ListTopicsRequest { page_size: 1, ..ask_topics() };
    let page_token = client.list_topics(first).await.expect("a page").into_inner().next_page_token;
    for other in [
        ListTopicsRequest { stream: "t".into(), ..ask_topics() },
        ListTopicsRequest { filter: "s.*".into(), ..ask_topics() },
        ListTopicsRequest { prefix: "s.".into(), ..ask_topics() },
    ] {
        let asked = ListTopicsRequest { page_token: page_token.clone(), ..other };
        let refused = client.list_topics(asked.clone()).await.expect_err("another list");
        assert_eq!(refusal(&refused), malformed("page_token"), "{asked:?}");
    }
    // How much is on a page is no part of the list.
    let rest = ListTopicsRequest { page_size: 7, page_token, ..ask_topics() };
    assert_eq!(topic_pages(&mut client, rest).await, [["s.b"]]);
}

#[tokio::test]
async fn a_topic_all_of_which_is_past_its_ttl_is_not_listed() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, Stream { max_events_per_topic: 1, ..stream("s", &["s.>"]) }).await;
    let mut client = streams(hub.address).await;
    let ttl = Some(Duration::from_millis(50).try_into().expect("a duration"));
    store(hub.address, vec![event("s.a", "1"), event("s.a", "2"), Event { ttl, ..event("s.b", "") }]).await;
    until("it is gone", async || topic_pages(&mut client, ask_topics()).await.concat() == ["s.a"]).await;
    let shown = client.list_topics(ask_topics()).await.expect("a page").into_inner().topics;
    assert_eq!((shown[0].events, shown[0].last_sequence), (1, 2));
}
