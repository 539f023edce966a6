//! `GET /v1/events`: what a page gets as an event stream, and what becomes of it when something is lost, ends or begins again.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use switchyard::proto::v1::{DeleteStreamRequest, PurgeStreamRequest};

use super::{address, any_port, ask, hub, source::Source};
use crate::{
    harness::{Folder, client, event, metric, publish, soon, until},
    stored::{create, hub_on_with, numbered, stop, store, stream, streams},
};

/// A hub with streams and a web listener.
async fn hub_on(folder: &Folder) -> switchyard::server::Server {
    hub_on_with(folder, |config| config.web.listen = any_port()).await
}

/// The sequence in a cursor.
fn sequence(cursor: &str) -> u64 {
    assert!(cursor.starts_with("c1.s."), "{cursor}");
    cursor.rsplit('.').next().and_then(|sequence| sequence.parse().ok()).expect("a sequence")
}

fn reason(ended: &Value) -> &str {
    let mut details = ended["status"]["details"].as_array().into_iter().flatten();
    details.find_map(|detail| detail["reason"].as_str()).unwrap_or_else(|| panic!("no reason: {ended}"))
}

async fn purge(at: SocketAddr, up_to_sequence: i64) {
    let request = PurgeStreamRequest { name: "s".into(), up_to_sequence, filter: String::new() };
    streams(at).await.purge_stream(request).await.expect("purged");
}

#[tokio::test]
async fn live_events_come_as_messages_in_json() {
    let hub = hub(|_| {}).await;
    let mut source = Source::stream(address(&hub), "/v1/events?filter=a.%3E&filter=b", &[]).await;
    for header in ["cache-control: no-store\r\n", "x-accel-buffering: no\r\n", "transfer-encoding: chunked\r\n"] {
        assert!(source.headers.contains(header), "{}", source.headers);
    }
    let welcome = source.next().await.expect("a message");
    assert_eq!(welcome.event, "welcome");
    assert!(welcome.json()["sessionId"].is_string() && welcome.json()["limits"]["maxEventBytes"].is_string());
    let retry = source.retry.expect("how long to wait");
    assert!((1000..=2000).contains(&retry), "{retry}");
    let subscribed = source.next().await.expect("a message");
    assert_eq!((subscribed.event.as_str(), subscribed.json()["automaticCredit"].as_bool()), ("subscribed", Some(true)));

    let mut publisher = client(hub.address).await;
    let one = vec![event("a.b", "line one\nline two\r\n\u{2028}"), event("c", "nobody's"), event("b", "2")];
    publisher.publish(publish(one)).await.expect("published");
    let first = source.next().await.expect("an event");
    assert_eq!((first.event.as_str(), first.id.as_str()), ("message", ""), "a live one has no place to come back to");
    let json = first.json();
    assert_eq!((&json["event"]["topic"], &json["attempt"]), (&"a.b".into(), &1.into()));
    assert_eq!(json["event"]["text"], "line one\nline two\r\n\u{2028}");
    assert!(json.get("stream").is_none() && json["event"]["id"].is_string(), "{json}");
    assert_eq!(source.texts(1).await, ["2"]);
}

#[tokio::test]
async fn a_page_goes_on_behind_the_last_event_it_has_seen_also_after_a_restart() {
    let folder = Folder::new();
    let mut hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let (mut seen, mut last) = (Vec::new(), String::new());
    for round in 0..3 {
        store(hub.address, numbered("s.x", round * 10..round * 10 + 10)).await;
        let headers = [("last-event-id", last.as_str())];
        let mut source = Source::stream(address(&hub), "/v1/events?stream=s&start=earliest", &headers).await;
        let subscribed = source.named("subscribed").await;
        assert_eq!(sequence(&subscribed.id), round as u64 * 7);
        // Some are not read, and come again.
        seen.extend(source.texts(if round == 2 { 16 } else { 7 }).await);
        last.clone_from(&source.last_id);
        drop(source);
        stop(hub).await;
        hub = hub_on(&folder).await;
    }
    assert_eq!(seen, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(sequence(&last), 30);

    // The parameter stands for the header, and the header is later.
    let path = format!("/v1/events?stream=s&lastEventId={}", last.replace(".30", ".10"));
    let mut by_parameter = Source::stream(address(&hub), &path, &[]).await;
    assert_eq!(by_parameter.texts(1).await, ["10"]);
    let mut by_header = Source::stream(address(&hub), &path, &[("last-event-id", &last.replace(".30", ".20"))]).await;
    assert_eq!(by_header.texts(1).await, ["20"]);
    let mut after = Source::stream(address(&hub), "/v1/events?stream=s&after=25", &[]).await;
    assert_eq!(after.texts(1).await, ["25"]);
}

#[tokio::test]
async fn the_ids_of_events_are_the_same_for_all_and_good_everywhere() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..3)).await;
    let mut ids = Vec::new();
    for path in ["/v1/events?stream=s&start=earliest", "/v1/events?stream=s&filter=s.*&after=0"] {
        let mut source = Source::stream(address(&hub), path, &[]).await;
        ids.push(source.named("message").await);
    }
    assert_eq!(ids[0], ids[1]);
    let resumed = crate::stored::Reader::open(hub.address, crate::stored::from("s", crate::stored::resume(&ids[0].id)));
    let mut resumed = resumed.await;
    resumed.until(3).await;
    assert_eq!(resumed.texts(), ["1", "2"], "a session of gRPC goes on behind it, too");
    let progress = soon("progress", resumed.until_caught_up()).await;
    let headers = [("last-event-id", progress.resume_token.as_str())];
    let mut back = Source::stream(address(&hub), "/v1/events?stream=s", &headers).await;
    store(hub.address, numbered("s.x", 3..4)).await;
    assert_eq!(back.texts(1).await, ["3"], "and back");
}

#[tokio::test]
async fn the_last_of_each_topic_comes_first_where_that_is_asked_for() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, vec![event("s.a", "old"), event("s.b", "b"), event("s.a", "a")]).await;
    let mut source = Source::stream(address(&hub), "/v1/events?stream=s&start=last_per_topic", &[]).await;
    assert_eq!(source.texts(2).await, ["b", "a"]);
}

#[tokio::test]
async fn what_is_lost_is_told_and_the_page_goes_on_or_hears_why_not() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let mut source = Source::stream(address(&hub), "/v1/events?stream=s&start=earliest", &[]).await;
    source.texts(2).await;
    let last = source.last_id.clone();
    drop(source);
    purge(hub.address, 5).await;
    let headers = [("last-event-id", last.as_str())];

    let mut earliest = Source::stream(address(&hub), "/v1/events?stream=s&on_gap=earliest", &headers).await;
    let gap = earliest.named("gap").await;
    assert_eq!((gap.json()["fromSequence"].as_str(), gap.json()["toSequence"].as_str()), (Some("3"), Some("5")));
    assert_eq!(
        (gap.json()["reason"].as_str(), sequence(&gap.id)),
        (Some("GAP_REASON_RETENTION"), 5),
        "it is told once"
    );
    assert_eq!(earliest.texts(1).await, ["5"]);
    let mut latest = Source::stream(address(&hub), "/v1/events?stream=s&on_gap=latest", &headers).await;
    assert_eq!(sequence(&latest.named("gap").await.id), 10);

    let mut fails = Source::stream(address(&hub), "/v1/events?stream=s", &headers).await;
    let ended = fails.named("ended").await;
    assert_eq!(
        (reason(&ended.json()), ended.json()["reason"].as_str()),
        ("RESUME_POINT_LOST", Some("END_REASON_RESUME_POINT_LOST"))
    );
    assert_eq!((fails.next().await, ended.id.as_str()), (None, ""));
    assert!(fails.retry.is_some_and(|retry| retry >= 60_000), "it is in vain: {:?}", fails.retry);

    // Made anew, it has other events of the same sequences.
    streams(hub.address).await.delete_stream(DeleteStreamRequest { name: "s".into() }).await.expect("deleted");
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 100..110)).await;
    let mut anew = Source::stream(address(&hub), "/v1/events?stream=s&on_gap=earliest", &headers).await;
    assert_eq!(anew.named("gap").await.json()["reason"], "GAP_REASON_EPOCH");
    assert_eq!(anew.texts(1).await, ["100"]);
    let mut fails = Source::stream(address(&hub), "/v1/events?stream=s", &headers).await;
    assert_eq!(reason(&fails.named("ended").await.json()), "EPOCH_CHANGED");
}

#[tokio::test]
async fn a_live_subscription_loses_what_its_page_does_not_read_and_says_so() {
    let hub = hub(|config| config.sessions.queue_events = 2).await;
    let mut source = Source::stream(address(&hub), "/v1/events?filter=flood&overflow=conflate", &[]).await;
    source.named("subscribed").await;
    let mut publisher = client(hub.address).await;
    let flood = vec![event("flood", "x".repeat(1024)); 64];
    publisher.publish(publish(flood)).await.expect("published");
    let gap = source.named("gap").await;
    assert_eq!((gap.json()["reason"].as_str(), gap.id.as_str()), (Some("GAP_REASON_CONFLATED"), ""));
}

#[tokio::test]
async fn one_that_has_all_it_asked_for_is_not_opened_again() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..3)).await;
    let path = "/v1/events?stream=s&start=earliest&limit=2";
    let mut source = Source::stream(address(&hub), path, &[]).await;
    assert_eq!(source.texts(2).await, ["0", "1"]);
    let ended = source.named("ended").await;
    assert_eq!((ended.json()["reason"].as_str(), source.next().await), (Some("END_REASON_LIMIT_REACHED"), None));
    let again = ask(address(&hub), "GET", path, &[("last-event-id", &ended.id)], "").await;
    assert_eq!((again.status, again.body.as_str()), (204, ""), "a browser gives up for good after that");
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_its_cursor_young() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| {
        config.web.listen = any_port();
        config.sessions.heartbeat_interval_ms = 100;
    })
    .await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut source = Source::stream(address(&hub), "/v1/events?stream=s&filter=s.never", &[]).await;
    while source.comments < 2 {
        source.block().await.expect("it goes on");
    }
    assert_eq!(sequence(&source.last_id), 0);
    store(hub.address, numbered("s.other", 0..5)).await;
    while sequence(&source.last_id) < 5 {
        let heard = source.block().await.expect("it goes on");
        assert!(heard.is_none_or(|heard| heard.event == "progress"), "it hears how far it has come, and nothing else");
    }
}

#[tokio::test]
async fn a_hub_that_shuts_down_says_so_and_when_to_come_back() {
    let hub = hub(|config| config.drain.spread_ms = 0).await;
    let mut source = Source::stream(address(&hub), "/v1/events?filter=a", &[]).await;
    source.named("subscribed").await;
    client(hub.address).await.publish(publish(vec![event("a", "last words")])).await.expect("published");
    let stopping = tokio::spawn(hub.stop(Duration::ZERO));
    let mut heard = Vec::new();
    while let Some(next) = source.next().await {
        heard.push(next);
    }
    let events: Vec<_> = heard.iter().map(|heard| heard.event.as_str()).collect();
    assert_eq!(events, ["message", "draining", "ended"], "{heard:?}");
    assert_eq!(reason(&heard[2].json()), "DRAINING");
    assert!(source.retry.is_some_and(|retry| retry <= 2000), "{:?}", source.retry);
    soon("it stops", stopping).await.expect("stopped");
}

#[tokio::test]
async fn what_can_heal_is_told_inside_a_stream_and_what_cannot_is_an_error() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| {
        config.web.listen = any_port();
        config.sessions.max = 1;
    })
    .await;
    for (path, status, problem) in [
        ("/v1/events", 400, "a live subscription needs at least one filter"),
        ("/v1/events?filter=a..b", 400, "filter 0 is invalid"),
        ("/v1/events?filter=a&filterz=b", 400, "\"filterz\""),
        ("/v1/events?stream=nothing", 404, "there is no stream nothing"),
        ("/v1/events?stream=s&lastEventId=nonsense", 404, "there is no stream s"),
    ] {
        let answer = ask(address(&hub), "GET", path, &[], "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(
            answer.json()["message"].as_str().is_some_and(|text| text.contains(problem)),
            "{path}: {}",
            answer.body
        );
    }
    create(hub.address, stream("s", &["s.>"])).await;
    let bad = ask(address(&hub), "GET", "/v1/events?stream=s&lastEventId=nonsense", &[], "").await;
    assert_eq!((bad.status, bad.json()["details"][0]["reason"].as_str()), (400, Some("MALFORMED_TOKEN")));

    let mut first = Source::stream(address(&hub), "/v1/events?filter=a", &[]).await;
    first.named("subscribed").await;
    let mut second = Source::stream(address(&hub), "/v1/events?filter=a", &[]).await;
    let ended = second.named("ended").await;
    assert_eq!((reason(&ended.json()), second.next().await), ("TOO_MANY_SESSIONS", None), "one past the limit");
    assert!(second.retry.is_some_and(|retry| (1000..=2000).contains(&retry)), "{:?}", second.retry);
    drop(first);
    until("the first is gone", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    let mut third = Source::stream(address(&hub), "/v1/events?filter=a", &[]).await;
    third.named("subscribed").await;
}
