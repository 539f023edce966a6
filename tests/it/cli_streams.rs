//! `switchyard stream` and `switchyard group` against a real hub: what they print, as text and as JSON, and how they fail.

use std::{collections::BTreeMap, process::Output};

use serde_json::{Value, json};

use crate::{
    cli::{against, text},
    harness::{Folder, Process, until},
};

/// A hub that keeps its streams in a folder.
pub fn hub(folder: &Folder) -> Process {
    Process::start(&["--data-dir", folder.text()])
}

/// What a command prints, which must succeed and complain of nothing.
pub fn printed(hub: &Process, arguments: &str) -> String {
    let output = against(hub, &arguments.split(' ').collect::<Vec<_>>());
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments}: {output:?}");
    text(&output.stdout)
}

/// The same as the objects that it prints, one a line.
pub fn objects(hub: &Process, arguments: &str) -> Vec<Value> {
    let lines = printed(hub, &format!("{arguments} --json"));
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The only one.
pub fn object(hub: &Process, arguments: &str) -> Value {
    let mut all = objects(hub, arguments);
    assert_eq!(all.len(), 1, "{arguments}: {all:?}");
    all.remove(0)
}

/// Names and values, a line each, up to an empty line or the head of a table.
pub fn fields(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once("  "));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// The rows of a table by its columns.
pub fn table(text: &str) -> Vec<BTreeMap<String, String>> {
    let cells = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let mut lines = text.lines();
    let head = cells(lines.next().expect("a head"));
    lines.map(|line| head.iter().cloned().zip(cells(line)).collect()).collect()
}

/// Failed with one line, which tells the reason.
fn check_refused(output: &Output, code: i32, told: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(told) && output.stdout.is_empty(), "{told} expected: {error}");
    assert!(code != 1 || error.lines().count() == 1, "{error}");
}

#[test]
fn a_stream_is_made_shown_changed_and_deleted() {
    let folder = Folder::new();
    let hub = hub(&folder);
    assert_eq!(table(&printed(&hub, "stream list")), [], "only the head");
    assert_eq!(objects(&hub, "stream list"), [] as [Value; 0]);

    let made = printed(&hub, "stream create orders orders.> --max-age 7d --max-bytes 10GiB --dedupe-window 5m");
    assert!(made.starts_with("created "), "{made}");
    let shown = fields(&printed(&hub, "stream get orders"));
    for (name, value) in [
        ("stream", "orders"),
        ("filters", "orders.>"),
        ("storage", "file"),
        ("durability", "sync"),
        ("max age", "7d"),
        ("max events", "none"),
        ("max bytes", "10.0 GiB"),
        ("max events per topic", "none"),
        ("dedupe window", "5m"),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let expected = json!({
        "name": "rates", "filters": ["rates.*", "stocks.>"], "storage": "STORAGE_MEMORY",
        "durability": "DURABILITY_NONE", "dedupe_window": "120s", "max_events_per_topic": 1,
    });
    let create = "stream create rates rates.* stocks.> --storage memory --durability none --max-events-per-topic 1";
    assert_eq!(object(&hub, create), expected);
    assert_eq!(object(&hub, "stream get rates"), expected);

    assert_eq!(printed(&hub, "pub orders.eu hello"), "published 1, matched 0, stored in orders as 1\n");
    let listed = table(&printed(&hub, "stream list"));
    let names: Vec<_> = listed.iter().map(|row| (row["NAME"].as_str(), row["EVENTS"].as_str())).collect();
    assert_eq!(names, [("orders", "1"), ("rates", "0")]);
    assert_eq!(
        (listed[1]["FILTERS"].as_str(), listed[1]["STORAGE"].as_str()),
        ("rates.* stocks.>", "memory"),
        "{listed:?}"
    );
    let ends = listed.iter().map(|row| [row["FIRST"].as_str(), row["LAST"].as_str()]);
    assert_eq!(ends.collect::<Vec<_>>(), [["1", "1"], ["-", "-"]], "{listed:?}");
    let listed = objects(&hub, "stream list");
    assert_eq!((&listed[0]["name"], &listed[0]["state"]["events"]), (&json!("orders"), &json!(1)));

    let changed =
        printed(&hub, "stream update orders --max-age none --max-events 10 --filter orders.> --filter bills.>");
    assert!(changed.starts_with("updated "), "{changed}");
    let changed = fields(&changed);
    assert_eq!([&changed["max age"], &changed["max events"], &changed["max bytes"]], ["none", "10", "10.0 GiB"]);
    assert_eq!(changed["filters"], "orders.> bills.>");
    assert_eq!(object(&hub, "stream update orders --max-bytes none").get("max_bytes"), None);

    assert_eq!(printed(&hub, "stream delete orders"), "deleted orders\n");
    assert_eq!(object(&hub, "stream delete rates"), json!({ "deleted": "rates" }));
    assert_eq!(objects(&hub, "stream list"), [] as [Value; 0]);
}

#[test]
fn events_of_a_stream_are_shown_and_purged() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create orders orders.>");
    printed(&hub, "pub orders.eu one --type t --id 7 --source shop --key k --attribute a=b");
    for text in ["two", "three", "four"] {
        printed(&hub, &format!("pub orders.us {text}"));
    }
    assert_eq!(
        printed(&hub, "pub orders.eu one --id 7 --source shop"),
        "published 1, matched 0, duplicate of 1 in orders\n"
    );
    let shown = printed(&hub, "stream event orders 1");
    assert!(shown.ends_with("\none\n"), "{shown}");
    let shown = fields(&shown);
    let named = ["sequence", "topic", "id", "type", "source", "key", "attribute"].map(|name| shown[name].as_str());
    assert_eq!(named, ["1", "orders.eu", "7", "t", "shop", "k", "a=b"]);
    let last = object(&hub, "stream event orders --last-of orders.us");
    assert_eq!((&last["sequence"], &last["text"], &last["stream"]), (&json!(4), &json!("four"), &json!("orders")));

    assert_eq!(printed(&hub, "stream purge orders --up-to 1"), "purged 1 events\n");
    assert_eq!(object(&hub, "stream purge orders --filter orders.us --up-to 2"), json!({ "purged_events": 1 }));
    check_refused(&against(&hub, &["stream", "event", "orders", "1"]), 1, "EVENT_NOT_FOUND");
    assert_eq!(object(&hub, "stream event orders 3")["text"], "three");
    assert_eq!(printed(&hub, "stream purge orders --all"), "purged 2 events\n");
    let info = fields(&printed(&hub, "stream info orders"));
    assert_eq!([&info["events"], &info["first"], &info["last"]], ["0", "none", "none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn info_shows_size_rate_first_and_last_and_the_lag_of_each_group() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create orders orders.>");
    printed(&hub, "group create orders billing --from earliest");
    printed(&hub, "group create orders archive --from new");
    for text in ["one", "two", "three"] {
        printed(&hub, &format!("pub orders.eu {text}"));
    }
    printed(&hub, "group seek orders archive --to latest");
    let output = against(&hub, &["sub", "--stream", "orders", "--group", "billing", "-n", "1"]);
    assert_eq!(text(&output.stdout), "orders.eu one\n");

    let info = printed(&hub, "stream info orders");
    let shown = fields(&info);
    assert_eq!([&shown["stream"], &shown["events"]], ["orders", "3"]);
    assert!(shown["size"].ends_with(" B") && shown["size"] != "0 B", "{info}");
    assert!(shown["rate"].ends_with(" events/s over the last minute") && !shown["rate"].starts_with("0.0 "), "{info}");
    assert!(shown["first"].starts_with("1 (") && shown["first"].ends_with("s ago)"), "{info}");
    assert!(shown["last"].starts_with("3 (") && shown["last"].ends_with("s ago)"), "{info}");
    let at = info.find("GROUP ").expect("the groups");
    let groups = table(&info[at..]);
    let lags: Vec<_> = groups.iter().map(|row| [&*row["GROUP"], &row["CURSOR"], &row["LAG"]]).collect();
    assert_eq!(lags, [["archive", "3", "0"], ["billing", "1", "2"]], "{info}");

    let told = object(&hub, "stream info orders");
    let state = &told["state"];
    assert_eq!([&state["events"], &state["earliest_sequence"], &state["latest_sequence"]], [3, 1, 3]);
    assert!(state["bytes"].as_i64() > Some(0) && state["events_per_second"].as_f64() > Some(0.0), "{state}");
    let of = |at: usize| [&told["groups"][at]["name"], &told["groups"][at]["state"]["pending"]];
    assert_eq!([of(0), of(1)], [[&json!("archive"), &json!(0)], [&json!("billing"), &json!(2)]]);
    // A member that is gone counts no more.
    let members = async || object(&hub, "group get orders billing")["state"]["members"] == 0;
    until("the member is gone", members).await;
}

#[test]
fn a_group_is_made_shown_changed_moved_and_deleted() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create orders orders.>");
    printed(&hub, "stream create lost lost.>");
    for n in 1..=3 {
        printed(&hub, &format!("pub orders.eu {n}"));
    }
    let create = "group create orders billing --from 2 --ack-deadline 2m --backoff 1s,10s --max-attempts 3 \
                  --max-unacked 7 --dead-letter-stream lost";
    let made = printed(&hub, &create.split_whitespace().collect::<Vec<_>>().join(" "));
    assert!(made.starts_with("created "), "{made}");
    let shown = fields(&printed(&hub, "group get orders billing"));
    for (name, value) in [
        ("group", "billing of orders"),
        ("members", "0"),
        ("cursor", "1"),
        ("lag", "2"),
        ("ack deadline", "2m"),
        ("max attempts", "3"),
        ("backoff", "1s,10s"),
        ("max unacked", "7"),
        ("dead-letter stream", "lost"),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let listed = table(&printed(&hub, "group list"));
    assert_eq!([&listed[0]["STREAM"], &listed[0]["GROUP"], &listed[0]["LAG"]], ["orders", "billing", "2"]);
    assert_eq!(objects(&hub, "group list lost"), [] as [Value; 0]);

    let changed = printed(&hub, "group update orders billing --max-attempts none --dead-letter-stream none");
    assert!(changed.starts_with("updated "), "{changed}");
    let changed = fields(&changed);
    assert_eq!([&changed["max attempts"], &changed["dead-letter stream"]], ["no limit", "none"]);
    assert_eq!(object(&hub, "group update orders billing --ack-deadline 5m")["ack_deadline"], "300s");

    for (place, cursor, lag) in [("earliest", "0", "3"), ("latest", "3", "0"), ("3", "2", "1")] {
        let moved = printed(&hub, &format!("group seek orders billing --to {place}"));
        assert!(moved.starts_with("moved "), "{moved}");
        let moved = fields(&moved);
        assert_eq!([&moved["cursor"], &moved["lag"]], [cursor, lag], "{place}");
    }
    let moved = object(&hub, "group seek orders billing --to 2020-01-01T00:00:00Z");
    assert_eq!(moved["state"]["pending"], 3);
    assert_eq!(printed(&hub, "group delete orders billing"), "deleted billing of orders\n");
    printed(&hub, "group create orders other");
    assert_eq!(object(&hub, "group delete orders other"), json!({ "stream": "orders", "deleted": "other" }));
    assert_eq!(objects(&hub, "group list orders"), [] as [Value; 0]);
}

#[test]
fn what_cannot_be_done_is_one_line_and_an_exit_code() {
    let folder = Folder::new();
    let hub = hub(&folder);
    printed(&hub, "stream create orders orders.>");
    printed(&hub, "group create orders billing");
    printed(&hub, "pub orders.eu one");
    for (arguments, told) in [
        ("stream create orders other.>", "STREAM_EXISTS"),
        ("stream create other *.eu", "FILTER_OVERLAP"),
        ("stream create a.b other.>", "name is not the name of a stream: a stream is named by"),
        ("group create orders a.b", "name is not the name of a group: a group is named by"),
        ("stream create other a..b", "INVALID_FILTER"),
        ("stream get none", "STREAM_NOT_FOUND"),
        ("stream info none", "STREAM_NOT_FOUND"),
        ("stream update none --max-age 1d", "STREAM_NOT_FOUND"),
        ("stream update orders", "nothing to change"),
        ("stream delete none", "STREAM_NOT_FOUND"),
        ("stream purge none --all", "STREAM_NOT_FOUND"),
        ("stream event orders 2", "EVENT_NOT_FOUND"),
        ("stream event orders --last-of orders.us", "EVENT_NOT_FOUND"),
        ("group create orders billing", "GROUP_EXISTS"),
        ("group create none billing", "STREAM_NOT_FOUND"),
        ("group create orders more --dead-letter-stream none-such", "CONFIG_MISMATCH"),
        ("group get orders none", "GROUP_NOT_FOUND"),
        ("group list none", "STREAM_NOT_FOUND"),
        ("group update orders billing", "nothing to change"),
        ("group seek orders none --to earliest", "GROUP_NOT_FOUND"),
        ("group delete orders none", "GROUP_NOT_FOUND"),
        ("group dead-letters list orders none", "GROUP_NOT_FOUND"),
        ("pub orders.eu two --if-last-sequence 7", "SEQUENCE_MISMATCH"),
        ("sub --stream none", "STREAM_NOT_FOUND"),
        ("sub --stream orders --from token:made-up", "MALFORMED_TOKEN"),
        ("sub --stream orders --from 99", "CONFIG_MISMATCH"),
        ("session get none", "SESSION_NOT_FOUND"),
    ] {
        let output = against(&hub, &arguments.split(' ').collect::<Vec<_>>());
        assert!(text(&output.stderr).contains(told), "{arguments}: {told} expected: {output:?}");
        check_refused(&output, 1, told);
        if !arguments.starts_with("pub") && !arguments.starts_with("sub") {
            let output = against(&hub, &[arguments, "--json"].join(" ").split(' ').collect::<Vec<_>>());
            check_refused(&output, 1, told);
        }
    }
    // What cannot be meant is told by the program itself.
    for (arguments, told) in [
        ("stream purge orders", "--up-to"),
        ("stream purge orders --all --up-to 3", "--all"),
        ("stream event orders", "--last-of"),
        ("stream create orders", "<FILTER>"),
        ("stream update orders --max-age 7", "such as 30s"),
        ("group seek orders billing", "--to"),
        ("group dead-letters purge orders billing", "--all"),
        ("sub --stream orders --from yesterday", "earliest"),
    ] {
        check_refused(&against(&hub, &arguments.split(' ').collect::<Vec<_>>()), 2, told);
    }
}

#[test]
fn sessions_are_listed_looked_at_and_ended() {
    let hub = Process::start(&[]);
    let (mut child, _lines) = crate::cli::subscriber(&hub, &["orders.>"]);
    let listed = table(&printed(&hub, "session list"));
    assert_eq!([&listed[0]["KIND"], &listed[0]["PRINCIPAL"], &listed[0]["SUBSCRIPTIONS"]], ["session", "-", "1"]);
    assert!(listed[0]["CLIENT"].starts_with("switchyard sub "), "{listed:?}");
    let id = listed[0]["SESSION"].as_str();
    assert_eq!(objects(&hub, "session list")[0]["session_id"], id);
    let shown = printed(&hub, &format!("session get {id}"));
    assert_eq!(fields(&shown)["session"], id);
    let subscriptions = table(&shown[shown.find("SUBSCRIPTION ").expect("a table")..]);
    assert_eq!(subscriptions[0]["STREAM"], "(live)");
    assert!(subscriptions[0]["CREDIT"].starts_with("8192 events, "), "{shown}");
    assert_eq!(printed(&hub, &format!("session terminate {id} --reason enough")), format!("terminated {id}\n"));
    assert_eq!(crate::harness::exit(&mut child, crate::harness::PATIENCE).code(), Some(1));
}
