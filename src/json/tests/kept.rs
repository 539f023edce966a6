//! Events as JSON, and that those who get the same event share it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use prost::Message as _;

use super::{
    super::{Forms, put_event, put_events},
    of,
};
use crate::{
    event::{Draft, Event, EventIds, Payload, Stamp},
    proto::v1 as client,
};

fn build(draft: &Draft<'_>) -> Event {
    draft.build(1 << 20, &mut EventIds::new("s")).expect("an event")
}

fn event(text: &str) -> Event {
    build(&Draft { topic: "a.b", payload: Payload::Text(text), ..Draft::default() })
}

fn json(event: &Event) -> String {
    let mut out = Vec::new();
    put_event(event, &mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// What a client makes of it.
fn read(json: &str) -> client::ReceivedEvent {
    let protobuf = of("ReceivedEvent").decode(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    client::ReceivedEvent::decode(&*protobuf).expect("an event")
}

fn stored(event: &Event, stream: &str, sequence: u64, time: SystemTime) -> Event {
    let mut out = Vec::new();
    let spans = event.seal(&Stamp { stream, sequence, time }, &mut out);
    Event::new(out.into(), spans, sequence).expect("spans inside")
}

#[test]
fn an_event_is_what_the_contract_says_on_one_line() {
    let draft = Draft {
        id: "7",
        topic: "a.b",
        kind: "t",
        source: "/s",
        time: Some(UNIX_EPOCH + Duration::from_millis(1_500)),
        key: "k",
        content_type: "text/plain",
        attributes: &[("n", "v"), ("traceparent", "00-1")],
        ttl: Some(Duration::from_millis(2_500)),
        payload: Payload::Text("h\u{e9}\n"),
    };
    let event = build(&draft);
    let published = r#""id":"7","topic":"a.b","type":"t","source":"/s","time":"1970-01-01T00:00:01.500Z","key":"k","contentType":"text/plain","attributes":{"n":"v","traceparent":"00-1"},"ttl":"2.500s","text":"hé\n""#;
    assert_eq!(json(&event), format!("{{\"event\":{{{published}}},\"attempt\":1}}"));
    let stored = stored(&event, "orders", 300, UNIX_EPOCH + Duration::from_secs(9));
    let place = r#""stream":"orders","sequence":"300","appendTime":"1970-01-01T00:00:09Z","attempt""#;
    assert_eq!(json(&stored), format!("{{\"event\":{{{published}}},{place}:1}}"));
    let again = r#":2,"lastFailure":"no","redelivered":true"#;
    assert_eq!(json(&stored.again(2, "no")), format!("{{\"event\":{{{published}}},{place}{again}}}"));
    let data = build(&Draft { id: "1", topic: "a", payload: Payload::Data(&[0, 255]), ..Draft::default() });
    assert_eq!(json(&data), r#"{"event":{"id":"1","topic":"a","data":"AP8="},"attempt":1}"#);
    let empty = build(&Draft { id: "1", topic: "a", payload: Payload::Text(""), ..Draft::default() });
    assert_eq!(json(&empty), r#"{"event":{"id":"1","topic":"a","text":""},"attempt":1}"#);
}

proptest! {
    #[test]
    fn an_event_is_the_same_in_json_and_in_protobuf(
        (id, topic, kind, source, key) in ("[a-z]{0,5}", "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}", ".{0,9}", ".{0,9}", ".{0,9}"),
        attributes in prop::collection::vec((".{0,3}", ".{0,20}"), 0..5),
        micros in prop::option::of(0..1_u64 << 50),
        ttl in prop::option::of(1..1_u64 << 50),
        text in ".{0,200}",
        data in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        place in prop::option::of(("[a-z]{1,9}", 1..u64::MAX >> 1, 0..1_u64 << 50)),
        again in prop::option::of((1..10_u32, ".{0,20}")),
    ) {
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let time = |micros| UNIX_EPOCH + Duration::from_micros(micros);
        let mut event = build(&Draft {
            id: &id, topic: &topic, kind: &kind, source: &source, key: &key, content_type: "",
            time: micros.map(time),
            attributes: &attributes,
            ttl: ttl.map(Duration::from_micros),
            payload: data.as_ref().map_or(Payload::Text(&text), |data| Payload::Data(data)),
        });
        if let Some((stream, sequence, at)) = &place {
            event = stored(&event, stream, *sequence, time(*at));
        }
        if let Some((attempt, failure)) = &again {
            event = event.again(*attempt, failure);
        }
        let expected = client::ReceivedEvent::decode(event.received()).expect("an event");
        let json = json(&event);
        prop_assert!(!json.contains('\n'));
        prop_assert_eq!(read(&json), expected);
    }

    #[test]
    fn whatever_a_publisher_sends_is_json(raw in prop::collection::vec(prop_oneof![
        (1..13_u32, "[a-z\u{e9}\".]{0,9}").prop_map(|(tag, text)| field(tag, text.as_bytes())),
        (prop::sample::select(vec![5_u32, 8, 9]), prop::collection::vec((1..3_u32, "[a-z]{0,3}"), 0..3)).prop_map(|(tag, pairs)| {
            field(tag, &pairs.iter().flat_map(|(tag, text)| field(*tag, text.as_bytes())).collect::<Vec<_>>())
        }),
        (any::<bool>(), 0..100_u8, 0..100_u8).prop_map(|(time, a, b)| field(if time { 5 } else { 9 }, &[8, a, 16, b])),
    ], 0..8)) {
        let raw = [raw.concat(), field(2, b"a.b")].concat();
        if let Ok(event) = Event::accept(&raw, 1 << 20, &mut EventIds::new("s")) {
            let expected = client::ReceivedEvent::decode(event.received()).expect("an event");
            prop_assert_eq!(read(&json(&event)), expected);
        }
    }
}

/// A field with a length.
fn field(tag: u32, bytes: &[u8]) -> Vec<u8> {
    [&[(tag << 3 | 2) as u8, bytes.len() as u8], bytes].concat()
}

#[test]
fn a_frame_of_events_is_what_the_contract_says() {
    let events = [event("one"), event("two").clone()];
    let forms = Forms::default();
    for (id, token) in [(7, "token"), (0, "")] {
        let mut out = Vec::new();
        put_events(id, &events, token, &forms, &mut out);
        let protobuf = of("SessionResponse").decode(&out).expect("a response");
        let Some(client::session_response::Frame::Events(found)) =
            client::SessionResponse::decode(&*protobuf).expect("a response").frame
        else {
            panic!("no events")
        };
        assert_eq!((found.subscription_id, found.resume_token.as_str()), (id, token));
        let texts: Vec<_> =
            found.events.iter().map(|event| event.event.as_ref().expect("one").payload.clone()).collect();
        let text = |text: &str| Some(client::event::Payload::Text(text.into()));
        assert_eq!(texts, [text("one"), text("two")]);
    }
}

#[test]
fn all_who_get_an_event_share_its_json() {
    let forms = Forms::default();
    let event = event("x");
    let subscribers: Vec<_> = (0..100).map(|_| event.clone()).collect();
    let all: Vec<_> = subscribers.iter().map(|event| forms.of(event)).collect();
    assert!(all.iter().all(|form| form.as_ptr() == all[0].as_ptr()));
    assert_eq!(all[0], json(&event));
    let mut out = b"before".to_vec();
    forms.put(&event, &mut out);
    assert_eq!(&out[6..], json(&event).as_bytes());
    // Another delivery of it is another event.
    let again = event.again(2, "no");
    let (one, two) = (again.clone(), forms.of(&again));
    assert_eq!((two.as_ref(), forms.of(&one).as_ptr()), (json(&again).as_bytes(), two.as_ptr()));
}

#[test]
fn an_event_of_one_client_is_not_kept() {
    let forms = Forms::default();
    let alone = event("x");
    assert_eq!(forms.of(&alone), json(&alone));
    let mut out = Vec::new();
    forms.put(&alone, &mut out);
    assert_eq!((out, forms.held_bytes()), (json(&alone).into_bytes(), 0));
}

#[test]
fn events_that_share_memory_are_told_apart() {
    let forms = Forms::default();
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    for n in 0..10 {
        let event = event(&format!("number {n}"));
        let start = bytes.len();
        bytes.extend_from_slice(event.encoded());
        places.push((start..bytes.len(), *event.spans()));
    }
    let bytes = bytes::Bytes::from(bytes);
    let places = places.into_iter().map(|(at, spans)| crate::event::Place::new(&bytes, at, spans, 0).expect("inside"));
    let events: Vec<_> = Event::together(bytes.clone(), places.collect()).collect();
    assert_eq!((forms.of(&events[3]), forms.held_bytes()), (json(&events[3]).into(), 0), "one client has them all");
    let others = events.clone();
    for (event, other) in events.iter().zip(&others) {
        let form = forms.of(event);
        assert_eq!((form.as_ref(), form.as_ptr()), (json(event).as_bytes(), forms.of(other).as_ptr()));
    }
    let forms_bytes: usize = events.iter().map(|event| json(event).len()).sum();
    assert!(
        (forms_bytes + bytes.len()..forms_bytes + bytes.len() + 3000).contains(&forms.held_bytes()),
        "counted once"
    );
}

#[test]
fn what_is_kept_is_bounded_and_the_latest() {
    const MOST: usize = 64 * 1024;
    let forms = Forms::new(MOST);
    let events: Vec<_> = (0..1000).map(|n| event(&format!("{n}{}", "x".repeat(n % 500)))).collect();
    let others = events.clone();
    for (at, event) in events.iter().enumerate() {
        let form = forms.of(event);
        assert_eq!(form, json(event));
        assert!(forms.held_bytes() <= MOST, "{} bytes", forms.held_bytes());
        let before = forms.of(&others[at.saturating_sub(5)]);
        assert_eq!(before.as_ptr(), forms.of(&events[at.saturating_sub(5)]).as_ptr(), "one of the latest");
    }
    assert!(forms.held_bytes() > MOST / 4);
    // What is left of an event is dropped with its form.
    drop(others);
    let kept = events.iter().filter(|event| event.allocation().clones > 1).count();
    assert!((10..200).contains(&kept), "{kept} are kept");
}

#[test]
fn what_is_too_large_is_not_kept_and_takes_no_room_from_others() {
    let forms = Forms::new(64 * 1024);
    let small = event("small");
    let (_others, kept) = (small.clone(), forms.of(&small));
    let held = forms.held_bytes();
    let large = event(&"x".repeat(64 * 1024));
    let other = large.clone();
    assert_eq!(forms.of(&large), json(&large));
    assert_ne!(forms.of(&large).as_ptr(), forms.of(&other).as_ptr());
    assert_eq!((forms.held_bytes(), forms.of(&small).as_ptr()), (held, kept.as_ptr()));
}

#[test]
fn many_threads_keep_within_the_bounds() {
    const MOST: usize = 32 * 1024;
    let forms = Forms::new(MOST);
    let events: Vec<_> = (0..400).map(|n| event(&n.to_string())).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (forms, events) = (&forms, &events);
            scope.spawn(move || {
                for round in 0..20 {
                    for at in 0..events.len() {
                        let event = events[(at * (thread + 1) + round) % events.len()].clone();
                        assert_eq!(forms.of(&event), json(&event));
                        assert!(forms.held_bytes() <= MOST);
                    }
                }
            });
        }
    });
    assert!(forms.held_bytes() <= MOST);
}
