//! `switchyard stream copy` between two real hubs: what is equal afterwards, what happens when it is cut short, and what it
//! refuses.

use std::{
    net::SocketAddr,
    process::{Child, Output, Stdio},
    time::Duration,
};

use prost::Message;
use prost_types::Timestamp;
use serde_json::{Value, json};
use switchyard::{
    client::{self, Client, Item, Start},
    proto::v1::{Event, PublishResponse, PurgeStreamRequest, Storage, Stream, UpdateStreamRequest, event::Payload},
};

use crate::{
    auth_harness,
    cli::{run, text},
    cli_streams::{object, printed},
    client::relay::Relay,
    harness::{Folder, Process, channel, event, exit, program, soon, until},
    stored::{create, hub_on, numbered, state, store, stream, streams},
    verifying::free_address,
};

/// Enough events for many units of a copy,
const MANY: usize = 20_000;
/// of which some are under way when a client has sent this many bytes. A unit is less than the hub lets it send unasked.
const SOME_BYTES: usize = 400_000;

/// A hub to copy from and one to copy to.
struct Two {
    folder: Folder,
    from: Process,
    to: Process,
}

impl Two {
    fn start() -> Self {
        let folder = Folder::new();
        let hub = |name: &str| {
            let data = folder.path().join(name);
            Process::start(&["--data-dir", data.to_str().expect("text")])
        };
        let (from, to) = (hub("from"), hub("to"));
        Self { folder, from, to }
    }

    /// A copy that ends by itself.
    fn copy(&self, arguments: &[&str]) -> Output {
        self.start_copy(self.to.address, "state", arguments).wait_with_output().expect("it ends")
    }

    /// What a copy reports, which must work.
    fn copied(&self, arguments: &[&str]) -> Value {
        let output = self.copy(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Why a copy is refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.copy(arguments);
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(output.stdout.is_empty(), "{output:?}");
        error
    }

    /// A copy to this address, with this state file.
    fn start_copy(&self, to: SocketAddr, state: &str, arguments: &[&str]) -> Child {
        let (from, to) = (format!("http://{}", self.from.address), format!("http://{to}"));
        let mut program = program();
        program.args(["stream", "copy", "--from", &from, "--to", &to, "--state-file"]);
        program.arg(self.folder.path().join(state)).args(arguments);
        program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }

    fn forget(&self) {
        std::fs::remove_file(self.folder.path().join("state")).expect("a state file");
    }

    /// The events of a stream on both sides, which must be the same.
    async fn check_equal(&self, name: &str) -> Vec<(i64, Vec<u8>)> {
        let (there, here) = (events(self.from.address, name).await, events(self.to.address, name).await);
        assert_eq!(there.len(), here.len());
        assert!(there.iter().map(|(_, event)| event).eq(here.iter().map(|(_, event)| event)), "byte for byte");
        here
    }
}

/// Sequence and bytes of all events that a stream has.
async fn events(address: SocketAddr, name: &str) -> Vec<(i64, Vec<u8>)> {
    let client = Client::builder([address.to_string()]).connect_lazy().expect("a client");
    let running = tokio::spawn(client.clone().run());
    let spec = client::Stream::named(name).from(Start::Earliest);
    let mut subscription = soon("a subscription", client.subscribe(spec)).await.expect("subscribed");
    let mut all = Vec::new();
    while let Some(item) = soon("what is next", subscription.next()).await {
        match item.expect("no end") {
            Item::Events(batch) => all.extend(batch.iter().map(|event| (event.sequence(), event.encoded().to_vec()))),
            Item::CaughtUp => break,
            gap @ Item::Gap(_) => panic!("{gap:?}"),
        }
    }
    running.abort();
    all
}

/// Events that have everything an event can have.
fn rich(topic: &str) -> Vec<Event> {
    let full = Event {
        id: "1".into(),
        r#type: "com.example.order".into(),
        source: "shop".into(),
        time: Some(Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 }),
        key: "k-1".into(),
        content_type: "text/plain".into(),
        attributes: [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("a", "b"), ("c", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ttl: Some(prost_types::Duration { seconds: 86_400, nanos: 5_000_000 }),
        ..event(topic, "hello")
    };
    let data = Event { payload: Some(Payload::Data(vec![0, 255, 7].into())), ..event(topic, "") };
    let empty = Event { payload: None, ..event(topic, "") };
    vec![full.clone(), data, empty, event(topic, ""), full]
}

/// Publishes an event with a field that this version of the contract does not have.
async fn store_strange(address: SocketAddr, topic: &str) {
    #[derive(Clone, PartialEq, Message)]
    struct Strange {
        #[prost(bytes = "vec", repeated, tag = "1")]
        events: Vec<Vec<u8>>,
    }
    let mut bytes = event(topic, "strange").encode_to_vec();
    bytes.extend_from_slice(&[0x7a, 3, b'n', b'e', b'w']);
    let mut grpc = tonic::client::Grpc::new(channel(address).await);
    soon("a connection", grpc.ready()).await.expect("ready");
    let codec = tonic_prost::ProstCodec::<Strange, PublishResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/switchyard.v1.HubService/Publish");
    let request = tonic::Request::new(Strange { events: vec![bytes] });
    let answer = soon("an answer", grpc.unary(request, path, codec)).await.expect("published");
    assert!(answer.into_inner().results[0].status.is_none());
}

async fn purge(address: SocketAddr, name: &str, up_to_sequence: i64, filter: &str) {
    let request = PurgeStreamRequest { name: name.into(), up_to_sequence, filter: filter.into() };
    streams(address).await.purge_stream(request).await.expect("purged");
}

/// So many events that a copy takes many units.
async fn store_many(address: SocketAddr, topic: &str) {
    for part in [0..MANY / 2, MANY / 2..MANY] {
        store(address, numbered(topic, part)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_equal_byte_for_byte_and_later_runs_copy_what_came_since() {
    let two = Two::start();
    // The same id twice, as when the window between them has passed.
    let off = Some(prost_types::Duration::default());
    let definition = Stream {
        max_events: 100_000,
        max_age: Some(prost_types::Duration { seconds: 604_800, nanos: 0 }),
        dedupe_window: off,
        ..stream("orders", &["orders.>", "returns"])
    };
    create(two.from.address, definition).await;
    store(two.from.address, rich("orders.eu")).await;
    store_strange(two.from.address, "returns").await;
    store(two.from.address, numbered("orders.us", 0..2500)).await;
    let window = Stream {
        dedupe_window: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Stream { name: "orders".into(), ..Stream::default() }
    };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["dedupe_window".into()] });
    let request = UpdateStreamRequest { stream: Some(window), update_mask };
    streams(two.from.address).await.update_stream(request).await.expect("updated");

    let report = two.copied(&["orders"]);
    assert_eq!(
        report,
        json!({ "stream": "orders", "copied": 2506, "verified": 2506, "gone_at_source": 0, "gone_at_target": 0,
            "last_sequence": 2506, "groups": 0 })
    );
    let copied = two.check_equal("orders").await;
    assert!(copied.iter().map(|(sequence, _)| *sequence).eq(1..=2506), "the sequences are the same");
    assert_eq!(object(&two.to, "stream get orders"), object(&two.from, "stream get orders"));

    assert_eq!(two.copied(&["orders"])["copied"], 0, "there is nothing more");
    store(two.from.address, numbered("orders.us", 2500..2503)).await;
    let compared = two.copied(&["orders", "--verify-only"]);
    assert_eq!((&compared["verified"], &compared["behind"]), (&json!(2506), &json!(3)));
    let report = two.copied(&["orders"]);
    assert_eq!((&report["copied"], &report["verified"]), (&json!(3), &json!(3)));
    // Without its state file it compares everything first.
    two.forget();
    assert_eq!(two.copied(&["orders", "--verify-only"])["verified"], 2509);
    store(two.from.address, numbered("orders.us", 2503..2504)).await;
    let report = two.copied(&["orders"]);
    assert_eq!((&report["copied"], &report["verified"]), (&json!(1), &json!(2510)));
    two.check_equal("orders").await;
    let told = text(&two.copy(&["orders"]).stdout);
    assert_eq!(told, "orders: 0 events copied, 0 events verified, 0 groups, last sequence 2510\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_goes_on_where_it_was() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    store_many(two.from.address, "orders.eu").await;
    for state_file_is_kept in [true, false] {
        let name = format!("copy-{state_file_is_kept}");
        let relay = Relay::to(two.to.address).await;
        // From then on it hears nothing, and sends no further unit.
        relay.deaf_after(SOME_BYTES);
        let mut copy = two.start_copy(relay.address, "state", &["orders", "--as", &name]);
        until("an answer is lost", async || relay.has_swallowed(&name)).await;
        copy.kill().expect("killed");
        copy.wait().expect("it ends");
        let before = state(two.to.address, &name).await.latest_sequence;
        assert!((1..MANY as i64).contains(&before), "{before}");
        if !state_file_is_kept {
            two.forget();
        }
        let report = two.copied(&["orders", "--as", &name]);
        let after = state(two.to.address, &name).await.latest_sequence;
        assert_eq!((after, &report["last_sequence"], &report["verified"]), (MANY as i64, &json!(MANY), &json!(MANY)));
        assert!(report["copied"].as_u64().is_some_and(|copied| copied as i64 <= MANY as i64 - before), "{report}");
        let copied = events(two.to.address, &name).await;
        assert!(copied == events(two.from.address, "orders").await, "each once, and in order");
        two.forget();
        printed(&two.to, &format!("stream delete {name}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_whose_answer_is_lost_is_stored_once() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    store_many(two.from.address, "orders.eu").await;
    let mut target = stream("orders", &["orders.>"]);
    target.dedupe_window = Some(prost_types::Duration::default());
    create(two.to.address, target).await;
    let relay = Relay::to(two.to.address).await;
    relay.deaf_after(SOME_BYTES);
    let copy = two.start_copy(relay.address, "state", &["orders", "--json"]);
    until("an answer is lost", async || relay.has_swallowed("orders")).await;
    relay.cut_and_pass();
    let output = copy.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("connected again"), "{output:?}");
    let copied = two.check_equal("orders").await;
    assert!(copied.iter().map(|(sequence, _)| *sequence).eq(1..=MANY as i64), "each once, and in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_source_has_holes_the_target_has_none_and_groups_are_translated() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    for number in 0..30 {
        let topic = if (10..14).contains(&number) { "orders.test" } else { "orders.eu" };
        store(two.from.address, numbered(topic, number..number + 1)).await;
    }
    purge(two.from.address, "orders", 4, "").await;
    purge(two.from.address, "orders", 0, "orders.test").await;
    // Before the first event, in the middle of a run, in a hole, behind it, and at the end.
    let positions = [(1, 0), (8, 3), (13, 6), (16, 7), (31, 22)];
    for (from, _) in positions {
        printed(&two.from, &format!("group create orders g{from} --from {from} --ack-deadline 2m --backoff 1s,7s"));
    }
    let report = two.copied(&["orders"]);
    assert_eq!((&report["copied"], &report["groups"], &report["last_sequence"]), (&json!(22), &json!(5), &json!(22)));
    let copied = two.check_equal("orders").await;
    assert!(copied.iter().map(|(sequence, _)| *sequence).eq(1..=22), "no holes");
    for (from, cursor) in positions {
        let mut group = object(&two.to, &format!("group get orders g{from}"));
        assert_eq!(group["state"]["cursor"], cursor, "g{from}");
        let mut there = object(&two.from, &format!("group get orders g{from}"));
        for group in [&mut group, &mut there] {
            group["state"] = Value::Null;
        }
        assert_eq!(group, there, "the settings are the same");
    }
    // More holes: in what was copied, and in what is to be copied.
    store(two.from.address, numbered("orders.test", 30..32)).await;
    store(two.from.address, numbered("orders.eu", 32..40)).await;
    purge(two.from.address, "orders", 0, "orders.test").await;
    purge(two.from.address, "orders", 7, "").await;
    let report = two.copied(&["orders"]);
    assert_eq!((&report["copied"], &report["last_sequence"]), (&json!(8), &json!(30)));
    let compared = two.copied(&["orders", "--verify-only"]);
    assert_eq!(
        (&compared["verified"], &compared["gone_at_source"], &compared["behind"]),
        (&json!(27), &json!(3), &json!(0))
    );
    two.forget();
    assert_eq!(two.copied(&["orders"])["verified"], 27, "the first events that the source has are found");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_continue_at_the_target_and_nothing_is_lost() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    create(two.from.address, stream("lost", &["lost.>"])).await;
    store(two.from.address, numbered("orders.eu", 0..20)).await;
    purge(two.from.address, "orders", 3, "").await;
    printed(&two.from, "group create orders billing --from earliest --dead-letter-stream lost --max-attempts 3");
    let work = |hub: &Process, count: usize| {
        let server = hub.address.to_string();
        let count = count.to_string();
        let worker = ["sub", "--stream", "orders", "--group", "billing", "-n", &count, "--server", &server];
        let output = run(&worker);
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = |range: std::ops::Range<usize>| range.map(|n| format!("orders.eu {n}")).collect::<Vec<_>>();
    assert_eq!(work(&two.from, 5), lines(3..8));
    let error = two.refused(&["orders"]);
    assert!(error.contains("group billing has the dead-letter stream lost"), "{error}");
    printed(&two.to, "stream create lost lost.>");
    assert_eq!(two.copied(&["orders"])["groups"], 1);
    // Work at the source goes on, and the group follows.
    assert_eq!(work(&two.from, 4), lines(8..12));
    store(two.from.address, numbered("orders.eu", 20..22)).await;
    assert_eq!(two.copied(&["orders"])["copied"], 2);
    assert_eq!(object(&two.to, "group get orders billing")["max_attempts"], 3);
    assert_eq!(work(&two.to, 10), lines(12..22));
    // One that works at the target is not moved back.
    assert_eq!(two.copied(&["orders"])["copied"], 0);
    assert_eq!(object(&two.to, "group get orders billing")["state"]["cursor"], 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_copy_is_left_alone() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    store(two.from.address, numbered("orders.eu", 0..10)).await;
    assert!(two.refused(&["bills"]).contains("there is no stream bills"));
    assert!(two.refused(&["orders", "--verify-only"]).contains("there is no stream orders"));

    create(two.to.address, Stream { storage: Storage::Memory.into(), ..stream("orders", &["orders.*"]) }).await;
    let error = two.refused(&["orders"]);
    assert!(error.contains("other settings than the source: filters, storage"), "{error}");
    printed(&two.to, "stream delete orders");

    create(two.to.address, stream("orders", &["orders.>"])).await;
    store(two.to.address, numbered("orders.eu", 0..3)).await;
    let error = two.refused(&["orders"]);
    assert!(error.contains("has other events than a copy of the source: its event 1 is not event 1"), "{error}");
    assert_eq!(state(two.to.address, "orders").await.latest_sequence, 3);
    printed(&two.to, "stream delete orders");

    // Somebody publishes behind the copy.
    two.forget();
    two.copied(&["orders"]);
    store(two.to.address, numbered("orders.us", 0..1)).await;
    store(two.from.address, numbered("orders.eu", 10..12)).await;
    let error = two.refused(&["orders"]);
    assert!(error.contains("block 1 (sequences 1 to 11 of the target): the events differ"), "{error}");
    let error = two.refused(&["orders", "--as", "bills"]);
    assert!(error.contains("is of another copy, of orders as orders"), "{error}");
    two.forget();
    let error = two.refused(&["orders"]);
    assert!(error.contains("its event 11 is not event 11 of the source"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_missing_is_found_in_its_block() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    for part in 0..3 {
        store(two.from.address, numbered("orders.eu", part * 5000..(part + 1) * 5000)).await;
    }
    store(two.from.address, numbered("orders.us", 0..1)).await;
    let report = two.copied(&["orders"]);
    assert_eq!((&report["copied"], &report["verified"]), (&json!(15_001), &json!(15_001)));
    purge(two.to.address, "orders", 0, "orders.us").await;
    let error = two.refused(&["orders", "--verify-only"]);
    assert!(
        error.contains("block 2 (sequences 10001 to 15001 of the target): the target has no event 15001"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_hub_can_store_is_refused() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>", "returns"])).await;
    store(two.from.address, numbered("returns", 0..1)).await;
    printed(&two.from, "stream update orders --filter orders.>");
    let error = two.refused(&["orders"]);
    assert!(error.contains("event 1 of the source has the topic returns, which no filter"), "{error}");

    printed(&two.from, "stream create lost lost.>");
    printed(&two.from, "group create orders g --from earliest --dead-letter-stream lost --max-attempts 1");
    let server = two.from.address.to_string();
    let worker = ["sub", "--stream", "orders", "--group", "g", "--exec", "false", "-n", "1", "--server", &server];
    run(&worker);
    until("it is a dead letter", async || state(two.from.address, "lost").await.events == 1).await;
    let output = two.start_copy(two.to.address, "lost-state", &["lost"]).wait_with_output().expect("it ends");
    assert!(text(&output.stderr).contains("event 1 of the source is a dead letter"), "{output:?}");
    assert_eq!(state(two.to.address, "lost").await.latest_sequence, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_at_once_none_spoils_the_other() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    store_many(two.from.address, "orders.eu").await;
    let copies = ["one", "two"].map(|state| two.start_copy(two.to.address, state, &["orders"]));
    for copy in copies {
        let output = copy.wait_with_output().expect("it ends");
        let error = text(&output.stderr);
        let lost =
            ["another program publishes to stream orders", "STREAM_EXISTS"].iter().any(|why| error.contains(why));
        assert!(output.status.success() || lost, "{error}");
    }
    // Whatever became of them, the next one finishes it.
    assert_eq!(two.copied(&["orders"])["last_sequence"], MANY);
    two.check_equal("orders").await;
}

#[test]
fn each_side_has_options_of_its_own() {
    let output = run(&["stream", "copy", "--from", "a:1", "--to", "b:1", "s", "--server", "c:1"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("--server is not for a copy") && error.contains("use --from and --to"), "{error}");
    let output = run(&["stream", "--token-file", "t", "copy", "--from", "a:1", "--to", "b:1", "s"]);
    assert!(text(&output.stderr).contains("use --from-token-file and --to-token-file"), "{output:?}");
    let output = run(&["stream", "copy", "--from", "a:1", "s"]);
    assert!(text(&output.stderr).contains("--to <URL>"), "{output:?}");

    let free = free_address().to_string();
    let output = run(&["stream", "copy", "--from", &free, "--to", &free, "s"]);
    let error = text(&output.stderr);
    assert!(error.contains("no hub answers at") && error.contains("name one with --from"), "{error}");
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    let hub = Process::start(&[]);
    let from = hub.address.to_string();
    let output = run(&["stream", "copy", "--from", &from, "--to", &free, "s"]);
    assert!(text(&output.stderr).contains("name one with --to"), "{output:?}");
    let missing = ["--from", &from, "--to", &from, "--to-token-file", "missing"];
    let output = run(&[&["stream", "copy", "s"], &missing[..]].concat());
    assert!(text(&output.stderr).contains("--to-token-file missing"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_wants_a_credential_and_a_right() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (guarded, open) = (crate::auth::vault(&folder).await, hub_on(&other).await);
    create(open.address, stream("orders", &["orders.>"])).await;
    let [guarded, open] = [guarded.server.address, open.address].map(|address| address.to_string());
    let token = folder.path().join("token");
    std::fs::write(&token, auth_harness::token("bob", &[])).expect("written");
    let token = token.to_str().expect("text");
    let from = ["--from", &guarded, "--to", &open, "vault"];
    let to = ["--from", &open, "--to", &guarded, "orders"];
    tokio::task::block_in_place(|| {
        for (side, option) in [(from, "--from-token-file"), (to, "--to-token-file")] {
            for (credential, reason) in [(&[][..], "CREDENTIAL_MISSING"), (&[option, token], "TOPIC_DENIED")] {
                let state = format!("{}/state", folder.text());
                let output = run(&[&["stream", "copy", "--state-file", &state], &side[..], credential].concat());
                let error = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{option}: {error}");
                assert!(error.lines().count() == 1 && error.contains(reason), "{option}: {reason} expected: {error}");
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_can_stop_a_copy() {
    let two = Two::start();
    create(two.from.address, stream("orders", &["orders.>"])).await;
    store_many(two.from.address, "orders.eu").await;
    create(two.to.address, stream("orders", &["orders.>"])).await;
    let relay = Relay::to(two.to.address).await;
    relay.deaf_after(SOME_BYTES);
    let mut copy = two.start_copy(relay.address, "state", &["orders"]);
    until("an answer is lost", async || relay.has_swallowed("orders")).await;
    crate::harness::signal(copy.id(), "INT");
    assert_eq!(exit(&mut copy, Duration::from_secs(10)).code(), Some(1));
    let output = copy.wait_with_output().expect("it ended");
    assert_eq!(text(&output.stderr), "switchyard: stopped; the same command goes on where it was\n");
    assert_eq!(two.copied(&["orders"])["last_sequence"], MANY);
    two.check_equal("orders").await;
}
