//! Both ways without loss, and what is refused.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Draft, Event, EventIds, Payload, Stamp};

fn accept(raw: &[u8]) -> Event {
    Event::accept(raw, 1 << 20, &mut EventIds::new("t")).expect("an event")
}

fn out(event: &Event) -> Value {
    let mut out = Vec::new();
    put_event(event, &mut out);
    serde_json::from_slice(&out).expect("JSON")
}

fn of(value: &Value) -> Result<Event, String> {
    let read = of_json(value.to_string().as_bytes(), None);
    read.map(|raw| accept(&raw)).map_err(|wrong| format!("{} {}", wrong.path, wrong.problem))
}

/// The least there is.
fn least() -> Value {
    json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "a.b"})
}

fn with(name: &str, value: Value) -> Value {
    let mut event = least();
    event[name] = value;
    event
}

/// What an event says, whatever its encoding.
fn said(event: &Event) -> String {
    let view = event.view();
    let mut attributes: Vec<_> = view.attributes().collect();
    attributes.sort_unstable();
    format!(
        "{:?}",
        (
            (view.id, view.topic, view.kind, view.source, view.time, view.key),
            (view.content_type, view.ttl, view.payload, attributes)
        )
    )
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z/:.]{1,8}", "\\PC{0,8}", "[\\x00-\\x7f\u{2028}\u{1f600}]{0,8}"]
}

fn content_type() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 5] = ["", "application/json", "text/plain", "application/x+json; a=b", "image/png"];
    prop_oneof![4 => prop::sample::select(KNOWN.as_slice()).prop_map(str::to_owned), 1 => text()]
}

fn name() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 8] =
        ["subject", "data", "ttl", "switchyardttl", "dataschema", "traceparent", "partitionkey", ""];
    prop_oneof![prop::sample::select(KNOWN.as_slice()).prop_map(str::to_owned), "[a-z0-9]{1,4}", "\\PC{1,4}"]
}

#[derive(Debug, Clone)]
enum Carried {
    None,
    Text(String),
    Data(Vec<u8>),
}

fn carried() -> impl Strategy<Value = Carried> {
    const JSON: [&str; 8] = ["null", "{}", "[1, 2.50]", "\"a\"", "{\"a\": {\"b\": null}}", "{", "1e400", "true"];
    prop_oneof![
        Just(Carried::None),
        text().prop_map(Carried::Text),
        prop::sample::select(JSON.as_slice()).prop_map(|text| Carried::Text(text.to_owned())),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Carried::Data),
    ]
}

proptest! {
    #[test]
    fn an_event_comes_back_as_it_was(
        texts in prop::array::uniform4(text()),
        content_type in content_type(),
        nanos in prop::option::of(-62_135_596_800_000_000_000_i128..253_402_300_799_999_999_999),
        ttl_nanos in prop::option::of(1..u64::MAX),
        attributes in prop::collection::vec((name(), text()), 0..5),
        carried in carried(),
    ) {
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        let [id, kind, source, key] = &texts;
        let at = |nanos: i128| {
            let since = Duration::new((nanos.unsigned_abs() / 1_000_000_000) as u64, (nanos.unsigned_abs() % 1_000_000_000) as u32);
            if nanos < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since }
        };
        let draft = Draft {
            id, topic: "a.b", kind, source, time: nanos.map(at), key, content_type: &content_type,
            attributes: &attributes,
            ttl: ttl_nanos.map(Duration::from_nanos),
            payload: match &carried {
                Carried::None => Payload::None,
                Carried::Text(text) => Payload::Text(text),
                Carried::Data(data) => Payload::Data(data),
            },
        };
        let mut last: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &attributes {
            last.retain(|(known, _)| known != name);
            last.push((name, value));
        }
        let expected = Draft { attributes: &last, ..draft.clone() };
        // Ours for none are none.
        prop_assume!(source != NO_SOURCE && kind != NO_TYPE);
        let event = accept(&draft.encode());
        let id = event.view().id.to_owned();
        let expected = accept(&Draft { id: &id, ..expected }.encode());
        let mut json = Vec::new();
        put_event(&event, &mut json);
        let back = accept(&of_json(&json, None).expect("a CloudEvent"));
        prop_assert_eq!(said(&back), said(&expected), "{}", String::from_utf8_lossy(&json));
        // And the CloudEvent comes back as it was.
        let mut again = Vec::new();
        put_event(&back, &mut again);
        prop_assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&json));
    }

    #[test]
    fn whatever_comes_is_read_or_refused(text in "[\\[\\]{}\":,a-z0-9. \\\\]{0,40}") {
        let _ = of_json(text.as_bytes(), None);
        prop_assert!(Batch::new(text.as_bytes(), None).count() <= text.len() + 1);
    }

    #[test]
    fn a_header_is_decoded_whatever_it_is(value in prop::collection::vec(any::<u8>(), 0..16)) {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let _ = of_headers(&headers(&[("ce-a", value)]), b"", None);
        }
    }
}

#[test]
fn every_field_has_its_place() {
    let draft = Draft {
        id: "7",
        topic: "orders.eu",
        kind: "com.example.created",
        source: "/shop",
        time: Some(UNIX_EPOCH + Duration::from_millis(1_500)),
        key: "customer-1",
        content_type: "application/json",
        attributes: &[("traceparent", "00-1"), ("dataschema", "/schema"), ("Not-A-Name", "x"), ("id", "y")],
        ttl: Some(Duration::from_millis(2_500)),
        payload: Payload::Text("{\"total\": 1.50}"),
    };
    let mut stored = Vec::new();
    let stamp = Stamp { stream: "orders", sequence: 300, time: UNIX_EPOCH };
    let spans = accept(&draft.encode()).seal(&stamp, &mut stored);
    let stored = Event::new(stored.into(), spans, 300).expect("spans inside");
    let expected = json!({
        "specversion": "1.0", "id": "7", "source": "/shop", "type": "com.example.created", "subject": "orders.eu",
        "time": "1970-01-01T00:00:01.500Z", "datacontenttype": "application/json", "partitionkey": "customer-1",
        "switchyardttl": "2.500s", "switchyardstream": "orders", "switchyardsequence": "300",
        "switchyardappendtime": "1970-01-01T00:00:00Z", "traceparent": "00-1", "dataschema": "/schema",
        "switchyardattributes": "{\"Not-A-Name\":\"x\",\"id\":\"y\"}", "data": {"total": 1.5},
    });
    assert_eq!(out(&stored), expected);
    let mut written = Vec::new();
    put_event(&stored, &mut written);
    assert!(String::from_utf8_lossy(&written).ends_with("\"data\":{\"total\": 1.50}}"), "as it was written");
    assert_eq!(
        said(&of(&expected).expect("read")).replace("1.5}", "1.50}").replace(":1", ": 1"),
        said(&accept(&draft.encode()))
    );
}

#[test]
fn extensions_are_texts_whatever_their_type() {
    let event = of(&json!({
        "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "a", "n": -5, "b": true, "s": "x", "none": null,
    }));
    let event = event.expect("an event");
    let mut attributes: Vec<_> = event.attributes().collect();
    attributes.sort_unstable();
    assert_eq!(attributes, [("b", "true"), ("n", "-5"), ("s", "x")]);
}

#[test]
fn data_is_what_its_media_type_says() {
    let payload = |content_type: Option<&str>, name: &str, value: Value| {
        let mut event = with(name, value);
        if let Some(content_type) = content_type {
            event["datacontenttype"] = content_type.into();
        }
        of(&event).map(|event| (event.view().content_type.to_owned(), format!("{:?}", event.view().payload)))
    };
    let is = |content_type: &str, payload: &str| Ok((content_type.to_owned(), payload.to_owned()));
    assert_eq!(payload(None, "data", json!("x")), is("", "Text(\"x\")"));
    assert_eq!(payload(None, "data", json!([1])), is("application/json", "Text(\"[1]\")"));
    assert_eq!(payload(Some("a/b+json"), "data", json!("x")), is("a/b+json", "Text(\"\\\"x\\\"\")"));
    assert_eq!(payload(Some("text/plain"), "data", json!("x")), is("text/plain", "Text(\"x\")"));
    assert_eq!(payload(Some("text/plain"), "data_base64", json!("/w==")), is("text/plain", "Data([255])"));
    assert_eq!(payload(None, "data", json!(null)), is("", "None"));
    assert!(
        payload(Some("text/plain"), "data", json!({})).is_err_and(|wrong| wrong.starts_with("data must be a text"))
    );
    assert!(payload(None, "data_base64", json!("*")).is_err_and(|wrong| wrong == "data_base64 is not base64"));
}

#[test]
fn what_is_wrong_is_named() {
    for name in ["specversion", "id", "source", "type"] {
        let mut event = least();
        event.as_object_mut().expect("an object").remove(name);
        assert_eq!(of(&event).err(), Some(format!("{name} is missing")));
        assert_eq!(of(&with(name, json!(null))).err(), Some(format!("{name} is missing")));
    }
    assert!(of(&with("subject", json!(null))).is_err_and(|wrong| wrong.starts_with("subject is missing")));
    for (name, value, problem) in [
        ("specversion", json!("0.3"), "specversion must be 1.0"),
        ("id", json!(""), "id is empty"),
        ("time", json!("yesterday"), "time is not a time"),
        ("Extension", json!("x"), "Extension is no name"),
        ("ext-a", json!("x"), "ext-a is no name"),
        ("ext", json!({}), "ext is none of"),
        ("ext", json!(1.5), "ext is none of"),
        ("switchyardttl", json!("1"), "switchyardttl is not a duration"),
        ("switchyardx", json!("1"), "switchyardx is not known"),
        (
            "switchyardattributes",
            json!("{\"a\":\"b\",\"a\":\"c\"}"),
            "switchyardattributes is not a JSON object of texts: a member comes twice",
        ),
        ("switchyardattributes", json!("{\"a\":1}"), "switchyardattributes is not a JSON object of texts"),
    ] {
        let wrong = of(&with(name, value)).expect_err("refused");
        assert!(wrong.starts_with(problem), "{wrong}");
    }
    assert!(of(&json!([])).is_err());
    assert!(of_json(b"{\"id\":\"1\",\"id\":\"2\"}", None).is_err_and(|wrong| wrong.problem.contains("comes twice")));
}

#[test]
fn there_are_so_many_attributes_and_no_more() {
    let many = |count: usize| {
        let mut event = least();
        for number in 0..count {
            event[format!("x{number}")] = "".into();
        }
        of_json(event.to_string().as_bytes(), None)
    };
    let accepted = |raw: Vec<u8>| Event::accept(&raw, 1 << 20, &mut EventIds::new("t"));
    assert!(accepted(many(64).expect("at the limit")).is_ok());
    assert!(accepted(many(65).expect("read")).is_err(), "one past");
    assert!(many(75).is_ok() && many(76).is_err_and(|wrong| wrong.problem.contains("more than 80 members")));
    let packed = |count: usize| {
        let members: serde_json::Map<_, _> = (0..count).map(|n| (n.to_string(), "".into())).collect();
        of(&with("switchyardattributes", Value::String(Value::Object(members).to_string())))
    };
    assert!(packed(64).is_ok() && packed(65).is_err_and(|wrong| wrong.contains("more than 64 members")));
}

#[test]
fn a_topic_that_is_given_counts_more_than_its_own() {
    let topic = |event: &Value| {
        let event = accept(&of_json(event.to_string().as_bytes(), Some("given")).expect("read"));
        (
            event.topic().to_string(),
            event.attributes().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        )
    };
    assert_eq!(topic(&with("subject", json!("some/path"))), ("given".to_owned(), vec!["subject=some/path".to_owned()]));
    assert_eq!(topic(&with("subject", json!(null))), ("given".to_owned(), vec![]));
    assert_eq!(topic(&with("subject", json!("given"))), ("given".to_owned(), vec![]));
}

fn batch(json: &str) -> Result<Vec<String>, String> {
    let read = Batch::new(json.as_bytes(), None).map(|raw| raw.map(|raw| accept(&raw).view().id.to_owned()));
    read.collect::<Result<_, _>>().map_err(|wrong| format!("{} {}", wrong.path, wrong.problem))
}

#[test]
fn a_batch_is_an_array_of_them() {
    let two = format!(" [ {} ,\n{}\t] ", least(), with("id", json!("2")));
    assert_eq!(batch(&two), Ok(vec!["1".to_owned(), "2".to_owned()]));
    assert_eq!(batch(" [ ] "), Ok(vec![]));
    let one = least().to_string();
    for bad in [
        "",
        "{}",
        &one,
        "[",
        "[,]",
        &format!("[{one},]"),
        &format!("[{one}"),
        &format!("[{one}{one}]"),
        &format!("[{one}] x"),
        "[] []",
    ] {
        assert!(batch(bad).is_err(), "{bad}");
    }
    let wrong = batch(&format!("[{one},{}]", with("time", json!("x")))).expect_err("refused");
    assert!(wrong.starts_with("[1].time is not a time"), "{wrong}");
    assert!(batch("[1]").is_err_and(|wrong| wrong.starts_with("[0] ")));
    let many = |count: usize| batch(&format!("[{}]", vec![one.as_str(); count].join(",")));
    assert_eq!(many(10_000).map(|ids| ids.len()), Ok(10_000));
    assert!(many(10_001).is_err_and(|wrong| wrong.contains("more than 10000 events")));
}

fn headers(more: &[(&'static str, HeaderValue)]) -> HeaderMap {
    let least = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t"), ("ce-subject", "a")];
    let least = least.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let all = least.iter().chain(more);
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        headers.append(HeaderName::from_static(name), value.clone());
    }
    headers
}

#[test]
fn headers_are_attributes_and_the_body_is_data() {
    let value = HeaderValue::from_static;
    let read = |more: &[(&'static str, HeaderValue)], body: &[u8]| {
        of_headers(&headers(more), body, None)
            .map(|raw| accept(&raw))
            .map_err(|wrong| format!("{} {}", wrong.path, wrong.problem))
    };
    let event =
        read(&[("content-type", value("application/json")), ("ce-traceparent", value("00"))], b"{}").expect("read");
    let view = event.view();
    assert_eq!(
        (view.id, view.topic, view.content_type, view.payload),
        ("1", "a", "application/json", Payload::Text("{}"))
    );
    assert_eq!(event.attributes().collect::<Vec<_>>(), [("traceparent", "00")]);
    for (written, meant) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u{20ac} \u{1f600}"),
        ("\"a \\\"b\\\" %25\"", "a \"b\" %"),
        ("100%", "100%"),
        ("%e2%82%ac", "\u{20ac}"),
    ] {
        let event = read(&[("ce-ext", value(written))], b"").expect("read");
        assert_eq!(event.attributes().collect::<Vec<_>>(), [("ext", meant)]);
    }
    let payload = |content_type, body| read(&[("content-type", value(content_type))], body).expect("read");
    assert_eq!(payload("image/png", b"x").view().payload, Payload::Data(b"x"));
    assert_eq!(payload("text/plain", b"\xff").view().payload, Payload::Data(b"\xff"));
    assert_eq!(read(&[], b"").expect("read").view().payload, Payload::None);
    for (name, written, problem) in [
        ("ce-ext", "%FF", "ext is not UTF-8"),
        ("ce-id", "2", "id comes twice"),
        ("ce-datacontenttype", "a/b", "datacontenttype is no header"),
        ("ce-my-ext", "1", "my-ext is no name"),
    ] {
        let wrong = read(&[(name, value(written))], b"").expect_err("refused");
        assert!(wrong.starts_with(problem), "{wrong}");
    }
}
