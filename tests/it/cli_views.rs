//! What the command line shows of a hub, of the caller, of the members of a group and of what a stream has.

use std::process::Output;

use serde_json::{Value, json};

use crate::{
    auth_harness::{Guarded, token},
    cli::{against, run, subscriber, text},
    cli_streams::{fields, hub, object, objects, printed, table},
    harness::{Folder, PATIENCE, Process, exit, signal, until},
};

#[test]
fn a_hub_shows_what_it_is_and_what_goes_on_in_it() {
    let hub = Process::start(&["--set", "node=hub-7", "--alternatives", "http://hub-8:1"]);
    printed(&hub, "pub a.b hello");
    let shown = fields(&printed(&hub, "hub"));
    for (name, value) in [
        ("node", "hub-7"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("features", "-"),
        ("alternatives", "http://hub-8:1"),
        ("max event", "1.0 MiB"),
        ("sessions", "0"),
    ] {
        assert_eq!(shown[name], value, "{name}: {shown:?}");
    }
    assert!(shown["in since start"].starts_with("1 events, "), "{shown:?}");
    let told = object(&hub, "hub");
    assert_eq!([&told["node"], &told["traffic"]["events_in"]], [&json!("hub-7"), &json!(1)]);
    assert_eq!(told["limits"]["max_event_bytes"], 1 << 20);
    assert!(told["uptime"].as_str().is_some_and(|uptime| uptime.ends_with('s')), "{told}");
}

#[test]
fn on_a_hub_without_authentication_a_caller_is_nobody_and_may_do_everything() {
    let hub = Process::start(&[]);
    let shown = fields(&printed(&hub, "whoami"));
    assert!(shown["principal"].starts_with("none: ") && shown["peer"].starts_with("127.0.0.1:"), "{shown:?}");
    assert_eq!([&shown["roles"], &shown["expires"]], ["-", "never"]);
    assert_eq!(object(&hub, "whoami")["authenticated"], false);
    for question in ["publish a.b", "read s", "manage-dead-letters s g", "backup"] {
        assert_eq!(printed(&hub, &format!("check {question}")), "allowed\n", "{question}");
    }
    let answer = object(&hub, "check subscribe a.> b --group g");
    assert_eq!(answer, json!({ "allowed": true, "reason": null, "text": "" }));
    let refused = against(&hub, &["check", "publish", "a..b"]);
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    assert!(text(&refused.stderr).contains("topic is not a topic"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_learns_what_it_may_do_and_why_not() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let server = hub.server.address.to_string();
    let ask_as = |token: &str, arguments: &str| -> Output {
        let words: Vec<_> = arguments.split(' ').collect();
        run(&[&words[..], &["--server", &server, "--token", token]].concat())
    };
    let (root, alice) = (token("root", &["admin"]), token("alice", &["reader", "works-vault"]));
    assert!(ask_as(&root, "stream create vault vault.>").status.success());
    let ask = |arguments: &str| ask_as(&alice, arguments);
    let shown = fields(&text(&ask("whoami").stdout));
    assert_eq!([&shown["principal"], &shown["roles"]], ["jwt:alice", "reader works-vault"]);
    assert!(shown["expires"].contains(" (in "), "{shown:?}");
    for allowed in ["publish open.a", "subscribe open.>", "read vault --group team", "see-group vault team"] {
        let output = ask(&format!("check {allowed}"));
        assert!(output.status.success() && text(&output.stdout) == "allowed\n", "{allowed}: {output:?}");
    }
    for (denied, reason) in [
        ("publish vault.a", "TOPIC_DENIED"),
        ("read vault --group other", "TOPIC_DENIED"),
        ("manage-stream vault", "ACTION_DENIED"),
        ("manage-sessions", "ACTION_DENIED"),
    ] {
        let output = ask(&format!("check {denied}"));
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), "denied\n"), "{denied}: {error}");
        assert!(error.starts_with(&format!("switchyard: {reason}: ")) && error.lines().count() == 1, "{error}");
        let output = ask(&format!("check {denied} --json"));
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&told["allowed"], &told["reason"]), (&json!(false), &json!(reason)), "{denied}");
    }
    // What goes on in the hub is not for this caller.
    let told: Value = serde_json::from_slice(&ask("hub --json").stdout).expect("JSON");
    assert!(told["traffic"].is_null() && told["limits"].is_object(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_and_what_they_have_are_shown() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create jobs jobs.>");
    printed(&hub, "group create jobs team --from earliest --backoff 1h");
    assert_eq!(table(&printed(&hub, "group members jobs team")), [], "only the head");
    assert_eq!(table(&printed(&hub, "group unacked jobs team")), [], "only the head");
    printed(&hub, "pub jobs.a one");
    let failed = against(&hub, &["sub", "--stream", "jobs", "--group", "team", "-n", "1", "--exec", "exit 9"]);
    assert!(failed.status.success(), "{failed:?}");
    until("it has gone", async || objects(&hub, "group members jobs team").is_empty()).await;
    let (mut member, _lines) = subscriber(&hub, &["--stream", "jobs", "--group", "team"]);

    let members = table(&printed(&hub, "group members jobs team"));
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!([&members[0]["STATE"], &members[0]["UNACKED"]], ["connected", "0"]);
    let told = object(&hub, "group members jobs team");
    assert_eq!((&told["connected"], &told["session_id"]), (&json!(true), &json!(members[0]["SESSION"])));

    let unacked = table(&printed(&hub, "group unacked jobs team"));
    assert_eq!(unacked.len(), 1, "{unacked:?}");
    let row = ["SEQUENCE", "STATE", "ATTEMPT", "LAST FAILURE"].map(|name| unacked[0][name].as_str());
    assert_eq!(row, ["1", "waiting", "2", "exit status 9"]);
    assert!(unacked[0]["DUE"].starts_with("in 59m") || unacked[0]["DUE"] == "in 1h", "{unacked:?}");
    let told = object(&hub, "group unacked jobs team");
    assert_eq!((&told["state"], &told["member"]), (&json!("UNACKED_STATE_WAITING"), &Value::Null));

    signal(member.id(), "INT");
    assert!(exit(&mut member, PATIENCE).success());
    until("the member is gone", async || objects(&hub, "group members jobs team").is_empty()).await;
    for list in ["members", "unacked"] {
        let refused = against(&hub, &["group", list, "jobs", "none"]);
        assert!(text(&refused.stderr).contains("GROUP_NOT_FOUND"), "{refused:?}");
    }
}

/// The sequences that a list of events has.
fn sequences(hub: &Process, options: &str) -> Vec<i64> {
    let events = objects(hub, format!("stream events s {options}").trim_end());
    events.iter().map(|event| event["sequence"].as_i64().expect("a number")).collect()
}

#[test]
fn events_of_a_stream_are_listed_in_both_directions_from_anywhere() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create s s.>");
    assert_eq!(table(&printed(&hub, "stream events s")), [], "only the head");
    for n in 1..=5 {
        printed(&hub, &format!("pub s.{} text-{n}", if n % 2 == 0 { "even" } else { "odd" }));
    }
    for (options, expected) in [
        ("", &[1, 2, 3, 4, 5][..]),
        ("--reverse", &[5, 4, 3, 2, 1]),
        ("--limit 2", &[1, 2]),
        ("--reverse --limit 2", &[5, 4]),
        ("--from 4", &[4, 5]),
        ("--from 4 --reverse --limit 3", &[4, 3, 2]),
        ("--filter s.even", &[2, 4]),
        ("--filter s.odd --reverse --limit 1", &[5]),
        ("--from 2020-01-01T00:00:00Z --limit 1", &[1]),
        ("--from 2020-01-01T00:00:00Z --reverse", &[]),
    ] {
        assert_eq!(sequences(&hub, options), expected, "{options}");
    }
    let rows = table(&printed(&hub, "stream events s --from 2 --limit 1"));
    assert_eq!([&rows[0]["SEQUENCE"], &rows[0]["TOPIC"], &rows[0]["PAYLOAD"]], ["2", "s.even", "text-2"]);
    let cut = object(&hub, "stream events s --limit 1 --max-payload 4");
    assert_eq!((&cut["text"], &cut["payload_bytes"], &cut["stream"]), (&json!("text"), &json!(6), &json!("s")));
    let none = object(&hub, "stream events s --limit 1 --max-payload 0");
    assert_eq!((&none["text"], &none["payload_bytes"]), (&json!(""), &json!(6)));
    let long = "x".repeat(201);
    printed(&hub, &format!("pub s.long {long}"));
    let last = ["--reverse --limit 1", "--reverse --limit 1 --max-payload none"];
    let last = last.map(|options| table(&printed(&hub, &format!("stream events s {options}")))[0]["PAYLOAD"].clone());
    assert_eq!(last, [format!("{}... (201 B)", &long[..200]), long.clone()]);
    assert_eq!(object(&hub, "stream events s --reverse --limit 1")["text"], long, "JSON is whole");
    for (options, told) in [("--limit 0", "--limit"), ("--from yesterday", "such as 42"), ("--max-payload -1", "")] {
        let refused = against(&hub, &format!("stream events s {options}").split(' ').collect::<Vec<_>>());
        assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(told), "{options}: {refused:?}");
    }
    assert!(text(&against(&hub, &["stream", "events", "none"]).stderr).contains("STREAM_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_on_over_pages_and_have_one_head() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create s s.>");
    let mut client = crate::harness::client(hub.address).await;
    let events = (1..=2001).map(|n| crate::harness::event(&format!("s.{n:04}"), n.to_string())).collect();
    client.publish(crate::harness::publish(events)).await.expect("stored");
    assert_eq!(sequences(&hub, ""), (1..=2001).collect::<Vec<_>>());
    assert_eq!(sequences(&hub, "--reverse --limit 1001"), (1001..=2001).rev().collect::<Vec<_>>());
    let shown = printed(&hub, "stream events s");
    assert_eq!(shown.lines().filter(|line| line.contains("SEQUENCE")).count(), 1);
    let topics = table(&printed(&hub, "stream topics s"));
    assert_eq!(topics.len(), 2001);
    let named: Vec<_> = topics.iter().map(|row| row["TOPIC"].as_str()).collect();
    assert!(named.is_sorted() && named[0] == "s.0001" && named[2000] == "s.2001", "{named:?}");
}

#[test]
fn topics_of_a_stream_are_listed_with_their_numbers() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create s s.>");
    assert_eq!(table(&printed(&hub, "stream topics s")), [], "only the head");
    for topic in ["s.eu.a", "s.eu.b", "s.us.a", "s.eu.a"] {
        printed(&hub, &format!("pub {topic} x"));
    }
    let rows = table(&printed(&hub, "stream topics s"));
    let numbers: Vec<_> = rows.iter().map(|row| [&*row["TOPIC"], &row["EVENTS"], &row["LAST"]]).collect();
    assert_eq!(numbers, [["s.eu.a", "2", "4"], ["s.eu.b", "1", "2"], ["s.us.a", "1", "3"]]);
    for (options, expected) in [
        ("--filter s.*.a", &["s.eu.a", "s.us.a"][..]),
        ("--prefix s.e", &["s.eu.a", "s.eu.b"]),
        ("--prefix s.e --limit 1", &["s.eu.a"]),
    ] {
        let topics = objects(&hub, &format!("stream topics s {options}"));
        assert_eq!(topics.iter().map(|topic| &topic["topic"]).collect::<Vec<_>>(), expected, "{options}");
    }
    let told = object(&hub, "stream topics s --limit 1");
    assert_eq!((&told["events"], &told["last_sequence"]), (&json!(2), &json!(4)));
    assert!(told["last_time"].is_string(), "{told}");
}
