//! What is taken and what is refused, with the path and the words of each refusal.

use prost::Message as _;

use super::of;
use crate::proto::v1::{self as client, session_request::Command};

fn request(json: &str) -> client::SessionRequest {
    let protobuf = of("SessionRequest").decode(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    client::SessionRequest::decode(&*protobuf).expect("a request")
}

fn refused(name: &str, json: &str) -> (String, String) {
    match of(name).decode(json.as_bytes()) {
        Ok(_) => panic!("taken: {json}"),
        Err(error) => (error.path, error.problem),
    }
}

#[track_caller]
fn check(json: &str, path: &str, problem: &str) {
    assert_eq!(refused("SessionRequest", json), (path.to_owned(), problem.to_owned()), "{json}");
}

fn not_json(json: &str, problem: &str) {
    let (_, found) = refused("SessionRequest", json);
    assert_eq!(found, format!("is not JSON{problem}"), "{json}");
}

#[test]
fn a_request_is_what_it_says() {
    let found = request(
        r#" { "requestId" : "7", "publish": {"events": [
            {"topic": "a.b", "text": "h\u00e9 \ud834\udd1e\/", "attributes": {"n": "v", "": ""}, "ttl": "1.5s",
             "time": "1970-01-01T01:00:00.25+01:00", "content_type": null},
            {"topic": "c", "data": "-_8"}
        ], "precondition": {"lastSequence": 0}}}"#,
    );
    let event = client::Event {
        topic: "a.b".into(),
        payload: Some(client::event::Payload::Text("h\u{e9} \u{1d11e}/".into())),
        attributes: [("n".into(), "v".into()), (String::new(), String::new())].into(),
        ttl: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        time: Some(prost_types::Timestamp { seconds: 0, nanos: 250_000_000 }),
        ..client::Event::default()
    };
    let other = client::Event {
        topic: "c".into(),
        payload: Some(client::event::Payload::Data(vec![0xfb, 0xff].into())),
        ..client::Event::default()
    };
    let condition = Some(client::publish_precondition::Condition::LastSequence(0));
    let precondition = Some(client::PublishPrecondition { condition });
    let publish = client::PublishRequest { events: vec![event, other], precondition };
    assert_eq!(found, client::SessionRequest { request_id: 7, command: Some(Command::Publish(publish)) });
}

#[test]
fn unknown_fields_are_refused_with_their_path() {
    check(
        r#"{"publish":{"events":[{"topic":"a"},{},{},{"topicc":"b"}]}}"#,
        "publish.events[3].topicc",
        "is not a field of switchyard.v1.Event",
    );
    check(
        r#"{"subscribe":{"spec":{"filterz":[]}}}"#,
        "subscribe.spec.filterz",
        "is not a field of switchyard.v1.SubscriptionSpec",
    );
    check(r#"{"Ping":{}}"#, "Ping", "is not a field of switchyard.v1.SessionRequest");
    check(r#"{"":1}"#, "\"\"", "is not a field of switchyard.v1.SessionRequest");
    let long = format!("{{\"{}\":1}}", "x".repeat(100));
    let (path, _) = refused("SessionRequest", &long);
    assert_eq!(path, format!("{}...", "x".repeat(64)));
    let longer = format!("{{\"ping\":{{\"{}\":1}}}}", "x".repeat(129));
    check(&longer, "ping", "has a name that is not a field of switchyard.v1.Ping");
    assert_eq!(refused("SessionRequest", "{\"\\u001b[2J\":1}").0, "?[2J");
}

#[test]
fn a_field_is_there_once_whatever_it_is_called() {
    for json in [
        r#"{"requestId":1,"requestId":1}"#,
        r#"{"requestId":1,"request_id":1}"#,
        r#"{"request_id":null,"requestId":null}"#,
    ] {
        check(json, "request_id", "is there twice");
    }
    check(r#"{"hello":{"labels":{"a":"1","b":"2","\u0061":"3"}}}"#, "hello.labels[a]", "is there twice");
    check(r#"{"hello":{"labels":{"":"1","":"2"}}}"#, "hello.labels[\"\"]", "is there twice");
    // In two maps a name may be.
    request(r#"{"publish":{"events":[{"attributes":{"a":"1"}},{"attributes":{"a":"1"}}]}}"#);
    let many: Vec<_> = (0..3000).map(|n| format!("\"{n}\":\"{}\"", "v".repeat(n % 300))).collect();
    let found = request(&format!("{{\"hello\":{{\"labels\":{{{}}}}}}}", many.join(",")));
    let Some(Command::Hello(hello)) = found.command else { panic!("no hello") };
    assert_eq!(hello.labels.len(), 3000);
    assert!((0..3000).all(|n| hello.labels[&n.to_string()].len() == n % 300));
    let again = format!("{{\"hello\":{{\"labels\":{{{},\"1717\":\"\"}}}}}}", many.join(","));
    check(&again, "hello.labels[1717]", "is there twice");
}

#[test]
fn of_a_oneof_one_is_set_and_null_is_none() {
    check(r#"{"ping":{},"hello":{}}"#, "hello", "cannot be set together with ping");
    check(
        r#"{"publish":{"events":[{"data":"","text":""}]}}"#,
        "publish.events[0].text",
        "cannot be set together with data",
    );
    assert!(matches!(request(r#"{"ping":null,"hello":{}}"#).command, Some(Command::Hello(_))));
    assert!(matches!(request(r#"{"ping":{},"hello":null}"#).command, Some(Command::Ping(_))));
    let Some(Command::Publish(publish)) = request(r#"{"publish":{"events":[{"text":""}]}}"#).command else { panic!() };
    assert_eq!(
        publish.events[0].payload,
        Some(client::event::Payload::Text(String::new())),
        "set, although it is empty"
    );
}

#[test]
fn null_is_the_same_as_no_field_and_no_element() {
    assert_eq!(request(r#"{"requestId":null,"publish":null}"#), client::SessionRequest::default());
    let nothing = Some(Command::Publish(client::PublishRequest::default()));
    assert_eq!(request(r#"{"publish":{"events":null,"precondition":null}}"#).command, nothing);
    check(r#"{"publish":{"events":[null]}}"#, "publish.events[0]", "must not be null");
    check(r#"{"acknowledge":{"sequences":[1,null]}}"#, "acknowledge.sequences[1]", "must not be null");
    check(r#"{"hello":{"labels":{"a":null}}}"#, "hello.labels[a]", "must not be null");
    check("null", "", "must be an object");
}

#[test]
fn numbers_may_be_strings_and_must_be_whole() {
    let id = |json: &str| request(&format!("{{\"requestId\":{json}}}")).request_id;
    for (json, expected) in [
        ("7", 7),
        ("-7", -7),
        ("\"7\"", 7),
        ("7.0", 7),
        ("1e3", 1000),
        ("\"1e3\"", 1000),
        ("\"\\u0037\"", 7),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
        ("9223372036854775807.0", i64::MAX),
        ("\"-9223372036854775808\"", i64::MIN),
    ] {
        assert_eq!(id(json), expected, "{json}");
    }
    for json in
        ["0.5", "9223372036854775808", "\"\"", "\" 7\"", "\"7 \"", "\"0x7\"", "\"07\"", "\"NaN\"", "true", "{}", "[]"]
    {
        check(&format!("{{\"requestId\":{json}}}"), "request_id", "must be a whole number of 64 bits");
    }
    let wait = |json: &str| refused("GroupMember", &format!("{{\"connected\":{json}}}"));
    for json in ["1", "\"true\"", "\"\"", "{}"] {
        assert_eq!(wait(json), ("connected".into(), "must be true or false".into()));
    }
    let batch = |json: &str| format!("{{\"subscribe\":{{\"spec\":{{\"maxBatch\":{json}}}}}}}");
    check(&batch("2147483648"), "subscribe.spec.max_batch", "must be a whole number of 32 bits");
    request(&batch("-2147483648"));
    check(&format!("{{\"requestId\":{}}}", "9".repeat(1025)), "request_id", "is too long a number");
    check(&format!("{{\"requestId\":{}}}", "9".repeat(1024)), "request_id", "must be a whole number of 64 bits");
}

#[test]
fn floats_have_their_special_values() {
    let read = |json: &str| {
        let protobuf = of("Session").decode(format!("{{\"sentEventsPerSecond\":{json}}}").as_bytes()).ok()?;
        Some(client::Session::decode(&*protobuf).expect("a session").sent_events_per_second)
    };
    for (json, expected) in
        [("1.5", 1.5), ("\"-1e3\"", -1000.0), ("\"Infinity\"", f64::INFINITY), ("\"-Infinity\"", f64::NEG_INFINITY)]
    {
        assert_eq!(read(json), Some(expected), "{json}");
    }
    assert!(read("\"NaN\"").is_some_and(f64::is_nan));
    assert!(read("-0.0").is_some_and(f64::is_sign_negative));
    for json in ["1e400", "\"inf\"", "\"nan\"", "\"\"", "NaN", "true", "\"1.\"", "\".5\""] {
        assert_eq!(read(json), None, "{json}");
    }
}

#[test]
fn enums_are_names_or_numbers() {
    let spec = |json: &str| format!("{{\"subscribe\":{{\"spec\":{{\"ackMode\":{json}}}}}}}");
    let mode = |json: &str| match request(&spec(json)).command {
        Some(Command::Subscribe(subscribe)) => subscribe.spec.expect("a spec").ack_mode,
        other => panic!("{other:?}"),
    };
    assert_eq!([mode("\"ACK_MODE_EXPLICIT\""), mode("2"), mode("2.0"), mode("99"), mode("-1")], [2, 2, 2, 99, -1]);
    for json in ["\"EXPLICIT\"", "\"ack_mode_explicit\"", "\"2\"", "\"\"", "2147483648", "0.5", "true"] {
        check(&spec(json), "subscribe.spec.ack_mode", "is not a value of AckMode");
    }
}

#[test]
fn times_durations_and_masks_are_texts() {
    let time = |json: &str| format!("{{\"subscribe\":{{\"spec\":{{\"start\":{{\"atTime\":{json}}}}}}}}}");
    request(&time("\"2026-11-28T10:00:00Z\""));
    for json in ["\"2026-11-28\"", "1", "{}", "\"\"", &format!("\"2026-11-28T10:00:00.{}Z\"", "0".repeat(100))] {
        check(&time(json), "subscribe.spec.start.at_time", "must be a time such as 2026-11-28T10:00:00.5Z");
    }
    let delay = |json: &str| format!("{{\"acknowledge\":{{\"delay\":{json}}}}}");
    request(&delay("\"-0.5s\""));
    for json in ["\"1\"", "1", "{\"seconds\":1}"] {
        check(&delay(json), "acknowledge.delay", "must be a duration such as 1.5s");
    }
    let read = |json: &str| {
        let protobuf = of("UpdateGroupRequest").decode(format!("{{\"updateMask\":{json}}}").as_bytes()).ok()?;
        client::UpdateGroupRequest::decode(&*protobuf).expect("a request").update_mask.map(|mask| mask.paths)
    };
    assert_eq!(
        read("\"ackDeadline,state.deadLetters\""),
        Some(vec!["ack_deadline".into(), "state.dead_letters".into()])
    );
    assert_eq!(read("\"\""), Some(Vec::new()));
    for json in ["\"ack_deadline\"", "\"a,,b\"", "[\"a\"]", "{\"paths\":[]}"] {
        assert_eq!(read(json), None, "{json}");
    }
    let mask = |len: usize| read(&format!("\"{}\"", "a".repeat(len)));
    assert!(mask(4096).is_some() && mask(4097).is_none());
}

#[test]
fn types_that_do_not_fit_are_named() {
    check(r#"{"ping":[]}"#, "ping", "must be an object");
    check(r#"{"ping":{"nonce":1}}"#, "ping.nonce", "must be a string");
    check(r#"{"publish":{"events":{}}}"#, "publish.events", "must be a list");
    check(r#"{"publish":{"events":[[]]}}"#, "publish.events[0]", "must be an object");
    check(r#"{"hello":{"labels":[]}}"#, "hello.labels", "must be an object");
    check(r#"{"hello":{"labels":{"a":{}}}}"#, "hello.labels[a]", "must be a string");
    check(r#"{"publish":{"events":[{"data":"a?"}]}}"#, "publish.events[0].data", "must be a string in base64");
    check(r#"{"publish":{"events":[{"data":[1]}]}}"#, "publish.events[0].data", "must be a string in base64");
    check("[]", "", "must be an object");
    check("7", "", "must be an object");
    assert_eq!(
        refused("SessionResponse", r#"{"error":{"details":[{}]}}"#),
        ("error.details[0]".into(), "cannot be read from JSON".into())
    );
}

#[test]
fn what_is_not_json_is_refused_where_it_is_not() {
    not_json("", ": the text ends where an object must come");
    not_json("{", ": the text ends where a name or the end of the object must come");
    not_json("{\"ping\"", ": the text ends where a colon must come");
    not_json("{\"ping\":", ": the text ends where a value must come");
    not_json("{\"ping\":{}", ": the text ends where a comma or the end must come");
    not_json("{\"ping", ": the text ends where the end of a string must come");
    not_json("{} {}", " at byte 3: nothing must come here");
    not_json("{}x", " at byte 2: nothing must come here");
    not_json("{,}", " at byte 1: a name or the end of the object must come here");
    not_json("{\"ping\":{},}", " at byte 11: a name must come here");
    not_json("{\"ping\" {}}", " at byte 8: a colon must come here");
    not_json("{\"publish\":{\"events\":[{},]}}", " at byte 25: a value must come here");
    not_json("{\"publish\":{\"events\":[{}}}", " at byte 24: a comma or the end must come here");
    not_json("{\"publish\":{\"events\":[{} {}]}}", " at byte 25: a comma or the end must come here");
    not_json("{\"ping\":{]}", " at byte 9: a name or the end of the object must come here");
    not_json("{'ping':{}}", " at byte 1: a name or the end of the object must come here");
    not_json("{ping:{}}", " at byte 1: a name or the end of the object must come here");
    not_json("\u{feff}{}", " at byte 0: an object must come here");
    not_json("{/**/}", " at byte 1: a name or the end of the object must come here");
    not_json("{\"requestId\":01}", " at byte 14: a comma or the end must come here");
    not_json("{\"requestId\":+1}", " at byte 13: a value must come here");
    not_json("{\"requestId\":1.}", " at byte 15: a digit must come here");
    not_json("{\"requestId\":nul}", " at byte 13: a value must come here");
    not_json("{\"requestId\":nulll}", " at byte 17: a comma or the end must come here");
    not_json("{\"ping\":{\"nonce\":\"\n\"}}", " at byte 18: no control character must come here");
    not_json("{\"ping\":{\"nonce\":\"\\x\"}}", " at byte 18: an escape that JSON has must come here");
    not_json("{\"ping\":{\"nonce\":\"\\u12g4\"}}", " at byte 18: \\u and four hexadecimal digits must come here");
    for json in ["\\ud800", "\\udc00", "\\ud800\\ud800", "\\ud800x", "\\udc00\\ud800", "\\ud800\\u0041", "\\ud800\\n"] {
        let json = format!("{{\"ping\":{{\"nonce\":\"{json}\"}}}}");
        not_json(&json, " at byte 18: both halves of a surrogate pair must come here");
        assert_eq!(refused("SessionRequest", &json).0, "ping.nonce");
    }
    let broken = of("SessionRequest").decode(b"{\"ping\":{\"nonce\":\"ab\xff\"}}").expect_err("refused");
    assert_eq!((broken.path.as_str(), broken.problem.as_str()), ("ping.nonce", "is not UTF-8 at byte 20"));
    let Some(Command::Ping(ping)) = request("{\"ping\":{\"nonce\":\"a\\u0000b\"}}").command else { panic!("no ping") };
    assert_eq!(ping.nonce, "a\0b", "a text may have any character");
}

#[test]
fn errors_have_nothing_of_what_was_sent_but_short_names() {
    let secret = "s3cret".repeat(10);
    for json in [
        format!("{{\"authenticate\":{{\"token\":[\"{secret}\"]}}}}"),
        format!("{{\"requestId\":\"{secret}\"}}"),
        format!("{{\"authenticate\":{{\"token\":\"{secret}\\q\"}}}}"),
        format!("{{\"subscribe\":{{\"spec\":{{\"ackMode\":\"{secret}\"}}}}}}"),
        format!("{{\"publish\":{{\"events\":[{{\"data\":\"{secret}?\"}}]}}}}"),
    ] {
        let (path, problem) = refused("SessionRequest", &json);
        assert!(!path.contains("s3cret") && !problem.contains("s3cret"), "{path} {problem}");
    }
}
