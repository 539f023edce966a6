//! `POST /v1/publish`: JSON, protobuf, and CloudEvents, which come out of a poll as they went in.

use std::net::SocketAddr;

use prost::Message as _;
use serde_json::{Value, json};
use switchyard::proto::v1::{PublishResponse, StartPreset};

use super::{Answer, address, any_port, ask, begin, hub};
use crate::{
    auth_harness::{Guarded, token},
    harness::{Folder, event, publish},
    stored::{Reader, create, from, hub_on_with, preset, stream},
};

async fn post(at: SocketAddr, kind: &str, body: &str) -> Answer {
    ask(at, "POST", "/v1/publish", &[("content-type", kind)], body).await
}

async fn post_json(at: SocketAddr, body: &Value) -> Answer {
    post(at, "application/json", &body.to_string()).await
}

fn reason(answer: &Answer) -> String {
    answer.json()["details"][0]["reason"].as_str().unwrap_or_else(|| panic!("no reason: {}", answer.body)).to_owned()
}

#[tokio::test]
async fn events_in_json_are_published_and_stored_once() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.web.listen = any_port()).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let request = json!({ "events": [
        { "id": "1", "topic": "s.a", "text": "hello", "attributes": { "k": "v" }, "time": "2030-01-01T00:00:00Z" },
        { "topic": "live", "data": "AP8=" },
    ]});
    let first = post_json(address(&hub), &request).await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("application/json")), "{}", first.body);
    let results = first.json()["results"].clone();
    assert_eq!(
        (&results[0]["stream"], &results[0]["sequence"], &results[0]["durability"]),
        (&"s".into(), &"1".into(), &"DURABILITY_SYNC".into())
    );
    assert_eq!(results[1], json!({}), "nobody wants it");
    let again = post_json(address(&hub), &request).await.json();
    assert_eq!((&again["results"][0]["duplicate"], &again["results"][0]["sequence"]), (&true.into(), &"1".into()));
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until(1).await;
    assert_eq!(reader.texts(), ["hello"]);
}

#[tokio::test]
async fn protobuf_is_answered_in_protobuf() {
    let hub = hub(|_| {}).await;
    let request = publish(vec![event("a", "x"), event("b", "y")]).encode_to_vec();
    let body = String::from_utf8(request).expect("it happens to be text");
    let answer = post(address(&hub), "application/x-protobuf", &body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-protobuf")));
    let response = PublishResponse::decode(answer.body.as_bytes()).expect("a response");
    assert_eq!(response.results.len(), 2);
    assert_eq!(post(address(&hub), "application/x-protobuf", "\u{1}").await.status, 400);
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| {
        config.web.listen = any_port();
        config.sessions.max_event_bytes = 1024;
    })
    .await;
    create(hub.address, stream("s", &["s.>"])).await;
    let at = address(&hub);
    let with = |event: Value| json!({ "events": [event] });
    for (body, status, expected) in [
        (with(json!({ "topic": "a..b" })), 400, "INVALID_TOPIC"),
        (json!({ "events": [] }), 400, "MALFORMED_COMMAND"),
        (json!({ "eventz": [] }), 400, "MALFORMED_COMMAND"),
        (with(json!({ "topic": "a", "text": "x".repeat(1024) })), 413, "EVENT_TOO_LARGE"),
        (json!({ "events": [{ "topic": "s.a" }], "precondition": { "lastSequence": "7" } }), 409, "SEQUENCE_MISMATCH"),
    ] {
        let answer = post_json(at, &body).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (status, expected), "{body}: {}", answer.body);
    }
    let named = post_json(at, &with(json!({ "topic": "a", "tekst": "x" }))).await;
    assert!(named.body.contains("events[0].tekst"), "{}", named.body);
    let some = post_json(at, &json!({ "events": [{ "topic": "a" }, { "topic": "b b" }] })).await;
    assert_eq!((some.status, &some.json()["results"][1]["status"]["code"]), (200, &3.into()), "{}", some.body);
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"]
    {
        assert_eq!(post(at, kind, "{}").await.status, 415, "{kind}");
    }
    assert_eq!(ask(at, "POST", "/v1/publish", &[], "{}").await.status, 415);
    let topic = ask(at, "POST", "/v1/publish?topic=a", &[("content-type", "application/json")], "{}").await;
    assert_eq!(topic.status, 400, "{}", topic.body);
}

#[tokio::test]
async fn a_body_is_bounded() {
    let hub = hub(|config| config.sessions.max_event_bytes = 1024).await;
    // Spaces are no event, and yet they have to be kept.
    let body = |bytes: usize| {
        let request = json!({ "events": [{ "topic": "a" }] }).to_string();
        format!("{request}{}", " ".repeat(bytes - request.len()))
    };
    let most = 4 * 1024 * 1024;
    assert_eq!(post(address(&hub), "application/json", &body(most)).await.status, 200);
    // One that says that it is larger is not even sent.
    let too_large = (most + 1).to_string();
    let refused =
        begin(address(&hub), "/v1/publish", &[("content-type", "application/json"), ("content-length", &too_large)])
            .await;
    assert_eq!((refused.status, reason(&refused)), (413, "EVENT_TOO_LARGE".to_owned()), "one byte past");
}

#[tokio::test]
async fn nobody_publishes_without_the_right_to() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.web.listen = any_port()).await;
    let bearer = format!("Bearer {}", token("ann", &["reader"]));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let ask = async |topic: &str| {
        let body = json!({ "events": [{ "topic": topic }] }).to_string();
        ask(address(&hub.server), "POST", "/v1/publish", &headers, &body).await
    };
    assert_eq!(ask("open.a").await.status, 200);
    let denied = ask("closed.a").await;
    assert_eq!((denied.status, reason(&denied)), (403, "TOPIC_DENIED".to_owned()));
}

fn cloud_event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": "com.example.created", "subject": "s.a",
        "time": "2030-01-01T00:00:00.123456789Z", "datacontenttype": "application/json", "dataschema": "/schema",
        "partitionkey": "k", "traceparent": "00-1", "data": { "total": 1 },
    })
}

#[tokio::test]
async fn cloud_events_come_out_as_they_went_in() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.web.listen = any_port()).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let at = address(&hub);
    let one = post(at, "application/cloudevents+json; charset=utf-8", &cloud_event("1").to_string()).await;
    assert_eq!(one.status, 200, "{}", one.body);
    let two = json!([cloud_event("2"), cloud_event("3")]).to_string();
    assert_eq!(post(at, "application/cloudevents-batch+json", &two).await.json()["results"][1]["sequence"], "3");
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "4"),
        ("ce-source", "/shop"),
        ("ce-type", "com.example.created"),
        ("ce-subject", "s.a"),
        ("ce-time", "2030-01-01T00:00:00.123456789Z"),
        ("ce-dataschema", "/schema"),
        ("ce-partitionkey", "k"),
        ("ce-traceparent", "00%2d1"),
    ];
    let answer = ask(at, "POST", "/v1/publish", &binary, "{ \"total\": 1 }").await;
    assert_eq!(answer.json()["results"][0]["sequence"], "4", "{}", answer.body);

    let accept = [("accept", "application/cloudevents-batch+json")];
    let polled = ask(at, "GET", "/v1/poll?stream=s&start=earliest&wait=0", &accept, "").await;
    assert_eq!(polled.header("content-type"), Some("application/cloudevents-batch+json"));
    assert!(polled.header("x-switchyard-cursor").is_some_and(|cursor| cursor.ends_with(".4")));
    assert_eq!(polled.header("x-switchyard-caught-up"), Some("true"));
    let mut events: Vec<Value> = serde_json::from_str(&polled.body).expect("an array");
    for (index, event) in events.iter_mut().enumerate() {
        let members = event.as_object_mut().expect("an object");
        assert_eq!(members.remove("switchyardstream"), Some("s".into()));
        assert_eq!(members.remove("switchyardsequence"), Some((index + 1).to_string().into()));
        assert!(members.remove("switchyardappendtime").is_some_and(|time| time.is_string()));
        assert_eq!(*event, cloud_event(&(index + 1).to_string()));
    }
    // What came out goes in again, and is known.
    let again = post(at, "application/cloudevents-batch+json", &polled.body).await;
    let results = again.json()["results"].clone();
    assert!(results.as_array().expect("results").iter().all(|result| result["duplicate"] == true), "{results}");
}

#[tokio::test]
async fn a_cloud_event_without_a_topic_of_ours_is_published_where_its_sender_says() {
    let hub = hub(|_| {}).await;
    let mut foreign = cloud_event("1");
    foreign["subject"] = "some/path with spaces".into();
    let kind = [("content-type", "application/cloudevents+json")];
    let body = foreign.to_string();
    let refused = ask(address(&hub), "POST", "/v1/publish", &kind, &body).await;
    assert_eq!((refused.status, reason(&refused)), (400, "INVALID_TOPIC".to_owned()));
    assert_eq!(ask(address(&hub), "POST", "/v1/publish?topic=hooks.shop", &kind, &body).await.status, 200);
    foreign["type"] = Value::Null;
    let refused = ask(address(&hub), "POST", "/v1/publish", &kind, &foreign.to_string()).await;
    assert!(refused.status == 400 && refused.body.contains("type is missing"), "{}", refused.body);
}

/// Those that are read on a thread of their own.
#[tokio::test]
async fn large_cloud_events_are_read_as_small_ones_are() {
    let hub = hub(|_| {}).await;
    let event = |id: u32| {
        let data = "x".repeat(200 * 1024);
        json!({"specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "t", "subject": "a", "data": data})
    };
    let one = post(address(&hub), "application/cloudevents+json", &event(0).to_string()).await;
    assert_eq!((one.status, one.json()["results"].as_array().map(Vec::len)), (200, Some(1)), "{}", one.body);
    let mut batch = json!([event(1), event(2), event(3), event(4)]);
    let many = post(address(&hub), "application/cloudevents-batch+json", &batch.to_string()).await;
    assert_eq!((many.status, many.json()["results"].as_array().map(Vec::len)), (200, Some(4)), "{}", many.body);
    batch[3]["type"] = "".into();
    let wrong = post(address(&hub), "application/cloudevents-batch+json", &batch.to_string()).await;
    assert_eq!((wrong.status, wrong.json()["message"].as_str()), (400, Some("[3].type is empty")), "{}", wrong.body);
}
